// SPDX-License-Identifier: Apache-2.0
//! Saving where people save: mounts that can't rename, folders of others, deep
//! paths, few descriptors; and what is replaced there keeps its readers.
//!
//! What takes a process of its own happens in a child: this program again.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{chown, lchown, symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safetensors::writer::{self, Durability, EditOptions, Overwrite, SaveOptions};
use safetensors::{Checkpoint, Dtype, Error, ErrorKind, NewTensor, OpenOptions, Writer};

use crate::shim::{self, preload};

fn save(path: &Path, version: u8, options: &SaveOptions) -> Result<(), Error> {
    let (bytes, shape) = ([version; 1000], [1000]);
    let tensor = |name| NewTensor::new(name, Dtype::U8, &shape).unwrap().with_data(&bytes).unwrap();
    writer::save(path, &["a", "b", "c"].map(tensor), None, options, None, None)
}

fn version(path: &Path) -> u8 {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let bytes: Vec<_> = checkpoint.tensors().iter().flat_map(|tensor| tensor.data().unwrap().to_vec()).collect();
    assert!(bytes.len() == 3000 && bytes.iter().all(|byte| *byte == bytes[0]), "mixed");
    bytes[0]
}

fn unsynced() -> SaveOptions {
    SaveOptions { sync: Durability::Unsynced, ..SaveOptions::default() }
}

fn direct() -> SaveOptions {
    SaveOptions { overwrite: Overwrite::Direct, ..unsynced() }
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

fn is_root() -> bool {
    // SAFETY: takes nothing.
    unsafe { libc::geteuid() == 0 }
}

/// This program again, with one thing to do.
fn child(what: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "places::the_child", "--nocapture", "--test-threads=1"]);
    command.env("PLACES_DO", what).env("CRASH_PATH", path).stdout(Stdio::null());
    command
}

fn refused(saved: Result<(), Error>, errno: i32) {
    let error = saved.unwrap_err();
    assert_eq!((error.kind(), error.os_errno()), (ErrorKind::Io, errno), "{error}");
    assert!(error.to_string().contains("ST_OVERWRITE_DIRECT"), "{error}");
}

#[test]
fn the_child() {
    let Ok(what) = std::env::var("PLACES_DO") else { return };
    let path = PathBuf::from(std::env::var_os("CRASH_PATH").unwrap());
    match what.as_str() {
        "without rename" => {
            let errno = std::env::var("FAULTS").unwrap().rsplit('=').next().unwrap().parse().unwrap();
            for max_shard_size in [0, 1000] {
                refused(save(&path, 2, &SaveOptions { max_shard_size, ..unsynced() }), errno);
                assert_eq!((version(&path), names(path.parent().unwrap()).len()), (1, 1));
            }
            save(&path, 3, &direct()).unwrap();
            assert_eq!((version(&path), names(path.parent().unwrap()).len()), (3, 1));
        }
        "replace" => save(&path, 2, &SaveOptions::default()).unwrap(),
        "overwrite" => {
            let options = EditOptions { in_place: true, sync: Durability::Unsynced };
            drop(writer::set_metadata(&path, Some(&[("k", "v")]), &options));
        }
        "unprivileged" => {
            // SAFETY: numbers.
            assert_eq!(unsafe { (libc::setgid(65534), libc::setuid(65534)) }, (0, 0));
            refused(save(&path, 2, &unsynced()), libc::EACCES);
            assert_eq!(version(&path), 1);
            save(&path, 3, &direct()).unwrap();
        }
        "deep" => {
            std::env::set_current_dir(&path).unwrap();
            for _ in 0..60 {
                let name = "f".repeat(100);
                fs::create_dir(&name).unwrap();
                std::env::set_current_dir(&name).unwrap();
            }
            let set = SaveOptions { max_shard_size: 1000, ..SaveOptions::default() };
            for (number, options) in (1..).zip([SaveOptions::default(), unsynced(), set, set, direct(), unsynced()]) {
                save(Path::new("m.safetensors"), number, &options).unwrap();
                assert_eq!(version(Path::new(".")), number);
            }
            let tensor = NewTensor::new("a", Dtype::U8, &[1]).unwrap();
            let writer = Writer::open(Path::new("m.safetensors"), &[tensor], None, &unsynced()).unwrap();
            writer.write(0, 0, &[7]).unwrap();
            std::env::set_current_dir("..").unwrap();
            writer.finish().unwrap();
            assert_eq!(names(Path::new(&"f".repeat(100))), ["m.safetensors"]);
            let error = save(Path::new("missing/m.safetensors"), 1, &unsynced()).unwrap_err();
            assert!(error.os_errno() == libc::ENOENT && error.to_string().contains("missing/m"), "{error}");
        }
        "few descriptors" => {
            let limit = libc::rlimit { rlim_cur: 60, rlim_max: 60 };
            // SAFETY: a limit of this process.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
            let options = SaveOptions { max_shard_size: 1, ..unsynced() };
            let names: Vec<_> = (0..300).map(|number| format!("{number:03}")).collect();
            let new = |name| NewTensor::new(name, Dtype::U8, &[2]).unwrap();
            for version in 1..=2 {
                let bytes = [version; 2];
                let tensors: Vec<_> = names.iter().map(|name| new(name).with_data(&bytes).unwrap()).collect();
                writer::save(&path, &tensors, None, &options, None, None).unwrap();
                all_are(path.parent().unwrap(), version);
            }
            let tensors: Vec<_> = names.iter().map(|name| new(name)).collect();
            let writer =
                Writer::open(&path, &tensors, None, &SaveOptions { sync: Durability::Synced, ..options }).unwrap();
            (0..300).for_each(|number| writer.write(number, 1, &[3]).unwrap());
            (0..300).for_each(|number| writer.write(number, 0, &[3]).unwrap());
            writer.finish().unwrap();
            all_are(path.parent().unwrap(), 3);
        }
        other => panic!("nobody knows how to {other}"),
    }
}

