// SPDX-License-Identifier: Apache-2.0
//! A set of files is the older one or the newer one, at every moment, for
//! whoever opens the folder or the index.
//!
//! Each transition from one set to another is ended by SIGKILL before each of
//! its calls, and each of its calls fails with each error, in turn. That is
//! thousands of saves, so they happen in forks of a child: this program again,
//! with the shim preloaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use safetensors::writer::{self, SaveOptions};
use safetensors::{Checkpoint, Dtype, Error, ErrorKind, NewTensor, OpenOptions};

use crate::shim::{self, faults, preload};

const NAMES: [&str; 3] = ["a", "b", "c"];
const SIZE: usize = 1000;

/// Those that a save makes in its folder.
const CALLS: &str =
    "open,fchmod,fchown,flock,fallocate,pwrite,copy_file_range,ioctl,fsync,close,rename,renameat2,link,unlink";

/// Nothing is brought to the disk, which takes the most time.
const UNSYNCED: &str = "fsync:nothing";

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Nothing,
    /// One file, saved without a shard size.
    Plain,
    /// One file, as the shard size allows it.
    Whole,
    Two,
    Three,
    /// Shards without an index, as somebody may have downloaded them.
    Series,
    /// What a save of three over three leaves that was killed.
    Halfway,
}

use State::{Halfway, Nothing, Plain, Series, Three, Two, Whole};

impl State {
    fn options(self) -> SaveOptions {
        let max_shard_size = match self {
            Nothing | Plain => 0,
            Whole => 3000,
            Two => 2000,
            Three | Series | Halfway => 1000,
        };
        SaveOptions { max_shard_size, ..SaveOptions::default() }
    }

    fn has_index(self) -> bool {
        matches!(self, Two | Three | Halfway)
    }

    /// Files that a finished save leaves.
    fn files(self) -> usize {
        match self {
            Nothing => 0,
            Plain | Whole => 1,
            Two => 3,
            Three | Series | Halfway => 4,
        }
    }
}

fn save(path: &Path, version: u8, options: &SaveOptions) -> Result<(), Error> {
    let (bytes, shape) = ([version; SIZE], [SIZE as i64]);
    let tensor = |name| NewTensor::new(name, Dtype::U8, &shape).unwrap().with_data(&bytes).unwrap();
    // The version is in the metadata too, which is as old or new as the rest.
    let text = version.to_string();
    writer::save(path, &NAMES.map(tensor), Some(&[("version", &text)]), options, None, None)
}

/// What opens: `Ok` with the version of all of it, or the error.
fn opened(path: &Path) -> Result<u8, Error> {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default())?;
    if checkpoint.tensors().len() < NAMES.len() && checkpoint.shards().len() < 3 {
        return Err(Error::new(ErrorKind::Shard, "a part"));
    }
    let mut versions: Vec<u8> = checkpoint.tensors().iter().map(|tensor| tensor.data().unwrap()[0]).collect();
    let entries = checkpoint.metadata().unwrap_or_default().iter().filter(|entry| entry.key() == b"version");
    let said: Vec<u8> = entries.map(|entry| std::str::from_utf8(entry.value()).unwrap().parse().unwrap()).collect();
    versions.extend(&said);
    versions.dedup();
    assert_eq!((versions.len(), said.len()), (1, 1), "a mixture: {versions:?} of {said:?} in {}", path.display());
    assert_eq!(checkpoint.tensors().len(), NAMES.len(), "a part in {}", path.display());
    Ok(versions[0])
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// This program again, with one thing to do.
fn child(what: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "sets::the_child", "--nocapture", "--test-threads=1"]);
    command.env("SETS_DO", what).env("CRASH_PATH", path).stdout(Stdio::null());
    command
}

#[test]
fn the_child() {
    let Ok(what) = std::env::var("SETS_DO") else { return };
    let path = PathBuf::from(std::env::var_os("CRASH_PATH").unwrap());
    let states = |which: &str| match which {
        "shards" => vec![Two, Three],
        "files" => vec![Plain, Whole],
        _ => vec![Three],
    };
    match what.split_once(' ') {
        Some((how, to)) => {
            let without_links = how == "copies";
            for to in states(to) {
                let all = [Nothing, Plain, Two, Three, Series, Halfway];
                let from = if without_links { vec![Three, Series] } else { all.to_vec() };
                from.into_iter().for_each(|from| Transition { path: &path, from, to, without_links }.every_fault());
            }
        }
        None => panic!("nobody knows how to {what}"),
    }
}

