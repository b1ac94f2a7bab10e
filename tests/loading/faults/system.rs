// SPDX-License-Identifier: Apache-2.0
//! A system that fails on demand: the binary runs with the shim, whose rules its
//! tests set for the whole process, one test at a time.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use safetensors::ffi::*;

use crate::support::handle::{open_map, open_read, Failure, Handle};
use crate::support::load::{init_load, item_into, load};
use crate::support::shim::{self, faults, preload_this, Met};
use crate::support::{self, file, pattern};

#[used]
#[link_section = ".init_array"]
static BEFORE_MAIN: extern "C" fn() = preload_this;

/// One test at a time, and all as it was when it ends.
pub(crate) struct Alone {
    _lock: MutexGuard<'static, ()>,
}

static ONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> Alone {
    Alone { _lock: ONE.lock().unwrap_or_else(PoisonError::into_inner) }
}

impl Drop for Alone {
    fn drop(&mut self) {
        faults("");
    }
}

/// Counts from here on, and lets the system do this, by rules as shim.h has them.
pub(crate) fn from_now(rules: &str) {
    faults(&format!("pread; fadvise; {rules}"));
}

/// The calls of this name since then that were counted.
fn counted(call: &str) -> Vec<Met> {
    shim::log().into_iter().filter(|met| met.call == call && met.rule.is_empty()).collect()
}

/// Reads of files, those of them past the page cache, and the threads that made them.
pub(crate) fn reads() -> usize {
    counted("pread").len()
}

pub(crate) fn direct_reads() -> usize {
    counted("pread").iter().filter(|read| read.more == "direct").count()
}

pub(crate) fn readers() -> usize {
    counted("pread").iter().map(|read| &read.thread).collect::<BTreeSet<_>>().len()
}

/// Bytes of files that the system was told to drop from the page cache, in the files' order.
pub(crate) fn dropped() -> Vec<(u64, u64)> {
    let hints = counted("fadvise");
    let ranges = hints.iter().filter_map(|hint| hint.more.split_once(' '));
    let mut ranges: Vec<_> = ranges.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())).collect();
    ranges.sort_unstable();
    ranges
}

/// The library's threads that are there.
pub(crate) fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| fs::read(task.path().join("comm")).is_ok_and(|name| name == b"safetensors\n")).count()
}

pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What a load must leave behind: nothing. (The system takes a moment to bury
/// a thread that has ended.)
pub(crate) fn leaves_nothing<T>(work: impl FnOnce() -> T) -> T {
    let before = descriptors();
    let result = work();
    let start = Instant::now();
    while threads() != 0 && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_micros(50));
    }
    assert_eq!((threads(), descriptors()), (0, before), "threads and descriptors");
    result
}

pub(crate) const LARGE: usize = 5_000_000;
pub(crate) const SMALL: usize = 3001;

/// A file of a large tensor, many small ones, and one more large one.
pub(crate) struct Made {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) data: Vec<u8>,
    pub(crate) sizes: Vec<usize>,
}

pub(crate) fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let mut sizes = vec![SMALL; 40];
    sizes[0] = LARGE;
    sizes.push(LARGE);
    let mut begin = 0;
    let entries = sizes.iter().enumerate().map(|(i, size)| {
        begin += size;
        support::entry(&format!("t{i}"), begin - size, begin)
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    let data = pattern(sizes.iter().sum());
    fs::write(&path, file(header, &data)).unwrap();
    Made { _folder: folder, path, data, sizes }
}

/// Loads all tensors next to one another, and checks what came.
pub(crate) fn load_all(from: &Handle, made: &Made, options: &st_load_options) -> Result<(), Failure> {
    let mut memory = vec![0x77; made.data.len()];
    let items = split(from, made, &mut memory);
    let result = leaves_nothing(|| load(from, &items, options));
    if result.is_ok() {
        assert!(memory == made.data, "other bytes");
    }
    result
}

pub(crate) fn split(from: &Handle, made: &Made, mut memory: &mut [u8]) -> Vec<st_load_item> {
    let each = made.sizes.iter().enumerate().map(|(i, size)| {
        let (now, rest) = std::mem::take(&mut memory).split_at_mut(*size);
        memory = rest;
        let name = format!("t{i}");
        item_into(from.tensors().iter().find(|tensor| tensor.name() == name.as_bytes()).unwrap(), now)
    });
    each.collect()
}

/// The ways to read that there are, through files opened in both ways.
pub(crate) fn each_way(made: &Made, mut check: impl FnMut(&Handle, st_load_options, &str)) {
    for from in [open_map(&made.path), open_read(&made.path)] {
        let from = from.unwrap();
        for io in [ST_IO_CACHED, ST_IO_DIRECT, ST_IO_AUTO] {
            for threads in [1, 4] {
                for staging_bytes in [0, 65536 * 4] {
                    let options = st_load_options { threads, io, staging_bytes, ..init_load() };
                    check(&from, options, &format!("io {io}, {threads} threads, {staging_bytes} bytes"));
                }
            }
        }
    }
}
