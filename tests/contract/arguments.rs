// SPDX-License-Identifier: Apache-2.0
//! The header's rules for every function: NULL, struct sizes, lengths, errors
//! that are written on failure only, any number of threads and owners.

use std::ffi::{c_char, CStr};
use std::fs;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Barrier;
use std::thread;

use crate::support::callbacks::{Counts, Files, Reader};
use crate::support::handle::{
    self, init_io, init_options, init_resolver, open_io, open_memory, status_name, ErrorSlot,
};
use crate::support::{file, file_of, pattern};
use safetensors::ffi::*;

const INVALID: &str = "ST_ERROR_INVALID_ARGUMENT";

/// A call that must refuse a NULL; also without an error to fill.
fn refuses(what: &str, mut call: impl FnMut(*mut st_error) -> bool) {
    let mut error = ErrorSlot::default();
    assert!(call(error.as_mut()), "{what} must fail");
    let failure = error.failure();
    assert_eq!((failure.status(), failure.errno), (INVALID, 0), "{what}: {}", failure.message);
    assert!(failure.message.contains(what), "{what}: {}", failure.message);
    assert!(call(null_mut()), "{what} must fail without an error too");
}

#[test]
fn null_is_refused_by_all_that_can_fail() {
    let bytes = file_of(&["w"], 4);
    let found = open_memory(&bytes, &init_options()).unwrap();
    let options = init_options();
    let w = c"w".as_ptr();
    let tensor = &raw const found.tensors()[0];
    let mut place = [0_u8; 8];
    let dst = place.as_mut_ptr().cast();
    // SAFETY: NULL is what the header allows everywhere; the rest is valid.
    unsafe {
        refuses("path", |e| st_open(null(), e).is_null());
        refuses("path", |e| st_open_with(null(), &options, e).is_null());
        refuses("path", |e| st_open_with(null(), null(), e).is_null());
        refuses("data", |e| st_open_memory(null(), 10, &options, e).is_null());
        refuses("data", |e| st_open_memory(null(), 0, null(), e).is_null());
        refuses("io", |e| st_open_io(null(), &options, e).is_null());
        refuses("read_at", |e| st_open_io(&init_io(), null(), e).is_null());
        refuses("resolver", |e| st_open_resolved(null(), w, null(), e).is_null());
        refuses("open", |e| st_open_resolved(&init_resolver(), w, null(), e).is_null());
        refuses("name", |e| st_open_resolved(&Files::default().resolver(), null(), null(), e).is_null());
        refuses("checkpoint", |e| st_get_tensor(null(), w, e).is_null());
        refuses("name", |e| st_get_tensor(found.0, null(), e).is_null());
        refuses("checkpoint", |e| st_get_tensor_n(null(), w, 1, e).is_null());
        refuses("name", |e| st_get_tensor_n(found.0, null(), 1, e).is_null());
        refuses("checkpoint", |e| st_read_tensor(null(), tensor, dst, 8, e) != ST_OK);
        refuses("tensor", |e| st_read_tensor(found.0, null(), dst, 8, e) != ST_OK);
        refuses("dst", |e| st_read_tensor(found.0, tensor, null_mut(), 8, e) != ST_OK);
        refuses("dst", |e| st_read_tensor(found.0, tensor, null_mut(), 0, e) != ST_OK);
    }
}

#[test]
fn null_gives_nothing_where_there_is_no_error() {
    let bytes = file_of(&["w"], 4);
    let found = open_memory(&bytes, &init_options()).unwrap();
    let mut count;
    // SAFETY: as above.
    unsafe {
        st_free(null_mut());
        assert!(st_retain(null_mut()).is_null());
        for call in [
            |count| st_tensors(null(), count).is_null(),
            |count| st_shards(null(), count).is_null(),
            |count| st_metadata_entries(null(), count).is_null(),
            |count| st_get_metadata(null(), c"k".as_ptr(), count).is_null(),
        ] {
            count = 77;
            assert!(call(&raw mut count) && count == 0);
            assert!(call(null_mut()));
        }
        count = 77;
        assert!(st_get_metadata(found.0, null(), &raw mut count).is_null() && count == 0);
        assert!(!st_tensors(found.0, null_mut()).is_null());
        assert!(!st_shards(found.0, null_mut()).is_null());
        assert!(st_metadata_entries(found.0, null_mut()).is_null());
        let w = c"w".as_ptr();
        assert!(st_find_tensor(null(), w).is_null() && st_find_tensor(found.0, null()).is_null());
        assert!(st_find_tensor_n(null(), w, 1).is_null() && st_find_tensor_n(found.0, null(), 1).is_null());
        assert!(st_find_tensor_n(found.0, null(), 0).is_null(), "the empty name, which it lacks");
        assert!(!st_find_tensor(found.0, w).is_null());
        assert_eq!(st_dtype_from_name(null()), 0);
    }
}

