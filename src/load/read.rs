// SPDX-License-Identifier: Apache-2.0
//! Reading single tensors of a checkpoint, by name or by record.

#![forbid(unsafe_code)]

use super::budget::{blocks, BLOCK, DEFAULT_STAGING};
use super::callbacks::Callbacks;
use super::checked::CheckedLoad;
use super::destination::Memory;
use super::item::{Item, Origin};
use super::options::{Io, LoadOptions};
use super::overlap;
use super::plan::WINDOW;
use super::reader::TWO_BLOCKS;
use super::shared::LoadState;
use super::task::{Goes, Task};
use super::work::Worker;
use crate::base::memory::Aligned;
use crate::checkpoint::loaded::Loaded;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::format::slice::Selection;
use crate::record::{Range, Tensor};

/// Of a single tensor: some 2 ms of work.
const SEVERAL_THREADS: u64 = 8 << 20;

impl Checkpoint {
    /// The tensor of this name with its bytes: where nothing is mapped, they
    /// are read once and stay for the checkpoint's life.
    ///
    /// # Errors
    /// `NotFound`, or what went wrong while reading.
    pub fn get(&self, name: &[u8]) -> Result<&Tensor> {
        let (index, tensor) = self.require(name)?;
        if !tensor.data.is_null() {
            return Ok(tensor);
        }
        self.loaded(index, || {
            let what = "the tensor's bytes";
            let size = usize::try_from(tensor.size).map_err(|_| Error::out_of_memory(what, usize::MAX))?;
            let mut bytes = Aligned::zeroed(size, what)?;
            read_whole(self, tensor, bytes.as_mut())?;
            Ok(Loaded::new(tensor, bytes))
        })
    }

    /// Copies a tensor's bytes to the start of `buffer`. Never through a
    /// mapping: a file that shrinks or a disk that fails is an error.
    ///
    /// # Errors
    /// `InvalidArgument` for a record that is not this checkpoint's and for a
    /// buffer in memory that it reads from, `BufferSize`, or what went wrong while reading.
    pub fn read(&self, tensor: &Tensor, buffer: &mut [u8]) -> Result<()> {
        let tensor = self.own(tensor)?;
        let room = buffer.len();
        let place = usize::try_from(tensor.size).ok().and_then(|size| buffer.get_mut(..size));
        let place = place.ok_or_else(|| too_small(self, tensor, room))?;
        overlap::check_own_source(self, tensor, place).map_err(|error| self.in_shard(tensor.shard(), error))?;
        self.read_bytes(tensor.shard(), tensor.offset, tensor.name(), place)
    }

    /// Copies the part of a tensor that the ranges pick, one for each dimension
    /// from the outermost on, to the start of `buffer`: dense, in C order. Never
    /// through a mapping.
    ///
    /// # Errors
    /// `InvalidArgument` for a record that is not this checkpoint's and for
    /// ranges outside it, `SubByte` where its runs do not fill whole bytes,
    /// `Unsupported` for unknown dtypes, `BufferSize`, or what went wrong while
    /// reading.
    pub fn read_slice(&self, tensor: &Tensor, ranges: &[Range], buffer: &mut [u8]) -> Result<()> {
        let tensor = self.own(tensor)?;
        read_slice(self, tensor, ranges, buffer)
    }
}

fn too_small(checkpoint: &Checkpoint, tensor: &Tensor, room: usize) -> Error {
    let text = format!("its {} bytes do not fit into a buffer of {room}", tensor.size);
    checkpoint.in_shard(tensor.shard(), Error::tensor(ErrorKind::BufferSize, tensor.name(), text))
}

/// Reads one whole tensor into memory of the checkpoint's own; on several
/// threads where they are worth it.
fn read_whole(checkpoint: &Checkpoint, tensor: &Tensor, buffer: &mut [u8]) -> Result<()> {
    if tensor.size() < SEVERAL_THREADS {
        return checkpoint.read_bytes(tensor.shard(), tensor.offset(), tensor.name(), buffer);
    }
    let tasks = [Task::new(checkpoint, &item(tensor, &[], buffer), Goes::ToPlace)?];
    let mut load = CheckedLoad::new(checkpoint, &tasks, &LoadOptions::default(), None)?;
    (load.numbered, load.untouched) = (false, true);
    load.run(Callbacks::new(None, None, None), &[], None)
}

/// Reads one part of one tensor, on this thread, through the page cache.
fn read_slice(checkpoint: &Checkpoint, tensor: &Tensor, ranges: &[Range], buffer: &mut [u8]) -> Result<()> {
    // Also where there are no ranges: what can't be cut is refused.
    let task = Selection::of_ranges(checkpoint.own(tensor)?, ranges)
        .and_then(|_| Task::new(checkpoint, &item(tensor, ranges, buffer), Goes::ToPlace));
    let task = [task.map_err(|error| checkpoint.in_shard(tensor.shard(), error))?];
    let options = LoadOptions { threads: 1, io: Io::Cached, ..LoadOptions::default() };
    let mut load = CheckedLoad::new(checkpoint, &task, &options, None)?;
    load.budget.straight = u64::MAX;
    // No more than the slice can use.
    let most = checkpoint.source(tensor.shard())?.preferred_request().map_or(WINDOW, |most| most.min(DEFAULT_STAGING));
    let span = task.iter().map(|task| task.end.saturating_sub(task.start)).sum::<u64>().min(most);
    load.budget.window = match load.journeys {
        true => usize::try_from(span).unwrap_or(usize::MAX),
        false => blocks(span.saturating_add(TWO_BLOCKS).saturating_add(BLOCK)),
    };
    load.budget.shared = false;
    let shared = LoadState::new(load.plan()?, load.total, &[], None);
    let mut worker = Worker::new(&load, &shared, None);
    while let Some(taken) = shared.next()? {
        let done = taken.request.as_ref().map_or(Ok(()), |request| worker.execute(request));
        done.map_err(|(_, error)| checkpoint.named(tensor.shard(), tensor.name(), &error))?;
    }
    Ok(())
}

fn item<'a>(tensor: &'a Tensor, ranges: &'a [Range], buffer: &'a mut [u8]) -> Item<'a> {
    let of = Origin::Ranges(tensor, ranges);
    Item { of, dtype: None, place: Memory::of(buffer), strides: None, transform: None }
}
