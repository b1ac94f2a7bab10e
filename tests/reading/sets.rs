// SPDX-License-Identifier: Apache-2.0
//! Several files as one checkpoint: replaced while they are opened, given one by
//! one, the same one twice, more than a process has room for.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use safetensors::ffi::{st_open_options, ST_ACCESS_AUTO, ST_ACCESS_MAP, ST_ACCESS_READ};
use safetensors::OpenOptions;
use tempfile::TempDir;

use crate::support::compile::{compile, has, said};
use crate::support::handle::{init_options, open, open_fd, open_files, open_read, open_with, shard_path, Handle};
use crate::support::validation::{agrees, validate};
use crate::support::{child, entry, file, file_of, index_of, pattern};

const INDEX: &str = "model.safetensors.index.json";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn options(access: i32) -> st_open_options {
    st_open_options { access, ..init_options() }
}

/// One shard of a generation: all its bytes are the generation's number.
fn of_generation(name: &str, generation: u8) -> Vec<u8> {
    file(format!("{{{}}}", entry(name, 0, 64)), &[generation; 64])
}

/// Replaces a set as this library's saver does: the older shards under other
/// names, an index of those, the new shards, their index.
fn replace(root: &Path, shards: usize, generation: u8) {
    let name = |shard: usize| format!("model-{shard}-of-{shards}.safetensors");
    let aside = |shard: usize| format!(".model.{generation}-{shard}.old");
    let rename = |from: &Path, to: &str| fs::rename(from, root.join(to)).unwrap();
    let put_index = |index: String| {
        let new = root.join(".index.new");
        fs::write(&new, index).unwrap();
        rename(&new, INDEX);
    };
    let new = |shard: usize| root.join(format!(".new-{shard}"));
    for shard in 1..=shards {
        fs::write(new(shard), of_generation(&format!("t{shard}"), generation)).unwrap();
        fs::hard_link(root.join(name(shard)), root.join(aside(shard))).unwrap();
    }
    put_index(index_of((1..=shards).map(|shard| (format!("t{shard}"), aside(shard)))));
    for shard in 1..=shards {
        rename(&new(shard), &name(shard));
    }
    put_index(index_of((1..=shards).map(|shard| (format!("t{shard}"), name(shard)))));
    for shard in 1..=shards {
        fs::remove_file(root.join(aside(shard))).unwrap();
    }
}

