// SPDX-License-Identifier: Apache-2.0
//! Loads while the system fails: reads that are short, interrupted or go wrong,
//! files that shrink, no threads, no memory, no second descriptor. Errors say what
//! and where, and nothing is left behind.
//!
//! This binary has its own `pread64`, `open64`, `mmap` and `pthread_create`, which the
//! library then calls; so its tests run one at a time.

mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use safetensors::ffi::dtype::ST_DTYPE_F32;
use safetensors::ffi::load::*;
use safetensors::ffi::open::st_io;
use safetensors::ffi::status::*;
use support::callbacks::{say, Manner, Reader};
use support::handle::{init_io, init_options, open_io, open_map, open_read, Failure, Handle};
use support::load::{init_load, item_into, load, plan, Progress};
use support::{file, file_of, pattern};

/// What the system does with reads of files.
#[derive(Clone, Copy, Debug)]
enum Reads {
    Sound,
    /// At most so many bytes.
    Short(usize),
    /// Every second one is interrupted.
    Interrupted,
    /// This errno, for the read of this number and those behind it.
    Fails(usize, c_int),
}

static READS: Mutex<Reads> = Mutex::new(Reads::Sound);
/// Threads that read, the reads, and those past the page cache.
static READERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static DIRECT: AtomicUsize = AtomicUsize::new(0);
static NO_SECOND_DESCRIPTOR: AtomicBool = AtomicBool::new(false);
static NO_MEMORY: AtomicBool = AtomicBool::new(false);
thread_local! {
    /// How many more threads this one may start.
    static THREADS: Cell<usize> = const { Cell::new(usize::MAX) };
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
/// As open's manual says.
#[no_mangle]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if NO_SECOND_DESCRIPTOR.load(SeqCst) && CStr::from_ptr(path).to_bytes().starts_with(b"/proc/self/fd/") {
            refuse(libc::EACCES);
            return -1;
        }
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int
    }
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
struct Alone {
    _lock: MutexGuard<'static, ()>,
}

static ONE: Mutex<()> = Mutex::new(());

fn alone() -> Alone {
    Alone { _lock: ONE.lock().unwrap_or_else(PoisonError::into_inner) }
}

impl Drop for Alone {
    fn drop(&mut self) {
        *READS.lock().unwrap_or_else(PoisonError::into_inner) = Reads::Sound;
        NO_SECOND_DESCRIPTOR.store(false, SeqCst);
        NO_MEMORY.store(false, SeqCst);
        THREADS.set(usize::MAX);
    }
}

/// Counts from here on, and lets the system do this.
fn from_now(reads: Reads) {
    *READS.lock().unwrap() = reads;
    READERS.lock().unwrap().clear();
    COUNT.store(0, SeqCst);
    DIRECT.store(0, SeqCst);
}

/// The library's threads that are there.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| fs::read(task.path().join("comm")).is_ok_and(|name| name == b"safetensors\n")).count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What a load must leave behind: nothing. (The system takes a moment to bury
/// a thread that has ended.)
fn leaves_nothing<T>(work: impl FnOnce() -> T) -> T {
    let before = descriptors();
    let result = work();
    let start = Instant::now();
    while threads() != 0 && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_micros(50));
    }
    assert_eq!((threads(), descriptors()), (0, before), "threads and descriptors");
    result
}

const LARGE: usize = 5_000_000;
const SMALL: usize = 3001;

/// A file of a large tensor, many small ones, and one more large one.
struct Made {
    _folder: tempfile::TempDir,
    path: PathBuf,
    data: Vec<u8>,
    sizes: Vec<usize>,
}