#[derive(Clone, Copy)]
struct Transition<'a> {
    path: &'a Path,
    from: State,
    to: State,
    without_links: bool,
}

/// What became of a save in a fork: its exit, or the signal that ended it.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    /// Failed, and the message says that the files are in place.
    InPlace,
    Killed,
}

impl Transition<'_> {
    fn every_fault(&self) {
        let errors = [libc::EIO, libc::ENOSPC, libc::EPERM, libc::EMFILE, libc::EOPNOTSUPP];
        let faults = errors.map(|errno| format!("fails={errno}")).into_iter().chain(["kill".to_owned()]);
        for fault in faults {
            let mut number = 0;
            loop {
                number += 1;
                self.prepare();
                let (end, call) = self.fork(number, &fault);
                let context = format!("{:?} to {:?}, call {number} {call:?} {fault}: {end:?}", self.from, self.to);
                self.look(&end, &context);
                self.heal(&context);
                if call.is_none() {
                    assert!(number > 5, "{context}");
                    break;
                }
            }
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap()
    }

    fn prepare(&self) {
        listing(self.folder()).iter().for_each(|path| fs::remove_file(path).unwrap());
        if self.from != Nothing {
            save(self.path, 1, &self.from.options()).unwrap();
        }
        match self.from {
            Series => fs::remove_file(self.index()).unwrap(),
            Halfway => {
                // Killed when one of the new shards had its name.
                static AT: std::sync::OnceLock<i32> = std::sync::OnceLock::new();
                let halfway = |number: &i32| {
                    Transition { from: Three, ..*self }.prepare();
                    self.fork_to(Three, *number, "kill");
                    last_byte(&self.shard(1)) != last_byte(&self.shard(2))
                };
                let at = AT.get_or_init(|| (1..200).find(halfway).unwrap());
                assert!(halfway(at));
            }
            _ => {}
        }
    }

    fn index(&self) -> PathBuf {
        self.path.with_extension("safetensors.index.json")
    }

    fn shard(&self, number: usize) -> PathBuf {
        let stem = self.path.file_stem().unwrap().to_str().unwrap();
        self.path.with_file_name(format!("{stem}-{number:05}-of-00003.safetensors"))
    }

    fn fork(&self, number: i32, fault: &str) -> (End, Option<String>) {
        self.fork_to(self.to, number, fault)
    }

    /// Saves version 2 in a fork, whose call of this number fails so; and which
    /// call that was, if there were that many.
    fn fork_to(&self, to: State, number: i32, fault: &str) -> (End, Option<String>) {
        let rule = format!("nth={number}:{fault}");
        // SAFETY: this program has one thread.
        let process = unsafe { libc::fork() };
        if process == 0 {
            let links = if self.without_links { format!("link:fails={}", libc::EPERM) } else { String::new() };
            faults(&format!("{CALLS}@{}:{rule}; {links}; {UNSYNCED}", self.folder().display()));
            let saved = save(self.path, 2, &to.options());
            let code = match &saved {
                Ok(()) => 0,
                Err(error) if error.to_string().contains("is in place") => 2,
                Err(error) => i32::from(format!("fails={}", error.os_errno()) != fault) * 2 + 1,
            };
            // SAFETY: ends the fork, and nothing of the program's twice.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: the process is a child of this one.
        assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
        let end = match (libc::WIFSIGNALED(status), libc::WEXITSTATUS(status)) {
            (true, _) if libc::WTERMSIG(status) == libc::SIGKILL => End::Killed,
            (false, 0) => End::Done,
            (false, 1) => End::Failed,
            (false, 2) => End::InPlace,
            other => panic!("{other:?} of {fault} {number}, {:?} to {to:?}", self.from),
        };
        (end, shim::log().into_iter().find(|met| met.rule == rule).map(|met| met.call))
    }

    /// What whoever comes by finds.
    fn look(&self, end: &End, context: &str) {
        let folder = opened(self.folder());
        let index = opened(&self.index());
        let context = format!("{context}; folder {folder:?}, index {index:?}, {:?}", listing(self.folder()));
        let is_new = match (&folder, end) {
            (Ok(2), End::Done | End::InPlace | End::Killed) => true,
            (Ok(1), End::Failed | End::Killed) => false,
            // There was nothing, and there is nothing whole.
            (Err(_), End::Failed | End::Killed) if self.from == Nothing => false,
            _ => panic!("{context}"),
        };
        match (&index, &folder) {
            (Ok(index), Ok(folder)) => assert_eq!(index, folder, "{context}"),
            (Err(error), _) => {
                let not_yet = !self.from.has_index() && matches!(end, End::Failed | End::Killed);
                let no_more = is_new && !self.to.has_index();
                assert!((not_yet || no_more) && error.os_errno() == libc::ENOENT, "{context}");
            }
            _ => panic!("{context}"),
        }
    }

    /// The next save has what it wants, and clears up.
    fn heal(&self, context: &str) {
        save(self.path, 3, &self.to.options()).unwrap();
        let found = listing(self.folder());
        assert_eq!((opened(self.folder()).unwrap(), found.len()), (3, self.to.files()), "{context}: {found:?}");
    }
}

/// That of a shard's last tensor, and so its version.
fn last_byte(path: &Path) -> u8 {
    *fs::read(path).unwrap().last().unwrap()
}

/// Runs transitions in a child; each test takes some of them.
fn every_fault_of(what: &str) {
    // In memory, where there is such a file system: a disk takes a hundred times as long.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let inside = folder.path().join("folder");
    fs::create_dir(&inside).unwrap();
    let output = preload(&mut child(what, &inside.join("m.safetensors")), UNSYNCED).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn shards_replace_whatever_there_was_at_once() {
    every_fault_of("each shards");
}

#[test]
fn a_file_replaces_whatever_there_was_at_once() {
    every_fault_of("each files");
}

/// Copies stand in for second names.
#[test]
fn without_hard_links_a_set_is_replaced_at_once_too() {
    every_fault_of("copies three");
}

/// Beside a saver at work, over and over.
#[test]
fn whoever_opens_beside_a_saver_finds_one_of_its_sets_or_an_error() {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().join("m.safetensors");
    let index = path.with_extension("safetensors.index.json");
    let states = [Three, Three, Two, Three, Whole, Plain, Two, Two];
    save(&path, 1, &Three.options()).unwrap();
    let (over, all_opens) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    thread::scope(|scope| {
        let saver = scope.spawn(|| {
            for (version, state) in (2..=250_u8).zip(states.iter().cycle()) {
                save(&path, version, &state.options()).unwrap();
                // On a busy machine the others may not have had their turns.
                let start = Instant::now();
                let lags = |opens: &AtomicUsize| opens.load(Ordering::Relaxed) * 2 < usize::from(version);
                while all_opens.iter().any(lags) && start.elapsed() < Duration::from_millis(200) {
                    thread::yield_now();
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        for ((place, may_lack), all_opens) in [(folder.path(), false), (&index, true)].into_iter().zip(&all_opens) {
            let over = &over;
            scope.spawn(move || {
                let (mut last, mut opens, mut errors) = (1, 0, 0);
                while !over.load(Ordering::Relaxed) {
                    match opened(place) {
                        Ok(version) => {
                            assert!(version >= last, "{version} after {last}");
                            last = version;
                        }
                        // A single file has no index.
                        Err(error) if may_lack && error.os_errno() == libc::ENOENT => {}
                        Err(error) => {
                            let documented = matches!(error.kind(), ErrorKind::Io | ErrorKind::Shard);
                            assert!(documented && error.os_errno() != libc::ENOENT, "{error}");
                            errors += 1;
                        }
                    }
                    opens += 1;
                    all_opens.store(opens, Ordering::Relaxed);
                }
                println!("{}: {opens} opens, {errors} errors", place.display());
                assert!(last > 100 && opens > 100 && errors * 2 < opens, "{opens} opens, {errors} errors, {last}");
            });
        }
        saver.join().unwrap();
    });
    assert_eq!(opened(folder.path()).unwrap(), 250);
}
