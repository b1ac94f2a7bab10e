// SPDX-License-Identifier: Apache-2.0
//! Whatever happens to a save, the older file is whole or the new one is.
//!
//! Saves that are killed or run into faults happen in a child: this program
//! again, with the test `child` and what it is to do in the environment.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use safetensors::ffi::ST_OK;
use safetensors::ffi::{st_save, st_save_options};
use safetensors::writer::{self, Durability, EditOptions, Overwrite, SaveOptions};
use safetensors::{Checkpoint, Dtype, Error, ErrorKind, NewTensor, OpenOptions, Writer};

use crate::shim::{self, preload};

const SUFFIX: &str = ".safetensors-tmp";

/// Saves `count` tensors of `size` bytes, all of them `version`.
fn save(path: &Path, version: u8, size: usize, options: &SaveOptions) -> Result<(), Error> {
    let bytes = vec![version; size];
    let shape = [size as i64];
    let tensors: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| NewTensor::new(name, Dtype::U8, &shape).unwrap().with_data(&bytes).unwrap())
        .collect();
    writer::save(path, &tensors, None, options, None, None)
}

/// The version of a file that is whole.
fn version(path: &Path) -> u8 {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let tensors = checkpoint.tensors();
    let version = tensors[0].data().unwrap()[0];
    for tensor in tensors {
        assert!(tensor.data().unwrap().iter().all(|byte| *byte == version), "mixed");
    }
    version
}

fn temporaries(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.as_bytes().ends_with(SUFFIX.as_bytes())).count()
}

fn unsynced() -> SaveOptions {
    SaveOptions { sync: Durability::Unsynced, ..SaveOptions::default() }
}

/// This program again, with one thing to do.
fn child(what: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::the_child", "--nocapture", "--test-threads=1"]);
    command.env("CRASH_DO", what).env("CRASH_PATH", path).stdout(Stdio::null());
    command
}

/// Copies a checkpoint as its files have it.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let source = Checkpoint::open(from, &OpenOptions::default()).unwrap();
    let records = source.tensors().iter().map(|record| {
        let name = std::str::from_utf8(record.name()).unwrap();
        NewTensor::new(name, record.dtype(), record.shape()).unwrap().with_source(&source, record).unwrap()
    });
    writer::save(to, &records.collect::<Vec<_>>(), None, &unsynced(), Some(&source), None)
}

/// Saves through the export, with options that are all zero.
fn exported_save(path: &Path) {
    // SAFETY: numbers, null pointers and no function.
    let zero: st_save_options = unsafe { std::mem::zeroed() };
    let options = st_save_options { struct_size: size_of::<st_save_options>(), ..zero };
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let (none, no_metadata, no_error) = (std::ptr::null(), std::ptr::null(), std::ptr::null_mut());
    // SAFETY: as the header demands; a count of 0 goes with null.
    let status = unsafe { st_save(path.as_ptr(), none, 0, no_metadata, 0, &raw const options, no_error) };
    assert_eq!(status, ST_OK);
}

/// Ends the child with what became of it: 0, or the errno.
fn verdict(result: Result<(), Error>) -> ! {
    std::process::exit(result.map_or_else(|error| error.os_errno(), |()| 0))
}

