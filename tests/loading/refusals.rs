// SPDX-License-Identifier: Apache-2.0
//! What st_load, st_load_plan and st_prefetch refuse, and that they do before the
//! first byte is read; what prefetching brings; and that plans cost no reads.

use std::ffi::c_void;
use std::fs;
use std::ptr::{null, null_mut, without_provenance_mut};

use crate::support::callbacks::Reader;
use crate::support::handle::{init_options, open_io, open_map, open_memory, open_read, ErrorSlot, Failure, Handle};
use crate::support::load::{init_load, init_sink, item_into, item_of, load, plan};
use crate::support::{self, child};
use crate::support::{file, file_of, pattern};
use safetensors::ffi::*;
use safetensors::record::{st_range, st_tensor};

const OK: &str = "ST_OK";
const BAD: &str = "ST_ERROR_INVALID_ARGUMENT";
const ROOM: &str = "ST_ERROR_BUFFER_SIZE";
const CANNOT: &str = "ST_ERROR_UNSUPPORTED";
const SUB_BYTE: &str = "ST_ERROR_SUB_BYTE";

/// A checkpoint of "m" (U8, 4 x 6), "h" (BF16, 2 x 3), "f" (F4, 2 x 4), "z" (U8,
/// empty), "c" (C64, one), and a reader that counts.
fn made() -> (Handle, Reader) {
    let header = r#"{"m":{"dtype":"U8","shape":[4,6],"data_offsets":[0,24]},
        "h":{"dtype":"BF16","shape":[2,3],"data_offsets":[24,36]},
        "f":{"dtype":"F4","shape":[2,4],"data_offsets":[36,40]},
        "z":{"dtype":"U8","shape":[3,0],"data_offsets":[40,40]},
        "c":{"dtype":"C64","shape":[],"data_offsets":[40,48]}}"#;
    let reader = Reader::new(file(header, &pattern(48)));
    let from = open_io(&reader.io(), &init_options()).unwrap();
    (from, reader)
}

fn tensor<'a>(from: &'a Handle, name: &str) -> &'a st_tensor {
    from.tensors().iter().find(|tensor| tensor.name() == name.as_bytes()).unwrap()
}

/// Loads and plans, which have to agree; a refusal costs no read and writes nothing.
fn said(from: &Handle, reader: &Reader, items: &[st_load_item], options: &st_load_options) -> (&'static str, String) {
    let before = reader.counts.reads();
    let planned = plan(from, items, options).map(|_| ());
    assert_eq!(reader.counts.reads(), before, "a plan reads nothing");
    let loaded = load(from, items, options);
    assert_eq!(loaded, planned);
    match loaded {
        Ok(()) => (OK, String::new()),
        Err(failure) => {
            assert_eq!(reader.counts.reads(), before, "refused after the first read: {}", failure.message);
            (failure.status(), failure.message)
        }
    }
}

#[track_caller]
fn expect(found: &(&str, String), status: &str, words: &[&str]) {
    assert_eq!(found.0, status, "{}", found.1);
    assert!(words.iter().all(|word| found.1.contains(word)), "{words:?}: {}", found.1);
}

/// Destinations for "m" in one piece of memory: start, size and strides of each.
fn places(given: &[(usize, usize, Option<[i64; 2]>)]) -> (&'static str, String) {
    let (from, reader) = made();
    let mut memory = vec![0x77_u8; 400];
    let start = memory.as_mut_ptr();
    let items: Vec<_> = given
        .iter()
        .map(|(at, size, strides)| st_load_item {
            dst: start.wrapping_add(*at).cast(),
            dst_size: *size,
            dst_strides: strides.as_ref().map_or(null(), |strides| strides.as_ptr()),
            ..item_of(tensor(&from, "m"))
        })
        .collect();
    let found = said(&from, &reader, &items, &init_load());
    if found.0 != OK {
        assert!(memory.iter().all(|byte| *byte == 0x77), "written in spite of a refusal");
    }
    found
}

