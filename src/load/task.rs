// SPDX-License-Identifier: Apache-2.0
//! Items as given, and what is left of them once they are checked.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::boxes::Boxes;
use super::destination::Memory;
use super::item::{Item, Items, Origin, Transform};
use super::strides::Strides;
use crate::base::extent::Extent;
use crate::base::memory;
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::dtype::Dtype;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::format::slice::{self, Selection};
use crate::record::Tensor;

/// Bytes of a result are cut at multiples of it, for destinations to stay at
/// multiples of 64 and elements whole, whatever is converted to what.
pub(super) const CUT: u64 = 1536;

/// One item: it can be loaded as it stands.
pub(super) struct Task<'a> {
    /// The checkpoint's own record; of a group the one whose place orders it.
    pub(super) tensor: &'a Tensor,
    pub(super) shard: usize,
    pub(super) picks: Picks<'a>,
    pub(super) from: Dtype,
    pub(super) to: Dtype,
    /// Where in the file the first picked byte lies, and the end of the last.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Bytes picked, zeros among them, and bytes of the result.
    pub(super) picked: u64,
    pub(super) result: u64,
    pub(super) place: Memory<'a>,
    /// None: dense.
    pub(super) layout: Option<Box<Strides>>,
    pub(super) transform: Option<Transform<'a>>,
    /// Bytes picked that can't be cut.
    pub(super) grain: u64,
}

/// Where a result goes, and so what of its place is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    ToPlace,
    ToSink,
    /// To a place that it does not have yet.
    Nowhere,
}

impl Goes {
    pub(super) fn of(sink: bool) -> Self {
        match sink {
            true => Self::ToSink,
            false => Self::ToPlace,
        }
    }
}

/// What is picked.
pub(super) enum Picks<'a> {
    /// One piece of the file, from the task's start to its end.
    Piece,
    Several(Arc<Selection>),
    Group(Box<Boxes<'a>>),
}

impl<'a> Task<'a> {
    /// Checks one item.
    pub(super) fn new(checkpoint: &'a Checkpoint, item: &Item<'a>, goes: Goes) -> Result<Self> {
        Self::of(checkpoint.own(item.of.tensor())?, item, goes)
    }

    /// The same for a record of which is not asked whose it is.
    pub(super) fn of(tensor: &'a Tensor, item: &Item<'a>, goes: Goes) -> Result<Self> {
        let mut task = Self {
            tensor,
            shard: tensor.shard(),
            picks: Picks::Piece,
            from: tensor.dtype(),
            to: item.dtype.unwrap_or(tensor.dtype()),
            start: tensor.offset(),
            end: tensor.offset().saturating_add(tensor.size()),
            picked: tensor.size(),
            result: 0,
            place: item.place,
            layout: None,
            transform: item.transform,
            grain: 1,
        };
        if let Origin::Group(group, _) | Origin::GroupLists(group, _) = item.of {
            let boxes = Boxes::new(group, &item.of, item.dtype)?;
            (task.from, task.to) = (boxes.to, boxes.to);
            task.picked = boxes.size;
            task.picks = Picks::Group(Box::new(boxes));
        } else if task.to != task.from && !convert::supported(task.from, task.to) {
            let error = convert::unsupported(task.from, task.to);
            return Err(task.refuse(error.kind(), error.message(usize::MAX)));
        }
        let selection = match item.of {
            Origin::Ranges(_, []) | Origin::Group(..) | Origin::GroupLists(..) => None,
            Origin::Ranges(_, ranges) => Some(Selection::of_ranges(tensor, ranges)?),
            Origin::Lists(_, lists) => Some(Selection::new(tensor, lists)?),
        };
        if let Some(selection) = selection {
            task.start = tensor.offset().saturating_add(selection.first());
            task.end = task.start.saturating_add(selection.span());
            task.picked = selection.size();
            if !selection.is_one_piece() {
                task.picks = Picks::Several(Arc::new(selection));
            }
        }
        task.settle(item, goes)?;
        Ok(task)
    }

    /// The result: its size, and where it goes.
    fn settle(&mut self, item: &Item<'a>, goes: Goes) -> Result<()> {
        self.grain = match self.transform {
            None => u64::from(self.from.bits()).max(1),
            Some(transform) => self.unit_grain(transform)?,
        };
        let Some(result) = self.result_of(self.picked) else {
            let what = if self.transform.is_some() { "transformed" } else { self.to.name() };
            let error = Error::beyond_memory(&format_args!("its result as {what}"));
            return Err(self.refuse(error.kind(), error.message(usize::MAX)));
        };
        self.result = result;
        if let Some(strides) = item.strides {
            let sink = goes == Goes::ToSink;
            let with = if sink { "a sink" } else { "a transform" };
            if sink || self.transform.is_some() {
                let text = format!("dst_strides is set; expected NULL with {with}");
                return Err(self.refuse(ErrorKind::InvalidArgument, text));
            }
            if result != 0 {
                self.layout = self.layout_of(item, strides)?.map(Box::new);
            }
        }
        if goes == Goes::ToPlace {
            let needed = self.needed();
            let room = self.place.len() as u64;
            if needed != 0 && self.place.start() == 0 {
                return Err(self.refuse(ErrorKind::InvalidArgument, "dst is NULL".to_owned()));
            }
            if needed > room {
                let text = format!("its {needed} bytes do not fit into a buffer of {room}");
                return Err(self.refuse(ErrorKind::BufferSize, text));
            }
        }
        Ok(())
    }

