// SPDX-License-Identifier: Apache-2.0
//! What a load would do, counted without reading.
#![forbid(unsafe_code)]

use super::caller::Buffers;
use super::checked::CheckedLoad;
use super::item::Items;
use super::options::{LoadOptions, Summary};
use super::reader::ReadWay;
use super::request::{fetched, ItemPart, Means, Request, What};
use super::runs;
use super::task::{self, Goes, Picks, Task};
use crate::base::extent::Extent;
use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// What [`super::load`] would do, found without reading.
///
/// # Errors
/// As for [`super::load`], before the first byte is read.
pub fn summary<'a>(
    checkpoint: &'a Checkpoint,
    items: Items<'_, 'a>,
    options: &LoadOptions,
    buffers: Option<Buffers<'_>>,
) -> Result<Summary> {
    let tasks = task::all(checkpoint, items, Goes::of(buffers.is_some()))?;
    CheckedLoad::new(checkpoint, &tasks, options, buffers)?.summary()
}

impl CheckedLoad<'_> {
    fn summary(&self) -> Result<Summary> {
        let mut plan = self.plan()?;
        let mut found = Summary { bytes: self.total, threads: self.threads, ..Summary::default() };
        let mut last_shard = None;
        while let Some(Request { shard, bytes: Extent { len, .. }, what }) = plan.next()? {
            let source = self.checkpoint.source(shard)?;
            let (steps, read) = match what {
                What::Whole { task, .. } => (self.reads_of(task, shard, len)?, len),
                What::Parts(parts, means) => match means {
                    Means::Staging if source.preferred_request().is_some() => (source.reads(len).min(len), len),
                    Means::Staging => fetched(&parts).fold((0_u64, 0_u64), |(steps, bytes), read| {
                        (steps.saturating_add(read.bytes.len.min(1)), bytes.saturating_add(read.bytes.len))
                    }),
                    Means::Runs | Means::Either => {
                        let gap = match self.options.max_gap {
                            0 => source.widest_gap(self.run_of(&parts)),
                            given => given,
                        };
                        runs::calls(&parts, self.tasks, gap)?
                    }
                },
                What::Tile { task, at, size } => self.reads_of_tile(task, at, size)?,
                What::Boxes { .. } => (1, len),
            };
            found.requests = found.requests.saturating_add(steps);
            found.read_bytes = found.read_bytes.saturating_add(read);
            found.shards = found.shards.saturating_add(usize::from(last_shard != Some(shard)));
            last_shard = Some(shard);
        }
        let picked = self.tasks.iter().map(Task::read_size).fold(0, u64::saturating_add);
        found.over_read_bytes = found.read_bytes.saturating_sub(picked);
        found.staging_bytes = self.budget.total();
        Ok(found)
    }

    /// Bytes that lie together of the first of these parts' items.
    fn run_of(&self, parts: &[ItemPart]) -> u64 {
        parts.first().and_then(|part| self.tasks.get(part.task)).map_or(0, Task::run)
    }

    /// How many reads through the page cache a request for one item takes.
    fn reads_of(&self, task: usize, shard: usize, len: u64) -> Result<u64> {
        let source = self.checkpoint.source(shard)?;
        let step = match self.tasks.get(task).filter(|task| !task.is_plain()) {
            None => ReadWay::of(source).straight(&self.budget),
            Some(task) => task.step(len, self.reader(None).step(ReadWay::of(source))),
        };
        let step = step.max(1);
        let whole = len.checked_div(step).unwrap_or_default().saturating_mul(source.reads(step));
        Ok(whole.saturating_add(source.reads(len.checked_rem(step).unwrap_or_default())))
    }

    /// The same for bytes that are put together run by run, about: and how many bytes.
    fn reads_of_tile(&self, task: usize, at: u64, size: u64) -> Result<(u64, u64)> {
        let Some(task) = self.tasks.get(task) else { return Ok((0, 0)) };
        let Picks::Several(selection) = &task.picks else { return Ok((1, size)) };
        let source = self.checkpoint.source(task.shard)?;
        let (mut steps, mut bytes) = (0_u64, 0_u64);
        if at == 0 {
            for read in selection.reads(source.widest_gap(task.run()), self.budget.window as u64) {
                steps = steps.saturating_add(source.reads(read.size).min(read.size));
                bytes = bytes.saturating_add(read.size);
            }
        }
        Ok((steps, bytes))
    }
}
