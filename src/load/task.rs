// SPDX-License-Identifier: Apache-2.0
//! Items as given, and what is left of them once they are checked.
#![forbid(unsafe_code)]

use super::target::{Layout, Memory};
use super::Item;
use crate::base::memory;
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::dtype::Dtype;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::format::slice::{self, Slice};
use crate::record::{Range, Tensor};

/// One item: it can be loaded as it stands.
pub(super) struct Task<'a> {
    /// The checkpoint's own record.
    pub(super) tensor: &'a Tensor,
    /// None: all of it.
    pub(super) ranges: &'a [Range],
    pub(super) from: Dtype,
    pub(super) to: Dtype,
    /// Where in the file the first picked byte lies, and the end of the last.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Bytes picked in the file, and of the result.
    pub(super) picked: u64,
    pub(super) result: u64,
    pub(super) place: Memory<'a>,
    /// None: dense.
    pub(super) layout: Option<Box<Layout>>,
}

impl<'a> Task<'a> {
    /// Checks one item. With a sink there is no destination to check.
    pub(super) fn new(checkpoint: &'a Checkpoint, item: &Item<'a>, sink: bool) -> Result<Self> {
        let tensor = checkpoint.own(item.tensor)?;
        let refuse = |kind, text: String| Err(Error::tensor(kind, tensor.name(), text));
        let from = tensor.dtype();
        let to = item.dtype.unwrap_or(from);
        if to != from && !convert::supported(from, to) {
            let error = convert::unsupported(from, to);
            return refuse(error.kind(), error.message(usize::MAX));
        }
        let (first, span, picked) = if item.ranges.is_empty() {
            (0, tensor.size(), tensor.size())
        } else {
            let slice = Slice::new(tensor, item.ranges)?;
            (slice.first(), slice.span(), slice.size())
        };
        let mut task = Self {
            tensor,
            ranges: item.ranges,
            from,
            to,
            start: tensor.offset().saturating_add(first),
            end: tensor.offset().saturating_add(first).saturating_add(span),
            picked,
            result: 0,
            place: item.place,
            layout: None,
        };
        let Some(result) = task.result_of(picked) else {
            return refuse(ErrorKind::InvalidArgument, format!("as {} it is beyond any memory", to.name()));
        };
        task.result = result;
        if let Some(strides) = item.strides {
            if sink {
                return refuse(ErrorKind::InvalidArgument, "dst_strides are not for a sink".to_owned());
            }
            if result != 0 {
                task.layout = task.layout_of(item, strides)?.map(Box::new);
            }
        }
        if !sink {
            let needed = task.layout.as_ref().map_or(result, |layout| layout.extent());
            let room = task.place.len() as u64;
            if needed != 0 && task.place.start() == 0 {
                return refuse(ErrorKind::InvalidArgument, "dst is NULL".to_owned());
            }
            if needed > room {
                let text = format!("its {needed} bytes do not fit into a buffer of {room}");
                return refuse(ErrorKind::BufferSize, text);
            }
        }
        Ok(task)
    }

    fn layout_of(&self, item: &Item<'a>, strides: &[i64]) -> Result<Option<Layout>> {
        let tensor = self.tensor;
        let refuse = |text: String| Error::tensor(ErrorKind::InvalidArgument, tensor.name(), text);
        if strides.len() != tensor.shape().len() {
            let text = format!("{} strides were given for its {} dimensions", strides.len(), tensor.shape().len());
            return Err(refuse(text));
        }
        if self.from == Dtype::Unknown {
            return Err(refuse("elements of an unknown dtype have no strides".to_owned()));
        }
        let sizes = slice::shape(tensor, item.ranges)?;
        let mut shape = memory::vec_with_capacity(sizes.len(), "a shape")?;
        for size in sizes {
            shape.push(size?);
        }
        let layout = Layout::new(&shape, strides, self.to.bits());
        let layout = layout.map_err(|text| refuse(format!("dst_strides: {text}")))?;
        // What lies in one piece is dense.
        Ok((layout.run() != self.result).then_some(layout))
    }

    pub(super) fn converts(&self) -> bool {
        self.from != self.to
    }

    /// Bytes of the result that so many bytes of the file become; both in
    /// whole elements.
    pub(super) fn result_of(&self, picked: u64) -> Option<u64> {
        if !self.converts() {
            return Some(picked);
        }
        let bits = u128::from(picked).checked_mul(u128::from(self.to.bits()))?;
        u64::try_from(bits.checked_div(u128::from(self.from.bits()))?).ok()
    }

    /// The most bytes of the file that become `room` bytes of the result or
    /// fewer, in whole groups of eight elements.
    pub(super) fn picked_within(&self, room: u64) -> u64 {
        match self.to.bits() {
            // An unknown dtype is as many bytes as it is.
            0 => room,
            to => room.checked_div(u64::from(to)).unwrap_or(0).saturating_mul(u64::from(self.from.bits())),
        }
    }

    /// An error on the way as one of this item.
    pub(super) fn named(&self, checkpoint: &Checkpoint, number: Option<usize>, error: &Error) -> Error {
        let item = number.map(|number| format!("item {number}, ")).unwrap_or_default();
        let text = format!("{item}tensor {}: {}", quoted(self.tensor.name()), error.message(usize::MAX));
        Error::new(error.kind(), text).with_errno(error.os_errno()).in_file(&checkpoint.label_of(self.tensor.shard()))
    }
}

/// Checks all items; nothing has been read when one is refused.
pub(super) fn all<'a>(checkpoint: &'a Checkpoint, items: &[Item<'a>], sink: bool) -> Result<Vec<Task<'a>>> {
    let mut tasks = memory::vec_with_capacity(items.len(), "the items of a load")?;
    for (number, item) in items.iter().enumerate() {
        tasks.push(Task::new(checkpoint, item, sink).map_err(|error| in_item(checkpoint, number, item, &error))?);
    }
    Ok(tasks)
}

fn in_item(checkpoint: &Checkpoint, number: usize, item: &Item<'_>, error: &Error) -> Error {
    let shard = checkpoint.own(item.tensor).map_or(0, Tensor::shard);
    let named = Error::new(error.kind(), format!("item {number}: {}", error.message(usize::MAX)));
    named.with_errno(error.os_errno()).in_file(&checkpoint.label_of(shard))
}
