// SPDX-License-Identifier: Apache-2.0
//! What is written: the reference's bytes, read back by it and by us; what is
//! refused; pieces from several threads; shards.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use reference::tensor::{serialize, Dtype as TheirDtype, SafeTensors, TensorView};
use safetensors::writer::{self, MetadataEntry, Overwrite, SaveOptions, TensorOrder};
use safetensors::{Access, Checkpoint, Dtype, Error, ErrorKind, NewTensor, OpenOptions, Writer};

const DTYPES: &[(Dtype, TheirDtype)] = &[
    (Dtype::Bool, TheirDtype::BOOL),
    (Dtype::F4, TheirDtype::F4),
    (Dtype::F6E2M3, TheirDtype::F6_E2M3),
    (Dtype::F6E3M2, TheirDtype::F6_E3M2),
    (Dtype::U8, TheirDtype::U8),
    (Dtype::I8, TheirDtype::I8),
    (Dtype::F8E5M2, TheirDtype::F8_E5M2),
    (Dtype::F8E4M3, TheirDtype::F8_E4M3),
    (Dtype::F8E8M0, TheirDtype::F8_E8M0),
    (Dtype::F8E4M3Fnuz, TheirDtype::F8_E4M3FNUZ),
    (Dtype::F8E5M2Fnuz, TheirDtype::F8_E5M2FNUZ),
    (Dtype::I16, TheirDtype::I16),
    (Dtype::U16, TheirDtype::U16),
    (Dtype::F16, TheirDtype::F16),
    (Dtype::Bf16, TheirDtype::BF16),
    (Dtype::I32, TheirDtype::I32),
    (Dtype::U32, TheirDtype::U32),
    (Dtype::F32, TheirDtype::F32),
    (Dtype::C64, TheirDtype::C64),
    (Dtype::F64, TheirDtype::F64),
    (Dtype::I64, TheirDtype::I64),
    (Dtype::U64, TheirDtype::U64),
];

/// A tensor with bytes of its own.
#[derive(Clone, Debug)]
struct Owned {
    name: String,
    dtype: usize,
    shape: Vec<i64>,
    bytes: Vec<u8>,
}

impl Owned {
    /// The last dimension is widened until the bits are whole bytes.
    fn new(name: &str, dtype: usize, shape: &[i64], seed: u8) -> Self {
        let mut shape = shape.to_vec();
        let bits = u64::from(DTYPES[dtype].0.bits());
        let total = |shape: &[i64]| shape.iter().product::<i64>() as u64 * bits;
        if total(&shape) % 8 != 0 {
            match shape.last_mut() {
                Some(last) => *last *= 4,
                None => shape.push(4),
            }
        }
        // Without a period, so that bytes from the wrong place are others.
        let byte = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 ^ seed;
        let bytes = (0..total(&shape) / 8).map(byte).collect();
        Self { name: name.to_owned(), dtype, shape, bytes }
    }

    fn ours(&self) -> NewTensor<'_> {
        NewTensor::new(&self.name, DTYPES[self.dtype].0, &self.shape).unwrap().with_data(&self.bytes).unwrap()
    }
}

fn ours(tensors: &[Owned]) -> Vec<NewTensor<'_>> {
    tensors.iter().map(Owned::ours).collect()
}

fn theirs(tensors: &[Owned], metadata: Option<(&str, &str)>) -> Vec<u8> {
    let views = tensors.iter().map(|tensor| {
        let shape = tensor.shape.iter().map(|d| *d as usize).collect();
        (tensor.name.as_str(), TensorView::new(DTYPES[tensor.dtype].1, shape, &tensor.bytes).unwrap())
    });
    let metadata = metadata.map(|(key, value)| HashMap::from([(key.to_owned(), value.to_owned())]));
    serialize(views, metadata).unwrap()
}

