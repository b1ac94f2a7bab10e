// SPDX-License-Identifier: Apache-2.0
//! Parts of rows that are read straight to where they go, run by run.
#![forbid(unsafe_code)]

use super::delivery::Delivery;
use super::errors::fault;
use super::reader::Reader;
use super::request::ItemPart;
use super::task::{Picks, Task};
use super::workspace::count;
use crate::base::memory;
use crate::error::{Error, Result};
use crate::source::scatter::{self, Run};

/// Tells `each` of the runs of a part: where it lies in the file (`None`: zeros), and its bytes.
fn runs_of(task: &Task<'_>, part: &ItemPart, each: &mut dyn FnMut(Option<u64>, u64) -> Result<()>) -> Result<()> {
    let begin = task.tensor.offset();
    match &task.picks {
        Picks::Several(selection) if !part.dense => selection
            .runs(part.at, part.picked, &mut |start, len| each(start.map(|start| begin.saturating_add(start)), len)),
        _ => each(Some(part.bytes.start), part.bytes.len),
    }
}

/// Reads the runs of parts that nothing has to be done to; an error comes with the task that it befell.
pub(super) fn read<'a>(
    parts: &[ItemPart],
    shard: usize,
    widest_gap: u64,
    reader: &mut Reader<'a, '_>,
    delivery: &mut Delivery<'a, '_, '_>,
) -> Result<(), (usize, Error)> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    let first = parts.first().map_or(0, |part| part.task);
    for part in parts {
        let named = |error| (part.task, error);
        let task = delivery.tasks.get(part.task).ok_or_else(|| named(fault()))?;
        let mut rest = count(part.picked).and_then(|len| task.place.dense(part.at, len)).map_err(named)?;
        let count_of_runs = part.picked.checked_div(task.run()).unwrap_or_default();
        memory::reserve(&mut runs, count(count_of_runs).map_err(named)?, "the runs of a request").map_err(named)?;
        runs_of(task, part, &mut |start, len| {
            let (place, later) = std::mem::take(&mut rest).split_at_mut_checked(count(len)?).ok_or_else(fault)?;
            rest = later;
            match start {
                None => place.fill(0),
                Some(offset) => {
                    memory::reserve(&mut runs, 1, "the runs of a request")?;
                    runs.push(Run { offset, place });
                }
            }
            Ok(())
        })
        .map_err(named)?;
    }
    runs.sort_unstable_by_key(|run| run.offset);
    reader.scatter(shard, &mut runs, widest_gap, &mut || delivery.go_on()).map_err(|error| (first, error))?;
    for part in parts {
        delivery.advance(part.task, part.picked, part.picked);
    }
    Ok(())
}

/// How many calls [`read`] takes, and how many bytes.
pub(super) fn calls(parts: &[ItemPart], tasks: &[Task<'_>], widest_gap: u64) -> Result<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for part in parts {
        let task = tasks.get(part.task).ok_or_else(fault)?;
        runs_of(task, part, &mut |start, len| {
            memory::reserve(&mut runs, 1, "the runs of a request")?;
            runs.extend(start.map(|start| (start, len)));
            Ok(())
        })?;
    }
    runs.sort_unstable();
    Ok(scatter::calls(runs.into_iter(), widest_gap))
}
