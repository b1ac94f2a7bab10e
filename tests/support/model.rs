// SPDX-License-Identifier: Apache-2.0
//! The format's rules once more, slowly and in their order: what a single file
//! must give. serde_json reads the JSON, as it does for the reference.

use std::collections::HashSet;
use std::fmt;

use safetensors::ErrorKind::{self, *};
use safetensors::OpenOptions;
use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::corpus::{entry_line, Contents, Tensor};

/// JSON with its equal keys, and with integers told from all other numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Other,
    Null,
    Integer(u64),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Other)
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Integer(value))
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Node::Array(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Node::Object(all))
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

type Entries = Vec<(String, Node)>;

/// The JSON of a file's header, where it has one.
pub(crate) fn header(file: &[u8]) -> Option<Entries> {
    let (_, text) = header_text(file, u64::MAX).ok()?;
    match serde_json::from_str(std::str::from_utf8(text).ok()?).ok()? {
        Node::Object(entries) => Some(entries),
        _ => None,
    }
}

fn header_text(file: &[u8], limit: u64) -> Result<(usize, &[u8]), ErrorKind> {
    let length = u64::from_le_bytes(*file.first_chunk().ok_or(Truncated)?);
    if length > limit {
        return Err(HeaderTooLarge);
    }
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(8)).ok_or(HeaderLength)?;
    Ok((end, file.get(8..end).ok_or(HeaderLength)?))
}

struct Found<'a> {
    name: &'a str,
    dtype: &'a str,
    bits: u64,
    shape: Vec<i64>,
    elements: u64,
    begin: u64,
    end: u64,
}

/// What a file must give: its contents, or the first rule that it breaks.
pub(crate) fn verdict(file: &[u8], options: &OpenOptions) -> Result<Contents, ErrorKind> {
    let (data, text) = header_text(file, options.limits.header_bytes)?;
    let first = text.iter().find(|byte| !b" \t\r\n".contains(byte));
    check(first == Some(&b'{'), HeaderStart)?;
    let text = std::str::from_utf8(text).map_err(|_| HeaderUtf8)?;
    let Ok(Node::Object(entries)) = serde_json::from_str(text) else { return Err(HeaderJson) };

    // JSON: tensor entries are objects with their three fields.
    let (metadata, tensors): (Vec<_>, Vec<_>) = entries.iter().partition(|(name, _)| name == "__metadata__");
    let mut fields = Vec::new();
    for (name, value) in &tensors {
        let Node::Object(entry) = value else { return Err(HeaderJson) };
        let field = |wanted: &str| entry.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
        match (field("dtype"), field("shape"), field("data_offsets")) {
            (Some(dtype), Some(shape), Some(offsets)) => fields.push((name, entry, dtype, shape, offsets)),
            _ => return Err(HeaderJson),
        }
    }

    // Equal keys.
    check(all_differ(entries.iter().map(|(name, _)| name)), DuplicateKey)?;
    if let Some((_, Node::Object(pairs))) = metadata.first() {
        check(all_differ(pairs.iter().map(|(key, _)| key)), DuplicateKey)?;
    }
    for (_, entry, ..) in &fields {
        let known = ["dtype", "shape", "data_offsets"];
        check(all_differ(entry.iter().map(|(key, _)| key).filter(|key| known.contains(&key.as_str()))), DuplicateKey)?;
    }

    let metadata = match metadata.first() {
        None | Some((_, Node::Null)) => None,
        Some((_, Node::Object(pairs))) => Some(metadata_lines(pairs)?),
        Some(_) => return Err(Metadata),
    };

    let mut found = Vec::new();
    for (name, _, dtype, ..) in &fields {
        let Node::Text(dtype) = dtype else { return Err(Dtype) };
        let bits = match reference_bits(dtype) {
            Some(bits) => bits,
            None if options.tolerate.unknown_dtype && !dtype.contains('\0') => 0,
            None => return Err(Dtype),
        };
        found.push(Found { name, dtype, bits, shape: Vec::new(), elements: 1, begin: 0, end: 0 });
    }
    for (tensor, (_, _, _, shape, _)) in found.iter_mut().zip(&fields) {
        let Node::Array(dimensions) = shape else { return Err(Shape) };
        for dimension in dimensions {
            let Node::Integer(dimension) = dimension else { return Err(Shape) };
            tensor.shape.push(i64::try_from(*dimension).map_err(|_| Shape)?);
            tensor.elements = tensor.elements.checked_mul(*dimension).ok_or(Shape)?;
        }
        tensor.elements.checked_mul(tensor.bits).ok_or(Shape)?;
    }

    for (tensor, (_, _, _, _, offsets)) in found.iter_mut().zip(&fields) {
        let Node::Array(offsets) = offsets else { return Err(Offsets) };
        let [Node::Integer(begin), Node::Integer(end)] = offsets[..] else { return Err(Offsets) };
        check(end >= begin, Offsets)?;
        (tensor.begin, tensor.end) = (begin, end);
    }
    found.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let mut end = 0;
    for tensor in &found {
        check(tensor.begin == end, Offsets)?;
        end = tensor.end;
    }

    let needs = |tensor: &Found<'_>| tensor.elements * tensor.bits;
    let known = || found.iter().filter(|tensor| tensor.bits != 0);
    check(known().all(|tensor| needs(tensor) % 8 == 0), SubByte)?;
    check(known().all(|tensor| needs(tensor) / 8 == tensor.end - tensor.begin), SizeMismatch)?;
    let room = (file.len() - data) as u64;
    check(end <= room, Truncated)?;
    check(end == room || options.tolerate.trailing_bytes, DataNotCovered)?;

    let mut lines: Vec<_> = found.iter().map(|tensor| line(tensor, file, data)).collect();
    lines.sort();
    Ok(Contents { tensors: lines, metadata })
}

fn line(tensor: &Found<'_>, file: &[u8], data: usize) -> String {
    let place = data + tensor.begin as usize..data + tensor.end as usize;
    let (name, dtype, offset) = (tensor.name.as_bytes(), tensor.dtype.as_bytes(), place.start as u64);
    Tensor { name, dtype, shape: &tensor.shape, shard: 0, offset, bytes: &file[place] }.line()
}

fn metadata_lines(pairs: &Entries) -> Result<Vec<String>, ErrorKind> {
    let line = |(key, value): &(String, Node)| match value {
        Node::Text(value) => Ok(entry_line(key.as_bytes(), value.as_bytes())),
        _ => Err(Metadata),
    };
    pairs.iter().map(line).collect()
}

/// Dtypes and their sizes as the reference has them.
fn reference_bits(name: &str) -> Option<u64> {
    let name: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
    Some(reference::Dtype::deserialize(name).ok()?.bitsize() as u64)
}

fn check(holds: bool, broken: ErrorKind) -> Result<(), ErrorKind> {
    holds.then_some(()).ok_or(broken)
}

fn all_differ<'a>(keys: impl Iterator<Item = &'a String>) -> bool {
    let mut seen = HashSet::new();
    keys.into_iter().all(|key| seen.insert(key))
}