#[test]
fn a_set_that_is_replaced_meanwhile_is_the_older_or_the_newer_one() {
    const SHARDS: usize = 150;
    let root = folder();
    let files = (1..=SHARDS).map(|shard| (format!("t{shard}"), format!("model-{shard}-of-{SHARDS}.safetensors")));
    for (name, file) in files.clone() {
        fs::write(root.path().join(file), of_generation(&name, 0)).unwrap();
    }
    fs::write(root.path().join(INDEX), index_of(files)).unwrap();
    let (done, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for generation in 1..25 {
                replace(root.path(), SHARDS, generation);
                // The last ones stay until they have been opened, however slow the machine is.
                let before = opened.load(Ordering::Relaxed);
                let patience = Instant::now() + Duration::from_secs(if generation < 16 { 0 } else { 5 });
                while opened.load(Ordering::Relaxed) == before && Instant::now() < patience {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut generations = std::collections::BTreeSet::new();
        while !done.load(Ordering::Relaxed) {
            for path in [root.path().to_owned(), root.path().join(INDEX)] {
                let found = match open_read(path) {
                    Ok(found) => found,
                    Err(failure) => {
                        assert!(["ST_ERROR_IO", "ST_ERROR_SHARD"].contains(&failure.status()), "{failure:?}");
                        continue;
                    }
                };
                let all: Vec<_> = found.tensors().iter().flat_map(|tensor| found.read(tensor).unwrap()).collect();
                assert_eq!(all.len(), SHARDS * 64);
                assert!(all.iter().all(|byte| *byte == all[0]), "a mixture: {all:?}");
                opened.fetch_add(1, Ordering::Relaxed);
                generations.insert(all[0]);
            }
        }
        let opened = opened.load(Ordering::Relaxed);
        assert!(opened > 5 && generations.len() > 2, "{opened} opened, {generations:?}");
    });
}

#[test]
fn files_are_one_checkpoint_in_the_order_given() {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    fs::write(at("b"), file_of(&["x", "y"], 4)).unwrap();
    fs::write(at("a.safetensors"), file_of(&["z"], 8)).unwrap();
    fs::write(at("again"), file_of(&["y"], 8)).unwrap();
    fs::write(at("index.json"), index_of([("z", "a.safetensors")])).unwrap();
    fs::write(at(INDEX), "{}").unwrap();
    let open = |names: &[&str]| {
        let paths: Vec<_> = names.iter().map(|name| at(name)).collect();
        open_files(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>(), &init_options())
    };
    let found = open(&["b", "a.safetensors"]).unwrap();
    let paths: Vec<_> = found.shards().iter().map(|shard| shard_path(shard).to_vec()).collect();
    assert_eq!(paths, ["b", "a.safetensors"].map(|name| at(name).into_os_string().into_encoded_bytes()));
    assert_eq!(found.tensors().iter().map(|tensor| tensor.name()).collect::<Vec<_>>(), [b"x", b"y", b"z"]);
    assert_eq!(found.get("z").unwrap().data().unwrap(), pattern(8));
    let missing = found.get("w").err().unwrap();
    assert!(missing.message.contains("/b and 1 more"), "{}", missing.message);
    assert_eq!(open(&["b"]).unwrap().tensors().len(), 2);
    for (names, status, said) in [
        (&[][..], "ST_ERROR_INVALID_ARGUMENT", "no paths"),
        (&["b", INDEX], "ST_ERROR_INVALID_ARGUMENT", INDEX),
        (&["b", "index.json"], "ST_ERROR_INVALID_ARGUMENT", "index.json"),
        (&["b", "again"], "ST_ERROR_DUPLICATE_KEY", "\"again\""),
        (&["b", "b"], "ST_ERROR_DUPLICATE_KEY", "\"b\""),
        (&["b", "gone"], "ST_ERROR_IO", "gone"),
        (&["b", "."], "ST_ERROR_IO", "regular"),
    ] {
        let failure = open(names).err().unwrap();
        assert_eq!(failure.status(), status, "{}", failure.message);
        assert!(failure.message.contains(said), "{said}: {}", failure.message);
    }
}

#[test]
fn a_part_of_an_open_file_is_a_checkpoint() {
    let root = folder();
    let model = file_of(&["a", "b"], 5000);
    let path = root.path().join("package");
    for before in [0, 13, 4096, 5001] {
        fs::write(&path, [&vec![7; before][..], &model, b"what follows"].concat()).unwrap();
        for access in [ST_ACCESS_AUTO, ST_ACCESS_MAP, ST_ACCESS_READ] {
            let mut package = File::open(&path).unwrap();
            let open =
                |offset: usize, size: usize| open_fd(package.as_raw_fd(), offset as u64, size as u64, &options(access));
            let found = open(before, model.len()).unwrap();
            for (offset, size) in [(before, model.len() + 13), (before + 5000 + model.len(), 0), (usize::MAX, 2)] {
                let failure = open(offset, size).err().unwrap();
                assert_eq!(failure.status(), "ST_ERROR_INVALID_ARGUMENT", "{}", failure.message);
            }
            // Up to the end is too much, and one byte too little.
            assert_eq!(open(before, 0).err().unwrap().status(), "ST_ERROR_DATA_NOT_COVERED");
            assert_eq!(open(before, model.len() - 1).err().unwrap().status(), "ST_ERROR_TRUNCATED");
            assert_eq!(package.stream_position().unwrap(), 0);
            drop(package);
            assert_eq!(found.shards()[0].access() == ST_ACCESS_READ, access == ST_ACCESS_READ);
            assert!(shard_path(&found.shards()[0]).is_empty());
            assert_eq!(found.contents(), open_memory_contents(&model));
        }
    }
    fs::write(&path, &model).unwrap();
    let whole = File::open(&path).unwrap();
    assert_eq!(open_fd(whole.as_raw_fd(), 0, 0, &init_options()).unwrap().contents(), open_memory_contents(&model));
}

/// The same, with shard and offsets as they are in memory.
fn open_memory_contents(model: &[u8]) -> crate::support::corpus::Contents {
    crate::support::handle::open_memory(model, &init_options()).unwrap().contents()
}

#[test]
fn what_is_no_readable_file_is_no_part() {
    let root = folder();
    let path = root.path().join("m");
    fs::write(&path, file_of(&["a"], 4)).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&file_of(&["a"], 4)).unwrap();
    let (null, closed) = (File::open("/dev/null").unwrap(), File::options().write(true).open(&path).unwrap());
    for fd in [reader.as_raw_fd(), null.as_raw_fd(), closed.as_raw_fd(), 1_000_000] {
        let failure = open_fd(fd, 0, 0, &init_options()).err().unwrap();
        assert_eq!(failure.status(), "ST_ERROR_IO", "{}", failure.message);
    }
    assert_eq!(open_fd(-1, 0, 0, &init_options()).err().unwrap().status(), "ST_ERROR_INVALID_ARGUMENT");
}