#[test]
fn destinations_that_share_a_byte_are_refused() {
    let words = ["item 0", "item 1", "\"m\"", "overlap"];
    // Dense: side by side is fine, on top of one another is not.
    expect(&places(&[(0, 24, None), (24, 24, None)]), OK, &[]);
    expect(&places(&[(24, 24, None), (0, 24, None)]), OK, &[]);
    expect(&places(&[(0, 24, None), (23, 24, None)]), BAD, &words);
    expect(&places(&[(23, 24, None), (0, 24, None)]), BAD, &words);
    expect(&places(&[(5, 24, None), (5, 24, None)]), BAD, &words);
    expect(&places(&[(100, 24, None), (0, 24, None), (110, 24, None)]), BAD, &["item 0", "item 2", "overlap"]);
    // More room than is needed may overlap: it is not written to.
    expect(&places(&[(0, 300, None), (24, 200, None)]), OK, &[]);
    // Rows of 6 in places of 12 or 13: two of them interleave.
    let rows = |at, stride| (at, 300, Some([stride, 1]));
    expect(&places(&[rows(0, 12), rows(6, 12)]), OK, &[]);
    expect(&places(&[rows(6, 12), rows(0, 12)]), OK, &[]);
    expect(&places(&[rows(0, 12), rows(5, 12)]), BAD, &words);
    expect(&places(&[rows(0, 12), rows(7, 12)]), BAD, &words);
    expect(&places(&[rows(0, 13), rows(6, 12)]), BAD, &words);
    expect(&places(&[rows(0, 18), rows(6, 18), rows(12, 18)]), OK, &[]);
    expect(&places(&[rows(0, 18), rows(12, 18), rows(7, 18)]), BAD, &["item 1", "item 2"]);
    expect(&places(&[rows(0, 12), rows(0, 12)]), BAD, &words);
    // A dense one in a hole of a strided one, and one that is too large for it.
    expect(&places(&[rows(0, 50), (10, 24, None)]), OK, &[]);
    expect(&places(&[rows(0, 50), (6, 24, None), (76, 24, None)]), OK, &[]);
    expect(&places(&[rows(0, 50), (27, 24, None)]), BAD, &words);
    expect(&places(&[(27, 24, None), rows(0, 50)]), BAD, &words);
    // Columns of single bytes between one another.
    let columns = |at| (at, 200, Some([2, 10]));
    expect(&places(&[columns(0), columns(1)]), OK, &[]);
    expect(&places(&[columns(0), columns(2)]), BAD, &words);
    // Far apart within a long one: the holes of the first are long over.
    expect(&places(&[rows(0, 90), rows(300, 6), (100, 24, None), (210, 24, None)]), OK, &[]);
}

#[test]
fn strides_have_to_leave_room() {
    let one = |strides: [i64; 2], size| places(&[(0, size, Some(strides))]);
    expect(&one([6, 1], 24), OK, &[]);
    expect(&one([1, 4], 24), OK, &[]);
    expect(&one([7, 1], 27), OK, &[]);
    expect(&one([7, 1], 26), ROOM, &["item 0", "\"m\"", "27", "26"]);
    expect(&one([1, 5], 28), ROOM, &["29", "28"]);
    expect(&one([1, 5], 29), OK, &[]);
    for strides in [[5, 1], [0, 1], [6, 0], [1, 3], [1, 1], [2, 2], [1, 0]] {
        expect(&one(strides, 300), BAD, &["item 0", "\"m\"", "dst_strides"]);
    }
    for strides in [[-6, 1], [6, -1], [i64::MIN, 1]] {
        expect(&one(strides, 300), BAD, &["dst_strides", "below 0"]);
    }
    for strides in [[i64::MAX, 1], [i64::MAX / 3, 1], [1, i64::MAX]] {
        let found = one(strides, 300);
        assert!([BAD, ROOM].contains(&found.0), "{found:?}");
    }
    // A dimension of one needs no stride; one of none has no place at all.
    let (from, reader) = made();
    let mut memory = [0_u8; 64];
    let row = [st_range { start: 1, stop: 2, step: 1 }];
    let strides = [0_i64, 3];
    let mut item = item_into(tensor(&from, "m"), &mut memory);
    (item.ranges, item.range_count, item.dst_strides) = (row.as_ptr(), 1, strides.as_ptr());
    expect(&said(&from, &reader, &[item], &init_load()), OK, &[]);
    assert_eq!((memory[0], memory[3], memory[15]), (pattern(48)[6], pattern(48)[7], pattern(48)[11]));
    let mut nothing = item_into(tensor(&from, "z"), &mut []);
    nothing.dst_strides = strides.as_ptr();
    expect(&said(&from, &reader, &[nothing], &init_load()), OK, &[]);
}

#[test]
fn elements_below_a_byte_are_packed() {
    let (from, reader) = made();
    let mut memory = [0_u8; 64];
    let strided = |memory: &mut [u8], strides: &[i64; 2], dtype| {
        let mut item = item_into(tensor(&from, "f"), memory);
        (item.dst_strides, item.dtype) = (strides.as_ptr(), dtype);
        said(&from, &reader, &[item], &init_load())
    };
    expect(&strided(&mut memory, &[2, 0], 0), OK, &[]);
    expect(&strided(&mut memory, &[5, 0], 0), OK, &[]);
    assert_eq!([&memory[..2], &memory[5..7]].concat(), pattern(48)[36..40]);
    expect(&strided(&mut memory, &[2, 1], 0), BAD, &["dst_strides", "4 bits", "packed"]);
    expect(&strided(&mut memory, &[1, 0], 0), BAD, &["dst_strides"]);
    // Converted they are elements like others.
    expect(&strided(&mut memory, &[4, 8], ST_DTYPE_F32), OK, &[]);
    let mut item = item_into(tensor(&from, "f"), &mut memory);
    let odd = [st_range { start: 0, stop: 2, step: 1 }, st_range { start: 0, stop: 3, step: 1 }];
    (item.ranges, item.range_count) = (odd.as_ptr(), 2);
    expect(&said(&from, &reader, &[item], &init_load()), SUB_BYTE, &["item 0", "\"f\"", "F4"]);
}