#[test]
fn absurd_lengths_are_refused() {
    let bytes = file_of(&["w"], 4);
    let found = open_memory(&bytes, &init_options()).unwrap();
    let tensor = &raw const found.tensors()[0];
    let mut place = [0_u8; 8];
    // SAFETY: lengths beyond any memory are looked at before the memory is.
    unsafe {
        refuses("size", |e| st_open_memory(bytes.as_ptr().cast(), usize::MAX, null(), e).is_null());
        refuses("name", |e| st_get_tensor_n(found.0, c"w".as_ptr(), usize::MAX, e).is_null());
        assert!(st_find_tensor_n(found.0, c"w".as_ptr(), usize::MAX).is_null());
        refuses("dst_size", |e| st_read_tensor(found.0, tensor, place.as_mut_ptr().cast(), usize::MAX, e) != ST_OK);
    }
}

#[test]
fn names_with_nul_are_found_by_length() {
    let empty = r#""dtype":"U8","shape":[1],"data_offsets""#;
    let header = format!(r#"{{"a\u0000b":{{{empty}:[0,1]}},"a":{{{empty}:[1,2]}},"":{{{empty}:[2,3]}}}}"#);
    let bytes = file(header, b"123");
    let found = open_memory(&bytes, &init_options()).unwrap();
    let data = |name: &[u8]| found.get(name).map(|tensor| tensor.data().unwrap().to_vec());
    assert_eq!(data(b"a\0b").unwrap(), b"1");
    assert_eq!(data(b"a").unwrap(), b"2");
    assert_eq!(data(b"").unwrap(), b"3");
    assert_eq!(data(b"a\0").unwrap_err().status(), "ST_ERROR_NOT_FOUND");
    assert_eq!(data(b"\xff\xfe").unwrap_err().status(), "ST_ERROR_NOT_FOUND");
    // SAFETY: valid strings; NULL stands for the empty name where the length is 0.
    unsafe {
        assert_eq!((*st_find_tensor(found.0, c"a".as_ptr())).name(), b"a");
        assert_eq!((*st_find_tensor(found.0, c"".as_ptr())).name(), b"");
        assert_eq!((*st_find_tensor_n(found.0, null(), 0)).name(), b"");
        assert_eq!((*st_get_tensor_n(found.0, null(), 0, null_mut())).name(), b"");
    }
}

#[test]
fn metadata_is_found_by_key() {
    let bytes = file(r#"{"__metadata__":{"k":"v\u0000w","":"empty","k\u0000":"x"}}"#, b"");
    let found = open_memory(&bytes, &init_options()).unwrap();
    let value = |key: &CStr| {
        let mut length = 99;
        // SAFETY: valid strings.
        let text = unsafe { st_get_metadata(found.0, key.as_ptr(), &raw mut length) };
        if text.is_null() {
            assert_eq!(length, 0);
            return None;
        }
        // SAFETY: as long as it says, and terminated.
        let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length + 1) };
        assert_eq!(bytes[length], 0);
        Some(bytes[..length].to_vec())
    };
    assert_eq!(value(c"k").unwrap(), b"v\0w");
    assert_eq!(value(c"").unwrap(), b"empty");
    assert_eq!(value(c"nope"), None);
    let none = file("{}", b"");
    let empty = file(r#"{"__metadata__":{}}"#, b"");
    assert!(open_memory(&none, &init_options()).unwrap().metadata().is_none());
    assert_eq!(open_memory(&empty, &init_options()).unwrap().metadata().unwrap().len(), 0);
}

#[test]
fn reading_wants_a_record_of_the_checkpoint_and_room() {
    let bytes = file_of(&["a", "b"], 4);
    let other_bytes = file_of(&["somewhat longer", "b"], 4);
    let found = open_memory(&bytes, &init_options()).unwrap();
    let other = open_memory(&other_bytes, &init_options()).unwrap();
    let tensor = &found.tensors()[1];
    let mut large = vec![0xEE; 10];
    found.read_into(tensor, &mut large).unwrap();
    assert_eq!((&large[..4], &large[4..]), (&pattern(8)[4..], &[0xEE; 6][..]), "nothing after the tensor is written");
    for room in 0..4 {
        let failure = found.read_into(tensor, &mut vec![0; room]).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_BUFFER_SIZE");
        assert!(failure.message.contains("\"b\""), "{}", failure.message);
    }
    let failure = other.read_into(tensor, &mut large).unwrap_err();
    assert_eq!(failure.status(), INVALID, "{}", failure.message);
    // A copy is as good as the record, and its pointers are not looked at.
    // SAFETY: records are plain memory; the copy is not dropped.
    let copy = unsafe { std::mem::ManuallyDrop::new(std::ptr::read(tensor)) };
    found.read_into(&copy, &mut large).unwrap();
}

#[test]
fn empty_tensors_have_data_and_need_no_room() {
    let bytes = file(r#"{"e":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}}"#, b"");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("e.safetensors");
    fs::write(&path, &bytes).unwrap();
    let reader = Reader::new(bytes.clone());
    for found in [
        open_memory(&bytes, &init_options()).unwrap(),
        handle::open_map(&path).unwrap(),
        handle::open_read(&path).unwrap(),
        open_io(&reader.io(), &init_options()).unwrap(),
    ] {
        let tensor = found.get("e").unwrap();
        assert_eq!((tensor.shape(), tensor.size(), tensor.data()), (&[0, 3][..], 0, Some(&[][..])));
        // SAFETY: no bytes are wanted, so NULL is fine.
        assert_eq!(unsafe { st_read_tensor(found.0, tensor, null_mut(), 0, null_mut()) }, ST_OK);
    }
}

/// A struct as callers of other versions have it: its size, and bytes after.
fn resized<T: Copy>(value: T, size: usize, tail: &[u8]) -> Vec<usize> {
    let mut words = vec![0_usize; 64];
    // SAFETY: 512 bytes hold every struct and its tail.
    unsafe {
        words.as_mut_ptr().cast::<T>().write(value);
        words.as_mut_ptr().cast::<u8>().add(size_of::<T>()).copy_from(tail.as_ptr(), tail.len());
    }
    words[0] = size;
    words
}

/// The status that each struct_size gives, and whether a release ran.
fn sizes<T: Copy>(
    value: impl Fn(&Reader) -> T,
    call: impl Fn(*const T, *mut st_error) -> *mut st_checkpoint,
    at_open: &str,
) {
    let whole = size_of::<T>();
    let cases: Vec<(usize, Vec<u8>, &str, usize)> = vec![
        (0, vec![], INVALID, 0),
        (7, vec![], INVALID, 0),
        (usize::MAX, vec![], INVALID, 0),
        (whole, vec![], at_open, 1),
        (whole, vec![1], at_open, 1),
        (whole + 1, vec![0], at_open, 1),
        (whole + 1, vec![1], "ST_ERROR_UNSUPPORTED", 1),
        (whole + 64, vec![0; 64], at_open, 1),
        (whole + 64, [vec![0; 63], vec![9]].concat(), "ST_ERROR_UNSUPPORTED", 1),
    ];
    for (size, tail, status, releases) in cases {
        let reader = Reader::new(b"not a file".to_vec());
        let words = resized(value(&reader), size, &tail);
        let mut error = ErrorSlot::default();
        assert!(call(words.as_ptr().cast(), error.as_mut()).is_null());
        assert_eq!(error.failure().status(), status, "struct_size {size} of {whole}: {}", error.failure().message);
        if std::any::type_name::<T>().ends_with("st_io") {
            assert_eq!(reader.counts.released(), releases, "struct_size {size} of {whole}");
        }
    }
}

#[test]
fn struct_sizes_tell_older_and_newer_callers() {
    let file = b"not a file";
    // SAFETY: structs as the header says, with room for their sizes.
    unsafe {
        let memory = |options: *const st_open_options, e| st_open_memory(file.as_ptr().cast(), file.len(), options, e);
        sizes(|_| init_options(), memory, "ST_ERROR_HEADER_TOO_LARGE");
        sizes(Reader::io, |io, e| st_open_io(io, null(), e), "ST_ERROR_HEADER_TOO_LARGE");
        let resolver = |_: &Reader| Files::new([("m", Reader::new(b"x".to_vec()))]).resolver();
        sizes(resolver, |resolver, e| st_open_resolved(resolver, c"m".as_ptr(), null(), e), "ST_ERROR_TRUNCATED");
    }
}

#[test]
fn what_an_older_caller_lacks_is_zero() {
    let bytes = [file_of(&["w"], 4), b"tail".to_vec()].concat();
    // Up to and with `tolerate`; what lies after is garbage that must not be read.
    let options = st_open_options {
        access: 0,
        tolerate: ST_TOLERATE_TRAILING_BYTES,
        prefetch: 99,
        max_header_size: 1,
        ..init_options()
    };
    let words = resized(options, 16, &[]);
    let mut error = ErrorSlot::default();
    // SAFETY: struct_size covers what may be read.
    let found = unsafe { st_open_memory(bytes.as_ptr().cast(), bytes.len(), words.as_ptr().cast(), error.as_mut()) };
    assert!(!found.is_null(), "{}", error.failure().message);
    // SAFETY: owned.
    unsafe { st_free(found) };
    // An st_io without preferred_read and max_parallel, and one without release.
    let reader = Reader { preferred_read: 1, max_parallel: 1, ..Reader::new(bytes.clone()) };
    let words = resized(reader.io(), size_of::<st_io>() - 16, &[]);
    // SAFETY: as above.
    let found = unsafe { st_open_io(words.as_ptr().cast(), &options_tolerant(), null_mut()) };
    assert!(!found.is_null());
    // SAFETY: owned.
    unsafe { st_free(found) };
    assert_eq!((reader.counts.reads(), reader.counts.released()), (1, 1), "preferred_read was not seen, release was");
}

fn options_tolerant() -> st_open_options {
    st_open_options { tolerate: ST_TOLERATE_TRAILING_BYTES, ..init_options() }
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let bytes = file_of(&["w"], 4);
    for options in [
        st_open_options { access: -1, ..init_options() },
        st_open_options { access: ST_ACCESS_MEMORY, ..init_options() },
        st_open_options { access: ST_ACCESS_CALLBACK, ..init_options() },
        st_open_options { access: i32::MAX, ..init_options() },
        st_open_options { prefetch: 3, ..init_options() },
        st_open_options { prefetch: -1, ..init_options() },
        st_open_options { tolerate: 4, ..init_options() },
        st_open_options { tolerate: u32::MAX, ..init_options() },
        st_open_options { reserved0: 1, ..init_options() },
    ] {
        let failure = open_memory(&bytes, &options).err().unwrap();
        assert_eq!(failure.status(), INVALID, "{}", failure.message);
    }
}

#[test]
fn numbers_have_names_and_nothing_is_out_of_range() {
    for number in [i32::MIN, -1, 28, 1000, i32::MAX] {
        assert_eq!(status_name(number), "ST_ERROR_?");
    }
    for number in 1..=27 {
        assert!(status_name(number).starts_with("ST_ERROR_") && status_name(number) != "ST_ERROR_?");
    }
    let name = |number: i32| {
        // SAFETY: static text.
        unsafe { CStr::from_ptr(st_dtype_name(number)) }.to_str().unwrap()
    };
    for number in [i32::MIN, -1, 0, 23, 254, 256, i32::MAX] {
        assert_eq!((name(number), st_dtype_bits(number)), ("?", 0));
    }
    assert_eq!((name(255), st_dtype_bits(255)), ("UNKNOWN", 0));
    let mut bits = std::collections::HashMap::new();
    for number in 1..=22 {
        // SAFETY: static text.
        assert_eq!(unsafe { st_dtype_from_name(st_dtype_name(number)) }, number);
        *bits.entry(st_dtype_bits(number)).or_insert(0) += 1;
    }
    assert_eq!(bits, [(4, 1), (6, 2), (8, 8), (16, 4), (32, 3), (64, 4)].into());
    for name in [c"", c"f32", c"F32 ", c"UNKNOWN", c"?"] {
        // SAFETY: a valid string.
        assert_eq!(unsafe { st_dtype_from_name(name.as_ptr()) }, 0);
    }
    // SAFETY: static text.
    assert_eq!(unsafe { CStr::from_ptr(st_version()) }.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    assert_eq!(st_abi_version(), 1);
}

#[test]
fn the_last_of_many_owners_closes() {
    let reader = Reader::new(file_of(&["w"], 64));
    let found = open_io(&reader.io(), &init_options()).unwrap();
    let start = Barrier::new(16);
    thread::scope(|scope| {
        for _ in 0..16 {
            let found = &found;
            scope.spawn(|| {
                start.wait();
                for _ in 0..2000 {
                    let mine = found.retain();
                    assert_eq!(mine.0, found.0);
                    assert_eq!(mine.tensors().len(), 1);
                }
            });
        }
    });
    assert_eq!(reader.counts.released(), 0);
    let second = found.retain();
    drop(found);
    assert_eq!(reader.counts.released(), 0);
    assert_eq!(second.get("w").unwrap().data().unwrap(), pattern(64));
    thread::spawn(move || drop(second)).join().unwrap();
    assert_eq!(reader.counts.released(), 1);
}

/// Eight threads get every tensor; each is read once, and is the same for all.
fn read_by_eight(found: &handle::Handle, names: &[String], counts: Option<&Counts>) {
    let before = counts.map_or(0, Counts::reads);
    let start = Barrier::new(8);
    let same = AtomicUsize::new(0);
    let all: Vec<Vec<usize>> = thread::scope(|scope| {
        let work = |turn: usize| {
            let (start, same) = (&start, &same);
            move || {
                start.wait();
                let get = |i: usize| {
                    let i = (i + turn * 7) % names.len();
                    let tensor = found.get(&names[i]).unwrap();
                    assert_eq!(tensor.data().unwrap(), &pattern(names.len() * 1000)[i * 1000..][..1000]);
                    assert_eq!(tensor.data().unwrap().as_ptr().align_offset(64), 0);
                    same.fetch_add(1, SeqCst);
                    (i, std::ptr::from_ref(tensor) as usize)
                };
                let mut found: Vec<_> = (0..names.len()).map(get).collect();
                found.sort_unstable();
                found.into_iter().map(|(_, place)| place).collect()
            }
        };
        let threads: Vec<_> = (0..8).map(|turn| scope.spawn(work(turn))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the same records for all threads");
    if let Some(counts) = counts {
        assert_eq!(counts.reads() - before, names.len(), "each tensor is read once");
    }
}

#[test]
fn eight_threads_read_each_tensor_once() {
    let names: Vec<_> = (0..50).map(|i| format!("t{i}")).collect();
    let bytes = file_of(&names, 1000);
    let delay = std::time::Duration::from_micros(200);
    let reader = Reader { delay, ..Reader::new(bytes.clone()) };
    let found = open_io(&reader.io(), &init_options()).unwrap();
    read_by_eight(&found, &names, Some(&reader.counts));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, bytes).unwrap();
    read_by_eight(&handle::open_read(&path).unwrap(), &names, None);
}

#[test]
fn functions_have_the_types_of_the_header() {
    let _: unsafe extern "C" fn(*const c_char, *mut st_error) -> *mut st_checkpoint = st_open;
    let _: extern "C" fn(st_status) -> *const c_char = st_status_name;
    assert_eq!(size_of::<st_error>(), 512);
}
