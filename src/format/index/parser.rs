// SPDX-License-Identifier: Apache-2.0
//! The text of an index: an object with a weight_map and, perhaps, metadata.
#![forbid(unsafe_code)]

use super::shard_names::ShardNames;
use crate::base::extent::TextExtent;
use crate::base::json::{Cursor, JsonFault};
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::finding::{Finding, FindingSink};
use crate::format::lookup::Hasher;

/// Levels open around the value of an entry of weight_map or metadata.
const ENTRY_DEPTH: u32 = 2;

/// One tensor of the weight_map.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) tensor: TextExtent,
    /// A number in `shards`; `NOWHERE` where the name is not a file's.
    pub(super) shard: u32,
}

/// What the weight_map says.
pub(super) struct Weights {
    pub(super) entries: Vec<Entry>,
    /// Of the tensors' names, in their order.
    pub(super) hashes: Vec<u32>,
    pub(super) shards: ShardNames,
}

/// Reads an index from front to back.
pub(super) struct IndexParser<'a, 'b> {
    pub(super) cursor: Cursor<'a>,
    pub(super) sink: &'a mut FindingSink<'b>,
    pub(super) hasher: &'a Hasher,
    pub(super) weights: Option<Weights>,
    pub(super) metadata: Option<Vec<(TextExtent, TextExtent)>>,
}

impl IndexParser<'_, '_> {
    pub(super) fn index(&mut self) -> Result<(), JsonFault> {
        let (mut seen_weights, mut seen_metadata) = (false, false);
        self.cursor.skip_space();
        self.object("an object with a weight_map", |this, key| match this.cursor.get(key) {
            b"weight_map" if std::mem::replace(&mut seen_weights, true) => this.passed("index has weight_map twice"),
            b"metadata" if std::mem::replace(&mut seen_metadata, true) => this.passed("index has metadata twice"),
            b"weight_map" => this.weight_map(),
            b"metadata" => this.metadata(),
            _ => this.cursor.skip_value(ENTRY_DEPTH - 1),
        })?;
        self.cursor.skip_space();
        if self.cursor.at_end() {
            Ok(())
        } else {
            Err(self.cursor.fault("nothing but white space after the object"))
        }
    }

    /// Reports a fault in the value that begins here, and skips the value.
    #[cold]
    fn passed(&mut self, text: &str) -> Result<(), JsonFault> {
        self.tell(None, Error::new(ErrorKind::Index, text))?;
        self.cursor.skip_value(ENTRY_DEPTH - 1)
    }

    fn tell(&mut self, tensor: Option<TextExtent>, error: Error) -> Result<()> {
        let tensor = tensor.map(|tensor| self.cursor.get(tensor));
        (self.sink)(Finding::new(error, self.cursor.position(), tensor))
    }

    fn weight_map(&mut self) -> Result<(), JsonFault> {
        let mut weights = Weights { entries: Vec::new(), hashes: Vec::new(), shards: ShardNames::default() };
        if self.cursor.peek() != b'{' {
            self.weights = Some(weights);
            return self.passed("weight_map is not an object");
        }
        self.object("an object that maps tensors to shards", |this, tensor| {
            if !this.cursor.take(b'"') {
                let start = this.cursor.position();
                this.cursor.skip_value(ENTRY_DEPTH)?;
                let text = format!("weight_map has {} instead of a shard's file name", this.cursor.excerpt(start));
                let error = Error::tensor(ErrorKind::Index, this.cursor.get(tensor), text);
                return Ok((this.sink)(Finding::new(error, start, Some(this.cursor.get(tensor))))?);
            }
            let shard = here(this.cursor.string()?, &this.cursor);
            let hash = this.hasher.hash(this.cursor.get(tensor));
            let shard = weights.shards.number(shard, this.cursor.text(), this.hasher)?;
            memory::reserve(&mut weights.entries, 1, "weight_map")?;
            memory::reserve(&mut weights.hashes, 1, "weight_map")?;
            weights.entries.push(Entry { tensor, shard });
            weights.hashes.push(hash);
            Ok(())
        })?;
        self.weights = Some(weights);
        Ok(())
    }

    fn metadata(&mut self) -> Result<(), JsonFault> {
        if self.cursor.take_literal(b"null") {
            return Ok(());
        }
        if self.cursor.peek() != b'{' {
            return self.passed("metadata is not an object");
        }
        let mut entries = Vec::new();
        self.object("an object of metadata", |this, key| {
            let start = this.cursor.position();
            let value = if this.cursor.take(b'"') {
                this.cursor.string()?
            } else {
                this.cursor.skip_value(ENTRY_DEPTH)?;
                this.cursor.extent_from(start)
            };
            memory::reserve(&mut entries, 1, "metadata")?;
            entries.push((key, value));
            Ok(())
        })?;
        self.metadata = Some(entries);
        Ok(())
    }

    /// An object; `value` is called after each key's colon.
    fn object(
        &mut self,
        what: &'static str,
        mut value: impl FnMut(&mut Self, TextExtent) -> Result<(), JsonFault>,
    ) -> Result<(), JsonFault> {
        self.cursor.expect(b'{', what)?;
        self.cursor.skip_space();
        if self.cursor.take(b'}') {
            return Ok(());
        }
        loop {
            self.cursor.skip_space();
            self.cursor.expect(b'"', "a key in quotes")?;
            let key = self.cursor.string()?;
            self.cursor.skip_space();
            self.cursor.expect(b':', "a colon after the key")?;
            self.cursor.skip_space();
            value(self, key)?;
            self.cursor.skip_space();
            if self.cursor.take(b'}') {
                return Ok(());
            }
            self.cursor.expect(b',', "a comma or } after the value")?;
        }
    }
}

/// A name without the `./` before it.
fn here(shard: TextExtent, cursor: &Cursor<'_>) -> TextExtent {
    match cursor.get(shard).strip_prefix(b"./") {
        Some(rest) => TextExtent { start: shard.start.saturating_add(2), len: rest.len() },
        None => shard,
    }
}
