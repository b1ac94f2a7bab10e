// SPDX-License-Identifier: Apache-2.0
//! `*.safetensors.index.json`: which shard holds which tensor.
//!
//! Read in place like a header: an index may have a million entries, and
//! nothing here allocates for one without being able to say so.
#![forbid(unsafe_code)]

mod parser;
mod shard_names;

use crate::base::extent::TextExtent;
use crate::base::json::{Cursor, JsonFault};
use crate::base::memory;
use crate::base::sort;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::format::finding::{Finding, FindingSink};
use crate::format::foreign;
use crate::format::lookup::{Hasher, Lookup};
use crate::record::{Metadata, Tensor};
use parser::{Entry, IndexParser, Weights};
use shard_names::{to_usize, NOWHERE};

/// The longest name of a shard: no system opens a longer one.
const SHARD_NAME_MAX: usize = 4095;

/// A validated index.
pub(crate) struct Index {
    text: Vec<u8>,
    entries: Vec<Entry>,
    names: Lookup,
    hasher: Hasher,
    /// Each once, in order.
    shards: Vec<TextExtent>,
    metadata: Option<Vec<(TextExtent, TextExtent)>>,
}

impl Index {
    /// Checks an index file's text. Broken rules go to the sink; `None` where the sink
    /// accepts one without which there is no index.
    pub(crate) fn parse(mut text: Vec<u8>, sink: &mut FindingSink<'_>) -> Result<Option<Self>> {
        let start: Vec<u8> = text.iter().take(foreign::ENOUGH).copied().collect();
        let hasher = Hasher::default();
        let mut parser =
            IndexParser { cursor: Cursor::new(&mut text), sink, hasher: &hasher, weights: None, metadata: None };
        let (weights, metadata) = match parser.index() {
            Ok(()) => (parser.weights, parser.metadata),
            Err(JsonFault::Other(error)) => return Err(error),
            Err(fault) => {
                let (error, at) = parser.cursor.error(fault, "index");
                let error = foreign::named(error.with_kind(ErrorKind::Index), &start, foreign::ReadAs::Index);
                return sink(Finding::new(error, at, None)).map(|()| None);
            }
        };
        let Some(Weights { entries, hashes, shards }) = weights else {
            let error = Error::new(ErrorKind::Index, "index has no weight_map");
            return sink(Finding::new(error, 0, None)).map(|()| None);
        };
        // A value that is not a string ends where its text does. The comma or brace
        // there is not needed any more.
        for (_, value) in metadata.iter().flatten() {
            if let Some(end) = text.get_mut(value.start.saturating_add(value.len)) {
                *end = 0;
            }
        }
        let name = |entry: usize| entries.get(entry).map_or(&[][..], |entry| entry.tensor.of(&text));
        let names = Lookup::of_names(hasher.clone(), &hashes, name, &mut |_, again| {
            let again = name(again);
            let error = Error::tensor(ErrorKind::DuplicateKey, again, "appears twice in the weight_map");
            sink(Finding::new(error, place_in(&text, again), Some(again)))
        })?;
        let mut this = Self { text, entries, names, hasher, shards: shards.distinct, metadata };
        this.check_shards(sink)?;
        this.check_metadata(sink)?;
        Ok(Some(this))
    }

    /// The shards' file names, in order.
    pub(crate) fn shards(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.shards.iter().map(|shard| self.get(*shard))
    }

    /// The tensors, each with the number of its shard, as the text has them.
    pub(crate) fn tensors(&self) -> impl ExactSizeIterator<Item = (&[u8], usize)> {
        self.entries.iter().map(|entry| (self.get(entry.tensor), to_usize(entry.shard)))
    }

    /// One of them.
    pub(crate) fn tensor(&self, number: usize) -> Option<(&[u8], usize)> {
        self.entries.get(number).map(|entry| (self.get(entry.tensor), to_usize(entry.shard)))
    }

    /// The number of the tensor with this name, and of its shard.
    pub(crate) fn find(&self, name: &[u8]) -> Option<(usize, usize)> {
        self.find_hashed(self.hasher.hash(name), name)
    }

    /// For each of these tensors what [`find`](Self::find) says of its name; many
    /// are looked for side by side, as the table lies beyond the caches.
    pub(crate) fn find_all(&self, tensors: &[Tensor], mut found: impl FnMut(&Tensor, Option<(usize, usize)>)) {
        const SIDE_BY_SIDE: usize = 16;
        let mut hashes = [0; SIDE_BY_SIDE];
        for batch in tensors.chunks(SIDE_BY_SIDE) {
            for (hash, tensor) in hashes.iter_mut().zip(batch) {
                *hash = self.hasher.hash(tensor.name());
                self.names.fetch_ahead(*hash);
            }
            for (hash, tensor) in hashes.iter().zip(batch) {
                found(tensor, self.find_hashed(*hash, tensor.name()));
            }
        }
    }

