// SPDX-License-Identifier: Apache-2.0
//! What the threads of a load share: the plan, the count of bytes, the first
//! error, and a sink's buffers on their way round.
//!
//! Progress and sink are the caller's, and are called on the thread that
//! called: an engine's device context, a runtime's thread state and the like need
//! no care. That thread works too, and sees to its callbacks between two requests.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::plan::{Plan, Request};
use super::target::Memory;
use super::{Progress, Sink};
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Shared<'a> {
    plan: Mutex<Plan<'a>>,
    done: AtomicU64,
    stop: AtomicBool,
    /// The error of the lowest number, which is the first in the files.
    failure: Mutex<Option<(u64, Error)>>,
    state: Mutex<State>,
    changed: Condvar,
    buffers: &'a [Memory<'a>],
}

struct State {
    /// Requests that threads are at work on.
    busy: usize,
    /// Buffers that may be filled.
    free: VecDeque<usize>,
    /// Buffers that are full, with what is in them.
    full: VecDeque<Chunk>,
    /// Buffers the sink has not been waited for, the oldest first.
    flying: VecDeque<usize>,
    /// Threads that wait for a buffer.
    starving: usize,
}

/// A full buffer.
pub(super) struct Chunk {
    pub(super) buffer: usize,
    pub(super) item: usize,
    pub(super) offset: u64,
    pub(super) size: usize,
}

/// The caller's side: only its own thread has it.
pub(super) struct Host<'h> {
    pub(super) progress: Option<Progress<'h>>,
    pub(super) sink: Option<&'h mut dyn Sink>,
    pub(super) total: u64,
    pub(super) told: Option<u64>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(plan: Plan<'a>, buffers: &'a [Memory<'a>]) -> Self {
        let state = State {
            busy: 0,
            free: (0..buffers.len()).collect(),
            full: VecDeque::new(),
            flying: VecDeque::new(),
            starving: 0,
        };
        Self {
            plan: Mutex::new(plan),
            done: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
            state: Mutex::new(state),
            changed: Condvar::new(),
            buffers,
        }
    }

    /// The next request, which is under way until what is returned is dropped.
    pub(super) fn next(&self) -> Result<Option<Taken<'_, 'a>>> {
        let mut plan = lock(&self.plan);
        let Some(request) = plan.next()? else { return Ok(None) };
        let number = plan.made();
        let mut state = lock(&self.state);
        state.busy = state.busy.saturating_add(1);
        Ok(Some(Taken { shared: self, number, request }))
    }

    /// So many bytes more are where they belong.
    pub(super) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
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
    }

    /// What the load failed with, if it did.
    pub(super) fn failure(&self) -> Result<()> {
        lock(&self.failure).take().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// A buffer to fill. The caller's own thread, which is the one with a host,
    /// sees to it that there is one.
    pub(super) fn acquire(&self, host: &mut Option<&mut Host<'_>>) -> Result<usize> {
        let mut state = lock(&self.state);
        loop {
            if self.stopped() {
                return Err(stopped());
            }
            if let Some(buffer) = state.free.pop_front() {
                return Ok(buffer);
            }
            state.starving = state.starving.saturating_add(1);
            match host {
                Some(host) if !state.full.is_empty() || !state.flying.is_empty() => {
                    drop(state);
                    let served = self.serve(host);
                    if let Err(error) = served {
                        // Not the fault of the item that the buffer is for.
                        self.fail(0, error);
                    }
                    state = lock(&self.state);
                }
                _ => {
                    // The caller's thread may be asleep and has to see to it.
                    self.changed.notify_all();
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            state.starving = state.starving.saturating_sub(1);
        }
    }

    /// The memory of a buffer.
    pub(super) fn buffer(&self, buffer: usize) -> Memory<'a> {
        self.buffers.get(buffer).copied().unwrap_or(Memory::NONE)
    }

    /// A buffer is full.
    pub(super) fn submit(&self, chunk: Chunk) {
        let mut state = lock(&self.state);
        state.full.push_back(chunk);
        self.changed.notify_all();
    }

    /// What the caller's thread owes its callbacks: full buffers go to the sink,
    /// it is waited for where a thread has no buffer, progress is told.
    pub(super) fn serve(&self, host: &mut Host<'_>) -> Result<()> {
        if let Some(sink) = host.sink.as_deref_mut() {
            loop {
                let mut state = lock(&self.state);
                if let Some(Chunk { buffer, item, offset, size }) = state.full.pop_front() {
                    drop(state);
                    sink.chunk(buffer, item, offset, size)?;
                    self.advance(size as u64);
                    lock(&self.state).flying.push_back(buffer);
                    continue;
                }
                let wanted = state.starving != 0 && state.free.is_empty();
                let Some(buffer) = (if wanted { state.flying.pop_front() } else { None }) else { break };
                drop(state);
                sink.wait(buffer)?;
                lock(&self.state).free.push_back(buffer);
                self.changed.notify_all();
            }
        }
        self.tell(host)
    }

    fn tell(&self, host: &mut Host<'_>) -> Result<()> {
        let (done, total) = (self.done.load(Ordering::Relaxed), host.total);
        // The end is told once, when nothing can go wrong any more.
        if done == total || host.told == Some(done) {
            return Ok(());
        }
        host.say(done)
    }

    /// Sees to the callbacks while others are at work; nothing is left to begin.
    pub(super) fn attend(&self, host: &mut Host<'_>) {
        loop {
            let served = if self.stopped() { Ok(()) } else { self.serve(host) };
            if let Err(error) = served {
                self.fail(0, error);
            }
            let state = lock(&self.state);
            let more = !self.stopped() && !state.full.is_empty();
            if state.busy == 0 && !more {
                return;
            }
            let idle = !more && (self.stopped() || state.starving == 0 || state.flying.is_empty());
            if idle {
                drop(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Waits for every buffer that the sink still has; on success also tells the end.
    pub(super) fn settle(&self, host: &mut Host<'_>) {
        loop {
            // In a statement of its own: the lock must be open again when `wait` is called.
            let buffer = lock(&self.state).flying.pop_front();
            let Some(buffer) = buffer else { break };
            if let Some(Err(error)) = host.sink.as_deref_mut().map(|sink| sink.wait(buffer)) {
                // What a load failed with before says more.
                self.fail(u64::MAX, error);
            }
        }
        if !self.stopped() {
            if let Err(error) = host.say(host.total) {
                self.fail(0, error);
            }
        }
    }
}

impl Host<'_> {
    fn say(&mut self, done: u64) -> Result<()> {
        self.told = Some(done);
        let total = self.total;
        if self.progress.as_mut().is_none_or(|progress| progress(done, total)) {
            return Ok(());
        }
        let text = format!("the load was stopped by the progress callback after {done} of {total} bytes");
        Err(Error::new(ErrorKind::Cancelled, text))
    }
}

/// A request that is under way.
pub(super) struct Taken<'s, 'a> {
    shared: &'s Shared<'a>,
    /// In the files' order.
    pub(super) number: u64,
    pub(super) request: Request,
}

impl Drop for Taken<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The others must not wait for its buffer.
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        let mut state = lock(&self.shared.state);
        state.busy = state.busy.saturating_sub(1);
        self.shared.changed.notify_all();
    }
}

/// What a thread's own work ends with once another's has failed; it is not told.
pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "the load has ended")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
