// SPDX-License-Identifier: Apache-2.0
//! A system that fails on demand, for test binaries that are about loads: each
//! has this `pread64`, `preadv`, `syscall`, `open64`, `statx`, `fstatfs`, `posix_fadvise`, `mmap`
//! and `pthread_create`, which the library then calls; so its tests run one at a time.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_long, c_void, CStr, CString};
use std::fs;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use safetensors::ffi::*;

use crate::support::handle::{open_map, open_read, Failure, Handle};
use crate::support::load::{init_load, item_into, load};
use crate::support::{self, file, pattern};

/// What the system does with reads of files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reads {
    Sound,
    /// At most so many bytes.
    Short(usize),
    /// Every second one is interrupted.
    Interrupted,
    /// This errno, for the read of this number and those behind it.
    Fails(usize, c_int),
}

pub(crate) static READS: Mutex<Reads> = Mutex::new(Reads::Sound);
/// Threads that read, the reads, and those past the page cache.
pub(crate) static READERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
pub(crate) static COUNT: AtomicUsize = AtomicUsize::new(0);
pub(crate) static DIRECT: AtomicUsize = AtomicUsize::new(0);
pub(crate) static NO_SECOND_DESCRIPTOR: AtomicBool = AtomicBool::new(false);
pub(crate) static NO_MEMORY: AtomicBool = AtomicBool::new(false);
/// Opening takes a while, so that many are at it at once.
pub(crate) static SLOW_TO_OPEN: AtomicBool = AtomicBool::new(false);
/// Open files can't be asked for their size, nor for their file system.
pub(crate) static NO_STATX: AtomicBool = AtomicBool::new(false);
pub(crate) static NO_STATFS: AtomicBool = AtomicBool::new(false);
/// Nothing is in the page cache, says the one who is asked for what need not be waited for.
pub(crate) static COLD: AtomicBool = AtomicBool::new(false);
/// What fstatfs says, where it is not 0.
pub(crate) static FILE_SYSTEM: AtomicU32 = AtomicU32::new(0);
/// Bytes of files that the system was told to drop from the page cache.
pub(crate) static DROPPED: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());
/// What takes another's place when that is next opened, just before it is.
pub(crate) static SWAP: Mutex<Option<(CString, CString)>> = Mutex::new(None);
thread_local! {
    /// How many more threads this one may start.
    pub(crate) static THREADS: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn refuse(errno: c_int) {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() = errno };
}

/// # Safety
/// As pread's manual says.
#[no_mangle]
unsafe extern "C" fn pread64(file: c_int, to: *mut c_void, size: usize, at: i64) -> isize {
    let number = COUNT.fetch_add(1, SeqCst);
    // SAFETY: numbers in, numbers out.
    let (thread, flags) = unsafe { (libc::gettid(), libc::fcntl(file, libc::F_GETFL)) };
    READERS.lock().unwrap_or_else(PoisonError::into_inner).insert(thread);
    DIRECT.fetch_add(usize::from(flags & libc::O_DIRECT != 0), SeqCst);
    let reads = *READS.lock().unwrap_or_else(PoisonError::into_inner);
    let size = match reads {
        Reads::Short(most) => size.min(most),
        Reads::Interrupted if number % 2 == 0 => {
            refuse(libc::EINTR);
            return -1;
        }
        Reads::Fails(from, errno) if number >= from => {
            refuse(errno);
            return -1;
        }
        _ => size,
    };
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_pread64, file, to, size, at) as isize }
}

/// # Safety
/// As preadv's manual says.
#[no_mangle]
unsafe extern "C" fn preadv(file: c_int, places: *const libc::iovec, count: c_int, at: i64) -> isize {
    let number = COUNT.fetch_add(1, SeqCst);
    let reads = *READS.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the caller's promise.
    unsafe {
        let mut few = std::slice::from_raw_parts(places, count as usize).to_vec();
        match reads {
            Reads::Short(most) => {
                let mut left = most;
                few.retain_mut(|place| {
                    let kept = left != 0;
                    place.iov_len = place.iov_len.min(left);
                    left -= place.iov_len;
                    kept
                });
            }
            Reads::Interrupted if number % 2 == 0 => {
                refuse(libc::EINTR);
                return -1;
            }
            Reads::Fails(from, errno) if number >= from => {
                refuse(errno);
                return -1;
            }
            _ => {}
        }
        libc::syscall(libc::SYS_preadv, file, few.as_ptr(), few.len(), at, 0) as isize
    }
}

type Call = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

