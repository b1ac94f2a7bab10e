// SPDX-License-Identifier: Apache-2.0
//! Many waits at once: shards' headers are read side by side.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::Result;
use crate::memory;

/// Threads that mostly wait for a disk or a network. 200 shards are open after
/// the time of four reads.
pub(crate) const WAITING: usize = 64;

/// `work` for 0 to `count`, on up to `most` threads; the results in order, or the
/// error of the lowest number. Where the system gives no thread, the calling
/// one does the work.
pub(crate) fn map<T: Send>(count: usize, most: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
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
            if let Some(place) = results.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                *place = Some(result);
            }
        }
    };
    run(count.min(most), &worker, &mut || worker());
    // Behind an error there may be places that nobody came to.
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

/// `here` on this thread, and beside it `worker` on others, up to `threads` in
/// all and fewer where the system gives no more; returns when all have ended.
#[inline(never)]
pub(crate) fn run(threads: usize, worker: &(dyn Fn() + Sync), here: &mut dyn FnMut()) {
    thread::scope(|scope| {
        for _ in 1..threads {
            if thread::Builder::new().name("safetensors".into()).spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        here();
    });
}

/// Processors that are at work. The standard library's count also reads the
/// control group's files, which takes longer than most opens.
pub(crate) fn cores() -> usize {
    // SAFETY: a number in, a number out.
    let cores = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(cores).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

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
