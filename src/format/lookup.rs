// SPDX-License-Identifier: Apache-2.0
//! Name → record: a hash table built once and never changed.
//!
//! Open addressing with linear probing. A slot holds the hash, so that foreign
//! entries cost no further memory access, and the name's address, so that name
//! and record of the right one are fetched side by side: a cold lookup among a
//! million tensors is two cache misses deep, not three. The hash is keyed
//! afresh for each table, so no file can be made to collide.

use std::hash::{BuildHasher, Hasher as _};
use std::slice;

use foldhash::quality::RandomState;

use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Tensor;

/// A keyed hash of names.
#[derive(Clone, Default)]
pub(crate) struct Hasher(RandomState);

impl Hasher {
    /// 32 bits serve both to choose the slot and to recognise the entry.
    #[inline]
    pub(crate) fn hash(&self, name: &[u8]) -> u32 {
        let mut hasher = self.0.build_hasher();
        hasher.write(name);
        let hash = hasher.finish();
        let folded = hash ^ (hash >> 32);
        #[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
        let low = folded as u32;
        low
    }
}

#[derive(Clone, Copy)]
struct NameSlot {
    hash: u32,
    /// Index of the record, or `EMPTY`.
    record: u32,
    name: *const u8,
}

const EMPTY: u32 = u32::MAX;

/// While building, slots are asked for this many records before they are
/// needed: a table of a million lies beyond the caches. Opening them took 290 ms
/// of processor time without this, and 165 ms with it.
const AHEAD: usize = 16;

/// The table. It borrows the records' names without saying so; whoever holds it
/// holds them too.
#[derive(Default)]
pub(crate) struct Lookup {
    hasher: Hasher,
    slots: Vec<NameSlot>,
}

// SAFETY: names are immutable memory of the checkpoint that owns the table.
unsafe impl Send for Lookup {}
// SAFETY: as above.
unsafe impl Sync for Lookup {}

impl Lookup {
    /// The table of these records, whose hashes have been computed already.
    /// `twice` is called with two of equal names; the table keeps the first.
    pub(crate) fn build(
        hasher: Hasher,
        tensors: &[Tensor],
        hashes: &[u32],
        twice: &mut dyn FnMut(&Tensor, &Tensor) -> Result<()>,
    ) -> Result<Self> {
        let name = |record: usize| tensors.get(record).map_or(&[][..], Tensor::name);
        let hashes = hashes.get(..tensors.len()).unwrap_or(hashes);
        Self::of_names(hasher, hashes, name, &mut |first, second| match (tensors.get(first), tensors.get(second)) {
            (Some(first), Some(second)) => twice(first, second),
            _ => Ok(()),
        })
    }