/// A set of so many links to one file, each for one of its tensors; how many bytes its texts have.
fn links(root: &Path, count: usize) -> u64 {
    let names: Vec<_> = (0..count).map(|i| format!("t{i:04}")).collect();
    let bytes = file_of(&names, 8);
    fs::write(root.join("base"), &bytes).unwrap();
    let link = |i: usize| format!("{i:04}.safetensors");
    for i in 0..count {
        match i % 2 {
            0 => symlink("base", root.join(link(i))).unwrap(),
            _ => fs::hard_link(root.join("base"), root.join(link(i))).unwrap(),
        }
    }
    let index = index_of(names.iter().enumerate().rev().map(|(i, name)| (name, link(i))));
    fs::write(root.join(INDEX), &index).unwrap();
    (index.len() + bytes.len() - count * 8) as u64
}

#[test]
fn a_file_that_a_set_has_many_times_is_parsed_and_counted_once() {
    let root = folder();
    let texts = links(root.path(), 40);
    for access in [ST_ACCESS_MAP, ST_ACCESS_READ] {
        let with = |max_set_bytes| open_with(root.path(), &st_open_options { max_set_bytes, ..options(access) });
        let found = with(texts).unwrap();
        assert_eq!((found.shards().len(), found.tensors().len()), (40, 40));
        let bytes = pattern(40 * 8);
        for (i, tensor) in found.tensors().iter().enumerate() {
            assert_eq!((tensor.shard(), tensor.name()), (i, format!("t{i:04}").as_bytes()));
            assert_eq!(found.read(tensor).unwrap(), &bytes[i * 8..][..8]);
        }
        found.contents();
        let failure = with(texts - 1).err().unwrap();
        assert_eq!(failure.status(), "ST_ERROR_HEADER_TOO_LARGE");
        assert!(failure.message.starts_with(root.path().to_str().unwrap()), "{}", failure.message);
        assert!(failure.message.contains(&(texts - 1).to_string()), "{}", failure.message);
    }
    agrees(root.path(), &OpenOptions::default()).unwrap();
}

#[test]
fn a_limit_of_the_set_holds_for_one_file_too() {
    let bytes = file_of(&["a"], 4);
    let with = |max_set_bytes| {
        crate::support::handle::open_memory(&bytes, &st_open_options { max_set_bytes, ..init_options() })
    };
    assert_eq!(with(bytes.len() as u64 - 5).err().unwrap().status(), "ST_ERROR_HEADER_TOO_LARGE");
    assert!(with(bytes.len() as u64 - 4).is_ok());
}

