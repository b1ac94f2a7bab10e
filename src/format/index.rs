// SPDX-License-Identifier: Apache-2.0
//! `*.safetensors.index.json`: which shard holds which tensor.
//!
//! Read in place like a header: an index may have a million entries, and
//! nothing here allocates for one without being able to say so.
#![forbid(unsafe_code)]

use crate::base::json::{Cursor, Fault, Span};
use crate::base::memory;
use crate::base::sort;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::format::finding::{Finding, Sink};
use crate::record::Metadata;

/// Levels open around the value of an entry of weight_map or metadata.
const ENTRY_DEPTH: u32 = 2;

/// A validated index.
pub(crate) struct Index {
    text: Vec<u8>,
    /// By shard, then by name.
    weights: Vec<Weight>,
    metadata: Option<Vec<(Span, Span)>>,
}

#[derive(Clone, Copy)]
struct Weight {
    tensor: Span,
    shard: Span,
}

impl Index {
    /// Checks an index file's text. Of broken rules the sink is told; `None`
    /// where it lets one pass without which there is no index.
    pub(crate) fn parse(mut text: Vec<u8>, sink: &mut Sink<'_>) -> Result<Option<Self>> {
        let mut parser = Parser { cursor: Cursor::new(&mut text), sink, weights: None, metadata: None };
        let (weights, metadata) = match parser.index() {
            Ok(()) => (parser.weights, parser.metadata),
            Err(Fault::Other(error)) => return Err(error),
            Err(fault) => {
                let (error, at) = parser.cursor.error(fault, "index");
                return sink(Finding::new(error.with_kind(ErrorKind::Index), at, None)).map(|()| None);
            }
        };
        let Some(weights) = weights else {
            let error = Error::new(ErrorKind::Index, "index has no weight_map");
            return sink(Finding::new(error, 0, None)).map(|()| None);
        };
        // A value that is no string ends where its text does. What stands
        // there, a comma or a brace, has served.
        for (_, value) in metadata.iter().flatten() {
            if let Some(end) = text.get_mut(value.start.saturating_add(value.len)) {
                *end = 0;
            }
        }
        let mut this = Self { text, weights, metadata };
        this.check_weights(sink)?;
        this.check_metadata(sink)?;
        Ok(Some(this))
    }

    /// The shards' file names in order, each with the tensors it is to show.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (&[u8], impl ExactSizeIterator<Item = &[u8]>)> {
        let same = |a: &Weight, b: &Weight| self.get(a.shard) == self.get(b.shard);
        self.weights.chunk_by(same).filter_map(|weights| {
            let shard = self.get(weights.first()?.shard);
            Some((shard, weights.iter().map(|weight| self.get(weight.tensor))))
        })
    }

    /// The metadata as records that point into the text.
    pub(crate) fn metadata(&self) -> Option<impl Iterator<Item = Metadata> + '_> {
        let record = |(key, value): &(Span, Span)| Metadata {
            key: self.get(*key).as_ptr().cast(),
            key_len: key.len,
            value: self.get(*value).as_ptr().cast(),
            value_len: value.len,
            reserved: [0; 2],
        };
        self.metadata.as_ref().map(|entries| entries.iter().map(record))
    }

    /// The text, to be kept for as long as the records.
    pub(crate) fn into_text(self) -> Vec<u8> {
        self.text
    }

    /// Where in the file one of its names stands.
    pub(crate) fn place(&self, name: &[u8]) -> usize {
        name.as_ptr().addr().saturating_sub(self.text.as_ptr().addr()).saturating_sub(1)
    }

    fn get(&self, span: Span) -> &[u8] {
        span.of(&self.text)
    }

    fn check_weights(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let text = &self.text;
        let names = sort::sorted(self.weights.iter().map(|weight| weight.tensor.of(text)), "the weight_map")?;
        for (name, _) in sort::repeated(&names) {
            let error = Error::tensor(ErrorKind::DuplicateKey, name, "stands twice in the weight_map");
            sink(Finding::new(error, self.place(name), Some(name)))?;
        }
        let mut shards = memory::vec_with_capacity(names.len(), "the weight_map")?;
        for (rank, (tensor, number)) in names.iter().enumerate() {
            let shard = self.weights.get(*number).map_or(&[][..], |weight| weight.shard.of(text));
            if is_plain(shard) {
                shards.push((shard, rank));
                continue;
            }
            let said = format!("weight_map names the shard {}, which is not a plain file name", quoted(shard));
            let error = Error::tensor(ErrorKind::Index, tensor, said);
            sink(Finding::new(error, self.place(shard), Some(tensor)))?;
        }
        // By shard, and within each by name.
        sort::texts(&mut shards);
        let mut weights = memory::vec_with_capacity(shards.len(), "the weight_map")?;
        let weight = |rank: usize| self.weights.get(names.get(rank)?.1).copied();
        weights.extend(shards.iter().filter_map(|(_, rank)| weight(*rank)));
        self.weights = weights;
        Ok(())
    }

    fn check_metadata(&self, sink: &mut Sink<'_>) -> Result<()> {
        let Some(entries) = &self.metadata else { return Ok(()) };
        for (key, _) in sort::repeated(&sort::sorted(entries.iter().map(|(key, _)| self.get(*key)), "metadata keys")?) {
            let said = format!("index metadata has the key {} twice", quoted(key));
            sink(Finding::new(Error::new(ErrorKind::Index, said), self.place(key), None))?;
        }
        Ok(())
    }
}