#[test]
fn items_are_checked_one_by_one() {
    let (from, reader) = made();
    let mut memory = [0_u8; 64];
    let good = item_into(tensor(&from, "m"), &mut memory);
    let second = |change: &dyn Fn(&mut st_load_item)| {
        let mut other = [0_u8; 256];
        let mut item = item_into(tensor(&from, "h"), &mut other);
        change(&mut item);
        said(&from, &reader, &[good, item], &init_load())
    };
    expect(&second(&|_| ()), OK, &[]);
    expect(&second(&|item| item.dst_size = 11), ROOM, &["item 1", "\"h\"", "12 bytes", "11"]);
    expect(&second(&|item| (item.dst_size, item.dtype) = (23, ST_DTYPE_F32)), ROOM, &["24", "23"]);
    expect(&second(&|item| (item.dst_size, item.dtype) = (24, ST_DTYPE_F32)), OK, &[]);
    expect(&second(&|item| item.dst = null_mut()), BAD, &["item 1", "\"h\"", "dst is NULL"]);
    expect(&second(&|item| item.dst_size = usize::MAX), BAD, &["item 1", "dst_size"]);
    expect(&second(&|item| item.dst = without_provenance_mut(usize::MAX - 100)), BAD, &["item 1", "dst_size"]);
    expect(&second(&|item| item.tensor = null()), BAD, &["item 1", "tensor is NULL"]);
    expect(&second(&|item| item.range_count = 1), BAD, &["item 1", "ranges"]);
    for (start, stop, step) in [(0, 3, 1), (2, 1, 1), (0, 1, 0), (0, 1, -1), (-3, 1, 1)] {
        let ranges = [st_range { start, stop, step }];
        let found = second(&|item| (item.ranges, item.range_count) = (ranges.as_ptr(), 1));
        expect(&found, BAD, &["item 1", "\"h\"", "dimension 0"]);
    }
    let three = [st_range { start: 0, stop: 1, step: 1 }; 3];
    let found = second(&|item| (item.ranges, item.range_count) = (three.as_ptr(), 3));
    expect(&found, BAD, &["item 1", "3 ranges", "2 dimensions"]);
    expect(&second(&|item| item.dtype = 99), BAD, &["item 1", "99"]);
    expect(&second(&|item| item.dtype = -1), BAD, &["item 1", "-1"]);
    expect(&second(&|item| item.dtype = ST_DTYPE_I8), CANNOT, &["item 1", "\"h\"", "BF16", "I8"]);
    expect(&second(&|item| item.dtype = ST_DTYPE_UNKNOWN), CANNOT, &["item 1"]);
    expect(&second(&|item| (item.tensor, item.dtype) = (tensor(&from, "c"), ST_DTYPE_F32)), CANNOT, &["C64"]);
    expect(&second(&|item| (item.tensor, item.dtype) = (tensor(&from, "c"), ST_DTYPE_C64)), OK, &[]);
    expect(&second(&|item| item.reserved0 = 1), CANNOT, &["item 1", "st_load_item"]);
    for i in 0..3 {
        expect(&second(&|item| item.reserved[i] = 1), CANNOT, &["item 1", "st_load_item"]);
    }
    expect(&second(&|item| item.user_data = without_provenance_mut(5)), OK, &[]);
    // Nothing to be written needs no place, and goes nowhere.
    expect(&second(&|item| (item.tensor, item.dst) = (tensor(&from, "z"), null_mut())), OK, &[]);
    let foreign = file_of(&["h"], 12);
    let other = open_memory(&foreign, &init_options()).unwrap();
    expect(&second(&|item| item.tensor = tensor(&other, "h")), BAD, &["item 1", "not one of this"]);
    // A copy of a record is as good as the record.
    // SAFETY: plain memory.
    let copy: st_tensor = unsafe { std::ptr::from_ref(tensor(&from, "h")).read() };
    expect(&second(&|item| item.tensor = &raw const copy), OK, &[]);
    expect(&said(&from, &reader, &[], &init_load()), OK, &[]);
}

#[test]
fn an_unknown_dtype_is_loaded_whole_and_as_it_is() {
    let header = r#"{"x":{"dtype":"NEW9","shape":[7],"data_offsets":[0,11]}}"#;
    let bytes = file(header, &pattern(11));
    let mut options = init_options();
    options.tolerate = safetensors::ffi::ST_TOLERATE_UNKNOWN_DTYPE;
    let from = open_memory(&bytes, &options).unwrap();
    let mut memory = [0_u8; 11];
    let strides = [1_i64];
    let range = [st_range { start: 0, stop: 1, step: 1 }];
    let item = item_into(&from.tensors()[0], &mut memory);
    load(&from, &[item], &init_load()).unwrap();
    assert_eq!(memory[..], pattern(11));
    let status = |item| load(&from, &[item], &init_load()).unwrap_err().status();
    assert_eq!(status(st_load_item { dtype: ST_DTYPE_F32, ..item }), CANNOT);
    assert_eq!(status(st_load_item { dst_strides: strides.as_ptr(), ..item }), BAD);
    assert_eq!(status(st_load_item { ranges: range.as_ptr(), range_count: 1, ..item }), CANNOT);
}

unsafe extern "C" fn never(_: *mut c_void, _: usize, _: usize, _: u64, _: usize, _: *mut st_error) -> st_status {
    ST_OK
}