/// What the child does; a test that passes for everybody else.
#[test]
fn the_child() {
    let Ok(what) = std::env::var("CRASH_DO") else { return };
    let path = PathBuf::from(std::env::var_os("CRASH_PATH").unwrap());
    let synced = SaveOptions::default();
    let io = |error: Error, errno| assert_eq!((error.kind(), error.os_errno()), (ErrorKind::Io, errno), "{error}");
    match what.as_str() {
        "endlessly" => (0_u8..).cycle().for_each(|i| {
            let options = if i % 2 == 0 { synced } else { unsynced() };
            save(&path, i, 13_000_000, &options).unwrap();
        }),
        "shards" => (0_u8..).cycle().for_each(|i| {
            save(&path, i, 1_000_000, &SaveOptions { max_shard_size: 1_000_000, ..unsynced() }).unwrap();
        }),
        "hold" => {
            let tensor = NewTensor::new("a", Dtype::U8, &[9]).unwrap();
            let writer = Writer::open(&path, &[tensor], None, &unsynced()).unwrap();
            println!("held");
            std::thread::sleep(Duration::from_secs(60));
            drop(writer);
        }
        "limited" => {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            // SAFETY: a signal's disposition and a limit of this process.
            unsafe {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
            }
            io(save(&path, 1, 1 << 20, &synced).unwrap_err(), libc::EFBIG);
        }
        "fails" => {
            let errno = std::env::var("FAULTS").unwrap().rsplit('=').next().unwrap().parse().unwrap();
            for size in [1000, 14_000_000] {
                io(save(&path, 9, size, &synced).unwrap_err(), errno);
            }
        }
        "fails late" => io(save(&path, 9, 14_000_000, &synced).unwrap_err(), libc::ENOSPC),
        "fails unsynced" => io(save(&path, 9, 1000, &unsynced()).unwrap_err(), libc::EDQUOT),
        "succeeds" => {
            for size in [1000, 14_000_000] {
                save(&path, 9, size, &synced).unwrap();
                save(&path, 9, size, &unsynced()).unwrap();
            }
        }
        "replace" => verdict(save(&path, 9, 14_000_000, &synced)),
        "make" => {
            let refuse = SaveOptions { overwrite: Overwrite::Refuse, ..unsynced() };
            verdict(save(&path.with_file_name("new.safetensors"), 9, 1000, &refuse))
        }
        // From C, where zero stands for what is synced.
        "exported" => exported_save(&path),
        "shrink" => verdict(save(&path, 9, 1000, &SaveOptions { max_shard_size: 1 << 20, ..synced })),
        "overwrite" => {
            let options = EditOptions { in_place: true, ..EditOptions::default() };
            verdict(writer::set_metadata(&path, Some(&[("k", "v")]), &options))
        }
        "shard" => verdict(save(&path, 9, 1000, &SaveOptions { max_shard_size: 1000, ..synced })),
        "edit" => verdict(writer::set_metadata(&path, Some(&[("k", "v")]), &EditOptions::default())),
        "copy" => {
            let source = path.with_file_name("source");
            verdict(copy(&source, &path))
        }
        "unprivileged" => {
            // SAFETY: numbers.
            assert_eq!(unsafe { (libc::setgid(65534), libc::setuid(65534)) }, (0, 0));
            for options in [synced, unsynced()] {
                io(save(&path, 9, 1000, &options).unwrap_err(), libc::EACCES);
            }
        }
        "copies" => {
            copy(&path, &path).unwrap();
        }
        "clones" => {
            let long = "x".repeat(10_000);
            for (key, value) in [("k", "v"), ("long", long.as_str()), ("k", "v")] {
                writer::set_metadata(&path, Some(&[(key, value)]), &EditOptions::default()).unwrap();
                let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
                let entries = checkpoint.metadata().unwrap();
                assert_eq!((entries[0].key(), entries[0].value()), (key.as_bytes(), value.as_bytes()));
                version(&path);
            }
        }
        other => panic!("nobody knows how to {other}"),
    }
}

#[test]
fn killed_at_any_moment_a_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 255, 1000, &unsynced()).unwrap();
    let mut seen = 0_u64;
    for round in 0..40 {
        let mut child = child("endlessly", &path).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(20_000 + (round * 7919) % 90_000));
        child.kill().unwrap();
        child.wait().unwrap();
        version(&path);
        let left = temporaries(folder.path());
        assert!(left <= 1, "{left} temporaries");
        seen += left as u64;
    }
    assert!(seen > 0, "no save was ever interrupted");
    save(&path, 1, 1000, &unsynced()).unwrap();
    assert_eq!((version(&path), temporaries(folder.path())), (1, 0));
}

#[test]
fn killed_while_writing_shards_every_name_is_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for round in 0..25 {
        let mut child = child("shards", &path).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(15_000 + (round * 7919) % 40_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for number in 1..=3 {
            let shard = folder.path().join(format!("m-0000{number}-of-00003.safetensors"));
            if shard.exists() {
                version(&shard);
            }
        }
        let index = folder.path().join("m.safetensors.index.json");
        if index.exists() {
            version(&index);
        }
    }
    save(&path, 1, 1000, &SaveOptions { max_shard_size: 1000, ..unsynced() }).unwrap();
    assert_eq!(temporaries(folder.path()), 0);
}