/// A shard lies beside its index: anything but a plain file name would let an
/// index open files elsewhere.
fn is_plain(shard: &[u8]) -> bool {
    let separates = |byte: &u8| matches!(byte, b'/' | b'\\' | 0);
    !matches!(shard, b"" | b"." | b"..") && !shard.iter().any(separates)
}

struct Parser<'a, 'b> {
    cursor: Cursor<'a>,
    sink: &'a mut Sink<'b>,
    weights: Option<Vec<Weight>>,
    metadata: Option<Vec<(Span, Span)>>,
}

impl Parser<'_, '_> {
    fn index(&mut self) -> Result<(), Fault> {
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
            Err(self.cursor.fault("nothing behind the object but white space"))
        }
    }

    /// Tells of a fault in the value that begins here, and passes over it.
    #[cold]
    fn passed(&mut self, text: &str) -> Result<(), Fault> {
        self.tell(None, Error::new(ErrorKind::Index, text))?;
        self.cursor.skip_value(ENTRY_DEPTH - 1)
    }

    fn tell(&mut self, tensor: Option<Span>, error: Error) -> Result<()> {
        let tensor = tensor.map(|tensor| self.cursor.get(tensor));
        (self.sink)(Finding::new(error, self.cursor.position(), tensor))
    }

    fn weight_map(&mut self) -> Result<(), Fault> {
        let mut weights = Vec::new();
        if self.cursor.peek() != b'{' {
            self.weights = Some(weights);
            return self.passed("weight_map is no object");
        }
        self.object("an object that maps tensors to shards", |this, tensor| {
            if !this.cursor.take(b'"') {
                let text = "weight_map has something else than a shard's file name in quotes";
                this.tell(Some(tensor), Error::tensor(ErrorKind::Index, this.cursor.get(tensor), text))?;
                return this.cursor.skip_value(ENTRY_DEPTH);
            }
            let shard = this.cursor.string()?;
            memory::reserve(&mut weights, 1, "weight_map")?;
            weights.push(Weight { tensor, shard });
            Ok(())
        })?;
        self.weights = Some(weights);
        Ok(())
    }

    fn metadata(&mut self) -> Result<(), Fault> {
        if self.cursor.take_literal(b"null") {
            return Ok(());
        }
        if self.cursor.peek() != b'{' {
            return self.passed("metadata is no object");
        }
        let mut entries = Vec::new();
        self.object("an object of metadata", |this, key| {
            let start = this.cursor.position();
            let value = if this.cursor.take(b'"') {
                this.cursor.string()?
            } else {
                this.cursor.skip_value(ENTRY_DEPTH)?;
                this.cursor.span_from(start)
            };
            memory::reserve(&mut entries, 1, "metadata")?;
            entries.push((key, value));
            Ok(())
        })?;
        self.metadata = Some(entries);
        Ok(())
    }

    /// An object; `value` is called behind each key's colon.
    fn object(
        &mut self,
        what: &'static str,
        mut value: impl FnMut(&mut Self, Span) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
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
            self.cursor.expect(b':', "a colon behind the key")?;
            self.cursor.skip_space();
            value(self, key)?;
            self.cursor.skip_space();
            if self.cursor.take(b'}') {
                return Ok(());
            }
            self.cursor.expect(b',', "a comma or } behind the value")?;
        }
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
        let shards: Vec<_> =
            index.shards().map(|(shard, tensors)| (text(shard), tensors.map(text).collect::<Vec<_>>())).collect();
        let expected = [("1.safetensors", vec!["a"]), ("2.safetensors", vec!["b", "cd"])];
        assert_eq!(format!("{shards:?}"), format!("{expected:?}"));
        let metadata: Vec<_> =
            index.metadata().unwrap().map(|entry| format!("{}={}", text(entry.key()), text(entry.value()))).collect();
        assert_eq!(metadata[..2], ["total_size=12", "f=pt"]);
        assert!(metadata[2].starts_with("x=[1, ") && metadata[3] == "n=null", "{metadata:?}");
    }

    #[test]
    fn what_an_index_must_not_say() {
        for name in ["", ".", "..", "/etc/x", "../x", "a/b", "a\\\\b", "a\\u0000b"] {
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