#[test]
fn options_and_sinks_are_checked() {
    let (from, reader) = made();
    let mut memory = [0_u8; 64];
    let item = item_into(tensor(&from, "m"), &mut memory);
    let with = |options: st_load_options| said(&from, &reader, &[item], &options);
    expect(&with(st_load_options { staging_bytes: 65_535, ..init_load() }), BAD, &["staging_bytes", "65535", "65536"]);
    expect(&with(st_load_options { staging_bytes: 1, ..init_load() }), BAD, &["staging_bytes"]);
    expect(&with(st_load_options { staging_bytes: 65_536, ..init_load() }), OK, &[]);
    expect(&with(st_load_options { staging_bytes: u64::MAX, threads: u32::MAX, ..init_load() }), OK, &[]);
    expect(&with(st_load_options { io: 4, ..init_load() }), BAD, &["io", "4", "ST_IO_AUTO"]);
    expect(&with(st_load_options { io: -1, ..init_load() }), BAD, &["io", "-1"]);
    expect(&with(st_load_options { reserved0: 1, ..init_load() }), CANNOT, &["st_load_options"]);
    expect(&with(st_load_options { struct_size: 0, ..init_load() }), BAD, &["st_load_options.struct_size"]);
    expect(&with(st_load_options { struct_size: 1 << 20, ..init_load() }), BAD, &["st_load_options.struct_size"]);
    // An older caller's, which ends early; what lies after is not looked at.
    let old = st_load_options { struct_size: 24, reserved0: 9, ..init_load() };
    expect(&with(old), OK, &[]);
    // A newer caller's: zero is the default there, too.
    #[repr(C)]
    struct Newer(st_load_options, u64);
    for (last, status) in [(0, OK), (1, CANNOT)] {
        let newer = Newer(st_load_options { struct_size: size_of::<Newer>(), ..init_load() }, last);
        let mut error = ErrorSlot::default();
        // SAFETY: as long as it says.
        let found = unsafe { st_load(from.0, &raw const item, 1, (&raw const newer).cast(), error.as_mut()) };
        assert_eq!(support::handle::status_name(found), status);
    }

    let mut buffers = [0_u8; 20_000];
    let start = buffers.as_mut_ptr();
    let buffer = |at: usize, size| st_buffer { data: start.wrapping_add(at).cast(), size };
    let sink = |given: &[st_buffer], change: &dyn Fn(&mut st_sink)| {
        let mut sink =
            st_sink { buffers: given.as_ptr(), buffer_count: given.len(), chunk: Some(never), ..init_sink() };
        change(&mut sink);
        with(st_load_options { sink: &raw const sink, ..init_load() })
    };
    let fine = [buffer(0, 4096), buffer(4096, 5000)];
    expect(&sink(&fine, &|_| ()), OK, &[]);
    expect(&sink(&[], &|_| ()), BAD, &["st_sink.buffer_count is 0; expected 1 or more"]);
    expect(&sink(&fine, &|sink| sink.buffers = null()), BAD, &["st_sink.buffers"]);
    expect(&sink(&fine, &|sink| sink.chunk = None), BAD, &["st_sink.chunk and st_sink.pieces are both NULL"]);
    expect(&sink(&fine, &|sink| sink.struct_size = 3), BAD, &["st_sink.struct_size"]);
    expect(
        &sink(&[buffer(0, 4096), buffer(5000, 4095)], &|_| ()),
        BAD,
        &["st_sink.buffers[1].size is 4095; expected 4096 or more"],
    );
    expect(&sink(&[st_buffer { data: null_mut(), size: 4096 }], &|_| ()), BAD, &["st_sink.buffers[0].data is NULL"]);
    expect(&sink(&[buffer(4095, 4096), buffer(0, 4096)], &|_| ()), BAD, &["buffers[0] and st_sink.buffers[1] overlap"]);
    expect(&sink(&[buffer(0, 4096), buffer(0, 4096)], &|_| ()), BAD, &["overlap"]);
    let strides = [6_i64, 1];
    let strided = st_load_item { dst_strides: strides.as_ptr(), ..item };
    let given = st_sink { buffers: fine.as_ptr(), buffer_count: 2, chunk: Some(never), ..init_sink() };
    let options = st_load_options { sink: &raw const given, ..init_load() };
    expect(&said(&from, &reader, &[strided], &options), BAD, &["item 0", "dst_strides"]);
}

#[test]
fn null_where_something_must_be() {
    let (from, _) = made();
    let code = |status| support::handle::status_name(status);
    // SAFETY: NULL is what is tested, and the rest is as the header says.
    unsafe {
        let mut error = ErrorSlot::default();
        assert_eq!(code(st_load(null(), null(), 0, null(), error.as_mut())), BAD);
        assert!(error.failure().message.contains("checkpoint is NULL"));
        assert_eq!(code(st_load(from.0, null(), 1, null(), error.as_mut())), BAD);
        assert!(error.failure().message.contains("items is NULL"));
        assert_eq!(code(st_load(from.0, null(), 1, null(), null_mut())), BAD);
        assert_eq!(st_load(from.0, null(), 0, null(), null_mut()), ST_OK);
        assert_eq!(code(st_load_plan(from.0, null(), 0, null(), null_mut(), error.as_mut())), BAD);
        assert!(error.failure().message.contains("plan is NULL"));
        assert_eq!(code(st_prefetch(null(), null(), 0, error.as_mut())), BAD);
        assert_eq!(code(st_prefetch(from.0, null(), 1, error.as_mut())), BAD);
        assert!(error.failure().message.contains("tensors"));
        assert_eq!(code(st_prefetch(from.0, [null()].as_ptr(), 1, error.as_mut())), BAD);
        assert!(error.failure().message.contains("tensors[0]"));
    }
}