    /// The table of names, whose hashes have been computed already. `twice` is
    /// given the numbers of two equal ones; the table keeps the first.
    pub(crate) fn of_names<'a>(
        hasher: Hasher,
        hashes: &[u32],
        name: impl Fn(usize) -> &'a [u8],
        twice: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        if hashes.is_empty() {
            return Ok(Self::default());
        }
        // A third full while that costs little memory, two thirds full beyond.
        let small = hashes.len() < 1 << 13;
        let spare = if small { hashes.len().saturating_mul(2) } else { hashes.len() / 2 };
        let capacity = hashes.len().saturating_add(spare).saturating_add(1);
        let mut slots = memory::vec_with_capacity(capacity, "name lookup")?;
        slots.resize(capacity, NameSlot { hash: 0, record: EMPTY, name: std::ptr::null() });
        let mut table = Self { hasher, slots };
        let mut ahead = hashes.iter().skip(AHEAD);
        for (index, &hash) in hashes.iter().enumerate() {
            if let Some(soon) = ahead.next() {
                table.fetch_ahead(*soon);
            }
            let record = u32::try_from(index).ok().filter(|record| *record != EMPTY);
            let record = record.ok_or_else(|| Error::new(ErrorKind::Unsupported, "more than 2^32 - 2 tensors"))?;
            if let Some(other) = table.insert(name(index), &name, hash, record) {
                twice(other, index)?;
            }
        }
        Ok(table)
    }

    /// Tells the processor that a name of this hash will be looked for.
    #[inline]
    pub(crate) fn fetch_ahead(&self, hash: u32) {
        #[cfg(target_arch = "x86_64")]
        if let Some(slot) = self.slots.get(self.first_slot(hash)) {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            // SAFETY: a prefetch reads nothing and can't fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(slot).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = hash;
    }

    /// Adds a record, or returns the one that has its name already.
    #[inline]
    fn insert<'a>(
        &mut self,
        name: &[u8],
        name_of: &impl Fn(usize) -> &'a [u8],
        hash: u32,
        record: u32,
    ) -> Option<usize> {
        let mut at = self.first_slot(hash);
        loop {
            let next = self.next_slot(at);
            // At two thirds full there is a free slot, so the loop ends.
            let slot = self.slots.get_mut(at)?;
            if slot.record == EMPTY {
                *slot = NameSlot { hash, record, name: name.as_ptr() };
                return None;
            }
            if slot.hash == hash {
                let other = usize::try_from(slot.record).ok();
                if other.is_some_and(|other| name_of(other) == name) {
                    return other;
                }
            }
            at = next;
        }
    }

    /// The same names for other records: `records` has the new number of each, in `tensors`.
    pub(crate) fn renumbered(mut self, tensors: &[Tensor], records: &[u32]) -> Result<Self> {
        for slot in self.slots.iter_mut().filter(|slot| slot.record != EMPTY) {
            let record = usize::try_from(slot.record).ok().and_then(|old| records.get(old)).copied();
            let tensor = record.and_then(|record| tensors.get(usize::try_from(record).ok()?));
            let (Some(record), Some(tensor)) = (record, tensor) else {
                return Err(Error::new(ErrorKind::Internal, "a name has no record"));
            };
            *slot = NameSlot { record, name: tensor.name.cast(), ..*slot };
        }
        Ok(self)
    }

    /// The number of this name, which has this hash.
    #[inline]
    pub(crate) fn position<'a>(
        &self,
        hash: u32,
        name: &[u8],
        name_of: impl Fn(usize) -> Option<&'a [u8]>,
    ) -> Option<usize> {
        let mut at = self.first_slot(hash);
        loop {
            let slot = self.slots.get(at).filter(|slot| slot.record != EMPTY)?;
            if slot.hash == hash {
                let record = usize::try_from(slot.record).ok()?;
                if name_of(record) == Some(name) {
                    return Some(record);
                }
            }
            at = self.next_slot(at);
        }
    }

    /// The index of the record with this name.
    #[inline]
    pub(crate) fn find(&self, tensors: &[Tensor], name: &[u8]) -> Option<usize> {
        let hash = self.hasher.hash(name);
        let mut at = self.first_slot(hash);
        loop {
            let slot = self.slots.get(at)?;
            if slot.record == EMPTY {
                return None;
            }
            if slot.hash == hash {
                let record = usize::try_from(slot.record).ok()?;
                let tensor = tensors.get(record)?;
                // Equal lengths make the bytes after slot.name comparable.
                if tensor.name_len == name.len() {
                    // SAFETY: slot.name is this record's name, of name_len bytes
                    // that live as long as the record.
                    let found = unsafe { slice::from_raw_parts(slot.name, name.len()) };
                    if found == name {
                        return Some(record);
                    }
                }
            }
            at = self.next_slot(at);
        }
    }

    /// Scales the hash to the table's size: any size will do, no power of two.
    #[inline]
    #[allow(clippy::arithmetic_side_effects, reason = "a product of two 32-bit numbers fits into 64 bits")]
    fn first_slot(&self, hash: u32) -> usize {
        let scaled = (u128::from(hash) * self.slots.len() as u128) >> 32;
        usize::try_from(scaled).unwrap_or(0)
    }

    #[inline]
    fn next_slot(&self, at: usize) -> usize {
        let next = at.wrapping_add(1);
        if next < self.slots.len() {
            next
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, OpenOptions};

    /// A file of empty tensors.
    fn opened(names: &[&str]) -> Checkpoint {
        let entry = |name| format!(r#""{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
        let header = format!("{{{}}}", names.iter().map(entry).collect::<Vec<_>>().join(","));
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        Checkpoint::open_memory(file.leak(), &OpenOptions::default()).unwrap()
    }

    /// Two names of one length and one hash, as there are among that many.
    fn alike(hasher: &Hasher) -> [String; 2] {
        let name = |i: u32| format!("layer.{i:06}");
        let mut hashes: Vec<_> = (0..400_000).map(|i| (hasher.hash(name(i).as_bytes()), i)).collect();
        hashes.sort_unstable();
        let pair = hashes.windows(2).find(|pair| pair[0].0 == pair[1].0).unwrap();
        [name(pair[0].1), name(pair[1].1)]
    }

    #[test]
    fn names_with_one_hash_are_told_apart() {
        let hasher = Hasher::default();
        let [first, second] = alike(&hasher);
        let checkpoint = opened(&[&first, &second]);
        let hash = hasher.hash(first.as_bytes());
        let table = |tensors: &[Tensor]| {
            let hashes = vec![hash; tensors.len()];
            Lookup::build(hasher.clone(), tensors, &hashes, &mut |_, _| panic!("they differ")).unwrap()
        };
        let (both, one) = (checkpoint.tensors(), &checkpoint.tensors()[..1]);
        let names = table(both);
        let found = [&first, &second].map(|name| both[names.find(both, name.as_bytes()).unwrap()].name());
        assert_eq!(found, [first.as_bytes(), second.as_bytes()]);
        let absent = if one[0].name() == first.as_bytes() { second } else { first };
        assert_eq!(table(one).find(one, absent.as_bytes()), None);
    }

    #[test]
    fn each_table_has_a_key_of_its_own() {
        let hashes: Vec<_> = (0..4).map(|_| Hasher::default().hash(b"name")).collect();
        assert!(hashes.iter().any(|hash| *hash != hashes[0]), "whoever knows the key can make names collide");
    }
}
