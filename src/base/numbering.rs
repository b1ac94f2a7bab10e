// SPDX-License-Identifier: Apache-2.0
//! Numbers for keys: equal bytes get equal numbers, from 0, in the order in which
//! they come. One table for all kinds of keys, since std's map is 3 kB of machine
//! code for each; and memory that is not there is an error, where std's map aborts.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::RandomState;

use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};

/// Keys and their numbers. The hash has a key of its own, so nobody can make keys collide.
#[derive(Clone, Default)]
pub(crate) struct Numbering {
    hasher: RandomState,
    /// Hash and number, at most half of them used; a power of two.
    slots: Vec<(u32, u32)>,
    keys: Vec<u8>,
    /// Where each key ends in `keys`.
    ends: Vec<usize>,
}

const FREE: u32 = u32::MAX;

impl Numbering {
    /// How many keys have a number.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The key of a number.
    pub(crate) fn key(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(number).and_then(|end| self.keys.get(start..*end)).unwrap_or_default()
    }

    /// The number that a key has.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        match self.slots.is_empty() {
            true => None,
            false => self.probe(self.hash(key), key).1,
        }
    }

    /// The number of a key, which it gets now if it has none: then that is how many there were.
    pub(crate) fn number(&mut self, key: &[u8]) -> Result<usize> {
        if self.slots.len() < self.ends.len().saturating_add(1).saturating_mul(2) {
            self.enlarge()?;
        }
        let hash = self.hash(key);
        let (slot, found) = self.probe(hash, key);
        if let Some(found) = found {
            return Ok(found);
        }
        let new = self.ends.len();
        let number = u32::try_from(new).ok().filter(|number| *number != FREE);
        let number = number.ok_or_else(|| Error::new(ErrorKind::Unsupported, "more than 2^32 - 2 keys in a table"))?;
        memory::reserve(&mut self.keys, key.len(), "a table of keys")?;
        memory::reserve(&mut self.ends, 1, "a table of keys")?;
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        if let Some(free) = self.slots.get_mut(slot) {
            *free = (hash, number);
        }
        Ok(new)
    }

    fn hash(&self, key: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        let hash = hasher.finish();
        #[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
        let low = (hash ^ (hash >> 32)) as u32;
        low
    }

    /// The slot of a key and its number, or the slot where it would go.
    fn probe(&self, hash: u32, key: &[u8]) -> (usize, Option<usize>) {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            match self.slots.get(at) {
                Some((other, number)) if *number != FREE => {
                    let number = *number as usize;
                    if *other == hash && self.key(number) == key {
                        return (at, Some(number));
                    }
                }
                _ => return (at, None),
            }
            at = at.wrapping_add(1) & mask;
        }
    }

    fn enlarge(&mut self) -> Result<()> {
        let size = self.slots.len().saturating_mul(4).max(16);
        let mut slots = memory::vec_with_capacity(size, "a table of keys")?;
        slots.resize(size, (0, FREE));
        let mask = size.wrapping_sub(1);
        for (hash, number) in self.slots.iter().filter(|(_, number)| *number != FREE) {
            let mut at = *hash as usize & mask;
            while slots.get(at).is_some_and(|(_, taken)| *taken != FREE) {
                at = at.wrapping_add(1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = (*hash, *number);
            }
        }
        self.slots = slots;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_have_equal_numbers_and_others_the_next() {
        let mut numbers = Numbering::default();
        assert_eq!(numbers.find(b"a"), None);
        for round in 0..3 {
            for number in 0..1000_usize {
                assert_eq!(numbers.number(number.to_string().as_bytes()).unwrap(), number, "{round}");
            }
        }
        assert_eq!(numbers.number(b"").unwrap(), 1000);
        assert_eq!((numbers.len(), numbers.key(1000), numbers.key(17)), (1001, &b""[..], &b"17"[..]));
        assert_eq!((numbers.find(b"999"), numbers.find(b"1000")), (Some(999), None));
    }
}
