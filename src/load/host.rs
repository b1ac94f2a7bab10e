// SPDX-License-Identifier: Apache-2.0
//! The caller's side of a load: progress, items that are done, and a sink. Only
//! the thread that called has it.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::shared::{lock, Full, Holds, Shared};
use super::{ItemDone, Progress, Sink};
use crate::error::{Error, ErrorKind, Result};

/// How long the caller's callbacks are left alone at most, but for a read that is
/// under way on its own thread.
pub(super) const TICK: Duration = Duration::from_millis(20);

pub(super) struct Host<'h> {
    progress: Option<Progress<'h>>,
    item_done: Option<ItemDone<'h>>,
    sink: Option<&'h mut dyn Sink>,
    told: Option<u64>,
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

impl<'h> Host<'h> {
    pub(super) fn new(
        progress: Option<Progress<'h>>,
        item_done: Option<ItemDone<'h>>,
        sink: Option<&'h mut dyn Sink>,
    ) -> Self {
        Self { progress, item_done, sink, told: None, served: Instant::now() }
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
        self.told = Some(done);
        if self.progress.as_mut().is_none_or(|progress| progress(done, total)) {
            return Ok(());
        }
        let text = format!("the load was stopped by the progress callback after {done} of {total} bytes");
        Err(Error::new(ErrorKind::Cancelled, text))
    }
}

impl Shared<'_> {
    /// What the caller's thread owes its callbacks: full buffers go to the sink,
    /// it is waited for where a thread has no buffer, progress is told.
    pub(super) fn serve(&self, host: &mut Host<'_>) -> Result<()> {
        if let Some(sink) = host.sink.as_deref_mut() {
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
                    lock(&self.state).flying.push_back(buffer);
                    continue;
                }
                let wanted = state.starving != 0 && state.free.is_empty();
                let Some(buffer) = (if wanted { state.flying.pop_front() } else { None }) else { break };
                drop(state);
                sink.wait(buffer)?;
                let mut state = lock(&self.state);
                state.free.push_back(buffer);
                self.wake(&state);
            }
        }
        self.tell(host)
    }

    fn tell(&self, host: &mut Host<'_>) -> Result<()> {
        if let Some(item_done) = host.item_done.as_mut() {
            loop {
                // In a statement of its own: the lock must be open again when it is called.
                let item = lock(&self.state).finished.pop_front();
                let Some(item) = item else { break };
                item_done(item);
            }
        }
        let done = self.done.load(Ordering::Relaxed);
        // The end is told once, when nothing can go wrong any more.
        let news = host.told != Some(done) || host.is_due();
        host.served = Instant::now();
        if done == self.total || !news {
            return Ok(());
        }
        host.say(done, self.total)
    }

    /// Sees to the callbacks while others are at work. `helps`: this thread is one
    /// of those that work, and there is nothing left to begin.
    pub(super) fn attend(&self, host: &mut Host<'_>, helps: bool) -> Attended {
        let begun = Instant::now();
        loop {
            let served = if self.stopped() { Ok(()) } else { self.serve(host) };
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
            let idle = !more && (stopped || state.starving == 0 || state.flying.is_empty());
            let news = host.item_done.is_some() && !state.finished.is_empty();
            if idle && !news {
                drop(self.sleep(state, host.progress.is_some() || self.is_watched() || !helps));
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
            if let Err(error) = self.tell(host).and_then(|()| host.say(self.total, self.total)) {
                self.fail(0, error);
            }
        }
    }
}
