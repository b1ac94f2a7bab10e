// SPDX-License-Identifier: Apache-2.0
//! What opening and looking up allocate: nothing per tensor, nothing on lookup,
//! and never more than the file's real size warrants.

#[path = "../support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CString;

use safetensors::ffi::{st_find_tensor, st_find_tensor_n, st_get_metadata, st_metadata_entries, st_shards, st_tensors};
use safetensors::ffi::{st_free, st_retain};
use safetensors::ffi::{st_get_tensor, st_read_tensor};
use std::ptr::{null, null_mut};
use support::handle::{init_options, open_map, open_memory, open_read};
use support::{entry, file, file_of, pattern};

/// Counts what this thread asks for. Opening one file uses no other thread.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(calls: usize, bytes: isize) {
    // A thread that is ending counts no more.
    let _ = CALLS.try_with(|all| all.set(all.get() + calls));
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(live.get())));
    });
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations, and the most bytes held at once, while `work` runs.
fn counted<T>(work: impl FnOnce() -> T) -> (usize, usize, T) {
    CALLS.set(0);
    LIVE.set(0);
    MOST.set(0);
    let result = work();
    (CALLS.get(), MOST.get() as usize, result)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("model.layers.{i}.self_attn.q_proj.weight")).collect()
}

#[test]
fn opening_allocates_nothing_per_tensor() {
    let of = |count: usize| {
        let bytes = file_of(&names(count), 2);
        let (calls, _, found) = counted(|| open_memory(&bytes, &init_options()).unwrap());
        assert_eq!(found.tensors().len(), count);
        calls
    };
    let (few, many) = (of(100), of(10_000));
    // Shapes lie in chunks that double.
    assert!(many <= few + 12, "{few} allocations for 100 tensors, {many} for 10,000");
    assert!(many < 40, "{many} allocations");
}

#[test]
fn opening_shuffled_escaped_and_dimensioned_tensors_allocates_no_more() {
    let of = |count: usize| {
        let entry = |i: usize| entry(&format!(r"a\u00e9\n{i}"), i * 2, i * 2 + 2).replace("[2]", "[1,1,2,1]");
        let header: Vec<_> = (0..count).rev().map(entry).collect();
        let bytes = file(format!("{{{}}}", header.join(" , ")), &pattern(count * 2));
        counted(|| drop(open_memory(&bytes, &init_options()).unwrap())).0
    };
    let (few, many) = (of(100), of(10_000));
    assert!(many <= few + 12, "{few} allocations for 100 tensors, {many} for 10,000");
}

#[test]
fn lookups_and_records_allocate_nothing() {
    let names = names(1000);
    let bytes = [file_of(&names, 2)].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    std::fs::write(&path, &bytes).unwrap();
    let asked: Vec<_> = names.iter().map(|name| CString::new(name.as_str()).unwrap()).collect();
    for found in [open_memory(&bytes, &init_options()).unwrap(), open_map(&path).unwrap()] {
        let mut place = [0_u8; 2];
        let (calls, _, hits) = counted(|| {
            let mut hits = 0;
            for name in &asked {
                // SAFETY: live handle, valid strings, room for each tensor.
                unsafe {
                    let tensor = st_find_tensor(found.0, name.as_ptr());
                    hits += usize::from(!tensor.is_null());
                    hits += usize::from(st_find_tensor_n(found.0, name.as_ptr(), 3).is_null());
                    hits += usize::from(st_get_tensor(found.0, name.as_ptr(), null_mut()) == tensor);
                    hits += usize::from(st_read_tensor(found.0, tensor, place.as_mut_ptr().cast(), 2, null_mut()) == 0);
                }
            }
            // SAFETY: as above.
            unsafe {
                st_tensors(found.0, null_mut());
                st_shards(found.0, null_mut());
                st_metadata_entries(found.0, null_mut());
                st_get_metadata(found.0, c"k".as_ptr(), null_mut());
                st_find_tensor(null(), c"k".as_ptr());
                st_free(st_retain(found.0));
            }
            hits
        });
        assert_eq!((calls, hits), (0, 4000));
    }
}

#[test]
fn getting_a_read_tensor_again_allocates_nothing() {
    let names = names(50);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    std::fs::write(&path, file_of(&names, 100)).unwrap();
    let found = open_read(&path).unwrap();
    names.iter().for_each(|name| assert!(found.get(name).is_ok()));
    let (calls, _, ()) = counted(|| names.iter().for_each(|name| assert!(found.get(name).is_ok())));
    assert_eq!(calls, 0);
}

#[test]
fn everything_is_given_back() {
    let bytes = file_of(&names(1000), 2);
    let bad = [&bytes[..bytes.len() - 1], b"{"].concat();
    for bytes in [&bytes, &bad] {
        counted(|| drop(open_memory(bytes, &init_options())));
        assert_eq!(LIVE.get(), 0);
    }
}

#[test]
fn a_claim_costs_nothing() {
    for length in [100_000_000_u64, 99_999_999, u64::MAX, 1 << 40] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        let (_, most, found) = counted(|| open_memory(&bytes, &init_options()));
        assert!(found.is_err() && most < 10_000, "{most} bytes for a header that is not there");
    }
    let header = r#"{"w":{"dtype":"U8","shape":[1000000000000],"data_offsets":[0,1000000000000]}}"#;
    let bytes = file(header, b"");
    let (_, most, found) = counted(|| open_memory(&bytes, &init_options()));
    assert!(found.is_err() && most < 20_000, "{most} bytes for a tensor that is not there");
}

#[test]
fn memory_stays_within_a_multiple_of_the_header() {
    let size = 2_000_000;
    let fields = r#""dtype":"U8","shape":[],"data_offsets":[0,0]"#;
    let fill = |before: &str, piece: &str, after: &str| format!("{before}{}{after}", piece.repeat(size / piece.len()));
    let empty = |i: usize| format!(r#""{i:x}":{{"dtype":"F4","shape":[0],"data_offsets":[0,0]}}"#);
    let headers = [
        fill("{\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,0],\"shape\":[", "0,", "0]}}"),
        fill("{\"__metadata__\":{", "\"\":\"\",", "\"k\":\"v\"}}"),
        format!(
            r#"{{"__metadata__":{{{}}}}}"#,
            (0..size / 12).map(|i| format!(r#""{i:x}":"""#)).collect::<Vec<_>>().join(",")
        ),
        format!("{{{}}}", (0..size / 52).map(empty).collect::<Vec<_>>().join(",")),
        fill(&format!("{{\"w\":{{{fields},\"x\":["), "[],", "0]}}"),
        fill(&format!("{{\"w\":{{{fields}"), ",\"shape\":[0,0,0,0]", "}}"),
        fill("{", "\"\":0,", "\"\":0}"),
        fill("{\"", "\\u0000", "\":0}"),
        fill("", "[", ""),
        fill("", " ", "{}"),
    ];
    for header in headers {
        let bytes = file(&header, b"");
        let (_, most, found) = counted(|| open_memory(&bytes, &init_options()));
        let times = most / bytes.len();
        assert!(times <= 17, "{times} times the header's {} bytes for {}...", header.len(), &header[..60]);
        drop(found);
    }
}