#[test]
fn only_stale_temporaries_of_the_same_path_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let mine = |name: &str| folder.path().join(name);
    let stale = mine(".m.safetensors.0123456789abcdef.safetensors-tmp");
    let others = [
        ".n.safetensors.0123456789abcdef.safetensors-tmp",
        ".m.safetensors.0123456789abcde.safetensors-tmp",
        ".m.safetensors.0123456789abcdeg.safetensors-tmp",
        ".m.safetensors.0123456789abcdef.safetensors-tmp2",
        "m.safetensors.0123456789abcdef.safetensors-tmp",
    ];
    for name in others {
        fs::write(mine(name), "x").unwrap();
    }
    fs::write(&stale, "x").unwrap();
    // A link or a folder of such a name was not made by a save.
    let (link, dir) = (
        mine(".m.safetensors.1123456789abcdef.safetensors-tmp"),
        mine(".m.safetensors.2123456789abcdef.safetensors-tmp"),
    );
    symlink("elsewhere", &link).unwrap();
    fs::create_dir(&dir).unwrap();

    let tensor = NewTensor::new("a", Dtype::U8, &[9]).unwrap();
    let live = Writer::open(&path, &[tensor], None, &unsynced()).unwrap();
    let mut held = child("hold", &path).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(held.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("held")));
    assert!(!stale.exists() && link.is_symlink() && dir.exists());
    let before = temporaries(folder.path());
    save(&path, 1, 1000, &unsynced()).unwrap();
    assert_eq!(temporaries(folder.path()), before);
    held.kill().unwrap();
    held.wait().unwrap();
    save(&path, 1, 1000, &unsynced()).unwrap();
    assert_eq!(temporaries(folder.path()), before - 1);
    live.write(0, 0, &[7; 9]).unwrap();
    live.finish().unwrap();
    assert_eq!(version(&path), 7);
    assert!(others.iter().all(|name| mine(name).exists()));
}

/// Sets of one path are named one after another: whichever is last, it is
/// whole, and the others were so before.
#[test]
fn saves_to_one_path_at_once_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let index = folder.path().join("m.safetensors.index.json");
    let same = [1000, 1000, 1000];
    let other = [1000, 2000, 3000];
    for limits in [same, other] {
        for _ in 0..60 {
            std::thread::scope(|scope| {
                for (version, limit) in (1..).zip(limits) {
                    let path = &path;
                    let options = SaveOptions { max_shard_size: limit, ..unsynced() };
                    scope.spawn(move || save(path, version, 1000, &options).unwrap());
                }
            });
            let found = listing(folder.path());
            if index.exists() {
                version(&index);
                assert!(!path.exists(), "{found:?}");
            } else {
                version(&path);
                assert_eq!(found.len(), 1, "{found:?}");
            }
            assert!(matches!(found.len(), 1 | 3 | 4), "{found:?}");
        }
    }
}

#[test]
fn a_name_of_255_bytes_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n".repeat(255));
    save(&path, 1, 10, &unsynced()).unwrap();
    assert_eq!((version(&path), temporaries(folder.path())), (1, 0));
}

#[test]
fn modes_follow_the_umask_and_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
    File::create(folder.path().join("plain")).unwrap();
    let usual = fs::metadata(folder.path().join("plain")).unwrap().mode() & 0o7777;
    save(&path, 1, 10, &unsynced()).unwrap();
    assert_eq!(mode(), usual);
    for wanted in [0o600, 0o664, 0o444, 0o755] {
        fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
        save(&path, 1, 10, &unsynced()).unwrap();
        assert_eq!(mode(), wanted);
    }
}