fn save(
    path: &Path,
    tensors: &[Owned],
    metadata: Option<&[MetadataEntry<'_>]>,
    options: &SaveOptions,
) -> Result<(), Error> {
    writer::save(path, &ours(tensors), metadata, options, None, None)
}

fn in_memory(
    tensors: &[Owned],
    metadata: Option<&[MetadataEntry<'_>]>,
    options: &SaveOptions,
) -> Result<Vec<u8>, Error> {
    writer::serialize(&ours(tensors), metadata, options, None, None)
}

/// Every tensor is there, with its bytes.
fn same(checkpoint: &Checkpoint, tensors: &[Owned]) {
    assert_eq!(checkpoint.tensors().len(), tensors.len());
    for tensor in tensors {
        let found = checkpoint.get(tensor.name.as_bytes()).unwrap();
        assert_eq!((found.dtype(), found.shape()), (DTYPES[tensor.dtype].0, &tensor.shape[..]));
        assert!(found.data().unwrap() == tensor.bytes, "{}", tensor.name);
    }
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions::default()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn any_tensors() -> impl Strategy<Value = Vec<Owned>> {
    let name = prop_oneof![
        "[a-z.]{0,12}",
        "model\\.layers\\.[0-9]{1,3}\\.(up|down)",
        "(.|\\n|\\t|\"|\\\\|\\x00|\\x1f|é|𝄞){0,6}"
    ];
    let tensor = (name, 0..DTYPES.len(), prop::collection::vec(0_i64..5, 0..4), any::<u8>());
    prop::collection::vec(tensor, 0..30).prop_map(|given| {
        let mut seen = std::collections::HashSet::new();
        let unique = given.into_iter().filter(|(name, ..)| name != "__metadata__" && seen.insert(name.clone()));
        unique.map(|(name, dtype, shape, seed)| Owned::new(&name, dtype, &shape, seed)).collect()
    })
}

proptest! {
    #[test]
    fn bytes_are_the_references(tensors in any_tensors(), metadata in prop::option::of((".{0,9}", "(.|\\n|\"){0,9}"))) {
        let entry = metadata.as_ref().map(|(key, value)| (key.as_str(), value.as_str()));
        let entries = entry.map(|entry| vec![entry]);
        let options = SaveOptions::default();
        let expected = theirs(&tensors, entry);
        prop_assert!(in_memory(&tensors, entries.as_deref(), &options).unwrap() == expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let options = SaveOptions { sync: writer::Durability::Unsynced, ..options };
        save(&path, &tensors, entries.as_deref(), &options).unwrap();
        prop_assert!(fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn what_options_ask_for_is_read_back(
        tensors in any_tensors(),
        given in any::<bool>(),
        alignment in prop::sample::select(vec![0_u64, 8, 64, 256, 4096]),
        header_reserve in 0_u64..300,
        metadata in prop::option::of(prop::collection::btree_map(".{0,5}", ".{0,5}", 0..5)),
    ) {
        let order = if given { TensorOrder::Given } else { TensorOrder::Reference };
        let options = SaveOptions { order, alignment, header_reserve, ..SaveOptions::default() };
        let entries: Option<Vec<_>> = metadata.as_ref().map(|map| map.iter().rev().map(|(k, v)| (k.as_str(), v.as_str())).collect());
        let bytes = in_memory(&tensors, entries.as_deref(), &options).unwrap();
        let start = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap());
        prop_assert_eq!(start % alignment.max(8), 0);
        let text = &bytes[8..start as usize];
        prop_assert!(text.iter().rev().take_while(|byte| **byte == b' ').count() as u64 >= header_reserve);
        let (_, metadata_read) = SafeTensors::read_metadata(&bytes).unwrap();
        let kept = metadata_read.metadata().as_ref().map(|map| map.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
        prop_assert_eq!(kept, metadata.clone());
        let bytes: &'static [u8] = bytes.leak();
        let checkpoint = Checkpoint::open_memory(bytes, &OpenOptions::default()).unwrap();
        same(&checkpoint, &tensors);
        if given {
            let found: Vec<_> = checkpoint.tensors().iter().filter(|t| t.size() != 0).map(|t| t.name().to_vec()).collect();
            let wanted: Vec<_> = tensors.iter().filter(|t| !t.bytes.is_empty()).map(|t| t.name.clone().into_bytes()).collect();
            prop_assert_eq!(found, wanted);
        }
        let keys: Vec<_> = checkpoint.metadata().unwrap_or_default().iter().map(|entry| entry.key().to_vec()).collect();
        prop_assert!(keys.is_sorted());
    }
}

#[test]
fn every_dtype_and_odd_name_is_as_the_reference_has_it() {
    let mut tensors: Vec<_> =
        (0..DTYPES.len()).map(|dtype| Owned::new(&format!("t{dtype}"), dtype, &[2, 3], 7)).collect();
    tensors.extend((0..DTYPES.len()).map(|dtype| Owned::new(&format!("empty {dtype}"), dtype, &[0, 3], 7)));
    tensors.extend(
        (0..DTYPES.len())
            .filter(|d| DTYPES[*d].0.bits() >= 8)
            .map(|dtype| Owned::new(&format!("scalar {dtype}"), dtype, &[], 7)),
    );
    let odd = [
        "",
        "\0",
        "a\0b",
        "\u{7f}",
        "\u{2028}",
        "\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}",
        "𝄞é",
        "__metadata__x",
        "__metadata_",
    ];
    tensors.extend(odd.iter().map(|name| Owned::new(name, 4, &[1], 3)));
    tensors.push(Owned::new(&"long".repeat(70_000), 4, &[1], 3));
    let expected = theirs(&tensors, Some(("format", "pt")));
    assert!(in_memory(&tensors, Some(&[("format", "pt")]), &SaveOptions::default()).unwrap() == expected);
}

#[test]
fn nothing_at_all_can_be_written() {
    let options = SaveOptions::default();
    assert_eq!(in_memory(&[], None, &options).unwrap(), b"\x08\0\0\0\0\0\0\0{}      ");
    assert_eq!(in_memory(&[], Some(&[]), &options).unwrap(), b"\x18\0\0\0\0\0\0\0{\"__metadata__\":{}}     ");
    let one = [Owned::new("a", 4, &[], 1)];
    assert!(in_memory(&one, Some(&[]), &options)
        .unwrap()
        .starts_with(b"\x48\0\0\0\0\0\0\0{\"__metadata__\":{},\"a\":{"));
}

fn refusal(result: Result<impl Sized, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("was not refused"),
        Err(error) => error.kind(),
    }
}

#[test]
fn what_could_not_be_read_back_is_refused() {
    let new = |name, dtype, shape| NewTensor::new(name, dtype, shape);
    assert_eq!(refusal(new("__metadata__", Dtype::U8, &[])), ErrorKind::InvalidArgument);
    assert_eq!(refusal(new("a", Dtype::F4, &[3])), ErrorKind::SubByte);
    assert_eq!(refusal(new("a", Dtype::F6E2M3, &[])), ErrorKind::SubByte);
    assert_eq!(refusal(new("a", Dtype::U8, &[2, -1])), ErrorKind::Shape);
    assert_eq!(refusal(new("a", Dtype::U8, &[i64::MAX, 3, 0])), ErrorKind::Shape);
    assert_eq!(refusal(new("a", Dtype::F64, &[i64::MAX])), ErrorKind::Shape);
    assert_eq!(refusal(new("a", Dtype::Unknown, &[1])), ErrorKind::Unsupported);
    assert_eq!(refusal(new("a", Dtype::U8, &[3]).unwrap().with_data(&[1, 2])), ErrorKind::SizeMismatch);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let write = |tensors: &[NewTensor<'_>], metadata: Option<&[MetadataEntry<'_>]>, options: &SaveOptions| {
        let found = refusal(writer::save(&path, tensors, metadata, options, None, None));
        assert_eq!(refusal(writer::serialize(tensors, metadata, options, None, None)), found);
        assert!(names(folder.path()).is_empty());
        found
    };
    let (a, default) = (Owned::new("a", 4, &[], 1), SaveOptions::default());
    let other = Owned::new("a", 17, &[], 1);
    assert_eq!(write(&[a.ours(), other.ours()], None, &default), ErrorKind::DuplicateKey);
    assert_eq!(write(&[a.ours()], Some(&[("k", "1"), ("l", ""), ("k", "2")]), &default), ErrorKind::DuplicateKey);
    assert_eq!(write(&[new("a", Dtype::U8, &[1]).unwrap()], None, &default), ErrorKind::InvalidArgument);
    let huge = "x".repeat(100_000_000);
    assert_eq!(write(&[new(&huge, Dtype::U8, &[0]).unwrap()], None, &default), ErrorKind::HeaderTooLarge);
    for options in
        [SaveOptions { header_reserve: 100_000_000, ..default }, SaveOptions { header_reserve: u64::MAX, ..default }]
    {
        assert_eq!(write(&[a.ours()], None, &options), ErrorKind::HeaderTooLarge);
    }
    for alignment in [1, 7, 24, u64::MAX] {
        assert_eq!(write(&[a.ours()], None, &SaveOptions { alignment, ..default }), ErrorKind::InvalidArgument);
    }
    let most = [i64::MAX / 4];
    let many = ["a", "b", "c", "d", "e"].map(|name| new(name, Dtype::U8, &most).unwrap());
    assert_eq!(refusal(Writer::open(&path, &many, None, &default)), ErrorKind::Shape);
}

#[test]
fn the_largest_header_is_read_back() {
    // {"x…":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}} and the text around the name.
    let name = "x".repeat(100_000_000 - 54);
    let tensor = NewTensor::new(&name, Dtype::U8, &[0]).unwrap();
    let bytes = writer::serialize(&[tensor], None, &SaveOptions::default(), None, None).unwrap();
    assert_eq!(bytes.len(), 100_000_008);
    assert_eq!(Checkpoint::open_memory(bytes.leak(), &OpenOptions::default()).unwrap().tensors().len(), 1);
    let name = name + "xxxx";
    let tensor = NewTensor::new(&name, Dtype::U8, &[0]).unwrap();
    let result = writer::serialize(&[tensor], None, &SaveOptions::default(), None, None);
    assert_eq!(refusal(result), ErrorKind::HeaderTooLarge);
}

/// Large enough for every way of writing: gathered, straight, past the cache.
fn large() -> Vec<Owned> {
    let mut tensors = vec![Owned::new("big", 4, &[41_000_001], 3), Owned::new("mid", 17, &[1000, 333], 5)];
    tensors.extend((0..3000).map(|i| Owned::new(&format!("small.{i}"), 14, &[i % 90, 7], i as u8)));
    tensors
}

#[test]
fn all_ways_of_writing_give_the_same_bytes() {
    let tensors = large();
    let expected = theirs(&tensors, None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for sync in [writer::Durability::Synced, writer::Durability::Unsynced] {
        let options = SaveOptions { sync, ..SaveOptions::default() };
        save(&path, &tensors, None, &options).unwrap();
        assert!(fs::read(&path).unwrap() == expected, "{sync:?}");
        for access in [Access::Read, Access::Map] {
            let source = Checkpoint::open(&path, &OpenOptions { access, ..OpenOptions::default() }).unwrap();
            let records = source.tensors().iter().map(|record| {
                let name = std::str::from_utf8(record.name()).unwrap();
                NewTensor::new(name, record.dtype(), record.shape()).unwrap().with_source(&source, record).unwrap()
            });
            let records: Vec<_> = records.collect();
            // Over its own source, too: the old file lives on under its handle.
            writer::save(&path, &records, None, &options, Some(&source), None).unwrap();
            assert!(fs::read(&path).unwrap() == expected, "{sync:?} {access:?}");
            assert!(writer::serialize(&records, None, &options, Some(&source), None).unwrap() == expected);
            assert_eq!(refusal(writer::save(&path, &records, None, &options, None, None)), ErrorKind::InvalidArgument);
        }
    }
    assert_eq!(names(folder.path()), ["m.safetensors"]);
}

#[test]
fn progress_counts_every_byte_and_can_stop() {
    let tensors = large();
    let all: u64 = tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, "old").unwrap();
    for sync in [writer::Durability::Synced, writer::Durability::Unsynced] {
        let options = SaveOptions { sync, ..SaveOptions::default() };
        let run = |stop_at: u64| {
            let mut told = Vec::new();
            let mut progress = |done, total| {
                told.push((done, total));
                done < stop_at
            };
            let result = writer::save(&path, &ours(&tensors), None, &options, None, Some(&mut progress));
            (result, told)
        };
        for stop_at in [1, all / 2, all] {
            assert_eq!(refusal(run(stop_at).0), ErrorKind::Cancelled);
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(names(folder.path()), ["m.safetensors"]);
        }
        let (result, told) = run(u64::MAX);
        result.unwrap();
        assert!(told.is_sorted() && told.iter().all(|(_, total)| *total == all));
        assert_eq!(told.iter().filter(|(done, _)| *done == all).count(), 1);
        fs::write(&path, "old").unwrap();
    }
}

/// Only tensors count: a header as long as they are is written before the first of them is done.
#[test]
fn progress_counts_no_header() {
    const STEP: u64 = 1 << 16;
    let (bytes, shape) = (vec![7; 48 << 20], [48 << 20]);
    let tensor = NewTensor::new("w", Dtype::U8, &shape).unwrap().with_data(&bytes).unwrap();
    let long = "m".repeat(9_000_001);
    let metadata: [(&str, &str); 1] = [("k", &long)];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let all = bytes.len() as u64;
    let header =
        writer::serialize(&[tensor], Some(&metadata), &SaveOptions::default(), None, None).unwrap().len() as u64 - all;
    let (unsynced, mut told) = (writer::Durability::Unsynced, Vec::new());
    let in_cache = SaveOptions { sync: unsynced, ..SaveOptions::default() };
    let mut progress = |done, total| {
        told.push((done, total));
        true
    };
    writer::save(&path, &[tensor], Some(&metadata), &in_cache, None, Some(&mut progress)).unwrap();
    writer::save_to(&mut |_| Ok(()), &[tensor], Some(&metadata), &in_cache, None, Some(&mut progress)).unwrap();
    writer::serialize(&[tensor], Some(&metadata), &in_cache, None, Some(&mut progress)).unwrap();
    // The header's length is no multiple of a step, and so would be all that is told after it.
    assert!(header % 8 == 0 && header % STEP != 0, "{header}");
    assert!(told.len() > 5 && told.iter().all(|(done, total)| done % STEP == 0 && *total == all), "{told:?}");
}

#[test]
fn pieces_from_four_threads_make_the_file() {
    let tensors: Vec<_> = (0..40)
        .map(|i| Owned::new(&format!("t{i}"), i % DTYPES.len(), &[4, 4, (i as i64 % 7) * 50], i as u8))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let declared: Vec<_> =
        tensors.iter().map(|t| NewTensor::new(&t.name, DTYPES[t.dtype].0, &t.shape).unwrap()).collect();
    for max_shard_size in [0, 3000] {
        let options = SaveOptions { max_shard_size, ..SaveOptions::default() };
        let writer = Writer::open(&path, &declared, Some(&[("format", "pt")]), &options).unwrap();
        drop(declared.clone());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (writer, tensors) = (&writer, &tensors);
                scope.spawn(move || {
                    for (number, tensor) in tensors.iter().enumerate().rev() {
                        // Every thread has pieces of every tensor, the last ones first.
                        for (piece, bytes) in tensor.bytes.chunks(97).enumerate().rev() {
                            if piece % 4 == thread {
                                writer.write(number, piece as u64 * 97, bytes).unwrap();
                            }
                        }
                    }
                });
            }
        });
        assert!(!path.exists());
        writer.finish().unwrap();
        assert_eq!(refusal(writer.finish()), ErrorKind::InvalidArgument);
        assert_eq!(refusal(writer.write(1, 0, &[1])), ErrorKind::InvalidArgument);
        match max_shard_size {
            0 => assert!(fs::read(&path).unwrap() == theirs(&tensors, Some(("format", "pt")))),
            _ => same(&open(&folder.path().join("m.safetensors.index.json")), &tensors),
        }
        drop(writer);
        fs::remove_file(&path).ok();
    }
}

#[test]
fn a_stream_says_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let new = |name, shape| NewTensor::new(name, Dtype::U8, shape).unwrap();
    let tensors = [new("weight", &[10]), new("bias", &[4]), new("none", &[0])];
    let writer = Writer::open(&path, &tensors, None, &SaveOptions::default()).unwrap();
    writer.write(0, 2, &[0; 4]).unwrap();
    for (tensor, offset, len) in
        [(0, 2, 4), (0, 0, 3), (0, 5, 1), (0, 0, 10), (0, 8, 3), (0, 11, 0), (0, u64::MAX, 2), (3, 0, 0), (2, 0, 1)]
    {
        let found = refusal(writer.write(tensor, offset, &vec![1; len]));
        assert_eq!(found, ErrorKind::InvalidArgument, "{tensor} {offset} {len}");
    }
    writer.write(0, 10, &[]).unwrap();
    writer.write(2, 0, &[]).unwrap();
    writer.write(0, 0, &[0; 2]).unwrap();
    writer.write(1, 0, &[0; 4]).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataNotCovered);
    assert!(error.to_string().contains("\"weight\": of its 10 bytes 6 to 10"), "{error}");
    writer.write(0, 6, &[0; 4]).unwrap();
    writer.finish().unwrap();
    assert_eq!(names(folder.path()), ["m.safetensors"]);
    let unfinished = Writer::open(&path, &tensors, None, &SaveOptions::default()).unwrap();
    assert_eq!(names(folder.path()).len(), 2);
    drop(unfinished);
    assert_eq!(names(folder.path()), ["m.safetensors"]);
}