    /// Bytes from the first of its place to after the last.
    pub(super) fn needed(&self) -> u64 {
        self.layout.as_ref().map_or(self.result, |layout| layout.extent())
    }

    /// Where it goes, strides and all.
    pub(super) fn destination(&self) -> Extent {
        Extent::new(self.place.start() as u64, self.needed())
    }

    fn refuse(&self, kind: ErrorKind, text: String) -> Error {
        Error::tensor(kind, self.name(), text)
    }

    /// What a message calls it.
    pub(super) fn name(&self) -> &[u8] {
        match &self.picks {
            Picks::Group(boxes) => boxes.group.name(),
            Picks::Piece | Picks::Several(_) => self.tensor.name(),
        }
    }

    /// Bytes of whole units that are whole bytes, before and after conversion.
    fn unit_grain(&self, Transform { unit, .. }: Transform<'_>) -> Result<u64> {
        let (from, to) = (u64::from(self.from.bits()), u64::from(self.to.bits()));
        if unit == 0 {
            return Err(self.refuse(ErrorKind::InvalidArgument, "transform.unit is 0; expected 1 or more".to_owned()));
        }
        if from == 0 {
            let text = "elements of an unknown dtype can't be transformed".to_owned();
            return Err(self.refuse(ErrorKind::Unsupported, text));
        }
        let elements = self.elements_of(self.picked);
        if !elements.is_multiple_of(unit) {
            let text = format!("its {elements} elements are not whole units of {unit}");
            return Err(self.refuse(ErrorKind::InvalidArgument, text));
        }
        let whole = |count: &u64| {
            let bits = |bits: u64| unit.checked_mul(*count).and_then(|unit| unit.checked_mul(bits));
            bits(from).zip(bits(to)).is_some_and(|(from, to)| from % 8 == 0 && to % 8 == 0)
        };
        // Of a unit that is so large the item has none, and no cut is needed.
        let count = [1, 2, 4].iter().find(|count| whole(count));
        let bytes = count.and_then(|count| unit.checked_mul(*count)?.checked_mul(from));
        Ok(bytes.map_or(u64::MAX, |bits| bits / 8))
    }

    fn layout_of(&self, item: &Item<'a>, strides: &[i64]) -> Result<Option<Strides>> {
        let shape = match item.of {
            Origin::Ranges(_, ranges) => {
                let sizes = slice::shape(self.tensor, ranges)?;
                let count = sizes.len();
                memory::collect(sizes, count, "a shape")?
            }
            Origin::Lists(_, lists) => slice::shape_of_lists(self.tensor.shape(), lists)?,
            Origin::Group(..) | Origin::GroupLists(..) => match &self.picks {
                Picks::Group(boxes) => boxes.shape()?,
                Picks::Piece | Picks::Several(_) => Vec::new(),
            },
        };
        let refuse = |text: String| self.refuse(ErrorKind::InvalidArgument, text);
        if strides.len() != shape.len() {
            let text = format!("{} strides were given for its {} dimensions", strides.len(), shape.len());
            return Err(refuse(text));
        }
        if self.from == Dtype::Unknown {
            return Err(refuse("elements of an unknown dtype have no strides".to_owned()));
        }
        let layout = Strides::new(&shape, strides, self.to.bits());
        let layout = layout.map_err(|text| refuse(format!("dst_strides: {text}")))?;
        // What lies in one piece is dense.
        Ok((layout.run() != self.result).then_some(layout))
    }

    pub(super) fn converts(&self) -> bool {
        self.from != self.to
    }

    /// Whether bytes go to their place as they are in the file.
    pub(super) fn is_plain(&self) -> bool {
        !self.converts() && self.transform.is_none() && self.layout.is_none()
    }

    /// How many places where bytes are put together it takes, beside what is read into.
    pub(super) fn scratches(&self) -> usize {
        let leaves = self.layout.is_some() || self.transform.is_some();
        // For bytes as stored, or decoded; a group's members take two.
        let gathers = match self.picks {
            Picks::Piece => usize::from(self.transform.is_some()),
            Picks::Several(_) => usize::from(self.converts() || leaves),
            Picks::Group(_) => 2,
        };
        // For a result that is not yet where it goes.
        let leaves = leaves && (self.converts() || matches!(self.picks, Picks::Group(_)));
        gathers.saturating_add(usize::from(leaves))
    }