#[test]
fn plans_are_for_what_is_read() {
    let header = r#"{"w":{"dtype":"BF16","shape":[4096,4096],"data_offsets":[0,33554432]}}"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    fs::write(&path, file(header, &pattern(32 << 20))).unwrap();
    let from = open_read(&path).unwrap();
    let mut memory = vec![0_u8; 32 << 20];
    let columns = |start, stop| [st_range { start: 0, stop: i64::MAX, step: 1 }, st_range { start, stop, step: 1 }];
    let (left, right) = (columns(0, 2048), columns(2048, 4096));
    let strides = [8192_i64, 2];
    let (half, whole) = (16_u64 << 20, 32_u64 << 20);
    let rest = memory.as_mut_ptr().wrapping_add(4096);
    let one = st_load_item { ranges: left.as_ptr(), range_count: 2, ..item_into(&from.tensors()[0], &mut memory) };
    let over = st_load_options { max_gap: 4096, ..init_load() };
    let found = plan(&from, &[one], &over).unwrap();
    assert_eq!((found.bytes, found.shards), (half, 1));
    // Gaps of 4 KiB are read over, in reads of a megabyte, and none at the end of one.
    assert_eq!(found.read_bytes, whole - found.requests * 4096);
    assert_eq!(found.over_read_bytes, found.read_bytes - half);
    assert!(found.requests <= 33, "{}", found.requests);
    // Or each row is read by itself, and nothing beside it.
    let found = plan(&from, &[one], &st_load_options { max_gap: 4095, ..init_load() }).unwrap();
    assert_eq!((found.read_bytes, found.over_read_bytes, found.requests), (half, 0, 4096));
    // Both halves into one matrix: all is read once, and nothing beside it.
    let one = st_load_item { dst_strides: strides.as_ptr(), ..one };
    let other = st_load_item { ranges: right.as_ptr(), dst: rest.cast(), dst_size: (32 << 20) - 4096, ..one };
    let found = plan(&from, &[one, other], &init_load()).unwrap();
    assert_eq!((found.bytes, found.over_read_bytes), (whole, 0));
    assert!(found.read_bytes <= whole + whole / 16, "{}", found.read_bytes);
    load(&from, &[one, other], &init_load()).unwrap();
    assert!(memory == pattern(32 << 20));
}

fn prefetch(from: &Handle, tensors: Option<&[&st_tensor]>) -> Result<(), Failure> {
    let mut error = ErrorSlot::default();
    let (start, count) = tensors.map_or((null(), 0), |tensors| (tensors.as_ptr().cast(), tensors.len()));
    // SAFETY: as the header says; a reference is a pointer.
    match unsafe { st_prefetch(from.0, start, count, error.as_mut()) } {
        ST_OK => Ok(()),
        _ => Err(error.failure()),
    }
}

/// How many of a mapped tensor's pages this process has in its page table.
fn pages_there(tensor: &st_tensor) -> (usize, usize) {
    use std::os::unix::fs::FileExt;
    let data = tensor.data().unwrap();
    let (first, last) = (data.as_ptr() as usize / 4096, (data.as_ptr() as usize + data.len() - 1) / 4096);
    let map = fs::File::open("/proc/self/pagemap").unwrap();
    let mut entries = vec![0; (last - first + 1) * 8];
    map.read_exact_at(&mut entries, first as u64 * 8).unwrap();
    let there = entries.chunks(8).filter(|entry| entry[7] >> 7 == 1).count();
    (there, last - first + 1)
}

#[test]
fn prefetched_pages_are_in_the_page_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, file_of(&["a", "b", "c"], 8 << 20)).unwrap();
    let from = open_map(&path).unwrap();
    let b = tensor(&from, "b");
    let (before, all) = pages_there(b);
    assert!(before < all, "nothing was touched yet");
    prefetch(&from, Some(&[b])).unwrap();
    let (there, all) = pages_there(b);
    assert_eq!(there, all);
    prefetch(&from, None).unwrap();
    for tensor in from.tensors() {
        let (there, all) = pages_there(tensor);
        assert_eq!(there, all);
    }
    prefetch(&from, Some(&[])).unwrap();
    // Of others there is nothing to have, and no error.
    prefetch(&open_read(&path).unwrap(), None).unwrap();
    let (distant, reader) = made();
    let before = reader.counts.reads();
    prefetch(&distant, None).unwrap();
    assert_eq!(reader.counts.reads(), before);
    let failure = prefetch(&from, Some(&[b, tensor(&distant, "h")])).unwrap_err();
    assert_eq!(failure.status(), BAD, "{}", failure.message);
}