fn all_are(folder: &Path, version: u8) {
    let checkpoint = Checkpoint::open(folder, &OpenOptions::default()).unwrap();
    assert_eq!((checkpoint.tensors().len(), names(folder).len()), (300, 301));
    let mut bytes = [0; 2];
    for tensor in checkpoint.tensors() {
        checkpoint.read(tensor, &mut bytes).unwrap();
        assert_eq!(bytes, [version; 2]);
    }
}

#[test]
fn where_nothing_can_be_renamed_the_error_says_what_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for errno in [libc::ENOSYS, libc::EOPNOTSUPP, libc::EPERM, libc::EXDEV] {
        drop(fs::remove_file(&path));
        save(&path, 1, &unsynced()).unwrap();
        let status = preload(&mut child("without rename", &path), &format!("rename:fails={errno}")).status().unwrap();
        assert!(status.success(), "{errno}");
    }
}

#[test]
fn a_mounted_file_is_written_straight_into() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("m.safetensors"), folder.path().join("other.safetensors"));
    save(&path, 1, &unsynced()).unwrap();
    save(&other, 1, &unsynced()).unwrap();
    let c = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let (from, to) = (c(&other), c(&path));
    // SAFETY: texts that end in NUL.
    let bound = unsafe { libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null()) };
    if bound != 0 {
        return eprintln!("not tested: nothing can be mounted here");
    }
    let outcome = std::panic::catch_unwind(|| {
        refused(save(&path, 2, &unsynced()), libc::EBUSY);
        assert_eq!((version(&path), names(folder.path()).len()), (1, 2));
        save(&path, 3, &direct()).unwrap();
        assert_eq!((version(&path), version(&other)), (3, 3));
    });
    // SAFETY: as above.
    unsafe { libc::umount2(to.as_ptr(), libc::MNT_DETACH) };
    outcome.unwrap();
}

#[test]
fn a_file_that_may_be_written_in_a_folder_that_may_not() {
    if !is_root() {
        return eprintln!("not tested: only root can become somebody else");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, &unsynced()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(child("unprivileged", &path).status().unwrap().success());
    assert_eq!((version(&path), names(folder.path()).len()), (3, 1));
}

#[test]
fn straight_into_the_names_of_a_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let mut number = 0;
    for before in [0, 1000, 2000] {
        for after in [0, 1000, 2000] {
            number += 2;
            save(&path, number, &SaveOptions { max_shard_size: before, ..unsynced() }).unwrap();
            save(&path, number + 1, &SaveOptions { max_shard_size: after, ..direct() }).unwrap();
            let files = [1, 4, 3][after as usize / 1000];
            assert_eq!(
                (version(folder.path()), names(folder.path()).len()),
                (number + 1, files),
                "{before} to {after}"
            );
        }
    }
}