#[test]
fn shards_are_filled_in_order_and_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let sizes = [("b", 60), ("a", 30), ("huge", 500), ("c", 40), ("d\u{e9}\"", 50), ("e", 0), ("f", 20)];
    let tensors: Vec<_> = sizes.iter().map(|(name, size)| Owned::new(name, 4, &[*size], 9)).collect();
    let options = SaveOptions { max_shard_size: 100, ..SaveOptions::default() };
    save(&path, &tensors, Some(&[("format", "pt")]), &options).unwrap();
    // By name: a 30, b 60 | c 40, dé" 50, e 0 | f 20 … "huge" by itself.
    let expected = "{\n  \"metadata\": {\n    \"total_size\": 700\n  },\n  \"weight_map\": {\n    \
        \"a\": \"net-00001-of-00004.safetensors\",\n    \"b\": \"net-00001-of-00004.safetensors\",\n    \
        \"c\": \"net-00002-of-00004.safetensors\",\n    \"d\\u00e9\\\"\": \"net-00002-of-00004.safetensors\",\n    \
        \"e\": \"net-00002-of-00004.safetensors\",\n    \"f\": \"net-00003-of-00004.safetensors\",\n    \
        \"huge\": \"net-00004-of-00004.safetensors\"\n  }\n}\n";
    assert_eq!(fs::read_to_string(folder.path().join("net.safetensors.index.json")).unwrap(), expected);
    assert_eq!(names(folder.path()).len(), 5);
    let checkpoint = open(folder.path());
    same(&checkpoint, &tensors);
    assert_eq!(checkpoint.shards().len(), 4);
    for number in 1..=4 {
        let bytes = fs::read(folder.path().join(format!("net-0000{number}-of-00004.safetensors"))).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    }
    // Nothing is replaced where that is refused, be it one shard of several.
    fs::remove_file(folder.path().join("net-00001-of-00004.safetensors")).unwrap();
    let refuse = SaveOptions { overwrite: Overwrite::Refuse, ..options };
    let error = save(&path, &tensors, None, &refuse).unwrap_err();
    assert_eq!((error.kind(), error.os_errno()), (ErrorKind::Io, libc::EEXIST));
    assert_eq!(names(folder.path()).len(), 4);

    let one = tempfile::tempdir().unwrap();
    let path = one.path().join("net.safetensors");
    save(&path, &tensors, None, &SaveOptions { max_shard_size: 700, ..options }).unwrap();
    assert_eq!(names(one.path()), ["net.safetensors"]);
    assert!(fs::read(&path).unwrap() == theirs(&tensors, None));
    assert_eq!(refusal(in_memory(&tensors, None, &options)), ErrorKind::Unsupported);
    assert_eq!(refusal(save(&one.path().join("net.bin"), &tensors, None, &options)), ErrorKind::InvalidArgument);
}

