// SPDX-License-Identifier: Apache-2.0
//! The caller's side of a load: progress, items that are done, and a sink. Only
//! the thread that called has it.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::caller::{ItemDone, LoadProgress, Sink};
use super::destination::Staging;
use super::errors::stopped;
use super::shared::{Full, Holds, LoadState, Queues, TICK};
use crate::base::lock::lock;
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Callbacks<'h> {
    progress: Option<LoadProgress<'h>>,
    item_done: Option<ItemDone<'h>>,
    sink: Option<&'h mut dyn Sink>,
    /// What progress heard last.
    reported: Option<u64>,
    served: Instant,
}

/// Why the caller's thread no longer just attends.
pub(super) enum Attended {
    /// All is done.
    Done,
    /// A request was left to it.
    Handed,
    /// There is no other thread.
    Alone,
}

impl<'h> Callbacks<'h> {
    pub(super) fn new(
        progress: Option<LoadProgress<'h>>,
        item_done: Option<ItemDone<'h>>,
        sink: Option<&'h mut dyn Sink>,
    ) -> Self {
        Self { progress, item_done, sink, reported: None, served: Instant::now() }
    }

    /// Whether it has something to attend to while others read.
    pub(super) fn has_callbacks(&self) -> bool {
        self.progress.is_some() || self.sink.is_some() || self.item_done.is_some()
    }

    pub(super) fn counts_items(&self) -> bool {
        self.item_done.is_some()
    }

    /// Whether its callbacks have been left alone for long.
    pub(super) fn is_due(&self) -> bool {
        self.has_callbacks() && self.served.elapsed() >= TICK
    }

    fn say(&mut self, done: u64, total: u64) -> Result<()> {
        self.reported = Some(done);
        if self.progress.as_mut().is_none_or(|progress| progress(done, total)) {
            return Ok(());
        }
        let text = format!("the load was stopped by the progress callback after {done} of {total} bytes");
        Err(Error::new(ErrorKind::Cancelled, text))
    }
}

impl LoadState<'_> {
    /// A buffer to fill.
    pub(super) fn acquire(&self, callbacks: &mut Option<&mut Callbacks<'_>>) -> Result<usize> {
        self.obtain(callbacks, |state| state.free.pop_front())
    }

    /// Staging, where threads share it.
    pub(super) fn acquire_staging(&self, callbacks: &mut Option<&mut Callbacks<'_>>) -> Result<Staging> {
        self.obtain(callbacks, |state| state.spare.pop())
    }

    /// What `take` finds once it finds it. The caller's own thread, which is the
    /// one with a callbacks, meanwhile sees to it that buffers come back.
    fn obtain<T>(
        &self,
        callbacks: &mut Option<&mut Callbacks<'_>>,
        take: impl Fn(&mut Queues) -> Option<T>,
    ) -> Result<T> {
        let mut state = lock(&self.state);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(stopped());
            }
            if let Some(found) = take(&mut state) {
                return Ok(found);
            }
            state.waiting = state.waiting.saturating_add(1);
            match callbacks {
                Some(callbacks) if !state.full.is_empty() || !state.with_sink.is_empty() || callbacks.is_due() => {
                    drop(state);
                    let served = self.serve(callbacks);
                    if let Err(error) = served {
                        // Not the fault of the item that the buffer is for.
                        self.fail(0, error);
                    }
                    state = lock(&self.state);
                }
                _ => {
                    // The caller's thread may be asleep and has to see to it.
                    self.wake(&state);
                    state = self.sleep(state, self.is_watched() || callbacks.is_some());
                }
            }
            state.waiting = state.waiting.saturating_sub(1);
            if self.is_watched() {
                drop(state);
                self.stopped();
                state = lock(&self.state);
            }
        }
    }

    /// What the caller's thread owes its callbacks: full buffers go to the sink,
    /// it is waited for where a thread has no buffer, progress hears how far it is.
    pub(super) fn serve(&self, callbacks: &mut Callbacks<'_>) -> Result<()> {
        if let Some(sink) = callbacks.sink.as_deref_mut() {
            loop {
                let mut state = lock(&self.state);
                if let Some(Full { buffer, bytes, holds }) = state.full.pop_front() {
                    drop(state);
                    match holds {
                        Holds::Chunk { item, offset } => {
                            sink.chunk(buffer, item, offset, usize::try_from(bytes).unwrap_or(usize::MAX))?;
                        }
                        Holds::Pieces(pieces) => sink.pieces(buffer, &pieces)?,
                    }
                    self.done.fetch_add(bytes, Ordering::Relaxed);
                    lock(&self.state).with_sink.push_back(buffer);
                    continue;
                }
                let wanted = state.waiting != 0 && state.free.is_empty();
                let Some(buffer) = (if wanted { state.with_sink.pop_front() } else { None }) else { break };
                drop(state);
                sink.wait(buffer)?;
                let mut state = lock(&self.state);
                state.free.push_back(buffer);
                self.wake(&state);
            }
        }
        self.tell(callbacks)
    }

    fn tell(&self, callbacks: &mut Callbacks<'_>) -> Result<()> {
        if let Some(item_done) = callbacks.item_done.as_mut() {
            loop {
                // In a statement of its own: the lock must be open again when it is called.
                let item = lock(&self.state).finished.pop_front();
                let Some(item) = item else { break };
                item_done(item);
            }
        }
        let done = self.done.load(Ordering::Relaxed);
        // Progress hears of the end once, when nothing can go wrong any more.
        let news = callbacks.reported != Some(done) || callbacks.is_due();
        callbacks.served = Instant::now();
        if done == self.total || !news {
            return Ok(());
        }
        callbacks.say(done, self.total)
    }

    /// Sees to the callbacks while others are at work. `helps`: this thread is one
    /// of those that work, and there is nothing left to begin.
    pub(super) fn attend(&self, callbacks: &mut Callbacks<'_>, helps: bool) -> Attended {
        let begun = Instant::now();
        loop {
            let served = if self.stopped() { Ok(()) } else { self.serve(callbacks) };
            if let Err(error) = served {
                self.fail(0, error);
            }
            let stopped = self.stopped();
            let state = lock(&self.state);
            if Self::has_handed(&state) {
                return Attended::Handed;
            }
            let more = !stopped && !state.full.is_empty();
            if state.busy == 0 && !more && (state.exhausted || stopped) {
                return Attended::Done;
            }
            if !helps && !state.begun && !stopped && begun.elapsed() > TICK {
                return Attended::Alone;
            }
            let idle = !more && (stopped || state.waiting == 0 || state.with_sink.is_empty());
            let news = callbacks.item_done.is_some() && !state.finished.is_empty();
            if idle && !news {
                drop(self.sleep(state, callbacks.progress.is_some() || self.is_watched() || !helps));
            }
        }
    }

    /// Waits for every buffer that the sink still has; on success progress also hears of the end.
    pub(super) fn settle(&self, callbacks: &mut Callbacks<'_>) {
        loop {
            // In a statement of its own: the lock must be open again when `wait` is called.
            let buffer = lock(&self.state).with_sink.pop_front();
            let Some(buffer) = buffer else { break };
            if let Some(Err(error)) = callbacks.sink.as_deref_mut().map(|sink| sink.wait(buffer)) {
                // What a load failed with before says more.
                self.fail(u64::MAX, error);
            }
        }
        if !self.stopped() {
            if let Err(error) = self.tell(callbacks).and_then(|()| callbacks.say(self.total, self.total)) {
                self.fail(0, error);
            }
        }
    }
}