#[test]
fn what_is_read_is_not_emptied_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, &unsynced()).unwrap();
    let source = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    let copied = source.tensors().iter().map(|record| {
        let name = std::str::from_utf8(record.name()).unwrap();
        NewTensor::new(name, record.dtype(), record.shape()).unwrap().with_source(&source, record).unwrap()
    });
    let copied: Vec<_> = copied.collect();
    let error = writer::save(&path, &copied, None, &direct(), Some(&source), None).unwrap_err();
    assert_eq!((error.kind(), version(&path)), (ErrorKind::InvalidArgument, 1), "{error}");
    let failed = writer::save(&path, &copied, None, &direct(), None, None).unwrap_err();
    assert_eq!((failed.kind(), version(&path)), (ErrorKind::InvalidArgument, 1), "{failed}");
}

#[test]
fn a_mode_that_can_not_be_set_costs_nothing() {
    let (tools, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, log) = (folder.path().join("m.safetensors"), tools.path().join("log"));
    for (mode, errno) in [(0o640, libc::ENOSYS), (0o640, libc::EOPNOTSUPP), (0o640, libc::EPERM), (0o644, libc::EPERM)]
    {
        save(&path, 1, &unsynced()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mut child = child("replace", &path);
        preload(&mut child, &format!("fchmod:fails={errno}")).env("FAULTS_LOG", &log);
        assert!(child.status().unwrap().success());
        let now = fs::metadata(&path).unwrap().mode() & 0o777;
        assert!(version(&path) == 2 && now & !mode == 0, "{now:o} for {mode:o}");
        // Where the modes are equal it is not called.
        assert_eq!(!shim::log_in(&log).is_empty(), mode == 0o640, "{mode:o}");
        assert!(mode == 0o640 || now == mode, "{now:o}");
    }
}

const LIST: &std::ffi::CStr = c"system.posix_acl_access";

fn set_list(path: &Path, entries: &[(u16, u16, u32)]) -> bool {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: texts that end in NUL, and bytes of the length that is said.
    unsafe { libc::setxattr(path.as_ptr(), LIST.as_ptr(), list.as_ptr().cast(), list.len(), 0) == 0 }
}

fn list(path: &Path) -> Option<Vec<u8>> {
    let (path, mut list) = (std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap(), vec![0; 1000]);
    // SAFETY: texts that end in NUL, and room of the length that is said.
    let len = unsafe { libc::getxattr(path.as_ptr(), LIST.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    list.truncate(usize::try_from(len).ok()?);
    Some(list)
}

#[test]
fn an_access_list_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, &unsynced()).unwrap();
    // user::rw- user:65533:rw- group::--- mask::rw- other::---
    let entries = [(1, 6, u32::MAX), (2, 6, 65533), (4, 0, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)];
    if !set_list(&path, &entries) {
        return eprintln!("not tested: the file system has no access lists");
    }
    let before = list(&path).unwrap();
    for options in [unsynced(), SaveOptions { max_shard_size: 10_000, ..SaveOptions::default() }] {
        save(&path, 2, &options).unwrap();
        assert_eq!((version(&path), list(&path)), (2, Some(before.clone())));
    }
}

#[test]
fn a_link_of_somebody_else_in_a_shared_folder_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (shared, target) = (folder.path().join("shared"), folder.path().join("m.safetensors"));
    fs::create_dir(&shared).unwrap();
    let link = shared.join("m.safetensors");
    symlink(&target, &link).unwrap();
    if lchown(&link, Some(65534), Some(65534)).is_err() || chown(&shared, Some(65533), None).is_err() {
        return eprintln!("not tested: only root can give files away");
    }
    save(&target, 1, &unsynced()).unwrap();
    for (mode, followed) in [(0o1777, false), (0o777, true), (0o1755, true)] {
        fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
        for options in [unsynced(), direct()] {
            match save(&link, 2, &options) {
                Ok(()) => assert!(followed, "{mode:o}"),
                Err(error) => assert!(!followed && error.os_errno() == libc::EACCES, "{mode:o}: {error}"),
            }
        }
        assert_eq!(version(&target), 1 + u8::from(followed));
        save(&target, 1, &unsynced()).unwrap();
    }
    // One's own is.
    lchown(&link, Some(0), Some(0)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    save(&link, 2, &unsynced()).unwrap();
    assert_eq!(version(&target), 2);
}

#[test]
fn a_relative_path_in_a_folder_deeper_than_any_path() {
    let folder = tempfile::tempdir().unwrap();
    let status = child("deep", folder.path()).status().unwrap();
    // Too deep for std's own way of removing it.
    Command::new("rm").arg("-rf").arg(folder.path().join("f".repeat(100))).status().unwrap();
    assert!(status.success());
}

#[test]
fn there_may_be_more_shards_than_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    assert!(child("few descriptors", &folder.path().join("m.safetensors")).status().unwrap().success());
}