#[test]
fn a_sharded_checkpoint_is_copied_from_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: Vec<_> = (0..9).map(|i| Owned::new(&format!("t{i}"), i, &[8, 40], i as u8)).collect();
    let options = SaveOptions { max_shard_size: 900, ..SaveOptions::default() };
    save(&folder.path().join("model.safetensors"), &tensors, None, &options).unwrap();
    for access in [Access::Read, Access::Map] {
        let source = Checkpoint::open(folder.path(), &OpenOptions { access, ..OpenOptions::default() }).unwrap();
        assert!(source.shards().len() > 2);
        let records = source.tensors().iter().map(|record| {
            let name = std::str::from_utf8(record.name()).unwrap();
            NewTensor::new(name, record.dtype(), record.shape()).unwrap().with_source(&source, record).unwrap()
        });
        let records: Vec<_> = records.collect();
        let path = folder.path().join("copy");
        writer::save(&path, &records, None, &SaveOptions::default(), Some(&source), None).unwrap();
        assert!(fs::read(&path).unwrap() == theirs(&tensors, None));
    }
}

/// Enough for all that is done by two threads: sorting, spelling, errors.
#[test]
fn many_tensors_are_as_the_reference_has_them() {
    let name = |i: usize| format!("{}.layers.{}.{}", ["model", "m\u{e9}\"", ""][i % 3], i % 61, i * 7919 % 20_011);
    let many: Vec<_> =
        (0..20_000).map(|i| Owned::new(&name(i), i * 31 % DTYPES.len(), &[i as i64 % 5, 2], i as u8)).collect();
    let same_dtype: Vec<_> = (0..9000).map(|i| Owned::new(&name(i), 14, &[2], i as u8)).collect();
    for mut tensors in [many, same_dtype] {
        let expected = theirs(&tensors, Some(("a", "b")));
        let options = SaveOptions::default();
        assert!(in_memory(&tensors, Some(&[("a", "b")]), &options).unwrap() == expected);
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(in_memory(&tensors, Some(&[("a", "b")]), &options).unwrap() == expected);
        let again = tensors[100].name.clone();
        tensors.last_mut().unwrap().name = again;
        let error = in_memory(&tensors, None, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DuplicateKey);
        let numbers = format!("as number 100 and as number {}", tensors.len() - 1);
        assert!(error.to_string().contains(&numbers), "{error}");
    }
}

