// SPDX-License-Identifier: Apache-2.0
//! A load from its first read to its last callback.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicI32;

use super::callbacks::{Attended, Callbacks};
use super::caller::Caller;
use super::checked::CheckedLoad;
use super::destination::Memory;
use super::item::Items;
use super::options::LoadOptions;
use super::shared::LoadState;
use super::task::{self, Goes};
use super::work::Worker;
use crate::base::extent::Extent;
use crate::base::{memory, parallel};
use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// Loads all items.
///
/// # Errors
/// Before the first byte is read: what is wrong with an item, its destination
/// or the options. Later: what reading or the sink said, or `Cancelled`; what the
/// destinations then hold is unspecified. No thread is left at work.
pub fn load<'a, 'h>(
    checkpoint: &'a Checkpoint,
    items: Items<'_, 'a>,
    options: &LoadOptions,
    caller: Caller<'_, 'h>,
) -> Result<()> {
    let Caller { progress, item_done, sink, cancel } = caller;
    let (sink, buffers) = sink.map_or((None, None), |given| (Some(given.sink), Some(given.buffers)));
    let tasks = task::all(checkpoint, items, Goes::of(sink.is_some()))?;
    let load = CheckedLoad::new(checkpoint, &tasks, options, buffers)?;
    let item_done = if sink.is_some() { None } else { item_done };
    load.run(Callbacks::new(progress, item_done, sink), buffers.map_or(&[], |buffers| buffers.memory), cancel)
}

impl<'a> CheckedLoad<'a> {
    /// Works on this thread and others until all is done or something failed.
    pub(super) fn run<'h>(
        &self,
        callbacks: Callbacks<'h>,
        buffers: &'a [Memory<'a>],
        cancel: Option<&'a AtomicI32>,
    ) -> Result<()> {
        let (mut callbacks, mut shared) = (callbacks, LoadState::new(self.plan()?, self.total, buffers, cancel));
        let callbacks = &mut callbacks;
        if callbacks.counts_items() {
            shared.count_items(self.tasks.iter().map(|task| task.picked))?;
        }
        if self.budget.shared {
            shared.share_staging(self.budget.sets);
        }
        let shared = &shared;
        // Where reads are long, the thread that called keeps out of them, so that its
        // callbacks need not wait for one.
        let apart = self.journeys && self.threads > 1 && callbacks.has_callbacks();
        let threads = self.threads.saturating_add(usize::from(apart));
        parallel::run(threads, &|| Worker::new(self, shared, None).run(), &mut || {
            let mut helps = !apart;
            loop {
                if helps {
                    Worker::new(self, shared, Some(&mut *callbacks)).run();
                }
                match shared.attend(callbacks, helps) {
                    Attended::Done => break,
                    Attended::Handed | Attended::Alone => helps = true,
                }
            }
        });
        shared.settle(callbacks);
        self.drop_cached();
        shared.failure()
    }

    /// Requests leave the pages that they share with their neighbours in the page cache.
    fn drop_cached(&self) {
        if !self.options.drop_cache {
            return;
        }
        let mut reader = self.reader(None);
        let count = self.checkpoint.shards().len();
        // Without room for this list they stay: it is a hint.
        let Ok(mut read) = memory::vec_with_capacity::<Option<Extent>>(count, "shards") else { return };
        read.resize(count, None);
        for task in self.tasks.iter().filter(|task| task.picked != 0) {
            if let Some(read) = read.get_mut(task.shard) {
                let bytes = Extent::between(task.start, task.end);
                *read = Some(read.map_or(bytes, |read| read.and(bytes)));
            }
        }
        for (shard, read) in read.into_iter().enumerate() {
            // It has been read from: that it can't be opened any more is no error.
            if let Some(bytes) = read.filter(|_| reader.way(shard, Extent::default()).is_ok()) {
                reader.done(shard, bytes);
            }
        }
    }
}
