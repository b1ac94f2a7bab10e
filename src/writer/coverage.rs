// SPDX-License-Identifier: Apache-2.0
//! Which bytes of a tensor have been written.
#![forbid(unsafe_code)]

use crate::base::extent::Extent;
use crate::base::memory;
use crate::error::Result;

/// As many ranges are moved at most to make room for one among them: a million in any
/// order must not be a million moves of a million.
const MOST: usize = 512;

/// Ranges that neither overlap nor touch, in order, in lists of which none is empty.
#[derive(Default)]
pub(super) struct Coverage(Vec<Vec<Extent>>);

/// A range's place: the number of its list, and its own within that.
type RangePlace = (usize, usize);

impl Coverage {
    /// Takes `new`, which is not empty, or returns a range that holds some of it
    /// already.
    ///
    /// # Errors
    /// `OutOfMemory`, and then nothing has been taken.
    pub(super) fn claim(&mut self, new: Extent) -> Result<Option<Extent>> {
        let place = self.last_before(new.end());
        // Of the ranges that begin before its end, the last one reaches furthest.
        let before = place.and_then(|place| self.get(place));
        if let Some(before) = before.filter(|before| before.end() > new.start) {
            return Ok(Some(*before));
        }
        let next = self.after(place);
        let touches_next = self.get(next).is_some_and(|next| next.start == new.end());
        match place.filter(|_| before.is_some_and(|before| before.end() == new.start)) {
            Some(place) => {
                let end = self.get(next).filter(|_| touches_next).map_or(new.end(), |next| next.end());
                if touches_next {
                    self.remove(next);
                }
                self.set(place, |before| *before = Extent::between(before.start, end));
            }
            None if touches_next => self.set(next, |next| *next = Extent::between(new.start, next.end())),
            None => self.insert(place, new)?,
        }
        Ok(None)
    }

    /// Gives back what was claimed. Without memory to keep what lies after it
    /// apart, that counts as not written either.
    pub(super) fn release(&mut self, old: Extent) {
        let Some(place) = self.last_before(old.end()) else { return };
        let Some(range) = self.get(place).copied() else { return };
        let (before, after) = (Extent::between(range.start, old.start), Extent::between(old.end(), range.end()));
        match (before.is_empty(), after.is_empty()) {
            (true, true) => self.remove(place),
            (true, false) => self.set(place, |range| *range = after),
            (false, rest_is_empty) => {
                self.set(place, |range| *range = before);
                if !rest_is_empty {
                    drop(self.insert(Some(place), after));
                }
            }
        }
    }

    /// The first bytes of `0..size` that are missing.
    pub(super) fn gap(&self, size: u64) -> Option<Extent> {
        let mut ranges = self.0.iter().flatten().take(2).copied().peekable();
        let start = ranges.next_if(|first| first.start == 0).map_or(0, |first| first.end());
        let end = ranges.next().map_or(size, |next| next.start);
        Some(Extent::between(start, end)).filter(|gap| !gap.is_empty())
    }

    fn get(&self, (list, range): RangePlace) -> Option<&Extent> {
        self.0.get(list)?.get(range)
    }

    fn set(&mut self, (list, range): RangePlace, change: impl FnOnce(&mut Extent)) {
        if let Some(range) = self.0.get_mut(list).and_then(|list| list.get_mut(range)) {
            change(range);
        }
    }

    /// The last range that begins before this byte.
    fn last_before(&self, end: u64) -> Option<RangePlace> {
        let begins_before = |list: &Vec<Extent>| list.first().is_some_and(|first| first.start < end);
        let list = self.0.partition_point(begins_before).checked_sub(1)?;
        let range = self.0.get(list)?.partition_point(|range| range.start < end).checked_sub(1)?;
        Some((list, range))
    }