/// Whatever is at the path, a save with a shard size takes its place whole.
#[test]
fn a_set_takes_the_place_of_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let others = [
        "model-00001-of-00002.safetensors.bak",
        "model-1-of-2.safetensors",
        "model-2.safetensors",
        "other-00001-of-00002.safetensors",
    ];
    for name in others {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    let tensors = |seed: u8| -> Vec<_> { ["a", "b", "c", "d"].map(|name| Owned::new(name, 4, &[100], seed)).into() };
    let save = |seed: u8, max_shard_size, overwrite| {
        let options =
            SaveOptions { max_shard_size, overwrite, sync: writer::Durability::Unsynced, ..SaveOptions::default() };
        save(&path, &tensors(seed), None, &options)
    };
    for (seed, max_shard_size, shards) in
        [(1, 100, 4), (2, 200, 2), (3, 100, 4), (4, 100, 4), (5, 400, 1), (6, 200, 2), (7, 1000, 1), (8, 300, 2)]
    {
        save(seed, max_shard_size, Overwrite::Replace).unwrap();
        same(&open(folder.path()), &tensors(seed));
        let files = if shards == 1 { 1 } else { shards + 1 };
        assert_eq!(names(folder.path()).len(), others.len() + files, "{:?}", names(folder.path()));
        for max_shard_size in [100, 200, 1000, 0] {
            let refused = save(99, max_shard_size, Overwrite::Refuse);
            assert_eq!(refused.unwrap_err().os_errno(), libc::EEXIST);
        }
        same(&open(folder.path()), &tensors(seed));
    }
    // Without a shard size too.
    save(9, 0, Overwrite::Replace).unwrap();
    same(&open(&path), &tensors(9));
    assert_eq!(names(folder.path()).len(), others.len() + 1);
}