#[test]
fn prefetching_a_file_that_was_cut_short_is_an_error_and_no_signal() {
    let name = "prefetching_a_file_that_was_cut_short_is_an_error_and_no_signal";
    if !child::is_child() {
        return child::succeeds(name, std::time::Duration::from_secs(60), || Ok(()));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, file_of(&["a", "b"], 3 << 20)).unwrap();
    let from = open_map(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    for tensors in [None, Some(&[tensor(&from, "b")][..])] {
        let failure = prefetch(&from, tensors).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_IO", "{}", failure.message);
        assert!(failure.message.contains("m.safetensors"), "{}", failure.message);
    }
}

#[test]
fn destinations_that_interleave_overlap_where_a_byte_is_shared_and_nowhere_else() {
    let header = r#"{"a":{"dtype":"U8","shape":[10],"data_offsets":[0,10]},
        "b":{"dtype":"U8","shape":[1],"data_offsets":[10,11]},
        "c":{"dtype":"U8","shape":[1],"data_offsets":[11,12]},
        "d":{"dtype":"U8","shape":[4,6],"data_offsets":[12,36]},
        "e":{"dtype":"U8","shape":[4,6],"data_offsets":[36,60]}}"#;
    let bytes = file(header, &pattern(60));
    let from = open_memory(&bytes, &init_options()).unwrap();
    let strides = [10];
    let tried = |places: [usize; 2]| {
        let mut memory = [0x55_u8; 100];
        let mut items = ["a", "b", "c"].map(|name| item_of(tensor(&from, name)));
        items[0].dst_strides = strides.as_ptr();
        for (item, at) in items.iter_mut().zip([0, places[0], places[1]]) {
            (item.dst, item.dst_size) = (memory[at..].as_mut_ptr().cast(), 100 - at);
        }
        let result = load(&from, &items, &init_load());
        if result.is_ok() {
            assert_eq!([memory[places[0]], memory[places[1]]], [tensor(&from, "b"), tensor(&from, "c")].map(first));
        }
        result.map_err(|failure| (failure.status(), failure.message))
    };
    // One lies in a gap; whoever forgets how far the first reaches does not see the other.
    for place in [10, 20, 50, 90] {
        let (status, text) = tried([5, place]).unwrap_err();
        assert!(status == BAD && text.contains("item 0 (tensor \"a\") and item 2 (tensor \"c\")"), "{text}");
    }
    for places in [[5, 51], [91, 92], [1, 89]] {
        tried(places).unwrap();
    }

    // Two whose rows and columns lie between each other's, and the same a byte closer.
    let nested = [24, 4];
    for (apart, fits) in [(1, true), (2, true), (3, true), (4, false), (0, false), (24, false), (96, true), (23, true)]
    {
        let mut memory = [0_u8; 200];
        let mut items = ["d", "e"].map(|name| item_of(tensor(&from, name)));
        for (item, at) in items.iter_mut().zip([0, apart]) {
            (item.dst, item.dst_size) = (memory[at..].as_mut_ptr().cast(), 200 - at);
            item.dst_strides = nested.as_ptr();
        }
        let result = load(&from, &items, &init_load());
        assert_eq!(result.is_ok(), fits, "{apart} bytes apart: {result:?}");
        if fits {
            for (name, start) in [("d", 0), ("e", apart)] {
                let data = tensor(&from, name).data().unwrap();
                let there = |at: usize| memory[start + at / 6 * 24 + at % 6 * 4];
                assert!((0..24).all(|at| there(at) == data[at]));
            }
        }
    }
}

