// SPDX-License-Identifier: Apache-2.0
//! The reference implementation's word on a file, and the list of cases where
//! the library departs from it on purpose.

use std::panic;

use reference::tensor::{SafeTensors, View};
use safetensors::ErrorKind;

use super::corpus::{entry_line, Contents, Tensor};
use super::model::{header, Node};

/// What the reference reads, or that it refuses. Metadata comes sorted.
pub(crate) fn verdict(file: &[u8]) -> Option<Contents> {
    // Sums near 2^64 overflow in it, which a debug build turns into a panic.
    let quiet = panic::catch_unwind(|| SafeTensors::deserialize(file).ok());
    let found = quiet.ok().flatten()?;
    let (_, info) = SafeTensors::read_metadata(file).ok()?;
    let lines = found.tensors().into_iter().map(|(name, view)| {
        let shape: Vec<_> = view.shape().iter().map(|dimension| *dimension as i64).collect();
        let offset = (View::data(&view).as_ptr() as usize).wrapping_sub(file.as_ptr() as usize) as u64;
        let dtype = view.dtype().to_string();
        Tensor { name: name.as_bytes(), dtype: dtype.as_bytes(), shape: &shape, shard: 0, offset, bytes: view.data() }
            .line()
    });
    let mut tensors: Vec<_> = lines.collect();
    tensors.sort();
    let metadata = info.metadata().as_ref().map(|map| {
        let mut lines: Vec<_> = map.iter().map(|(key, value)| entry_line(key.as_bytes(), value.as_bytes())).collect();
        lines.sort();
        lines
    });
    Some(Contents { tensors, metadata })
}

/// Where the reference accepts and the library refuses, and with what. There is
/// no case of the opposite.
pub(crate) const POLICY: &[(&str, ErrorKind, fn(&[(String, Node)]) -> bool)] = &[
    ("a tensor's entry is a JSON array of its fields", ErrorKind::HeaderJson, |entries| {
        tensors(entries).any(|entry| matches!(entry, Node::Array(_)))
    }),
    ("a tensor's name appears twice; the last one wins there", ErrorKind::DuplicateKey, |entries| equal_keys(entries)),
    ("a metadata key appears twice; the last one wins there", ErrorKind::DuplicateKey, |entries| {
        entries
            .iter()
            .any(|(name, value)| name == "__metadata__" && matches!(value, Node::Object(pairs) if equal_keys(pairs)))
    }),
    ("a dtype is an object of one entry", ErrorKind::Dtype, |entries| {
        fields(entries, "dtype").any(|dtype| matches!(dtype, Node::Object(_)))
    }),
    ("a dimension is over 2^63 - 1, beside one of 0", ErrorKind::Shape, |entries| {
        let large = |node: &Node| matches!(node, Node::Integer(value) if i64::try_from(*value).is_err());
        fields(entries, "shape").any(|shape| matches!(shape, Node::Array(dimensions) if dimensions.iter().any(large)))
    }),
];

/// The first reason that the library has to refuse what the reference accepts.
pub(crate) fn departure(file: &[u8]) -> Option<(&'static str, ErrorKind)> {
    let entries = header(file)?;
    POLICY.iter().find(|(_, _, applies)| applies(&entries)).map(|(why, status, _)| (*why, *status))
}

fn tensors(entries: &[(String, Node)]) -> impl Iterator<Item = &Node> {
    entries.iter().filter(|(name, _)| name != "__metadata__").map(|(_, value)| value)
}

fn fields<'a>(entries: &'a [(String, Node)], wanted: &'a str) -> impl Iterator<Item = &'a Node> {
    let of_entry = move |entry: &'a Node| match entry {
        Node::Object(fields) => fields.iter().filter(|(key, _)| key == wanted).map(|(_, value)| value).collect(),
        _ => Vec::new(),
    };
    tensors(entries).flat_map(of_entry)
}

fn equal_keys(entries: &[(String, Node)]) -> bool {
    let mut keys: Vec<_> = entries.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
