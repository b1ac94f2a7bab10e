// SPDX-License-Identifier: Apache-2.0
//! Many waits at once: shards' headers are read side by side.

use std::any::Any;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Mutex;

use crate::base::lock::{lock, unlocked};
use crate::base::memory::{self, Filler};
use crate::error::{Error, ErrorKind, Result};

/// Threads that mostly wait for a disk or a network. 200 shards are open after
/// the time of four reads.
pub(crate) const WAITING: usize = 64;

/// Starting one takes about 50 us, which is the work on that many tensors.
pub(crate) const WORTH_A_THREAD: usize = 4000;

/// `work` for 0 to `count`, on up to `most` threads; the results in order, or the
/// error of the lowest number. Where the system gives no thread, the calling
/// one does the work.
pub(crate) fn map<T: Send>(count: usize, most: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    map_on(count, most, Stack::Usual, work)
}

/// The same on threads of this size.
pub(crate) fn map_on<T: Send>(
    count: usize,
    most: usize,
    stack: Stack,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let mut empty = memory::vec_with_capacity(count, "results")?;
    empty.resize_with(count, || None);
    let results: Mutex<Vec<Option<Result<T>>>> = Mutex::new(empty);
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let result = work(number);
            // Numbers below this one are all taken and will be finished, so
            // the lowest error is the same in every run.
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            if let Some(place) = lock(&results).get_mut(number) {
                *place = Some(result);
            }
        }
    };
    run_on(count.min(most), stack, &worker, &mut || worker());
    // Behind an error there may be places that nobody came to.
    let results = unlocked(results);
    memory::collect(results.into_iter().flatten(), count, "results")
}

/// A piece of work.
type Half<'a> = &'a mut (dyn FnMut() -> Result<()> + Send);

/// Two pieces of work at once, or the error of the first one that has one.
pub(crate) fn both<'a>(first: Half<'a>, second: Half<'a>) -> Result<()> {
    let pieces = [(first, Ok(())), (second, Ok(()))].map(Mutex::new);
    let next = AtomicUsize::new(0);
    on_threads(2, &|| {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut piece = lock(piece);
            piece.1 = (piece.0)();
        }
    });
    let results = pieces.map(|piece| unlocked(piece).1);
    results.into_iter().collect()
}

/// One result for each of the items, by two threads where they are many: `make`
/// is given the number of the first of its items.
pub(crate) fn halves<'a, T: Sync, U: Send>(
    items: &'a [T],
    what: &str,
    make: &(impl Fn(usize, &'a [T], &mut Filler<'_, U>) -> Result<()> + Sync),
) -> Result<Vec<U>> {
    let mut made = memory::vec_with_capacity(items.len(), what)?;
    let middle = if items.len() < WORTH_A_THREAD { 0 } else { items.len() / 2 };
    let (first, second) = items.split_at_checked(middle).unwrap_or_default();
    let mut result = Ok(());
    let whole = memory::fill(&mut made, middle, |before, after| {
        result = match middle {
            0 => make(0, items, after),
            _ => both(&mut || make(0, first, before), &mut || make(middle, second, after)),
        };
        Some(())
    });
    result?;
    match whole {
        Some(()) if made.len() == items.len() => Ok(made),
        _ => Err(Error::new(ErrorKind::Internal, "results are missing")),
    }
}

/// `work` on that many threads at once, the calling one among them, or on as many
/// as the system gives.
pub(crate) fn on_threads(count: usize, work: &(dyn Fn() + Sync)) {
    run(count, work, &mut || work());
}

/// `here` on this thread, and beside it `worker` on others, up to `threads` in
/// all and fewer where the system gives no more; returns when all have ended.
/// (Starting threads is 4 kB of code for each closure; so all use this.)
pub(crate) fn run(threads: usize, worker: &(dyn Fn() + Sync), here: &mut dyn FnMut()) {
    run_on(threads, Stack::Usual, worker, here);
}

/// How much stack a thread has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    /// Enough for this library alone.
    Small,
    /// Enough for callbacks, whatever they call.
    Usual,
}

impl Stack {
    const fn bytes(self) -> usize {
        match self {
            Self::Small => 512 << 10,
            Self::Usual => 2 << 20,
        }
    }
}

/// What threads work on.
struct ThreadJob<'a> {
    worker: &'a (dyn Fn() + Sync),
    /// The first panic of one of them.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The system's own threads, as the standard library's allocate on the way into