#[test]
fn destinations_of_several_strides_may_lie_between_one_another() {
    let header = r#"{"a":{"dtype":"U8","shape":[48],"data_offsets":[0,48]},
        "b":{"dtype":"U8","shape":[24],"data_offsets":[48,72]},
        "c":{"dtype":"U8","shape":[4,6],"data_offsets":[72,96]}}"#;
    let bytes = file(header, &pattern(96));
    let from = open_memory(&bytes, &init_options()).unwrap();
    // Of each its place and strides; where it lies byte by byte says what is right.
    let all = [("a", vec![2_i64, 3, 6]), ("b", vec![4, 6, 9, 10]), ("c", vec![24, 30, 48])];
    let places = |name: &str, start: usize, stride: usize| -> Vec<usize> {
        let element = |at: usize| match name {
            "c" => start + at / 6 * stride + at % 6 * 4,
            _ => start + at * stride,
        };
        (0..tensor(&from, name).size() as usize).map(element).collect()
    };
    let (mut fit, mut refused) = (0, 0);
    for number in 0..3 * 4 * 3 * 12 {
        let pick = [number % 3, number / 3 % 4, number / 12 % 3];
        let starts = [0, 1 + number / 36 % 3, 2 + number / 36 % 4];
        let strides: Vec<_> = all.iter().zip(pick).map(|((_, strides), pick)| strides[pick]).collect();
        let inner = [strides[2], 4];
        let mut memory = vec![0_u8; 400];
        let mut items = ["a", "b", "c"].map(|name| item_of(tensor(&from, name)));
        for ((item, start), stride) in items.iter_mut().zip(starts).zip([&strides[0], &strides[1], &inner[0]]) {
            (item.dst, item.dst_size) = (memory[start..].as_mut_ptr().cast(), 400 - start);
            item.dst_strides = stride;
        }
        let mut taken: Vec<_> =
            all.iter().enumerate().flat_map(|(i, (name, _))| places(name, starts[i], strides[i] as usize)).collect();
        let count = taken.len();
        taken.sort_unstable();
        taken.dedup();
        let result = load(&from, &items, &init_load());
        assert_eq!(result.is_ok(), taken.len() == count, "{strides:?} from {starts:?}: {result:?}");
        match result {
            Ok(()) => {
                for (i, (name, _)) in all.iter().enumerate() {
                    let data = tensor(&from, name).data().unwrap();
                    let there = places(name, starts[i], strides[i] as usize);
                    assert!(there.iter().zip(data).all(|(place, byte)| memory[*place] == *byte), "{name}");
                }
                fit += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(fit > 5 && refused > 5, "{fit} fit, {refused} do not");
}

fn first(tensor: &st_tensor) -> u8 {
    tensor.data().unwrap()[0]
}

#[test]
fn what_is_read_from_is_not_written_to() {
    let mut bytes = file_of(&["a".to_owned(), "b".to_owned()], 5000);
    let start = bytes.as_mut_ptr();
    let from = open_memory(&bytes, &init_options()).unwrap();
    let size = bytes.len();
    let into = |at: usize, of: &[u8]| {
        let mut item = item_of(&from.tensors()[0]);
        (item.dst, item.dst_size) = (start.wrapping_add(at).cast(), 5000);
        assert!(of.len() >= 5000);
        load(&from, &[item], &init_load()).map_err(|failure| (failure.status(), failure.message))
    };
    for at in [0, 10, size - 5000, size - 1] {
        let (status, text) = into(at, &[0; 5000]).unwrap_err();
        assert!(status == BAD && text.contains("item 0 (tensor \"a\")") && text.contains("reads from"), "{text}");
    }
    for at in [0, 10, size - 5000, size - 1] {
        let (place, mut error) = (start.wrapping_add(at).cast(), ErrorSlot::default());
        let tensor = &raw const from.tensors()[0];
        let range = st_range { start: 1, stop: 5000, step: 1 };
        // SAFETY: live handles; the places are what is refused.
        let read = unsafe { st_read_tensor(from.0, tensor, place, 5000, error.as_mut()) };
        let failure = error.failure();
        assert!(read == ST_ERROR_INVALID_ARGUMENT && failure.message.contains("\"a\": its destination"), "{failure:?}");
        // SAFETY: as above.
        let read = unsafe { st_read_slice(from.0, tensor, &raw const range, 1, place, 4999, error.as_mut()) };
        assert!(read == ST_ERROR_INVALID_ARGUMENT && error.failure().message.contains("reads from"));
    }
    let buffer = st_buffer { data: start.cast(), size: 4096 };
    let sink = st_sink { buffers: &raw const buffer, buffer_count: 1, chunk: Some(never), ..init_sink() };
    let options = st_load_options { sink: &raw const sink, ..init_load() };
    let failure = load(&from, &[item_of(&from.tensors()[0])], &options).unwrap_err();
    assert!(failure.status() == BAD && failure.message.contains("st_sink.buffers[0]"), "{}", failure.message);
}

#[test]
fn an_array_is_bounded_by_its_items_and_not_its_bytes() {
    let (from, _) = made();
    let item = item_of(tensor(&from, "m"));
    let mut error = ErrorSlot::default();
    // So many items are beyond any memory, although as bytes they are not.
    let count = isize::MAX.unsigned_abs() / size_of::<st_load_item>() + 1;
    // SAFETY: the count is what is refused.
    let status = unsafe { st_load(from.0, &raw const item, count, null(), error.as_mut()) };
    assert_eq!(status, ST_ERROR_INVALID_ARGUMENT);
    assert!(error.failure().message.contains(&format!("items: the size {count} is beyond any memory")));
}

#[test]
fn results_are_placed_one_after_the_other() {
    let (from, _) = made();
    let names = ["m", "h", "f", "z", "c"];
    let mut items = names.map(|name| item_of(tensor(&from, name)));
    items[1].dtype = ST_DTYPE_F32;
    let sizes = [24, 24, 4, 0, 8];
    for (item, size) in items.iter().zip(sizes) {
        let (mut found, mut error) = (7, ErrorSlot::default());
        // SAFETY: as the header says.
        assert_eq!(unsafe { st_load_size(item, &raw mut found, error.as_mut()) }, ST_OK);
        assert_eq!(found, size);
    }
    let mut memory = vec![0_u8; 4096];
    let base = memory.as_mut_ptr();
    for alignment in [0, 1, 8, 64, 256] {
        let arrange = |items: &mut [st_load_item], base: *mut u8, size: usize| {
            let (mut total, mut error) = (7, ErrorSlot::default());
            let items = items.as_mut_ptr();
            // SAFETY: as the header says.
            let status = unsafe { st_arrange(items, 5, base.cast(), size, alignment, &raw mut total, error.as_mut()) };
            if status == ST_OK {
                Ok(total)
            } else {
                Err(error.failure())
            }
        };
        let counted = arrange(&mut items, null_mut(), 0).unwrap();
        assert!(items.iter().all(|item| item.dst.is_null() && item.dst_size == 0));
        let total = arrange(&mut items, base, 4096).unwrap();
        assert!(total <= counted + 256 && counted >= 60, "{total} {counted}");
        let mut end = base.addr();
        for (item, size) in items.iter().zip(sizes) {
            let place = item.dst.addr();
            // SAFETY: set above.
            let offset = unsafe { (*item.tensor).offset() } as usize;
            let fits = if alignment == 0 { place % 64 == offset % 64 } else { place.is_multiple_of(alignment) };
            assert!(fits && place >= end && place - end < alignment.max(64), "{alignment}: {place} after {end}");
            assert_eq!(item.dst_size, size as usize);
            end = place + item.dst_size;
        }
        assert_eq!(end - base.addr(), total as usize);
        load(&from, &items, &init_load()).unwrap();
        let failure = arrange(&mut items, base, total as usize - 1).unwrap_err();
        assert!(failure.status() == ROOM && failure.message.contains(&total.to_string()), "{}", failure.message);
        items.iter_mut().for_each(|item| (item.dst, item.dst_size) = (null_mut(), 0));
    }
    let mut error = ErrorSlot::default();
    // SAFETY: as above.
    let status = unsafe { st_arrange(items.as_mut_ptr(), 5, null_mut(), 0, 48, null_mut(), error.as_mut()) };
    assert!(status == ST_ERROR_INVALID_ARGUMENT && error.failure().message.contains("alignment is 48"));
}

#[test]
fn what_a_tensor_has_to_be_is_said_with_what_it_is() {
    let (from, _) = made();
    let require = |name: &std::ffi::CStr, dtype, shape: &[i64], rank: usize| {
        let mut error = ErrorSlot::default();
        // SAFETY: as the header says.
        let found = unsafe { st_require(from.0, name.as_ptr(), dtype, shape.as_ptr(), rank, error.as_mut()) };
        if found.is_null() {
            Err(error.failure())
        } else {
            Ok(found)
        }
    };
    let any = usize::MAX;
    for (dtype, shape, rank) in
        [(0, &[][..], any), (ST_DTYPE_BF16, &[], any), (0, &[2, 3], 2), (ST_DTYPE_BF16, &[-1, 3], 2), (0, &[-1, -1], 2)]
    {
        assert_eq!(require(c"h", dtype, shape, rank).unwrap(), std::ptr::from_ref(tensor(&from, "h")));
    }
    for (dtype, shape, rank, status, text) in [
        (ST_DTYPE_F32, &[2, 4][..], 2, "ST_ERROR_DTYPE", "expected F32 [2, 4], found BF16 [2, 3]"),
        (ST_DTYPE_F32, &[], any, "ST_ERROR_DTYPE", "expected F32 any, found BF16 [2, 3]"),
        (0, &[-1, 4], 2, "ST_ERROR_SHAPE", "expected any [any, 4], found BF16 [2, 3]"),
        (ST_DTYPE_BF16, &[2], 1, "ST_ERROR_SHAPE", "expected BF16 [2], found BF16 [2, 3]"),
        (0, &[], 0, "ST_ERROR_SHAPE", "expected any [], found BF16 [2, 3]"),
        (99, &[], any, BAD, "dtype is 99; expected an ST_DTYPE_ constant"),
        (0, &[-2, 3], 2, BAD, "shape has the size -2"),
    ] {
        let failure = require(c"h", dtype, shape, rank).unwrap_err();
        assert_eq!(failure.status(), status);
        assert!(failure.message.contains(text), "{}", failure.message);
    }
    assert_eq!(require(c"nothing", 0, &[], any).unwrap_err().status(), "ST_ERROR_NOT_FOUND");
    assert_eq!(st_can_convert(ST_DTYPE_F4, ST_DTYPE_F32), 1);
    assert_eq!([st_can_convert(ST_DTYPE_I8, ST_DTYPE_I16), st_can_convert(0, 0), st_can_convert(99, 99)], [0, 0, 0]);
}

#[test]
fn what_is_evicted_is_there_again_when_it_is_touched() {
    let bytes = file_of(&["a".to_owned(), "b".to_owned()], 50_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, &bytes).unwrap();
    for from in [open_map(&path).unwrap(), open_read(&path).unwrap(), open_memory(&bytes, &init_options()).unwrap()] {
        let first = &raw const from.tensors()[0];
        // SAFETY: as the header says.
        unsafe {
            assert_eq!(st_evict(from.0, &raw const first, 1, null_mut()), ST_OK);
            assert_eq!(st_evict(from.0, null(), 0, null_mut()), ST_OK);
            assert_eq!(st_evict(from.0, null(), 1, null_mut()), ST_ERROR_INVALID_ARGUMENT);
        }
        if let Some(data) = from.tensors()[0].data() {
            assert!(data == &bytes[from.tensors()[0].offset() as usize..][..50_000]);
        }
    }
}