/// The library's `preadv2` is called so; all others with up to six arguments pass.
///
/// # Safety
/// As syscall's manual says.
#[no_mangle]
unsafe extern "C" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    if number == libc::SYS_preadv2 && COLD.load(SeqCst) {
        refuse(libc::EAGAIN);
        return -1;
    }
    // SAFETY: it has this type, as its arguments are in registers, and the rest is the caller's promise.
    unsafe {
        if REAL.load(SeqCst).is_null() {
            REAL.store(libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()), SeqCst);
        }
        std::mem::transmute::<*mut c_void, Call>(REAL.load(SeqCst))(number, a, b, c, d, e, f)
    }
}

/// # Safety
/// As open's manual says.
#[no_mangle]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if NO_SECOND_DESCRIPTOR.load(SeqCst) && CStr::from_ptr(path).to_bytes().starts_with(b"/proc/self/fd/") {
            refuse(libc::EACCES);
            return -1;
        }
        let mut swap = SWAP.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((other, path)) = swap.take_if(|(_, place)| place.as_c_str() == CStr::from_ptr(path)) {
            libc::rename(other.as_ptr(), path.as_ptr());
        }
        drop(swap);
        let file = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int;
        if SLOW_TO_OPEN.load(SeqCst) {
            thread::sleep(Duration::from_millis(2));
        }
        file
    }
}

/// # Safety
/// As statx's manual says.
#[no_mangle]
unsafe extern "C" fn statx(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mask: u32,
    found: *mut libc::statx,
) -> c_int {
    if NO_STATX.load(SeqCst) && flags & libc::AT_EMPTY_PATH != 0 {
        refuse(libc::EIO);
        return -1;
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_statx, folder, path, flags, mask, found) as c_int }
}

/// # Safety
/// As fstatfs' manual says.
#[no_mangle]
unsafe extern "C" fn fstatfs(file: c_int, found: *mut libc::statfs) -> c_int {
    if NO_STATFS.load(SeqCst) {
        refuse(libc::EIO);
        return -1;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let result = libc::syscall(libc::SYS_fstatfs, file, found) as c_int;
        match FILE_SYSTEM.load(SeqCst) {
            0 => {}
            kind => (*found).f_type = kind.into(),
        }
        result
    }
}

/// # Safety
/// As posix_fadvise's manual says.
#[no_mangle]
unsafe extern "C" fn posix_fadvise(file: c_int, at: i64, size: i64, advice: c_int) -> c_int {
    if advice == libc::POSIX_FADV_DONTNEED {
        DROPPED.lock().unwrap_or_else(PoisonError::into_inner).push((at as u64, (at + size) as u64));
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_fadvise64, file, at, size, advice) as c_int }
}

/// # Safety
/// As mmap's manual says.
#[no_mangle]
unsafe extern "C" fn mmap(
    at: *mut c_void,
    size: usize,
    access: c_int,
    kind: c_int,
    file: c_int,
    from: i64,
) -> *mut c_void {
    if NO_MEMORY.load(SeqCst) && file == -1 && size >= 1 << 20 {
        refuse(libc::ENOMEM);
        return libc::MAP_FAILED;
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_mmap, at, size, access, kind, file, from) as *mut c_void }
}

type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Start, *mut c_void) -> c_int;

/// # Safety
/// As pthread_create's manual says.
#[no_mangle]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let left = THREADS.get();
    if left == 0 {
        return libc::EAGAIN;
    }
    THREADS.set(left.saturating_sub(usize::from(left != usize::MAX)));
    // SAFETY: it has this type, and the rest is the caller's promise.
    unsafe {
        let real = libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr());
        std::mem::transmute::<*mut c_void, Create>(real)(thread, attributes, start, argument)
    }
}

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
        *READS.lock().unwrap_or_else(PoisonError::into_inner) = Reads::Sound;
        NO_SECOND_DESCRIPTOR.store(false, SeqCst);
        NO_MEMORY.store(false, SeqCst);
        NO_STATX.store(false, SeqCst);
        NO_STATFS.store(false, SeqCst);
        SLOW_TO_OPEN.store(false, SeqCst);
        FILE_SYSTEM.store(0, SeqCst);
        COLD.store(false, SeqCst);
        *SWAP.lock().unwrap_or_else(PoisonError::into_inner) = None;
        THREADS.set(usize::MAX);
    }
}

/// Counts from here on, and lets the system do this.
pub(crate) fn from_now(reads: Reads) {
    *READS.lock().unwrap() = reads;
    READERS.lock().unwrap().clear();
    COUNT.store(0, SeqCst);
    DIRECT.store(0, SeqCst);
    DROPPED.lock().unwrap().clear();
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