/// and out of each, and abort where there is no memory for that.
#[inline(never)]
fn run_on(threads: usize, stack: Stack, worker: &(dyn Fn() + Sync), here: &mut dyn FnMut()) {
    let others = threads.saturating_sub(1);
    let others = if others == 0 { 0 } else { others.min(threads_with_room(stack.bytes())) };
    let mut started = Vec::new();
    let job = ThreadJob { worker, panic: Mutex::new(None) };
    if started.try_reserve_exact(others).is_ok() {
        started.extend((0..others).map_while(|_| start(&job, stack)));
    }
    let result = catch_unwind(AssertUnwindSafe(here));
    for thread in started {
        // SAFETY: each was started, and is joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    }
    let panic = unlocked(job.panic);
    if let Some(panic) = result.err().or(panic) {
        std::panic::resume_unwind(panic);
    }
}

/// Starts a thread, which the caller joins before the job goes.
fn start(job: &ThreadJob<'_>, stack: Stack) -> Option<libc::pthread_t> {
    let (mut attributes, mut thread) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the attributes are initialised before they are used, and destroyed
    // once; the thread is there where the call says so. The job outlives it.
    unsafe {
        if libc::pthread_attr_init(attributes.as_mut_ptr()) != 0 {
            return None;
        }
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack.bytes());
        let job = std::ptr::from_ref(job).cast_mut().cast();
        let failed = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), work_on, job);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        (failed == 0).then(|| thread.assume_init())
    }
}

/// What a thread does: nothing of it may unwind into the system's code.
extern "C" fn work_on(job: *mut c_void) -> *mut c_void {
    // SAFETY: the job outlives the thread, see `run_on`; it is shared.
    let job = unsafe { &*job.cast::<ThreadJob<'_>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job.worker)) {
        lock(&job.panic).get_or_insert(panic);
    }
    std::ptr::null_mut()
}

/// Processors that this thread, and those that it starts, may run on. The standard library's
/// count also reads the control group's files, and glibc's of all that are at work another,
/// which take 20 and 10 us: longer than most opens, or than a small tensor's load.
pub(crate) fn cores() -> usize {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: all zeros is a set of none.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: as many bytes as there are.
        if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } == 0 {
            // SAFETY: the set is initialised.
            return usize::try_from(unsafe { libc::CPU_COUNT(&set) }).unwrap_or(1).max(1);
        }
    }
    // SAFETY: a number in, a number out.
    let cores = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(cores).unwrap_or(1)
}

/// How many threads there is address space for, where that is limited: for their
/// stacks, and for the C library's arenas, of which each thread reserves 64 MiB, and
/// twice that while it does.
fn threads_with_room(stack: usize) -> usize {
    const ARENA: usize = 128 << 20;
    const MORE: usize = 1 << 20;
    let limit = |resource| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit fills the struct it is given.
        let known = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
        (known && limit.rlim_cur != libc::RLIM_INFINITY).then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
    };
    let (space, data) = (limit(libc::RLIMIT_AS), limit(libc::RLIMIT_DATA));
    if space.is_none() && data.is_none() {
        return usize::MAX;
    }
    let (mapped, writable) = in_use().unwrap_or((usize::MAX, usize::MAX));
    let threads = |limit: Option<usize>, used: usize, arena: usize| match limit {
        // At most half of what is left: there is work to be done.
        Some(limit) => (limit.saturating_sub(used) / 2).checked_div(stack.saturating_add(arena)).unwrap_or(0),
        None => usize::MAX,
    };
    threads(space, mapped, ARENA).min(threads(data, writable, MORE))
}

/// This process's address space, and what of it is writable: bytes.
fn in_use() -> Option<(usize, usize)> {
    use std::io::Read;
    let mut text = [0; 256];
    let len = std::fs::File::open("/proc/self/statm").and_then(|mut file| file.read(&mut text)).ok()?;
    let mut pages = std::str::from_utf8(text.get(..len)?).ok()?.split(' ').map(|pages| pages.trim().parse::<usize>());
    let (mapped, writable) = (pages.next()?.ok()?, pages.nth(4)?.ok()?);
    let page = memory::page();
    Some((mapped.saturating_mul(page), writable.saturating_mul(page)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_and_the_first_error_wins() {
        for _ in 0..50 {
            let (mut a, mut b) = (0, 0);
            both(&mut || Ok(a += 1), &mut || Ok(b += 1)).unwrap();
            assert_eq!((a, b), (1, 1));
            let fail = |text: &'static str| move || Err(Error::new(ErrorKind::Io, text));
            assert_eq!(both(&mut fail("a"), &mut fail("b")).unwrap_err().to_string(), "a");
            assert_eq!(both(&mut || Ok(()), &mut fail("b")).unwrap_err().to_string(), "b");
        }
    }

    #[test]
    fn results_come_in_order_and_the_lowest_error_wins() {
        assert_eq!(map(500, WAITING, Ok).unwrap(), (0..500).collect::<Vec<_>>());
        assert!(map(0, WAITING, Ok).unwrap().is_empty());
        for _ in 0..50 {
            let found = map(300, WAITING, |i| match i {
                7.. => Err(Error::new(ErrorKind::Io, i.to_string())),
                _ => Ok(i),
            });
            assert_eq!(found.unwrap_err().to_string(), "7");
        }
    }
}
