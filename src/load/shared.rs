// SPDX-License-Identifier: Apache-2.0
//! What the threads of a load share: the plan, the count of bytes, the first
//! error, staging, and a sink's buffers on their way round.
//!
//! LoadProgress and sink are the caller's, and are called on the thread that
//! called: an engine's device context, a runtime's thread state and the like need
//! no care. That thread works too, and sees to its callbacks between two reads.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::destination::{Memory, Staging};
use super::plan::Plan;
use super::request::Request;
use crate::base::lock::lock;
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::record::st_piece;

pub(super) struct LoadState<'a> {
    plan: Mutex<Plan<'a>>,
    pub(super) done: AtomicU64,
    /// Bytes of all results.
    pub(super) total: u64,
    /// For each item the picked bytes that are not yet where they belong; none
    /// where nobody asks.
    left: Vec<AtomicU64>,
    pub(super) stop: AtomicBool,
    /// The caller's.
    pub(super) cancel: Option<&'a AtomicI32>,
    /// The error of the lowest number, which is the first in the files.
    failure: Mutex<Option<(u64, Error)>>,
    pub(super) state: Mutex<Queues>,
    changed: Condvar,
    /// The caller's thread has taken a request that was left to it.
    taken: Condvar,
    buffers: &'a [Memory<'a>],
}

pub(super) struct Queues {
    /// Requests that threads are at work on, and whether there are no others.
    pub(super) busy: usize,
    pub(super) exhausted: bool,
    /// Whether any thread has begun one.
    pub(super) begun: bool,
    /// Buffers that may be filled.
    pub(super) free: VecDeque<usize>,
    /// Buffers that are full, with what is in them.
    pub(super) full: VecDeque<Full>,
    /// Buffers the sink has not been waited for, the oldest first.
    pub(super) with_sink: VecDeque<usize>,
    /// Threads that wait for a buffer, and that wait at all.
    pub(super) waiting: usize,
    sleeping: usize,
    /// Requests that the caller's thread had better do by itself.
    handed: VecDeque<(u64, Request)>,
    /// Items whose results are whole.
    pub(super) finished: VecDeque<usize>,
    /// Staging that nobody uses, where there is less of it than threads.
    pub(super) spare: Vec<Staging>,
}

/// A full buffer.
pub(super) struct Full {
    pub(super) buffer: usize,
    pub(super) bytes: u64,
    pub(super) holds: Holds,
}

pub(super) enum Holds {
    Chunk { item: usize, offset: u64 },
    Pieces(Vec<st_piece>),
}

/// How long the caller's callbacks are left alone at most, but for a read that is
/// under way on its own thread.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// As many requests wait for the caller's thread at most.
const MOST_HANDED: usize = 8;

impl<'a> LoadState<'a> {
    pub(super) fn new(plan: Plan<'a>, total: u64, buffers: &'a [Memory<'a>], cancel: Option<&'a AtomicI32>) -> Self {
        let state = Queues {
            busy: 0,
            exhausted: false,
            begun: false,
            free: (0..buffers.len()).collect(),
            full: VecDeque::new(),
            with_sink: VecDeque::new(),
            waiting: 0,
            sleeping: 0,
            handed: VecDeque::new(),
            finished: VecDeque::new(),
            spare: Vec::new(),
        };
        Self {
            plan: Mutex::new(plan),
            done: AtomicU64::new(0),
            total,
            left: Vec::new(),
            stop: AtomicBool::new(false),
            cancel,
            failure: Mutex::new(None),
            state: Mutex::new(state),
            changed: Condvar::new(),
            taken: Condvar::new(),
            buffers,
        }
    }

    /// Keeps count of items, as somebody wants to hear of each.
    pub(super) fn count_items(&mut self, picked: impl ExactSizeIterator<Item = u64>) -> Result<()> {
        self.left = memory::vec_with_capacity(picked.len(), "the items of a load")?;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (number, picked) in picked.enumerate() {
            if picked == 0 {
                state.finished.try_reserve(1).map_err(|_| Error::out_of_memory("the items of a load", 8))?;
                state.finished.push_back(number);
            }
            self.left.push(AtomicU64::new(picked));
        }
        Ok(())
    }

    /// So many sets of staging go round.
    pub(super) fn share_staging(&mut self, sets: usize) {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).spare.resize_with(sets, Staging::default);
    }

    /// The next request, which is under way until what is returned is dropped.
    pub(super) fn next(&self) -> Result<Option<Taken<'_, 'a>>> {
        let mut plan = lock(&self.plan);
        let request = plan.next();
        let number = plan.made();
        let mut state = lock(&self.state);
        let Some(request) = request? else {
            state.exhausted = true;
            self.wake(&state);
            return Ok(None);
        };
        state.busy = state.busy.saturating_add(1);
        state.begun = true;
        Ok(Some(Taken { shared: self, number, request: Some(request) }))
    }