/// The total of the index is its own, whatever a copied one said.
#[test]
fn a_copied_total_is_not_taken_for_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: Vec<_> = (0..3).map(|i| Owned::new(&format!("t{i}"), 4, &[100], i)).collect();
    let options = SaveOptions { max_shard_size: 100, ..SaveOptions::default() };
    let path = folder.path().join("model.safetensors");
    save(&path, &tensors, Some(&[("format", "pt")]), &options).unwrap();
    let source = open(folder.path());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entries: Vec<_> = source.metadata().unwrap().iter().map(|e| (text(e.key()), text(e.value()))).collect();
    assert_eq!(entries, [("total_size".into(), "300".into()), ("format".into(), "pt".into())]);
    let entries: Vec<_> = entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    save(&path, &tensors[..2], Some(&entries), &options).unwrap();
    let copied: Vec<_> =
        open(folder.path()).metadata().unwrap().iter().map(|e| (text(e.key()), text(e.value()))).collect();
    assert_eq!(copied, [("total_size".into(), "200".into()), ("format".into(), "pt".into())]);
}

#[test]
fn metadata_is_changed_where_it_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let tensors = [Owned::new("a", 4, &[5000], 1), Owned::new("b\n", 17, &[3, 0], 1), Owned::new("c", 17, &[], 1)];
    let options = SaveOptions { header_reserve: 64, ..SaveOptions::default() };
    save(&path, &tensors, Some(&[("format", "pt")]), &options).unwrap();
    let before = fs::read(&path).unwrap();
    let edit = |metadata: Option<&[MetadataEntry<'_>]>, in_place| {
        writer::set_metadata(&path, metadata, &writer::EditOptions { in_place, ..Default::default() })
    };
    let long = "v".repeat(5000);
    // Where blocks can be shared everything works; here is what must hold where not.
    match edit(Some(&[("note", "x")]), false) {
        Ok(()) => edit(Some(&[("long", &long)]), false).unwrap(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            let error = edit(Some(&[("long", &long)]), true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BufferSize);
            let room = u64::from_le_bytes(*before.first_chunk().unwrap());
            assert!(error.to_string().contains(&format!("there is room for {room}")), "{error}");
        }
    }
    assert!(fs::read(&path).unwrap() == before);
    edit(Some(&[("note", "x"), ("a", "b")]), true).unwrap();
    same(&open(&path), &tensors);
    let entries: Vec<_> =
        open(&path).metadata().unwrap().iter().map(|e| (e.key().to_vec(), e.value().to_vec())).collect();
    assert_eq!(entries, [(b"a".to_vec(), b"b".to_vec()), (b"note".to_vec(), b"x".to_vec())]);
    edit(None, true).unwrap();
    assert!(open(&path).metadata().is_none());
    edit(Some(&[("format", "pt")]), true).unwrap();
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(names(folder.path()), ["m.safetensors"]);
    let missing = writer::set_metadata(&folder.path().join("no"), None, &Default::default()).unwrap_err();
    assert_eq!((missing.kind(), missing.os_errno()), (ErrorKind::Io, libc::ENOENT));
}
