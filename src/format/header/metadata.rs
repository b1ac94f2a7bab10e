// SPDX-License-Identifier: Apache-2.0
//! The value of `__metadata__`: a map of strings.
#![forbid(unsafe_code)]

use super::parser::{HeaderParser, ENTRY_DEPTH, FIELD_DEPTH};
use super::rule::RuleRank;
use crate::base::extent::Extent;
use crate::base::json::JsonFault;
use crate::base::{memory, sort};
use crate::error::{quoted, ErrorKind, Result};
use crate::record::Metadata;

impl HeaderParser<'_, '_, '_> {
    /// The value of `__metadata__`.
    pub(super) fn metadata(&mut self) -> Result<(), JsonFault> {
        let start = self.cursor.position();
        if self.found.seen_metadata {
            self.pend(RuleRank::Duplicate, ErrorKind::DuplicateKey, start, |_| "__metadata__ appears twice".into());
        }
        self.found.seen_metadata = true;
        if self.cursor.take_literal(b"null") {
            return Ok(());
        }
        if !self.cursor.take(b'{') {
            self.cursor.skip_value(ENTRY_DEPTH)?;
            self.pend(RuleRank::Metadata, ErrorKind::Metadata, start, |this| {
                format!("__metadata__ is {}, not a map of strings", this.cursor.excerpt(start))
            });
            return Ok(());
        }
        let mut entries = Vec::new();
        self.cursor.skip_space();
        if !self.cursor.take(b'}') {
            loop {
                self.cursor.skip_space();
                self.cursor.expect(b'"', "a metadata key in quotes")?;
                let key = self.cursor.string()?;
                self.cursor.skip_space();
                self.cursor.expect(b':', "a colon after the key")?;
                self.cursor.skip_space();
                let value = if self.cursor.take(b'"') {
                    self.cursor.string()?
                } else {
                    let start = self.cursor.position();
                    self.cursor.skip_value(FIELD_DEPTH)?;
                    self.pend(RuleRank::Metadata, ErrorKind::Metadata, start, |this| {
                        let (key, found) = (quoted(this.cursor.get(key)), this.cursor.excerpt(start));
                        format!("__metadata__ key {key} has the value {found}, which is not a string")
                    });
                    Extent { start: key.start, len: 0 }
                };
                if entries.len() == entries.capacity() {
                    memory::grow(&mut entries, "metadata")?;
                }
                entries.push(Metadata {
                    key: self.pointer(key).cast(),
                    key_len: key.len,
                    value: self.pointer(value).cast(),
                    value_len: value.len,
                    reserved: [0; 2],
                });
                self.cursor.skip_space();
                if self.cursor.take(b'}') {
                    break;
                }
                self.cursor.expect(b',', "a comma or } after the metadata entry")?;
            }
        }
        self.equal_keys(&entries)?;
        self.found.metadata = Some(entries);
        Ok(())
    }

    /// Looks for keys that several entries share.
    fn equal_keys(&mut self, entries: &[Metadata]) -> Result<()> {
        for (key, _) in sort::repeated(&sort::sorted(entries.iter().map(Metadata::key), "metadata keys")?) {
            let at = key.as_ptr().addr().saturating_sub(self.origin.addr()).saturating_sub(1);
            self.pend(RuleRank::Duplicate, ErrorKind::DuplicateKey, at, |_| {
                format!("__metadata__ key {} appears twice", quoted(key))
            });
        }
        Ok(())
    }
}
