// SPDX-License-Identifier: Apache-2.0
//! The exports that write, as C calls them: what they take, refuse and leave alone.

use std::ffi::{c_void, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::{fs, ptr};

use crate::support::compile::{compile, has, said};
use crate::support::records::{Entry, Record};
use safetensors::ffi::*;
use safetensors::record::{st_metadata, st_tensor};

const F32: i32 = 18;
const SHAPE: [i64; 2] = [2, 3];
const DATA: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

fn record(name: &'static CStr) -> Record {
    Record {
        name: name.as_ptr(),
        name_len: 0,
        dtype: F32,
        shard: 77,
        rank: 2,
        shape: SHAPE.as_ptr(),
        element_count: 99,
        offset: 99,
        size: 0,
        data: DATA.as_ptr().cast(),
        dtype_name: ptr::null(),
        reserved: [5; 2],
    }
}

fn entry(key: &'static CStr, value: &'static CStr) -> Entry {
    Entry { key: key.as_ptr(), key_len: 0, value: value.as_ptr(), value_len: 0, reserved: [5; 2] }
}

fn options() -> st_save_options {
    // SAFETY: numbers, null pointers and no function.
    let zero: st_save_options = unsafe { std::mem::zeroed() };
    st_save_options { struct_size: size_of::<st_save_options>(), ..zero }
}

fn blank() -> st_error {
    st_error { code: -1, os_errno: -1, message: [0; 504] }
}

fn message(error: &st_error) -> String {
    // SAFETY: ends in NUL, as it began with nothing else.
    unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap().to_owned()
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn serialize(
    records: &[Record],
    metadata: Option<&[Entry]>,
    options: *const st_save_options,
) -> Result<Vec<u8>, (st_status, String)> {
    let (mut out, mut error) = (st_buffer { data: ptr::null_mut(), size: 0 }, blank());
    let (entries, entry_count) = metadata.map_or((ptr::null(), 0), |entries| (entries.as_ptr(), entries.len()));
    // SAFETY: as the header demands, or wrong in ways that it allows.
    unsafe {
        let records_at: *const st_tensor = records.as_ptr().cast();
        let status =
            st_serialize(records_at, records.len(), entries.cast(), entry_count, options, &raw mut out, &raw mut error);
        if status != ST_OK {
            assert!(out.data.is_null() && error.code == status);
            return Err((status, message(&error)));
        }
        assert_eq!(error.code, -1, "written on failure only");
        let bytes = std::slice::from_raw_parts(out.data.cast::<u8>(), out.size).to_vec();
        st_buffer_free(&raw mut out);
        assert!(out.data.is_null() && out.size == 0);
        st_buffer_free(&raw mut out);
        st_buffer_free(ptr::null_mut());
        Ok(bytes)
    }
}

fn refused(records: &[Record], metadata: Option<&[Entry]>, options: *const st_save_options) -> st_status {
    serialize(records, metadata, options).unwrap_err().0
}

#[test]
fn names_and_sizes_are_taken_as_given() {
    let plain = serialize(&[record(c"a")], None, ptr::null()).unwrap();
    let text = String::from_utf8_lossy(&plain);
    assert!(text.contains(r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#), "{text}");
    assert_eq!(plain[plain.len() - 24..], DATA.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    let with_nul = Record { name: b"a\0b\0".as_ptr().cast(), name_len: 3, size: 24, ..record(c"") };
    assert!(String::from_utf8_lossy(&serialize(&[with_nul], None, ptr::null()).unwrap()).contains(r#"{"a\u0000b":"#));
    let scalar = Record { rank: 0, shape: ptr::null(), ..record(c"s") };
    assert!(String::from_utf8_lossy(&serialize(&[scalar], None, ptr::null()).unwrap()).contains(r#""shape":[]"#));
    let entries = [entry(c"z", c""), entry(c"b", c"2")];
    let text = serialize(&[], Some(&entries), ptr::null()).unwrap();
    assert!(text[8..].starts_with(br#"{"__metadata__":{"b":"2","z":""}}"#));
    assert!(serialize(&[], Some(&[]), ptr::null()).unwrap()[8..].starts_with(br#"{"__metadata__":{}}"#));
    assert!(serialize(&[], None, ptr::null()).unwrap()[8..].starts_with(b"{}"));
}

#[test]
fn what_breaks_the_rules_has_its_code() {
    let good = record(c"a");
    let shape = [-2_i64, 3];
    for (record, expected) in [
        (Record { name: ptr::null(), ..good }, ST_ERROR_INVALID_ARGUMENT),
        (Record { name: c"\xff".as_ptr(), ..good }, ST_ERROR_INVALID_ARGUMENT),
        (Record { name: c"__metadata__".as_ptr(), ..good }, ST_ERROR_INVALID_ARGUMENT),
        (Record { dtype: 0, ..good }, ST_ERROR_INVALID_ARGUMENT),
        (Record { dtype: 23, ..good }, ST_ERROR_INVALID_ARGUMENT),
        (Record { dtype: 255, ..good }, ST_ERROR_UNSUPPORTED),
        (Record { shape: ptr::null(), ..good }, ST_ERROR_INVALID_ARGUMENT),
        (Record { rank: usize::MAX, ..good }, ST_ERROR_INVALID_ARGUMENT),
        (Record { shape: shape.as_ptr(), ..good }, ST_ERROR_SHAPE),
        (Record { size: 23, ..good }, ST_ERROR_SIZE_MISMATCH),
        (Record { data: ptr::null(), ..good }, ST_ERROR_INVALID_ARGUMENT),
        (Record { dtype: 3, rank: 0, ..good }, ST_ERROR_SUB_BYTE),
    ] {
        assert_eq!(refused(&[record], None, ptr::null()), expected);
    }
    assert_eq!(refused(&[good, good], None, ptr::null()), ST_ERROR_DUPLICATE_KEY);
    assert_eq!(refused(&[], Some(&[entry(c"k", c"1"), entry(c"k", c"2")]), ptr::null()), ST_ERROR_DUPLICATE_KEY);
    assert_eq!(
        refused(&[], Some(&[Entry { value: ptr::null(), ..entry(c"k", c"") }]), ptr::null()),
        ST_ERROR_INVALID_ARGUMENT
    );
    for (options, expected) in [
        (st_save_options { struct_size: 0, ..options() }, ST_ERROR_INVALID_ARGUMENT),
        (st_save_options { order: 2, ..options() }, ST_ERROR_INVALID_ARGUMENT),
        (st_save_options { sync: -1, ..options() }, ST_ERROR_INVALID_ARGUMENT),
        (st_save_options { overwrite: 3, ..options() }, ST_ERROR_INVALID_ARGUMENT),
        (st_save_options { alignment: 12, ..options() }, ST_ERROR_INVALID_ARGUMENT),
        (st_save_options { header_reserve: 100_000_000, ..options() }, ST_ERROR_HEADER_TOO_LARGE),
    ] {
        assert_eq!(refused(&[good], None, &raw const options), expected);
    }
    let unknown = st_save_options { order: 2, ..options() };
    let (_, message) = serialize(&[good], None, &raw const unknown).unwrap_err();
    assert_eq!(message, "st_save_options.order is 2; expected ST_ORDER_REFERENCE or ST_ORDER_GIVEN");
    let older = st_save_options { struct_size: size_of::<usize>(), order: 77, ..options() };
    assert!(serialize(&[good], None, &raw const older).is_ok());
}

#[test]
fn of_many_records_the_first_bad_one_is_named() {
    let names: Vec<_> = (0..10_000).map(|i| CString::new(format!("t{i}")).unwrap()).collect();
    let mut records: Vec<_> = names.iter().map(|name| Record { name: name.as_ptr(), ..record(c"") }).collect();
    assert!(serialize(&records, None, ptr::null()).is_ok());
    for number in [9_999, 5_001, 4_999, 77] {
        records[number].name = ptr::null();
        let (status, message) = serialize(&records, None, ptr::null()).unwrap_err();
        assert_eq!(status, ST_ERROR_INVALID_ARGUMENT);
        assert!(message.contains(&format!("tensors[{number}].name")), "{message}");
    }
}

#[test]
fn null_is_refused_and_release_takes_it() {
    let mut error = blank();
    let path = c"/nonexistent/x".as_ptr();
    let e = &raw mut error;
    // SAFETY: NULL everywhere, which the header allows.
    unsafe {
        let none = ptr::null();
        assert_eq!(st_save(ptr::null(), none, 0, ptr::null(), 0, ptr::null(), e), ST_ERROR_INVALID_ARGUMENT);
        assert_eq!(st_save(path, none, 1, ptr::null(), 0, ptr::null(), e), ST_ERROR_INVALID_ARGUMENT);
        assert_eq!(st_save(path, none, 0, ptr::null(), 1, ptr::null(), e), ST_ERROR_INVALID_ARGUMENT);
        assert_eq!(st_save(c"".as_ptr(), none, 0, ptr::null(), 0, ptr::null(), e), ST_ERROR_IO);
        assert_eq!(st_save(path, none, 0, ptr::null(), 0, ptr::null(), ptr::null_mut()), ST_ERROR_IO);
        assert_eq!(st_serialize(none, 0, ptr::null(), 0, ptr::null(), ptr::null_mut(), e), ST_ERROR_INVALID_ARGUMENT);
        assert!(st_writer_open(ptr::null(), none, 0, ptr::null(), 0, ptr::null(), e).is_null());
        assert_eq!(st_writer_write(ptr::null_mut(), 0, 0, ptr::null(), 0, e), ST_ERROR_INVALID_ARGUMENT);
        assert_eq!(st_writer_finish(ptr::null_mut(), e), ST_ERROR_INVALID_ARGUMENT);
        assert_eq!(st_set_metadata(ptr::null(), ptr::null(), 0, ptr::null(), e), ST_ERROR_INVALID_ARGUMENT);
        st_writer_free(ptr::null_mut());
    }
}

fn open(path: &Path, access: i32) -> *mut st_checkpoint {
    // SAFETY: numbers.
    let mut options: st_open_options = unsafe { std::mem::zeroed() };
    options.struct_size = size_of::<st_open_options>();
    options.access = access;
    let mut error = blank();
    // SAFETY: as the header demands.
    let handle = unsafe { st_open_with(c_path(path).as_ptr(), &raw const options, &raw mut error) };
    assert!(!handle.is_null(), "{}", message(&error));
    handle
}

unsafe extern "C" fn stop(user_data: *mut c_void, done: u64, total: u64) -> i32 {
    // SAFETY: what the test gave.
    unsafe { user_data.cast::<[u64; 2]>().write([done, total]) };
    1
}

#[test]
fn a_checkpoint_is_copied_and_edited() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("m.safetensors"), folder.path().join("copy.safetensors"));
    let empty = [0_i64, 3];
    let records = [record(c"b"), record(c"a"), Record { shape: empty.as_ptr(), data: ptr::null(), ..record(c"empty") }];
    let entries = [entry(c"format", c"pt")];
    let mut error = blank();
    let e = &raw mut error;
    // SAFETY: as the header demands.
    unsafe {
        let (tensors, metadata): (*const st_tensor, *const st_metadata) =
            (records.as_ptr().cast(), entries.as_ptr().cast());
        assert_eq!(
            st_save(c_path(&path).as_ptr(), tensors, 3, metadata, 1, ptr::null(), e),
            ST_OK,
            "{}",
            message(&error)
        );
        let bytes = fs::read(&path).unwrap();
        assert!(bytes == serialize(&records, Some(&entries), ptr::null()).unwrap());

        for access in [ST_ACCESS_MAP, ST_ACCESS_READ] {
            let source = open(&path, access);
            let (mut count, mut entry_count) = (0, 0);
            let tensors = st_tensors(source, &raw mut count);
            let metadata = st_metadata_entries(source, &raw mut entry_count);
            let options = st_save_options { source, ..options() };
            let to = c_path(&copy);
            assert_eq!(
                st_save(to.as_ptr(), tensors, count, metadata, entry_count, &raw const options, e),
                ST_OK,
                "{}",
                message(&error)
            );
            assert!(fs::read(&copy).unwrap() == bytes);
            let without = st_save(to.as_ptr(), tensors, count, metadata, entry_count, ptr::null(), e);
            assert_eq!(without, if access == ST_ACCESS_MAP { ST_OK } else { ST_ERROR_INVALID_ARGUMENT });
            // Another name is fine, another place is not.
            let mut changed = [*tensors.cast::<Record>()];
            changed[0].name = c"other".as_ptr();
            changed[0].name_len = 0;
            changed[0].data = ptr::null();
            assert_eq!(st_save(to.as_ptr(), changed.as_ptr().cast(), 1, ptr::null(), 0, &raw const options, e), ST_OK);
            changed[0].offset += 1;
            assert_eq!(
                st_save(to.as_ptr(), changed.as_ptr().cast(), 1, ptr::null(), 0, &raw const options, e),
                ST_ERROR_INVALID_ARGUMENT
            );
            // The file is cut short under the mapping: an error, and no signal.
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
            assert_eq!(st_save(to.as_ptr(), tensors, count, ptr::null(), 0, &raw const options, e), ST_ERROR_IO);
            fs::write(&path, &bytes).unwrap();
            st_free(source);
        }

        let mut told = [0_u64; 2];
        let cancel = st_save_options { progress: Some(stop), user_data: (&raw mut told).cast(), ..options() };
        assert_eq!(st_save(c_path(&path).as_ptr(), tensors, 3, metadata, 1, &raw const cancel, e), ST_ERROR_CANCELLED);
        assert!(told[1] == 48 && fs::read(&path).unwrap() == bytes);

        let options = st_metadata_options {
            struct_size: size_of::<st_metadata_options>(),
            in_place: 1,
            sync: ST_SYNC_NONE,
            merge: 0,
            reserved0: 0,
        };
        let shorter = [entry(c"f", c"g")];
        assert_eq!(
            st_set_metadata(c_path(&path).as_ptr(), shorter.as_ptr().cast(), 1, &raw const options, e),
            ST_OK,
            "{}",
            message(&error)
        );
        let edited = fs::read(&path).unwrap();
        assert!(edited[8..].starts_with(br#"{"__metadata__":{"f":"g"},"#) && edited.len() == bytes.len());
    }
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["copy.safetensors", "m.safetensors"]);
}

#[test]
fn a_writer_takes_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let records = [record(c"b"), Record { data: ptr::null(), ..record(c"a") }];
    let mut error = blank();
    let e = &raw mut error;
    // SAFETY: as the header demands.
    unsafe {
        let writer = st_writer_open(c_path(&path).as_ptr(), records.as_ptr().cast(), 2, ptr::null(), 0, ptr::null(), e);
        assert!(!writer.is_null(), "{}", message(&error));
        let data: *const c_void = DATA.as_ptr().cast();
        assert_eq!(st_writer_write(writer, 0, 0, data, 24, e), ST_OK);
        assert_eq!(st_writer_write(writer, 1, 8, data.byte_add(8), 16, e), ST_OK);
        assert_eq!(st_writer_write(writer, 1, 8, data, 1, e), ST_ERROR_INVALID_ARGUMENT);
        assert_eq!(st_writer_write(writer, 1, 0, ptr::null(), 8, e), ST_ERROR_INVALID_ARGUMENT);
        assert_eq!(st_writer_finish(writer, e), ST_ERROR_DATA_NOT_COVERED);
        assert!(message(&error).contains("tensor \"a\": of its 24 bytes 0 to 8"), "{}", message(&error));
        assert_eq!(st_writer_write(writer, 1, 0, data, 8, e), ST_OK);
        assert_eq!(st_writer_finish(writer, e), ST_OK);
        st_writer_free(writer);
    }
    assert!(fs::read(&path).unwrap() == serialize(&[record(c"a"), record(c"b")], None, ptr::null()).unwrap());
}

/// However many tensors, keys and pieces a caller gives.
#[test]
fn whoever_writes_has_memory_or_is_told_that_there_is_none() {
    if !has("cc") {
        return;
    }
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let program = compile("cc", "address_space", "address_space", &["-O1"]);
    let output = Command::new(program).arg("write").arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
}