    /// The place after this one; there may be no range.
    fn after(&self, place: Option<RangePlace>) -> RangePlace {
        match place {
            None => (0, 0),
            Some((list, range)) if self.0.get(list).is_some_and(|list| list.len() == range.saturating_add(1)) => {
                (list.saturating_add(1), 0)
            }
            Some((list, range)) => (list, range.saturating_add(1)),
        }
    }

    fn remove(&mut self, (number, range): RangePlace) {
        let Some(list) = self.0.get_mut(number) else { return };
        if list.len() > 1 {
            list.remove(range);
        } else {
            self.0.remove(number);
        }
    }

    /// Puts a range after the one at a place, or before all.
    fn insert(&mut self, place: Option<RangePlace>, range: Extent) -> Result<()> {
        let what = "what has been written";
        memory::reserve(&mut self.0, 1, what)?;
        if self.0.is_empty() {
            self.0.push(Vec::new());
        }
        let (number, at) = place.map_or((0, 0), |(list, before)| (list, before.saturating_add(1)));
        let Some(list) = self.0.get_mut(number) else { return Ok(()) };
        memory::reserve(list, 1, what)?;
        if list.len() < MOST {
            list.insert(at, range);
            return Ok(());
        }
        // The second half becomes a list of its own.
        let mut second = memory::vec_with_capacity(MOST, what)?;
        second.extend(list.drain(MOST / 2..));
        match at.checked_sub(list.len()) {
            Some(at) => second.insert(at, range),
            None => list.insert(at, range),
        }
        self.0.insert(number.saturating_add(1), second);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_knows_each_byte(steps in prop::collection::vec((0_u64..40, 1_u64..12, any::<bool>()), 0..80)) {
            let (mut coverage, mut bytes, mut held) = (Coverage::default(), [false; 64], Vec::new());
            for (start, len, give_back) in steps {
                let range = start as usize..(start + len) as usize;
                let free = bytes[range.clone()].iter().all(|byte| !byte);
                prop_assert_eq!(coverage.claim(Extent::new(start, len)).unwrap().is_none(), free);
                if free {
                    bytes[range].fill(true);
                    held.push((start, len));
                } else if give_back && !held.is_empty() {
                    let (start, len) = held.swap_remove(start as usize % held.len());
                    coverage.release(Extent::new(start, len));
                    bytes[start as usize..(start + len) as usize].fill(false);
                }
                let first = bytes.iter().position(|byte| !byte).map(|first| {
                    let len = bytes[first..].iter().position(|byte| *byte).unwrap_or(64 - first);
                    Extent::new(first as u64, len as u64)
                });
                prop_assert_eq!(coverage.gap(64), first);
            }
        }
    }

    #[test]
    fn many_ranges_in_any_order() {
        // More than fit into one list; 7919 is prime, so each comes once.
        let (mut coverage, count) = (Coverage::default(), 5 * MOST as u64);
        let order = || (0..count).map(|number| number * 7919 % count * 3);
        for start in order() {
            assert_eq!(coverage.claim(Extent::new(start, 2)).unwrap(), None);
        }
        assert_eq!(coverage.0.iter().flatten().count() as u64, count);
        assert!(coverage.0.len() > 4 && coverage.0.iter().all(|list| !list.is_empty()));
        for start in order() {
            assert_eq!(coverage.claim(Extent::new(start + 1, 2)).unwrap(), Some(Extent::new(start, 2)));
        }
        for start in order() {
            assert_eq!(coverage.claim(Extent::new(start + 2, 1)).unwrap(), None);
        }
        assert_eq!(coverage.0, [[Extent::new(0, 3 * count)]]);
        for start in order() {
            coverage.release(Extent::new(start + 1, 1));
        }
        assert_eq!(coverage.gap(3 * count), Some(Extent::new(1, 1)));
        for start in order() {
            assert_eq!(coverage.claim(Extent::new(start + 1, 1)).unwrap(), None);
        }
        assert_eq!(coverage.gap(3 * count), None);
    }
}
