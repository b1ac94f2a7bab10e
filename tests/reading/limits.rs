// SPDX-License-Identifier: Apache-2.0
//! When memory runs out, wherever in an open that is, the library says so: no
//! abort. A C program opens the same files again and again, with a little more
//! memory each time, until opening succeeds.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::compile::{compile, has, said};
use crate::support::handle::{init_options, open_map, open_read, open_with};
use crate::support::{child, entry, file, file_of, index_of};
use tempfile::TempDir;

/// Opens the path with more and more memory, until that gives this status.
fn with_more_and_more(path: &Path, status: &str, step: usize) {
    if !has("cc") {
        return;
    }
    let name = path.file_name().unwrap().to_str().unwrap();
    let output = Command::new(compile("cc", "memory", name, &["-O1"]))
        .arg(path)
        .args([status, &step.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
}

/// The same for a header; each has another name, as tests run side by side.
fn opens(name: &str, header: impl AsRef<[u8]>, data: &[u8], status: &str) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(name);
    fs::write(&path, file(header, data)).unwrap();
    with_more_and_more(&path, status, 0);
}

fn header_of(entries: impl Iterator<Item = String>) -> String {
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

#[test]
fn for_a_header_of_many_tensors() {
    let entries = (0..100_000).map(|i| entry(&format!("t{i}"), 0, 0));
    opens("many.safetensors", header_of(entries), b"", "ST_OK");
}

#[test]
fn for_a_header_out_of_order() {
    let entries = (0..100_000).rev().map(|i| entry(&format!("t{i}"), i, i + 1));
    opens("order.safetensors", header_of(entries), &[1; 100_000], "ST_OK");
}

#[test]
fn for_a_header_of_one_long_name() {
    opens("name.safetensors", header_of([entry(&"n".repeat(20_000_000), 0, 0)].into_iter()), b"", "ST_OK");
}

#[test]
fn for_a_header_of_one_long_shape() {
    let shape = format!("[{}0]", "0,".repeat(2_000_000));
    opens("shape.safetensors", header_of([entry("w", 0, 0).replace("[0]", &shape)].into_iter()), b"", "ST_OK");
}

#[test]
fn for_a_header_of_much_metadata() {
    let entries: Vec<_> = (0..200_000).map(|i| format!(r#""key{i}":"value""#)).collect();
    opens("metadata.safetensors", format!(r#"{{"__metadata__":{{{}}}}}"#, entries.join(",")), b"", "ST_OK");
}

#[test]
fn for_a_header_that_ends_in_an_error() {
    let name = "\\t".repeat(2_000_000);
    opens("offsets.safetensors", header_of([entry(&name, 5, 6)].into_iter()), b"", "ST_ERROR_OFFSETS");
    let entries = (0..50_000).map(|i| entry(&format!("t{}", i % 49_999), 0, 0));
    opens("twice.safetensors", header_of(entries), b"", "ST_ERROR_DUPLICATE_KEY");
    opens("json.safetensors", format!("{{\"{name}\":[}}"), b"", "ST_ERROR_HEADER_JSON");
}

#[test]
fn for_the_thread_that_parses_a_large_header() {
    // Long texts and few tensors: quick to read, in small steps of memory.
    let long = "x".repeat(600_000);
    let metadata = format!(r#""__metadata__":{{"k":"{long}"}}"#);
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("thread.safetensors");
    let entries = [metadata, entry("a", 0, 1), entry("b", 1, 2), entry(&long, 2, 3)];
    fs::write(&path, file(header_of(entries.into_iter()), b"123")).unwrap();
    with_more_and_more(&path, "ST_OK", 8192);
}

fn sharded(index: &str, shard: &[u8], name: &str) -> (TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("s.safetensors"), shard).unwrap();
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    (root, folder)
}

#[test]
fn for_an_index_of_many_tensors() {
    let names: Vec<_> = (0..60_000).map(|i| format!("layer.{i}.weight")).collect();
    let index = index_of(names.iter().map(|name| (name, "s.safetensors")));
    let (_root, folder) = sharded(&index, &file_of(&names, 1), "many");
    with_more_and_more(&folder, "ST_OK", 0);
}

#[test]
fn for_an_index_of_many_shards() {
    let index = index_of((0..20_000).map(|i| (format!("t{i}"), format!("{i}.safetensors"))));
    let (_root, folder) = sharded(&index, b"", "shards");
    with_more_and_more(&folder, "ST_ERROR_SHARD", 0);
}

#[test]
fn for_an_index_of_escaped_names() {
    let index = index_of([("\\u0041".repeat(2_000_000), "s.safetensors")]);
    let (_root, folder) = sharded(&index, &file_of(&["A".repeat(2_000_000)], 1), "escaped");
    with_more_and_more(&folder, "ST_OK", 0);
}

#[test]
fn for_an_index_of_much_metadata() {
    let entries: Vec<_> = (0..100_000).map(|i| format!(r#""key{i}":"value""#)).collect();
    let index = format!(r#"{{"metadata":{{{}}},"weight_map":{{"w":"s.safetensors"}}}}"#, entries.join(","));
    let (_root, folder) = sharded(&index, &file_of(&["w"], 1), "metadata");
    with_more_and_more(&folder, "ST_OK", 0);
}

#[test]
fn for_metadata_of_index_and_shard() {
    let entries: Vec<_> = (0..60_000).map(|i| format!(r#""key{i}":"value""#)).collect();
    let metadata = format!(r#"{{{},"long {}":""}}"#, entries.join(","), "x".repeat(3_000_000));
    let shard = file(format!(r#"{{"__metadata__":{metadata},{}}}"#, entry("w", 0, 0)), b"");
    let (_root, folder) = sharded(&index_of([("w", "s.safetensors")]), &shard, "both");
    with_more_and_more(&folder, "ST_OK", 0);
}

/// A file whose one tensor is a hole of this size.
fn sparse(path: &Path, size: u64) {
    fs::write(path, file(header_of([entry("w", 0, size as usize)].into_iter()), b"")).unwrap();
    let header = fs::metadata(path).unwrap().len();
    fs::File::options().write(true).open(path).unwrap().set_len(header + size).unwrap();
}

#[test]
fn for_the_bytes_of_a_tensor() {
    let size = 3 << 30;
    let root = tempfile::tempdir().unwrap();
    let path = child::folder().unwrap_or(root.path().to_owned()).join("m.safetensors");
    if !child::is_child() {
        sparse(&path, size);
        let prepare = || child::limit(libc::RLIMIT_AS, 2 << 30);
        return child::succeeds_with("for_the_bytes_of_a_tensor", Duration::from_secs(60), root.path(), prepare);
    }
    let found = open_read(&path).unwrap();
    let failure = found.get("w").err().unwrap();
    assert_eq!(failure.status(), "ST_ERROR_OUT_OF_MEMORY", "{}", failure.message);
    assert!(failure.message.contains(&size.to_string()), "{}", failure.message);
    // A mapping needs address space as well.
    let failure = open_map(&path).err().unwrap();
    assert_eq!((failure.status(), failure.errno), ("ST_ERROR_OUT_OF_MEMORY", libc::ENOMEM), "{}", failure.message);
    // Where the choice is the library's, it reads.
    let chosen = open_with(&path, &init_options()).unwrap();
    assert_eq!(chosen.shards()[0].access(), safetensors::ffi::ST_ACCESS_READ);
}