/// Many shards with one tensor each.
fn many(root: &Path, count: usize) {
    let name = |i: usize| format!("model-{i:05}-of-{count:05}.safetensors");
    for i in 1..=count {
        fs::write(root.join(name(i)), file_of(&[format!("t{i}")], 8)).unwrap();
    }
}

#[test]
fn thousands_of_files_are_read_where_mapping_is_not_asked_for() {
    let root = folder();
    many(root.path(), 4200);
    let found = open(root.path()).unwrap();
    assert!(found.shards().iter().all(|shard| shard.access() == ST_ACCESS_READ));
    assert!(found.reason().contains("thousands"), "{}", found.reason());
    assert_eq!(found.get("t4200").unwrap().data().unwrap(), pattern(8));
}

#[test]
fn more_files_than_can_all_be_mapped_are_refused_where_mapping_is_asked_for() {
    if !child::is_child() {
        // Files that other tests map are counted too.
        let test = "more_files_than_can_all_be_mapped_are_refused_where_mapping_is_asked_for";
        return child::succeeds(test, Duration::from_secs(240), || Ok(()));
    }
    const MOST: usize = 32_768;
    let root = folder();
    let (first, names) = (root.path().join("0"), (0..=MOST).map(|i| format!("t{i}")).collect::<Vec<_>>());
    fs::write(&first, file_of(&names, 1)).unwrap();
    (1..=MOST).for_each(|i| fs::hard_link(&first, root.path().join(i.to_string())).unwrap());
    let open_first = |count: usize, access: i32| {
        let files = names.iter().take(count).enumerate().map(|(i, name)| (name.clone(), i.to_string()));
        fs::write(root.path().join(INDEX), index_of(files)).unwrap();
        open_with(root.path(), &options(access))
    };
    let failure = open_first(MOST + 1, ST_ACCESS_MAP).err().unwrap();
    assert_eq!((failure.status(), failure.errno), ("ST_ERROR_OUT_OF_MEMORY", libc::ENOMEM));
    for word in ["mapping 32769 files more", "at most 32768", "ST_ACCESS_READ"] {
        assert!(failure.message.contains(word), "{}", failure.message);
    }
    // As many as there may be leave the process enough for its threads and its heap.
    let found = open_first(MOST, ST_ACCESS_MAP).unwrap();
    assert_eq!(found.get("t32767").unwrap().data().unwrap(), [pattern(MOST)[MOST - 1]]);
    assert!(found.shards().iter().all(|shard| shard.access() == ST_ACCESS_MAP));
    thread::spawn(|| vec![1_u8; 64 << 20]).join().unwrap();
    // They are counted together, and come back.
    let one = open_with(root.path().join("0").as_path(), &options(ST_ACCESS_MAP)).err().unwrap();
    assert!(one.message.contains("mapping 1 files more"), "{}", one.message);
    drop(found);
    assert!(open_with(root.path().join("0").as_path(), &options(ST_ACCESS_MAP)).is_ok());
}

#[test]
fn descriptors_are_counted_for_the_process() {
    if !child::is_child() {
        let test = "descriptors_are_counted_for_the_process";
        return child::succeeds(test, Duration::from_secs(120), || child::limit(libc::RLIMIT_NOFILE, 256));
    }
    let root = folder();
    many(root.path(), 40);
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let all: Vec<Handle> = (0..25).map(|_| open_read(root.path()).unwrap()).collect();
    assert!(descriptors() < before + 64, "{} for 25 times 40 shards", descriptors() - before);
    for found in &all {
        assert_eq!(found.get("t40").unwrap().data().unwrap(), pattern(8));
    }
    drop(all);
    assert_eq!(descriptors(), before);
    // What was given back is there again.
    let found = open_read(root.path()).unwrap();
    assert!(descriptors() >= before + 40);
    drop(found);
}