    #[inline]
    fn find_hashed(&self, hash: u32, name: &[u8]) -> Option<(usize, usize)> {
        let found = self.names.position(hash, name, |entry| Some(self.get(self.entries.get(entry)?.tensor)))?;
        Some((found, to_usize(self.entries.get(found)?.shard)))
    }

    /// The metadata as records that point into the text.
    pub(crate) fn metadata(&self) -> Option<impl Iterator<Item = Metadata> + '_> {
        let record = |(key, value): &(TextExtent, TextExtent)| Metadata {
            key: self.get(*key).as_ptr().cast(),
            key_len: key.len,
            value: self.get(*value).as_ptr().cast(),
            value_len: value.len,
            reserved: [0; 2],
        };
        self.metadata.as_ref().map(|entries| entries.iter().map(record))
    }

    /// Whether another index shows the same tensors out of the same shards, and
    /// the same metadata.
    pub(crate) fn says_the_same(&self, other: &Self) -> Result<bool> {
        let shards = |index: &Self, number| index.shards.get(number).map(|shard| index.get(*shard).to_owned());
        let same = |(name, shard): (&[u8], usize)| {
            other.find(name).is_some_and(|(_, theirs)| shards(self, shard) == shards(other, theirs))
        };
        if self.entries.len() != other.entries.len() || !self.tensors().all(same) {
            return Ok(false);
        }
        let (mine, theirs) = (self.metadata_by_key()?, other.metadata_by_key()?);
        let value = |index: &Self, entry: usize| {
            let entry = index.metadata.as_deref().unwrap_or_default().get(entry);
            entry.map_or(Vec::new(), |(_, value)| index.get(*value).to_owned())
        };
        let mut pairs = mine.iter().zip(&theirs);
        let equal =
            pairs.all(|((key, one), (other_key, two))| key == other_key && value(self, *one) == value(other, *two));
        Ok(equal && mine.len() == theirs.len())
    }

    /// The metadata's keys in order, each with its number.
    fn metadata_by_key(&self) -> Result<Vec<(&[u8], usize)>> {
        sort::sorted(
            self.metadata.as_deref().unwrap_or_default().iter().map(|(key, _)| self.get(*key)),
            "metadata keys",
        )
    }

    /// The text, to be kept for as long as the records, and the table of names for
    /// the tensors: `records` has the number in `tensors` of each of this index's.
    pub(crate) fn into_names(self, tensors: &[Tensor], records: &[u32]) -> Result<(Vec<u8>, Lookup)> {
        Ok((self.text, self.names.renumbered(tensors, records)?))
    }

    /// Where in the file one of its names stands.
    pub(crate) fn place(&self, name: &[u8]) -> usize {
        place_in(&self.text, name)
    }

    fn get(&self, extent: TextExtent) -> &[u8] {
        extent.of(&self.text)
    }

    /// Puts the shards in order, and leaves out what is not a file's name.
    fn check_shards(&mut self, sink: &mut FindingSink<'_>) -> Result<()> {
        let bad = |shard: &TextExtent| refusal(shard.of(&self.text)).is_some();
        if self.shards.iter().any(bad) {
            for entry in &self.entries {
                let shard = self.shards.get(to_usize(entry.shard)).map_or(&[][..], |shard| self.get(*shard));
                if let Some(why) = refusal(shard) {
                    let (tensor, said) =
                        (self.get(entry.tensor), format!("weight_map names the shard {}, which {why}", quoted(shard)));
                    let error = Error::tensor(ErrorKind::Index, tensor, said);
                    sink(Finding::new(error, self.place(shard), Some(tensor)))?;
                }
            }
        }
        let text = &self.text;
        let sorted = sort::sorted(self.shards.iter().map(|shard| shard.of(text)), "shards")?;
        let mut numbers = memory::vec_with_capacity(self.shards.len(), "shards")?;
        numbers.resize(self.shards.len(), NOWHERE);
        let mut shards = memory::vec_with_capacity(self.shards.len(), "shards")?;
        for (_, old) in sorted {
            let Some(shard) = self.shards.get(old).filter(|shard| !bad(shard)) else { continue };
            if let Some(number) = numbers.get_mut(old) {
                *number = u32::try_from(shards.len()).unwrap_or(NOWHERE);
            }
            shards.push(*shard);
        }
        for entry in &mut self.entries {
            entry.shard = numbers.get(to_usize(entry.shard)).copied().unwrap_or(NOWHERE);
        }
        self.shards = shards;
        Ok(())
    }

    fn check_metadata(&self, sink: &mut FindingSink<'_>) -> Result<()> {
        for (key, _) in sort::repeated(&self.metadata_by_key()?) {
            let said = format!("index metadata has the key {} twice", quoted(key));
            sink(Finding::new(Error::new(ErrorKind::Index, said), self.place(key), None))?;
        }
        Ok(())
    }
}