/// Between looking at a stale file and removing it, it may become another.
#[test]
fn what_has_taken_the_name_of_a_stale_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let stale = folder.path().join(".m.safetensors.0123456789abcdef.safetensors-tmp");
    let live = folder.path().join("live");
    fs::write(&stale, "stale").unwrap();
    fs::write(&live, "live").unwrap();
    let swap = format!("flock:nth=1:swap={},{}", live.display(), stale.display());
    assert!(preload(&mut child("replace", &path), &swap).status().unwrap().success());
    assert_eq!((version(&path), fs::read(&stale).unwrap()), (2, b"live".to_vec()));
    assert!(!live.exists());
}

/// A header is written over the file for which it was made, and no other.
#[test]
fn a_file_that_has_taken_its_place_keeps_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("m.safetensors"), folder.path().join("other"));
    let reserve = SaveOptions { header_reserve: 5000, ..unsynced() };
    let mut swapped = 0;
    for number in 1..20 {
        save(&path, 1, &reserve).unwrap();
        let tensor = NewTensor::new("other", Dtype::U8, &[30_000]).unwrap().with_data(&[9; 30_000]).unwrap();
        writer::save(&other, &[tensor], None, &reserve, None, None).unwrap();
        let swap = format!("open@.safetensors:nth={number}:swap={},{}", other.display(), path.display());
        preload(&mut child("overwrite", &path), &swap).status().unwrap();
        if other.exists() {
            break;
        }
        swapped += 1;
        let found = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(found.find(b"other").unwrap().data().unwrap(), [9; 30_000], "{number}");
    }
    assert!(swapped > 1);
}

/// File::lock, which the oldest compiler has not.
fn lock(file: &File) {
    // SAFETY: numbers.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
}

/// A stopped save has its turn for as long as it likes; another one can be
/// stopped while it waits.
#[test]
fn waiting_for_a_turn_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let options = SaveOptions { max_shard_size: 1000, ..unsynced() };
    save(&path, 1, &options).unwrap();
    let turn = File::create(folder.path().join(".m.safetensors.0000000000000000.safetensors-tmp")).unwrap();
    lock(&turn);
    let (bytes, shape) = ([2; 1000], [1000]);
    let tensor = |name| NewTensor::new(name, Dtype::U8, &shape).unwrap().with_data(&bytes).unwrap();
    let mut told = 0;
    let mut progress = |done: u64, total: u64| {
        told += u32::from(done == total);
        told < 10
    };
    let tensors = ["a", "b", "c"].map(tensor);
    let error = writer::save(&path, &tensors, None, &options, None, Some(&mut progress)).unwrap_err();
    assert_eq!((error.kind(), told, version(folder.path())), (ErrorKind::Cancelled, 10, 1), "{error}");
    assert_eq!(names(folder.path()).len(), 5);
    drop(turn);
    save(&path, 2, &options).unwrap();
    assert_eq!((version(folder.path()), names(folder.path()).len()), (2, 4));
}

/// For as long as a program that was stopped does not hold its turn for ever.
#[test]
#[ignore = "takes 30 seconds"]
fn a_turn_is_waited_for_half_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let options = SaveOptions { max_shard_size: 1000, ..unsynced() };
    save(&path, 1, &options).unwrap();
    let turn = File::create(folder.path().join(".m.safetensors.0000000000000000.safetensors-tmp")).unwrap();
    lock(&turn);
    let error = save(&path, 2, &options).unwrap_err();
    assert_eq!((error.kind(), error.os_errno(), version(folder.path())), (ErrorKind::Io, libc::EBUSY, 1), "{error}");
}

fn metadata(path: &Path) -> Vec<(String, String)> {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    checkpoint.metadata().unwrap_or_default().iter().map(|entry| (text(entry.key()), text(entry.value()))).collect()
}

