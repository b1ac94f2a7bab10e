// SPDX-License-Identifier: Apache-2.0
//! Headers over a megabyte are parsed by two threads; what comes out, and what
//! is refused, is what one pass over the text gives.

use reference::SafeTensors;
use safetensors::{Checkpoint, ErrorKind, OpenOptions};

/// A file of `count` one-byte tensors with a header over a megabyte.
fn file(count: usize, name: impl Fn(usize) -> String, metadata_at: Option<usize>) -> Vec<u8> {
    let mut entries: Vec<String> = (0..count)
        .map(|i| format!("\"{}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[{i},{}]}}", name(i), i + 1))
        .collect();
    if let Some(at) = metadata_at {
        entries.insert(at, "\"__metadata__\":{\"format\":\"pt\"}".into());
    }
    assemble(&format!("{{{}}}", entries.join(",")), count)
}

fn assemble(header: &str, data: usize) -> Vec<u8> {
    assert!(header.len() > 1 << 20);
    let bytes = (0..data).map(|i| i as u8);
    (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(bytes).collect()
}

fn open(bytes: Vec<u8>) -> safetensors::Result<Checkpoint> {
    Checkpoint::open_memory(bytes.leak(), &OpenOptions::default())
}

fn same_as_reference(bytes: Vec<u8>, what: &str) {
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    let ours = open(bytes.clone()).unwrap();
    assert_eq!(ours.tensors().len(), theirs.len(), "{what}");
    for tensor in ours.tensors() {
        let name = std::str::from_utf8(tensor.name()).unwrap();
        assert_eq!(tensor.data().unwrap(), theirs.tensor(name).unwrap().data(), "{what}: {name}");
        assert_eq!(ours.find(tensor.name()).map(|found| found.offset()), Some(tensor.offset()), "{what}: {name}");
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(ours.metadata().map(<[_]>::len), metadata.metadata().as_ref().map(|map| map.len()), "{what}");
}

const COUNT: usize = 30_000;

#[test]
fn both_halves_make_one_table() {
    let name = |i| format!("model.layers.{i}.weight");
    for metadata_at in [None, Some(0), Some(1), Some(COUNT - 1), Some(COUNT)] {
        same_as_reference(file(COUNT, name, metadata_at), &format!("{metadata_at:?}"));
    }
}

#[test]
fn names_that_look_like_the_end_of_an_entry() {
    same_as_reference(file(COUNT, |i| format!("model.layers.{i}]}},"), None), "ends like an entry");
    same_as_reference(file(COUNT, |i| format!("model.layers.{{{i}}}"), None), "braces");
    same_as_reference(file(COUNT, |i| format!("model.layers.{i}.\\u00e9\\\\\\\"]}},"), None), "escapes");
    same_as_reference(file(COUNT, |i| format!("model.{i}.\u{e9}"), Some(7)), "UTF-8");
}

#[test]
fn a_string_longer_than_half_the_header() {
    let bait = "x]},\\\"a\\\":{\\\"dtype\\\":\\\"U8\\\",\\\"shape\\\":[1],\\\"data_offsets\\\":[0,1]},".repeat(40_000);
    let header = format!(
        "{{\"__metadata__\":{{\"k\":\"{bait}\"}},\"]}},\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}}}"
    );
    same_as_reference(assemble(&header, 1), "bait");
}

#[test]
fn tensors_in_another_order_than_their_data() {
    let entry = |i: usize| format!("\"w{i:06}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[{i},{}]}}", i + 1);
    let entries: Vec<String> = (0..COUNT).rev().map(entry).collect();
    same_as_reference(assemble(&format!("{{{}}}", entries.join(",")), COUNT), "reversed");
}

#[test]
fn faults_in_either_half_are_those_of_one_pass() {
    let name = |i| format!("model.layers.{i}.weight");
    let kind = |bytes: Vec<u8>| open(bytes).map(|_| ()).unwrap_err();
    for at in [2, COUNT / 4, COUNT - 3] {
        let broken = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(&file(COUNT, name, None)[8..]).into_owned();
            let header = text.split_inclusive("]}").enumerate();
            let header: String = header.map(|(i, e)| if i == at { e.replace(from, to) } else { e.into() }).collect();
            let header = &header[..header.rfind("]}}").unwrap() + 3];
            kind(assemble(header, COUNT))
        };
        assert_eq!(broken("\"U8\"", "\"U9\"").kind(), ErrorKind::Dtype);
        assert_eq!(broken("[1]", "[2]").kind(), ErrorKind::SizeMismatch);
        assert_eq!(broken("\"shape\"", "shape").kind(), ErrorKind::HeaderJson);
        let twice = broken(&format!("layers.{at}."), "layers.9.");
        assert_eq!(twice.kind(), ErrorKind::DuplicateKey, "{twice}");
        assert!(broken("\"U8\"", "\"U9\"").to_string().contains(&format!("layers.{at}.")));
    }
}

#[test]
fn limits_count_both_halves() {
    let mut options = OpenOptions::default();
    let bytes = file(COUNT, |i| format!("model.layers.{i}.weight"), None).leak();
    options.limits.tensors = COUNT as u64;
    assert!(Checkpoint::open_memory(bytes, &options).is_ok());
    options.limits.tensors = COUNT as u64 - 1;
    let error = Checkpoint::open_memory(bytes, &options).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HeaderTooLarge);
}