#[test]
fn links_are_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("real")).unwrap();
    fs::create_dir(at("links")).unwrap();
    symlink("../real/m.safetensors", at("links/one")).unwrap();
    symlink("one", at("links/two")).unwrap();
    for version_now in [1, 2] {
        save(&at("links/two"), version_now, 10, &SaveOptions::default()).unwrap();
        assert_eq!(version(&at("real/m.safetensors")), version_now);
        assert!(at("links/one").is_symlink() && at("links/two").is_symlink());
    }
    assert_eq!(fs::read_dir(at("real")).unwrap().count(), 1);
    symlink("nowhere/m.safetensors", at("dangling")).unwrap();
    assert_eq!(save(&at("dangling"), 1, 10, &unsynced()).unwrap_err().os_errno(), libc::ENOENT);
    fs::create_dir(at("nowhere")).unwrap();
    save(&at("dangling"), 3, 10, &unsynced()).unwrap();
    assert_eq!((version(&at("nowhere/m.safetensors")), at("dangling").is_symlink()), (3, true));
    symlink("loop", at("loop")).unwrap();
    assert_eq!(save(&at("loop"), 1, 10, &unsynced()).unwrap_err().os_errno(), libc::ELOOP);
}

#[test]
fn mapped_files_stay_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, 100_000, &unsynced()).unwrap();
    let old = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    save(&path, 2, 10, &unsynced()).unwrap();
    assert!(old.tensors().iter().all(|tensor| tensor.data().unwrap().iter().all(|byte| *byte == 1)));
    assert_eq!(version(&path), 2);
}

#[test]
fn refusing_to_replace_holds_to_the_last_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let refuse = SaveOptions { overwrite: Overwrite::Refuse, ..unsynced() };
    let tensor = NewTensor::new("a", Dtype::U8, &[1]).unwrap();
    let late = Writer::open(&path, &[tensor], None, &refuse).unwrap();
    late.write(0, 0, &[3]).unwrap();
    save(&path, 1, 10, &refuse).unwrap();
    for error in [save(&path, 2, 10, &refuse).unwrap_err(), late.finish().unwrap_err()] {
        assert_eq!((error.kind(), error.os_errno()), (ErrorKind::Io, libc::EEXIST), "{error}");
    }
    assert_eq!((version(&path), temporaries(folder.path())), (1, 0));
}

#[test]
fn what_is_no_place_for_a_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let errno = |path: &Path| {
        let error = save(path, 1, 10, &SaveOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        error.os_errno()
    };
    assert_eq!(errno(&folder.path().join("missing/m.safetensors")), libc::ENOENT);
    assert_eq!(errno(folder.path()), libc::EISDIR);
    for name in ["m/", "m/.", "link"] {
        symlink("m/", folder.path().join("link")).unwrap();
        assert_eq!(errno(&folder.path().join(name)), libc::EISDIR);
        fs::remove_file(folder.path().join("link")).unwrap();
    }
    File::create(folder.path().join("file")).unwrap();
    assert_eq!(errno(&folder.path().join("file/m.safetensors")), libc::ENOTDIR);
    assert_eq!(errno(Path::new("/dev/null")), libc::EINVAL);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_limit_on_file_sizes_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, 10, &unsynced()).unwrap();
    assert!(child("limited", &path).status().unwrap().success());
    assert_eq!((version(&path), fs::read_dir(folder.path()).unwrap().count()), (1, 1));
}