#[test]
fn single_keys_are_set_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, &SaveOptions { header_reserve: 200, ..unsynced() }).unwrap();
    let options = EditOptions { in_place: true, ..EditOptions::default() };
    let merge = |entries: &[(&str, Option<&str>)]| writer::merge_metadata(&path, entries, &options);
    let pairs =
        |pairs: &[(&str, &str)]| -> Vec<_> { pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect() };
    merge(&[("gone", None)]).unwrap();
    assert_eq!(metadata(&path), []);
    merge(&[("b", Some("1")), ("a", Some("\"x\""))]).unwrap();
    merge(&[("b", Some("2")), ("c", Some("")), ("gone", None)]).unwrap();
    assert_eq!(metadata(&path), pairs(&[("a", "\"x\""), ("b", "2"), ("c", "")]));
    merge(&[("a", None)]).unwrap();
    merge(&[]).unwrap();
    assert_eq!((metadata(&path), version(&path)), (pairs(&[("b", "2"), ("c", "")]), 1));
    let twice = merge(&[("k", Some("1")), ("k", None)]).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::DuplicateKey, "{twice}");
    let long = "x".repeat(3000);
    let error = merge(&[("long", Some(&long))]).unwrap_err();
    assert_eq!((error.kind(), metadata(&path).len()), (ErrorKind::BufferSize, 2), "{error}");
    assert!(error.to_string().contains("st_save_options.source"), "{error}");
}

#[test]
fn an_index_stands_for_all_of_its_shards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, &SaveOptions { header_reserve: 60, max_shard_size: 1000, ..unsynced() }).unwrap();
    let index = folder.path().join("m.safetensors.index.json");
    let options = EditOptions { in_place: true, ..EditOptions::default() };
    writer::merge_metadata(&index, &[("k", Some("v"))], &options).unwrap();
    let shard = |number| folder.path().join(format!("m-{number:05}-of-00003.safetensors"));
    for number in 1..=3 {
        assert_eq!(metadata(&shard(number)), [("k".to_owned(), "v".to_owned())]);
    }
    assert_eq!(version(&index), 1);
    // One of them has no room: none is changed.
    save(&shard(3), 1, &unsynced()).unwrap();
    let full = folder.path().join("n.safetensors");
    save(&full, 1, &SaveOptions { max_shard_size: 3000, ..unsynced() }).unwrap();
    let text = fs::read_to_string(&index).unwrap().replace("m-00003-of-00003", "n");
    let mixed = folder.path().join("mixed.safetensors.index.json");
    fs::write(&mixed, text).unwrap();
    let error =
        writer::set_metadata(&mixed, Some(&[("k", "longer than it was before, by far")]), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BufferSize, "{error}");
    assert!(error.to_string().contains("n.safetensors"), "{error}");
    assert_eq!(metadata(&shard(1)), [("k".to_owned(), "v".to_owned())]);
    assert_eq!(names(folder.path()).len(), 6);
}

#[test]
fn tensors_of_several_checkpoints_go_into_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    save(&at("one.safetensors"), 1, &unsynced()).unwrap();
    save(&at("two.safetensors"), 2, &SaveOptions { max_shard_size: 1000, ..unsynced() }).unwrap();
    let open = |name: &str| Checkpoint::open(at(name), &OpenOptions::default()).unwrap();
    let (one, two) = (open("one.safetensors"), open("two.safetensors.index.json"));
    let of = |name, number, source: &Checkpoint, from: &str| {
        let record = source.find(from.as_bytes()).unwrap();
        NewTensor::new(name, Dtype::U8, &[1000]).unwrap().with_numbered_source(number, source, record).unwrap()
    };
    let tensors = [of("x", 1, &two, "c"), of("y", 0, &one, "c"), of("z", 1, &two, "a")];
    for options in [unsynced(), SaveOptions { max_shard_size: 2000, ..SaveOptions::default() }] {
        writer::save(&at("all.safetensors"), &tensors, None, &options, [&one, &two], None).unwrap();
        let path = if options.max_shard_size == 0 { "all.safetensors" } else { "all.safetensors.index.json" };
        let all = open(path);
        for (name, version) in [("x", 2), ("y", 1), ("z", 2)] {
            assert_eq!(all.find(name.as_bytes()).unwrap().data().unwrap(), [version; 1000]);
        }
    }
    let mut delivered = Vec::new();
    let mut take = |bytes: &[u8]| {
        delivered.extend_from_slice(bytes);
        Ok(())
    };
    writer::save_to(&mut take, &tensors, None, &unsynced(), [&one, &two], None).unwrap();
    assert_eq!(delivered, writer::serialize(&tensors, None, &unsynced(), [&one, &two], None).unwrap());
    let error = writer::save(&at("all.safetensors"), &tensors, None, &unsynced(), Some(&one), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let foreign = NewTensor::new("named", Dtype::U8, &[1000]).unwrap();
    let shard = two.find(b"c").unwrap();
    let error = foreign.with_source(&one, shard).unwrap_err();
    assert!(error.to_string().contains("\"named\""), "{error}");
}