#[test]
fn a_set_opens_or_says_that_there_is_no_memory_in_any_address_space() {
    if !has("cc") {
        return;
    }
    let root = folder();
    many(root.path(), 150);
    let files = (1..=150).map(|i| (format!("t{i}"), format!("model-{i:05}-of-00150.safetensors")));
    fs::write(root.path().join(INDEX), index_of(files)).unwrap();
    let program = compile("cc", "address_space", "address_space", &["-O1"]);
    let output = std::process::Command::new(program).arg("open").arg(root.path()).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
}

#[test]
fn a_missing_tensor_that_is_an_alias_says_so() {
    let root = folder();
    let header = format!(r#"{{"__metadata__":{{"head":"embed","format":"pt","a":"gone"}},{}}}"#, entry("embed", 0, 4));
    fs::write(root.path().join("m.safetensors"), file(&header, &pattern(4))).unwrap();
    fs::write(root.path().join(INDEX), index_of([("embed", "m.safetensors")])).unwrap();
    let found = open(root.path()).unwrap();
    let said = |name: &str| found.get(name).err().unwrap().message;
    assert!(said("head").contains("alias of \"embed\""), "{}", said("head"));
    for other in ["a", "format", "nothing"] {
        assert!(!said(other).contains("alias"), "{}", said(other));
    }
    // What was opened is named, and not its first shard.
    assert!(said("x").starts_with(&format!("{}: ", root.path().display())), "{}", said("x"));
}

#[test]
fn validation_tells_what_opening_passes_over() {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    fs::write(at("1.safetensors"), file_of(&["a", "extra"], 4)).unwrap();
    fs::write(at("2.safetensors"), file_of(&["b"], 4)).unwrap();
    fs::write(at("3.safetensors"), file_of(&["c"], 4)).unwrap();
    let index = |total: &str| {
        let map = r#""weight_map":{"a":"1.safetensors","b":"2.safetensors"}"#;
        format!(r#"{{"metadata":{{"total_size":{total}}},{map}}}"#)
    };
    let told = |index: String| {
        fs::write(at(INDEX), index).unwrap();
        let (problems, verdict) = validate(root.path(), &init_options());
        assert_eq!(verdict, Ok(()));
        assert!(problems.iter().all(|problem| problem.harmless));
        problems.into_iter().map(|problem| (problem.file, problem.tensor, problem.text)).collect::<Vec<_>>()
    };
    for right in ["8", "8.0", "\"8\""] {
        let problems = told(index(right));
        let files: Vec<_> =
            problems.iter().map(|(file, ..)| file.rsplit(|byte| *byte == b'/').next().unwrap()).collect();
        assert_eq!(files, [&b"1.safetensors"[..], b"3.safetensors"], "{right}: {problems:?}");
        assert_eq!(problems[0].1.as_deref(), Some(&b"extra"[..]));
    }
    for wrong in ["9", "\"x\"", "null", "-8", "8.5"] {
        let problems = told(index(wrong));
        let said = problems.iter().any(|(.., text)| text.contains("total_size") && text.contains("8 bytes"));
        assert!(said, "{wrong}: {problems:?}");
    }
    let problems = told(r#"{"weight_map":{}}"#.into());
    assert!(problems[0].2.contains("3 files"), "{problems:?}");
}

#[test]
fn bytes_that_happen_to_fit_are_named_all_the_same() {
    let bytes = [&b"\x1f\x8b\0\0\0\0\0\0"[..], &[0; 40_000]].concat();
    let failure = crate::support::handle::open_memory(&bytes, &init_options()).err().unwrap();
    assert_eq!(failure.status(), "ST_ERROR_HEADER_START");
    assert!(failure.message.contains("gzip"), "{}", failure.message);
    // A header of as many bytes is none.
    let header = format!("{{{}}}{}", entry("w", 0, 4), " ".repeat(0x8b1f - entry("w", 0, 4).len() - 2));
    assert_eq!(header.len(), 0x8b1f);
    let failure = crate::support::handle::open_memory(&file(header + "x", b"1234"), &init_options()).err().unwrap();
    assert!(!failure.message.contains("gzip"), "{}", failure.message);
}