/// A file system of 8 MiB, where one may be mounted.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let small = Self(folder);
        small.call(0, c"size=8m").then_some(small)
    }

    fn call(&self, flags: u64, data: &std::ffi::CStr) -> bool {
        let path = std::ffi::CString::new(self.0.path().as_os_str().as_bytes()).unwrap();
        let kind = c"tmpfs".as_ptr();
        // SAFETY: texts that end in NUL.
        unsafe { libc::mount(kind, path.as_ptr(), kind, flags, data.as_ptr().cast()) == 0 }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let path = std::ffi::CString::new(self.0.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: a text that ends in NUL.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn full_and_read_only_file_systems_are_errors() {
    let Some(small) = Small::mount() else {
        eprintln!("not tested: no file system can be mounted here");
        return;
    };
    let path = small.0.path().join("m.safetensors");
    save(&path, 1, 1000, &SaveOptions::default()).unwrap();
    for options in [SaveOptions::default(), unsynced(), SaveOptions { max_shard_size: 3 << 20, ..unsynced() }] {
        let error = save(&path, 2, 3 << 20, &options).unwrap_err();
        assert_eq!((error.kind(), error.os_errno()), (ErrorKind::Io, libc::ENOSPC), "{error}");
        assert_eq!((version(&path), fs::read_dir(small.0.path()).unwrap().count()), (1, 1));
    }
    assert!(small.call(libc::MS_REMOUNT | libc::MS_RDONLY, c""));
    let error = save(&path, 2, 10, &unsynced()).unwrap_err();
    assert_eq!((error.kind(), error.os_errno()), (ErrorKind::Io, libc::EROFS), "{error}");
    assert_eq!(version(&path), 1);
}

#[test]
fn faults_of_the_system_are_errors_or_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, 1000, &unsynced()).unwrap();
    let run = |what: &str, fault: &str| {
        let status = preload(&mut child(what, &path), fault).status().unwrap();
        assert!(status.success(), "{what} {fault}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{what} {fault}");
        version(&path)
    };
    for (call, errno) in [
        ("fsync", libc::EIO),
        ("pwrite", libc::EIO),
        ("pwrite", libc::ENOSPC),
        ("fallocate", libc::EDQUOT),
        ("rename", libc::EACCES),
    ] {
        assert_eq!(run("fails", &format!("{call}:fails={errno}")), 1);
    }
    // A name that may not outlast a power failure is an error, and in place.
    let second = format!("fsync:nth=2:fails={}", libc::EIO);
    let status = preload(&mut child("replace", &path), &second).status().unwrap();
    assert_eq!((status.code(), version(&path)), (Some(libc::EIO), 9));
    save(&path, 1, 1000, &unsynced()).unwrap();
    assert_eq!(run("fails late", &format!("pwrite:from=3:fails={}", libc::ENOSPC)), 1);
    assert_eq!(run("fails unsynced", &format!("close:fails={}", libc::EDQUOT)), 1);
    // A write past the page cache may be declined although opening so was not.
    let direct = format!("pwrite:nth=4:fails={}", libc::EINVAL);
    let declined = [("fallocate", libc::EOPNOTSUPP), ("fallocate", libc::ENOSYS), ("flock", libc::ENOLCK)];
    for fault in declined.map(|(call, errno)| format!("{call}:fails={errno}")).iter().chain([&direct]) {
        assert_eq!(run("succeeds", fault), 9);
        save(&path, 1, 1000, &unsynced()).unwrap();
    }
    for errno in [libc::EXDEV, libc::ENOSYS, libc::EINVAL, libc::EOPNOTSUPP] {
        save(&path, 3, 3_000_000, &unsynced()).unwrap();
        assert_eq!(run("copies", &format!("copy_file_range:fails={errno}")), 3);
        assert_eq!(run("copies", &format!("copy_file_range:from=2:fails={errno}")), 3);
    }
}

/// Each call that saving makes fails once, whichever of its kind it is: then
/// the save works all the same or is an error with that number, and nothing is
/// left behind.
#[test]
fn any_call_may_fail_once() {
    let (tools, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, log) = (folder.path().join("m.safetensors"), tools.path().join("log"));
    let calls = [
        "open",
        "fchmod",
        "fchown",
        "fcntl",
        "flock",
        "fallocate",
        "pwrite",
        "copy_file_range",
        "ioctl",
        "fsync",
        "close",
        "rename",
        "renameat2",
    ];
    let mut fired_by = std::collections::BTreeSet::new();
    for what in ["make", "edit", "copy", "replace"] {
        let fails = |call| [libc::EIO, libc::EINTR].map(|errno| (call, errno, format!("fails={errno}")));
        let halves = ["pwrite", "copy_file_range"].map(|call| (call, 0, "half".to_owned()));
        for (call, errno, fault) in calls.into_iter().flat_map(fails).chain(halves) {
            for number in 1.. {
                fs::read_dir(folder.path()).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
                save(&path, 1, 1000, &unsynced()).unwrap();
                if what == "copy" {
                    save(&folder.path().join("source"), 9, 600_000, &unsynced()).unwrap();
                }
                let before = listing(folder.path());
                let mut child = child(what, &path);
                // That it opens its source is not what saving does.
                let of = if call == "open" { ".safetensors" } else { folder.path().to_str().unwrap() };
                let rules = format!("{call}@{of}:nth={number}:{fault}; ioctl:clone");
                let status = preload(&mut child, &rules).env("FAULTS_LOG", &log).status().unwrap();
                let context = format!("{what}, {call} number {number}, {fault}: {status}");
                assert!(status.code() == Some(0) || status.code() == Some(errno), "{context}");
                assert!(status.success() || errno != libc::EINTR, "{context}");
                if what == "make" && status.success() {
                    fs::rename(path.with_file_name("new.safetensors"), &path).unwrap();
                }
                let named = listing(folder.path());
                let whole = version(&path);
                assert_eq!(named, before, "{context}");
                match (what, status.success()) {
                    ("edit", _) => assert_eq!(whole, 1, "{context}"),
                    (_, true) => assert_eq!(whole, 9, "{context}"),
                    // The folder's sync comes after the name.
                    (_, false) => assert!(whole == 1 || call == "fsync", "{context}"),
                }
                if !shim::log_in(&log).iter().any(|met| met.rule.ends_with(&fault)) {
                    break;
                }
                fired_by.insert((what, call));
            }
        }
    }
    for (what, expected) in [("make", 7), ("edit", 7), ("copy", 8), ("replace", 8)] {
        let fired: Vec<_> = fired_by.iter().filter(|(of, _)| *of == what).map(|(_, call)| *call).collect();
        assert!(fired.len() >= expected, "{what} came by {fired:?} only");
    }
}