fn made() -> Made {
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
fn load_all(from: &Handle, made: &Made, options: &st_load_options) -> Result<(), Failure> {
    let mut memory = vec![0x77; made.data.len()];
    let items = split(from, made, &mut memory);
    let result = leaves_nothing(|| load(from, &items, options));
    if result.is_ok() {
        assert!(memory == made.data, "other bytes");
    }
    result
}

fn split(from: &Handle, made: &Made, mut memory: &mut [u8]) -> Vec<st_load_item> {
    let each = made.sizes.iter().enumerate().map(|(i, size)| {
        let (now, rest) = std::mem::take(&mut memory).split_at_mut(*size);
        memory = rest;
        let name = format!("t{i}");
        item_into(from.tensors().iter().find(|tensor| tensor.name() == name.as_bytes()).unwrap(), now)
    });
    each.collect()
}

/// The ways to read that there are, through files opened in both ways.
fn each_way(made: &Made, mut check: impl FnMut(&Handle, st_load_options, &str)) {
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

#[test]
fn short_and_interrupted_reads_are_gone_on_with() {
    let _alone = alone();
    let made = made();
    each_way(&made, |from, options, what| {
        for reads in [Reads::Sound, Reads::Short(100_001), Reads::Short(8192), Reads::Interrupted] {
            from_now(reads);
            load_all(from, &made, &options).unwrap_or_else(|failure| panic!("{what}, {reads:?}: {failure:?}"));
        }
    });
}

#[test]
fn the_way_past_the_page_cache_is_taken_where_it_is_asked_for() {
    let _alone = alone();
    let made = made();
    let from = open_read(&made.path).unwrap();
    let direct = |io| {
        from_now(Reads::Sound);
        load_all(&from, &made, &st_load_options { io, ..init_load() }).unwrap();
        DIRECT.load(SeqCst)
    };
    assert_eq!(direct(ST_IO_CACHED), 0);
    // It was written a moment ago.
    assert_eq!(direct(ST_IO_AUTO), 0);
    let asked = direct(ST_IO_DIRECT);
    // The system may decline, which is no failure; it declines the file, not single reads.
    assert!(asked == 0 || asked == COUNT.load(SeqCst), "{asked} of {}", COUNT.load(SeqCst));
    NO_SECOND_DESCRIPTOR.store(true, SeqCst);
    assert_eq!(direct(ST_IO_DIRECT), 0);
}

#[test]
fn an_error_of_the_system_names_item_tensor_file_and_bytes() {
    let _alone = alone();
    let made = made();
    each_way(&made, |from, options, what| {
        for (first, errno) in [(0, libc::EIO), (1, libc::EIO), (2, libc::ESTALE), (4, libc::ENXIO)] {
            from_now(Reads::Fails(first, errno));
            let result = load_all(from, &made, &options);
            if COUNT.load(SeqCst) <= first {
                result.unwrap();
                continue;
            }
            let failure = result.unwrap_err();
            assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", errno), "{what}: {}", failure.message);
            for word in ["item ", "tensor \"t", "m.safetensors", "reading ", " bytes at "] {
                assert!(failure.message.contains(word), "{what}, {word}: {}", failure.message);
            }
        }
    });
    // One thread, in the file's order: the first item is the one.
    from_now(Reads::Sound);
    let from = open_read(&made.path).unwrap();
    from_now(Reads::Fails(0, libc::EIO));
    let options = st_load_options { threads: 1, io: ST_IO_CACHED, ..init_load() };
    let failure = load_all(&from, &made, &options).unwrap_err();
    assert!(failure.message.contains("item 0, tensor \"t0\": "), "{}", failure.message);
    let start = fs::metadata(&made.path).unwrap().len() - made.data.len() as u64;
    assert!(failure.message.contains(&format!("reading {LARGE} bytes at {start}")), "{}", failure.message);
}

#[test]
fn a_file_that_has_shrunk_is_an_error_and_no_signal() {
    let _alone = alone();
    let made = made();
    let whole = fs::read(&made.path).unwrap();
    for cut in [1, 4097, LARGE as u64 + 10, whole.len() as u64 - 5000] {
        each_way(&made, |from, options, what| {
            let ends = whole.len() as u64 - cut;
            fs::File::options().write(true).open(&made.path).unwrap().set_len(ends).unwrap();
            from_now(Reads::Sound);
            let failure = load_all(from, &made, &options).unwrap_err();
            assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", 0), "{what}: {}", failure.message);
            for word in ["item ", "tensor \"t", "m.safetensors", &format!("the file ends at {ends}")] {
                assert!(failure.message.contains(word), "{what}, {word}: {}", failure.message);
            }
            fs::write(&made.path, &whole).unwrap();
            load_all(from, &made, &options).unwrap();
        });
    }
}

/// Shrinks the file when it is first told of progress.
unsafe extern "C" fn shrink(user_data: *mut c_void, done: u64, total: u64) -> i32 {
    // SAFETY: set below.
    let path = unsafe { &*user_data.cast::<PathBuf>() };
    if done < total {
        fs::File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    }
    0
}

#[test]
fn a_file_may_shrink_during_the_load() {
    let _alone = alone();
    let made = made();
    let whole = fs::read(&made.path).unwrap();
    each_way(&made, |from, options, what| {
        fs::write(&made.path, &whole).unwrap();
        from_now(Reads::Sound);
        let options = st_load_options {
            progress: Some(shrink),
            user_data: (&raw const made.path).cast_mut().cast(),
            threads: 1,
            ..options
        };
        let failure = load_all(from, &made, &options).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_IO", "{what}: {}", failure.message);
        assert!(failure.message.contains("the file ends at 1048576"), "{}", failure.message);
    });
}

#[test]
fn fewer_threads_do_where_the_system_gives_no_more() {
    let _alone = alone();
    let made = made();
    each_way(&made, |from, options, _| {
        for allowed in [0, 1, 3] {
            from_now(Reads::Sound);
            THREADS.set(allowed);
            let result = load_all(from, &made, &options);
            THREADS.set(usize::MAX);
            result.unwrap();
            assert!(READERS.lock().unwrap().len() <= allowed + 1);
        }
    });
}

#[test]
fn no_more_threads_are_at_work_than_asked_for() {
    let _alone = alone();
    let made = made();
    let from = open_read(&made.path).unwrap();
    for asked in 1..=8 {
        from_now(Reads::Sound);
        let options = st_load_options { threads: asked, ..init_load() };
        load_all(&from, &made, &options).unwrap();
        let used = READERS.lock().unwrap().len();
        assert!(used <= asked as usize, "{used} threads of {asked}");
        for max_parallel in [0, 1, 3] {
            let delay = Duration::from_micros(100);
            let reader =
                Reader { preferred_read: 200_000, max_parallel, delay, ..Reader::new(fs::read(&made.path).unwrap()) };
            let from = open_io(&reader.io(), &init_options()).unwrap();
            load_all(&from, &made, &options).unwrap();
            let most = reader.counts.most_under_way.load(SeqCst);
            assert!(most <= asked as usize && (max_parallel == 0 || most <= max_parallel), "{most} at once");
            assert!(asked == 1 || max_parallel == 1 || most > 1, "never two at once");
        }
    }
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let _alone = alone();
    let made = made();
    let from = open_read(&made.path).unwrap();
    for threads in [1, 2] {
        let options = st_load_options { threads, io: ST_IO_CACHED, ..init_load() };
        let mut memory = vec![0; made.data.len()];
        let items = split(&from, &made, &mut memory);
        NO_MEMORY.store(true, SeqCst);
        let failure = leaves_nothing(|| load(&from, &items, &options)).unwrap_err();
        NO_MEMORY.store(false, SeqCst);
        assert_eq!(failure.status(), "ST_ERROR_OUT_OF_MEMORY", "{}", failure.message);
        assert!(failure.message.contains("item "), "{}", failure.message);
        // With less there is enough.
        NO_MEMORY.store(true, SeqCst);
        let small = load(&from, &items, &st_load_options { staging_bytes: 1 << 20, ..options });
        NO_MEMORY.store(false, SeqCst);
        small.unwrap();
    }
}

#[test]
fn a_load_ends_when_progress_says_so() {
    let _alone = alone();
    let made = made();
    each_way(&made, |from, mut options, what| {
        let mut all = Progress::default();
        all.listen(&mut options);
        load_all(from, &made, &options).unwrap();
        all.check(made.data.len() as u64, true);
        for call in 0..all.calls.len().min(4) {
            let mut heard = Progress::cancels_at(call);
            heard.listen(&mut options);
            let result = load_all(from, &made, &options);
            // How often it is told depends on the threads.
            if heard.calls.len() <= call {
                result.unwrap();
                continue;
            }
            let failure = result.unwrap_err();
            assert_eq!((failure.status(), failure.errno), ("ST_ERROR_CANCELLED", 0), "{what}: {}", failure.message);
            assert!(
                failure.message.starts_with("the load was stopped by the progress callback"),
                "{}",
                failure.message
            );
            assert_eq!(heard.calls.len(), call + 1, "not told again");
            heard.check(made.data.len() as u64, false);
        }
    });
}

#[test]
fn what_read_at_says_is_passed_on() {
    let _alone = alone();
    let made = made();
    for threads in [1, 5] {
        for first in [1, 2, 5, 9] {
            for (status, name) in [(3, "ST_ERROR_IO"), (6, "ST_ERROR_CANCELLED"), (2, "ST_ERROR_OUT_OF_MEMORY")] {
                let manner = Manner::Fails(first, status, libc::ETIMEDOUT, c"HTTP 503, try later");
                let reader =
                    Reader { preferred_read: 1 << 20, ..Reader::new(fs::read(&made.path).unwrap()) }.manner(manner);
                let from = open_io(&reader.io(), &init_options()).unwrap();
                let options = st_load_options { threads, ..init_load() };
                let failure = load_all(&from, &made, &options).unwrap_err();
                assert_eq!((failure.status(), failure.errno), (name, libc::ETIMEDOUT), "{}", failure.message);
                for word in ["item ", "tensor \"t", "HTTP 503, try later"] {
                    assert!(failure.message.contains(word), "{word}: {}", failure.message);
                }
            }
        }
    }
}

/// Fails at once in the second tensor; reads of the first take until then.
struct Uneven {
    bytes: Vec<u8>,
    second: u64,
    failed: AtomicBool,
}

unsafe extern "C" fn uneven(
    user_data: *mut c_void,
    offset: u64,
    dst: *mut c_void,
    len: usize,
    done: *mut usize,
    error: *mut st_error,
) -> st_status {
    // SAFETY: set below, and as the header says.
    unsafe {
        let this = &*user_data.cast::<Uneven>();
        if offset >= this.second {
            this.failed.store(true, SeqCst);
            say(error, c"the second half is gone");
            return ST_ERROR_IO;
        }
        if offset as usize > 1000 {
            let start = Instant::now();
            while !this.failed.load(SeqCst) && start.elapsed() < Duration::from_secs(5) {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(20));
        }
        dst.cast::<u8>().copy_from_nonoverlapping(this.bytes[offset as usize..][..len].as_ptr(), len);
        done.write(len);
    }
    ST_OK
}

/// A thread that stops because another has failed does not tell of that as its
/// own failure, although its request comes first.
#[test]
fn the_error_that_ended_the_load_is_the_one_that_is_told() {
    let _alone = alone();
    const EACH: usize = 48 << 10;
    // Behind a tensor that keeps the first read apart from the header's.
    let bytes = file(
        format!(
            "{{{},{},{}}}",
            support::entry("pad", 0, 2000),
            support::entry("a", 2000, 2000 + EACH),
            support::entry("b", 2000 + EACH, 2000 + 2 * EACH)
        ),
        &pattern(2000 + 2 * EACH),
    );
    let second = (bytes.len() - EACH) as u64;
    let reader = Uneven { bytes, second, failed: AtomicBool::new(false) };
    let io = st_io {
        size: reader.bytes.len() as u64,
        read_at: Some(uneven),
        user_data: (&raw const reader).cast_mut().cast(),
        preferred_read: 1000,
        ..init_io()
    };
    let from = open_io(&io, &init_options()).unwrap();
    let mut memory = vec![0; EACH * 8];
    let (one, other) = memory.split_at_mut(EACH * 4);
    let mut items = [item_into(&from.tensors()[1], one), item_into(&from.tensors()[2], other)];
    items.iter_mut().for_each(|item| item.dtype = ST_DTYPE_F32);
    // So little staging that a request takes several reads.
    let options = st_load_options { threads: 2, staging_bytes: 131_072, ..init_load() };
    for _ in 0..3 {
        reader.failed.store(false, SeqCst);
        let failure = leaves_nothing(|| load(&from, &items, &options)).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_IO", "{}", failure.message);
        assert!(failure.message.contains("item 1, tensor \"b\": the second half is gone"), "{}", failure.message);
    }
}

#[test]
fn tiny_tensors_take_few_reads_and_as_many_as_planned() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    let names: Vec<String> = (0..100_000).map(|i| format!("t{i}")).collect();
    fs::write(&path, file_of(&names, 24)).unwrap();
    for from in [open_map(&path), open_read(&path)] {
        let from = from.unwrap();
        let mut memory = vec![0; 24 * names.len()];
        let items: Vec<_> =
            from.tensors().iter().zip(memory.chunks_mut(24)).map(|(tensor, place)| item_into(tensor, place)).collect();
        for threads in [1, 2, 8] {
            let options = st_load_options { threads, io: ST_IO_CACHED, ..init_load() };
            let planned = plan(&from, &items, &options).unwrap();
            from_now(Reads::Sound);
            leaves_nothing(|| load(&from, &items, &options)).unwrap();
            assert_eq!(COUNT.load(SeqCst) as u64, planned.requests);
            assert!(planned.requests <= 100, "{} reads", planned.requests);
            assert_eq!((planned.read_bytes, planned.over_read_bytes), (2_400_000, 0));
        }
        let expected = pattern(24 * names.len());
        let offset = from.tensors()[0].offset();
        assert!(memory
            .chunks(24)
            .zip(from.tensors())
            .all(|(place, tensor)| { place == &expected[(tensor.offset() - offset) as usize..][..24] }));
    }
}