    /// Elements in that many picked bytes.
    pub(super) fn elements_of(&self, picked: u64) -> u64 {
        let bits = u128::from(picked).saturating_mul(8);
        let elements = bits.checked_div(u128::from(self.from.bits())).unwrap_or_default();
        u64::try_from(elements).unwrap_or(u64::MAX)
    }

    /// Bytes that these picked bytes become by conversion; both in whole elements.
    pub(super) fn converted(&self, picked: u64) -> Option<u64> {
        if !self.converts() {
            return Some(picked);
        }
        let bits = u128::from(picked).checked_mul(u128::from(self.to.bits()))?;
        u64::try_from(bits.checked_div(u128::from(self.from.bits()))?).ok()
    }

    /// Bytes of the result that these picked bytes become; in whole units.
    pub(super) fn result_of(&self, picked: u64) -> Option<u64> {
        match self.transform {
            None => self.converted(picked),
            Some(Transform { unit, unit_size, .. }) => {
                self.elements_of(picked).checked_div(unit)?.checked_mul(unit_size)
            }
        }
    }

    /// The most picked bytes, in whole grains, that become `room` bytes of the
    /// result or fewer.
    pub(super) fn picked_within(&self, room: u64) -> u64 {
        let grains = match (self.transform, u64::from(self.to.bits())) {
            (Some(Transform { unit_size: 0, .. }), _) => return u64::MAX,
            (Some(_), _) => self.result_of(self.grain).and_then(|size| room.checked_div(size)),
            // An unknown dtype is as many bytes as it is.
            (None, 0) => return room,
            (None, to) => room.checked_div(to),
        };
        grains.unwrap_or(0).saturating_mul(self.grain)
    }

    /// The most picked bytes, in whole grains, that are `room` bytes or fewer
    /// before and after conversion.
    pub(super) fn picked_through(&self, room: u64) -> u64 {
        let (from, to) = (u64::from(self.from.bits()), u64::from(self.to.bits()));
        let stored = match to.checked_div(from) {
            Some(_) if to > from => room.checked_div(to).unwrap_or(0).saturating_mul(from),
            _ => room,
        };
        let cut = if self.transform.is_none() && stored >= CUT { CUT } else { self.grain };
        stored.saturating_sub(stored.checked_rem(cut).unwrap_or(0))
    }

    /// How much of `left` picked bytes is read into `room` bytes at once: whole elements, or
    /// what a transform is given at once.
    pub(super) fn step(&self, left: u64, room: u64) -> u64 {
        let whole = match (self.transform, self.from) {
            (Some(_), _) => self.grain,
            (None, Dtype::F6E2M3 | Dtype::F6E3M2) => 3,
            (None, dtype) => u64::from(dtype.bits() / 8).max(1),
        };
        left.min(room.saturating_sub(room.checked_rem(whole).unwrap_or(0)).max(whole))
    }

    /// Bytes that lie together in the file, at least.
    pub(super) fn run(&self) -> u64 {
        match &self.picks {
            Picks::Piece => self.picked,
            Picks::Several(selection) => selection.unit(),
            Picks::Group(_) => 0,
        }
    }

    /// Bytes that are read for it.
    pub(super) fn read_size(&self) -> u64 {
        match &self.picks {
            Picks::Several(selection) => selection.read_size(),
            Picks::Piece | Picks::Group(_) => self.picked,
        }
    }

    /// An error on the way as one of this item.
    pub(super) fn named(&self, checkpoint: &Checkpoint, number: Option<usize>, error: &Error) -> Error {
        let item = number.map(|number| format!("item {number}, ")).unwrap_or_default();
        let text = format!("{item}tensor {}: {}", quoted(self.name()), error.message(usize::MAX));
        checkpoint.in_shard(self.shard, Error::new(error.kind(), text).with_errno(error.os_errno()))
    }
}

/// Checks all items; nothing has been read when one is refused.
pub(super) fn all<'a>(checkpoint: &'a Checkpoint, items: Items<'_, 'a>, goes: Goes) -> Result<Vec<Task<'a>>> {
    let mut tasks = memory::vec_with_capacity(items.len(), "the items of a load")?;
    for (number, item) in items.enumerate() {
        tasks.push(Task::new(checkpoint, &item, goes).map_err(|error| in_item(checkpoint, number, &item, error))?);
    }
    Ok(tasks)
}

fn in_item(checkpoint: &Checkpoint, number: usize, item: &Item<'_>, error: Error) -> Error {
    let shard = checkpoint.own(item.of.tensor()).map_or(0, Tensor::shard);
    checkpoint.in_shard(shard, error.after(&format!("item {number}: ")))
}