/// What a save does to files and folders, as (call, path, more), in order.
fn calls(log: &Path, path: &Path, what: &str) -> Vec<[String; 3]> {
    let mut child = child(what, path);
    let clone = if what == "edit" { "ioctl:clone" } else { "" };
    let rules = format!("fsync,rename,link,unlink,open,fchown,pwrite,fallocate; {clone}");
    assert!(preload(&mut child, &rules).env("FAULTS_LOG", log).status().unwrap().success(), "{what}");
    shim::log_in(log).into_iter().map(|met| [met.call, met.path, met.more]).collect()
}

/// What a power failure leaves depends on the order of these calls alone: bytes
/// before their name, shards' names before the index's, and at last the folder.
#[test]
fn nothing_is_named_before_it_is_on_the_disk() {
    let (tools, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, log) = (folder.path().join("m.safetensors"), tools.path().join("log"));
    let index = path.with_extension("safetensors.index.json").into_os_string().into_string().unwrap();
    let is_temporary = |name: &str| name.ends_with(SUFFIX);
    let here = folder.path().to_str().unwrap();
    for what in ["exported", "replace", "edit", "overwrite", "shard", "shard", "shrink"] {
        if what != "shrink" && !Path::new(&index).exists() {
            save(&path, 1, 1000, &SaveOptions { header_reserve: 100, ..unsynced() }).unwrap();
        }
        if path.exists() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        let replaces_shards = Path::new(&index).exists() && what == "shard";
        let calls = calls(&log, &path, what);
        let context = format!("{what}: {calls:#?}");
        let all = |call: &str, of: &str| {
            let found = calls.iter().enumerate().filter(|(_, [name, path, _])| name == call && path == of);
            found.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let folder_synced = all("fsync", here);
        let synced_between = |from: usize, to: usize| folder_synced.iter().any(|at| (from..to).contains(at));

        for [call, path, _] in &calls {
            if call == "pwrite" {
                assert!(all("fsync", path).last() > all("pwrite", path).last(), "{path} in {context}");
            }
        }
        let renamed = calls.iter().enumerate().filter(|(_, [call, ..])| call == "rename");
        let named: Vec<_> = renamed.collect();
        for (at, [_, from, to]) in &named {
            assert!(is_temporary(from), "{context}");
            assert!(all("fsync", from).last().is_some_and(|synced| synced < at), "{from} in {context}");
            // A full disk is an error before anything is written; an index is small.
            let room = all("fallocate", from).first().is_some_and(|room| *room < all("pwrite", from)[0]);
            assert!(room || what == "edit" || *to == index, "{from} in {context}");
        }
        if let Some((last, [.., to])) = named.last() {
            assert!(synced_between(*last, calls.len()), "{context}");
            if what == "shard" {
                assert_eq!(to, &index, "{context}");
                assert!(synced_between(named[named.len() - 2].0, *last), "{context}");
            }
        }
        let linked: Vec<_> = calls.iter().enumerate().filter(|(_, [call, ..])| call == "link").collect();
        match (what, &linked[..], &named[..]) {
            // Second names, then the index that leads to them, then the first shard.
            ("shard", [.., (aside, _)], [(stand_in, [.., to]), (first, _), _, _, _]) => {
                assert!(replaces_shards && linked.len() == 4 && *to == index, "{context}");
                assert!(synced_between(*aside, *stand_in) && synced_between(*stand_in, *first), "{context}");
            }
            // A file without an index gets one that leads to it.
            ("shard", [], [(stand_in, [.., to]), (first, _), _, _, _]) => {
                assert!(!replaces_shards && *to == index && synced_between(*stand_in, *first), "{context}");
            }
            ("shrink", [], [(first, _), (second, [.., to])]) => {
                let gone = all("unlink", &index)[0];
                let shard =
                    calls.iter().rposition(|[call, path, _]| call == "unlink" && path.contains("-of-")).unwrap();
                let synced = synced_between(*first, *second) && synced_between(*second, shard);
                assert!(*to == index && synced && shard < gone, "{context}");
            }
            (_, [], [_]) => assert!(what != "overwrite", "{context}"),
            (_, [], []) => assert_eq!(what, "overwrite", "{context}"),
            _ => panic!("{context}"),
        }
        // The older file may be for its owner's eyes only. What saves of a set lock
        // in turn is opened by each of them, and stays empty.
        let is_lock = |path: &str| path.contains(".0000000000000000.");
        assert!(!calls.iter().any(|[call, path, _]| call == "pwrite" && is_lock(path)), "{context}");
        let creates = |call: &str, how: &str| call == "open" && !how.is_empty();
        for [call, path, how] in calls.iter().filter(|[call, path, how]| creates(call, how) && !is_lock(path)) {
            let private = matches!(what, "exported" | "replace" | "edit") && path.contains(".m.safetensors.");
            assert!(how == "private" || (how == "readable" && !private), "{call} {path} in {context}");
        }
    }
}

/// Whoever owned the older file owns the new one, where the writer may give
/// files away.
#[test]
fn the_owner_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, 10, &unsynced()).unwrap();
    if std::os::unix::fs::chown(&path, Some(65533), Some(65532)).is_err() {
        eprintln!("not tested: files can't be given away here");
        return;
    }
    save(&path, 2, 10, &unsynced()).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((version(&path), found.uid(), found.gid()), (2, 65533, 65532));
}