    /// So many picked bytes more of an item are where they belong.
    pub(super) fn advance(&self, item: usize, picked: u64) {
        let Some(left) = self.left.get(item) else { return };
        // Whoever brings the last bytes has seen all others' being brought. (Who finds that nothing
        // else is left need not say so: an exchange for each of many small items takes long.)
        if left.load(Ordering::Acquire) == picked || left.fetch_sub(picked, Ordering::AcqRel) == picked {
            let mut state = lock(&self.state);
            state.finished.push_back(item);
            self.wake(&state);
        }
    }

    /// Whether the load has failed or been cancelled.
    pub(super) fn stopped(&self) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return true;
        }
        let cancelled = self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed) != 0);
        if cancelled {
            let done = self.done.load(Ordering::Relaxed);
            let text = format!("the load was stopped by st_load_options.cancel after {done} of {} bytes", self.total);
            self.fail(0, Error::new(ErrorKind::Cancelled, text));
        }
        cancelled
    }

    /// Whether somebody may cancel without telling.
    pub(super) fn is_watched(&self) -> bool {
        self.cancel.is_some()
    }

    /// Ends the load. `number` is the request's; 0 for what the caller said.
    pub(super) fn fail(&self, number: u64, error: Error) {
        let mut failure = lock(&self.failure);
        if failure.as_ref().is_none_or(|(first, _)| number < *first) {
            *failure = Some((number, error));
        }
        drop(failure);
        self.stop.store(true, Ordering::Relaxed);
        let _state = lock(&self.state);
        self.changed.notify_all();
        self.taken.notify_all();
    }

    /// What the load failed with, if it did.
    pub(super) fn failure(&self) -> Result<()> {
        lock(&self.failure).take().map_or(Ok(()), |(_, error)| Err(error))
    }

    pub(super) fn release_staging(&self, staging: Staging) {
        let mut state = lock(&self.state);
        state.spare.push(staging);
        self.wake(&state);
    }

    /// Wakes whoever sleeps.
    pub(super) fn wake(&self, state: &Queues) {
        if state.sleeping != 0 {
            self.changed.notify_all();
        }
    }

    /// Sleeps until something changes, or for a tick.
    pub(super) fn sleep<'s>(&self, mut state: MutexGuard<'s, Queues>, ticks: bool) -> MutexGuard<'s, Queues> {
        state.sleeping = state.sleeping.saturating_add(1);
        let mut state = match ticks {
            true => self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0,
            false => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.sleeping = state.sleeping.saturating_sub(1);
        state
    }

    /// The memory of a buffer.
    pub(super) fn buffer(&self, buffer: usize) -> Memory<'a> {
        self.buffers.get(buffer).copied().unwrap_or(Memory::NONE)
    }

    /// Whether a thread waits for a buffer that the sink has, or is to be given.
    pub(super) fn is_short_of_buffers(&self) -> bool {
        let state = lock(&self.state);
        state.waiting != 0 && !(state.full.is_empty() && state.with_sink.is_empty())
    }

    /// A buffer is full.
    pub(super) fn submit(&self, full: Full) {
        let mut state = lock(&self.state);
        state.full.push_back(full);
        self.wake(&state);
    }

    /// Whoever fills a buffer over several requests is at work from one to the next.
    pub(super) fn hold(&self) {
        let mut state = lock(&self.state);
        state.busy = state.busy.saturating_add(1);
    }

    /// The end of that.
    pub(super) fn let_go(&self) {
        let mut state = lock(&self.state);
        state.busy = state.busy.saturating_sub(1);
        self.wake(&state);
    }

    /// Leaves a request to the caller's thread, once it has few of them left.
    pub(super) fn hand_over(&self, taken: Taken<'_, 'a>) {
        let mut state = lock(&self.state);
        while state.handed.len() >= MOST_HANDED && !self.stop.load(Ordering::Relaxed) {
            // Apart from the others, who are woken for each chunk.
            state = self.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut taken = taken;
        match taken.request.take() {
            // It is under way until the caller's thread has done it.
            Some(request) if !self.stop.load(Ordering::Relaxed) => state.handed.push_back((taken.number, request)),
            _ => state.busy = state.busy.saturating_sub(1),
        }
        self.wake(&state);
    }

    /// A request that was left to the caller's thread.
    pub(super) fn handed(&self) -> Option<Taken<'_, 'a>> {
        let mut state = lock(&self.state);
        let (number, request) = state.handed.pop_front()?;
        self.taken.notify_all();
        Some(Taken { shared: self, number, request: Some(request) })
    }

    /// Whether there is one.
    pub(super) fn has_handed(state: &Queues) -> bool {
        !state.handed.is_empty()
    }
}

/// A request that is under way.
pub(super) struct Taken<'s, 'a> {
    shared: &'s LoadState<'a>,
    /// In the files' order.
    pub(super) number: u64,
    /// None once it was left to another thread.
    pub(super) request: Option<Request>,
}

impl Drop for Taken<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The others must not wait for its buffer.
            self.shared.stop.store(true, Ordering::Relaxed);
            let _state = lock(&self.shared.state);
            self.shared.taken.notify_all();
        }
        if self.request.is_none() {
            return;
        }
        let mut state = lock(&self.shared.state);
        state.busy = state.busy.saturating_sub(1);
        self.shared.wake(&state);
    }
}