/// Whether a text looks like an index.
pub(crate) fn has_weight_map(text: &[u8]) -> bool {
    let key = b"\"weight_map\"";
    text.trim_ascii_start().first() == Some(&b'{') && text.windows(key.len()).any(|window| window == key)
}

/// Where in the file a name of the text stands.
fn place_in(text: &[u8], name: &[u8]) -> usize {
    name.as_ptr().addr().saturating_sub(text.as_ptr().addr()).saturating_sub(1)
}

/// Why this can't be a shard's name. A shard lies beside its index: anything but a
/// plain file name would let an index open files elsewhere.
fn refusal(shard: &[u8]) -> Option<&'static str> {
    let separates = |byte: &u8| matches!(byte, b'/' | b'\\' | 0);
    match shard {
        b"" | b"." | b".." => Some("is not a plain file name"),
        _ if shard.len() > SHARD_NAME_MAX => Some("is longer than a path can be"),
        _ if shard.iter().any(separates) => Some("is not a plain file name"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::finding::stop;

    fn parse(text: &str) -> Result<Index> {
        Ok(Index::parse(text.as_bytes().to_vec(), &mut stop)?.unwrap())
    }

    fn kind(text: &str) -> Option<ErrorKind> {
        parse(text).err().map(|error| error.kind())
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_good_index_is_grouped_by_shard() {
        let json = r#"{"metadata":{"total_size":12,"f":"p\u0074","x":[1, "y"], "n":null },"other":{"a":[]},
            "weight_map":{"b":"2.safetensors","a":"1.safetensors","c\u0064":"2.safetensors"}}"#;
        let index = parse(json).unwrap();
        assert_eq!(index.shards().map(text).collect::<Vec<_>>(), ["1.safetensors", "2.safetensors"]);
        let tensors: Vec<_> = index.tensors().map(|(name, shard)| (text(name), shard)).collect();
        assert_eq!(tensors, [("b".to_owned(), 1), ("a".to_owned(), 0), ("cd".to_owned(), 1)]);
        assert_eq!(index.find(b"cd"), Some((2, 1)));
        assert_eq!(index.find(b"c"), None);
        let metadata: Vec<_> =
            index.metadata().unwrap().map(|entry| format!("{}={}", text(entry.key()), text(entry.value()))).collect();
        assert_eq!(metadata[..2], ["total_size=12", "f=pt"]);
        assert!(metadata[2].starts_with("x=[1, ") && metadata[3] == "n=null", "{metadata:?}");
    }

    #[test]
    fn what_an_index_must_not_say() {
        let long = "x".repeat(4096);
        for name in [
            "",
            ".",
            "..",
            "/etc/x",
            "../x",
            "a/b",
            "a\\\\b",
            "a\\u0000b",
            "./",
            "./.",
            "./..",
            "././a",
            "./a/b",
            ".//a",
            &long,
        ] {
            assert_eq!(kind(&format!(r#"{{"weight_map":{{"w":"{name}"}}}}"#)), Some(ErrorKind::Index), "{name}");
        }
        for text in [
            "",
            "[]",
            "{}",
            r#"{"weight_map":null}"#,
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{}} x"#,
            r#"{"weight_map":{},"weight_map":{}}"#,
            r#"{"metadata":3,"weight_map":{}}"#,
            r#"{"metadata":{"a":"1","a":"2"},"weight_map":{}}"#,
            r#"{"weight_map":{"a\ud800":"b"}}"#,
        ] {
            assert_eq!(kind(text), Some(ErrorKind::Index), "{text}");
        }
        assert_eq!(kind(r#"{"weight_map":{"a":"x","\u0061":"x"}}"#), Some(ErrorKind::DuplicateKey));
        assert_eq!(kind(r#"{"weight_map":{}}"#), None);
        assert_eq!(kind(r#"{"metadata":null,"weight_map":{}}"#), None);
    }
}