/// The names in a folder.
fn listing(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// A source that has become shorter is an error also where the kernel copies.
#[test]
fn a_source_cut_short_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, to) = (folder.path().join("m.safetensors"), folder.path().join("copy"));
    save(&path, 1, 3_000_000, &unsynced()).unwrap();
    let source = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    let records = source.tensors().iter().zip(["a", "b", "c"]).map(|(record, name)| {
        NewTensor::new(name, record.dtype(), record.shape()).unwrap().with_source(&source, record).unwrap()
    });
    let records: Vec<_> = records.collect();
    File::options().write(true).open(&path).unwrap().set_len(4_000_000).unwrap();
    for options in [unsynced(), SaveOptions::default()] {
        let error = writer::save(&to, &records, None, &options, Some(&source), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("ends at 4000000"), "{error}");
        assert_eq!(listing(folder.path()), ["m.safetensors"]);
    }
}

#[test]
fn a_folder_that_may_not_be_written_to_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, 1, 1000, &unsynced()).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } == 0 {
        assert!(child("unprivileged", &path).status().unwrap().success());
    } else {
        assert_eq!(save(&path, 9, 1000, &unsynced()).unwrap_err().os_errno(), libc::EACCES);
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!((version(&path), listing(folder.path()).len()), (1, 1));
}

#[test]
fn shared_blocks_let_metadata_grow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for size in [10, 1000, 100_000] {
        save(&path, 5, size, &unsynced()).unwrap();
        let status = preload(&mut child("clones", &path), "ioctl:clone").status().unwrap();
        assert!(status.success());
        assert_eq!((version(&path), fs::read_dir(folder.path()).unwrap().count()), (5, 1));
    }
}
