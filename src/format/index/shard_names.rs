// SPDX-License-Identifier: Apache-2.0
//! The names of an index's shards, numbered as they come.
#![forbid(unsafe_code)]

use crate::base::extent::TextExtent;
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::lookup::Hasher;

/// In place of a number: not a shard.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Shards' names, each once. Most of an index repeats a name it has just given.
#[derive(Default)]
pub(super) struct ShardNames {
    pub(super) distinct: Vec<TextExtent>,
    hashes: Vec<u32>,
    /// Numbers of those, by hash; open addressing, at most half full.
    slots: Vec<u32>,
    last: u32,
}

impl ShardNames {
    /// The number of this name, a new one if need be.
    pub(super) fn number(&mut self, shard: TextExtent, text: &[u8], hasher: &Hasher) -> Result<u32> {
        let name = shard.of(text);
        let is = |this: &Self, number: u32| {
            this.distinct.get(to_usize(number)).is_some_and(|known| known.len == name.len() && known.of(text) == name)
        };
        if is(self, self.last) {
            return Ok(self.last);
        }
        if self.slots.len() / 2 <= self.distinct.len() {
            self.grow()?;
        }
        let hash = hasher.hash(name);
        let mut at = self.first(hash);
        while let Some(slot) = self.slots.get(at).copied().filter(|slot| *slot != NOWHERE) {
            if self.hashes.get(to_usize(slot)) == Some(&hash) && is(self, slot) {
                self.last = slot;
                return Ok(slot);
            }
            at = self.next(at);
        }
        let number = u32::try_from(self.distinct.len()).ok().filter(|number| *number != NOWHERE);
        let number = number.ok_or_else(|| Error::new(ErrorKind::Unsupported, "more than 2^32 - 2 shards"))?;
        memory::reserve(&mut self.distinct, 1, "shards")?;
        memory::reserve(&mut self.hashes, 1, "shards")?;
        self.distinct.push(shard);
        self.hashes.push(hash);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = number;
        }
        self.last = number;
        Ok(number)
    }

    fn grow(&mut self) -> Result<()> {
        let len = self.slots.len().saturating_mul(2).max(64);
        self.slots = memory::vec_with_capacity(len, "shards")?;
        self.slots.resize(len, NOWHERE);
        for (hash, number) in self.hashes.iter().zip(0..) {
            let mut at = self.first(*hash);
            while self.slots.get(at).is_some_and(|slot| *slot != NOWHERE) {
                at = self.next(at);
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = number;
            }
        }
        Ok(())
    }

    fn first(&self, hash: u32) -> usize {
        to_usize(hash) & self.slots.len().wrapping_sub(1)
    }

    fn next(&self, at: usize) -> usize {
        at.wrapping_add(1) & self.slots.len().wrapping_sub(1)
    }
}

pub(super) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
