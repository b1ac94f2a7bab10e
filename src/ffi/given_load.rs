// SPDX-License-Identifier: Apache-2.0
//! What the functions that load are given, checked and converted.

use std::sync::atomic::AtomicI32;

use super::arguments::{all_ranges, array_at, destination_size, no_such, required, st_checkpoint};
use super::boundary::{read_options, read_sized};
use super::callbacks::{CallerItemDone, CallerProgress, CallerSink, CallerTransform};
use super::load::{st_load_item, st_load_options, ST_IO_AUTO, ST_IO_CACHED, ST_IO_DIRECT, ST_IO_MAPPED};
use crate::base::memory;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::slice::shape_of_lists;
use crate::group::st_group;
use crate::load::{Assembly, Buffers, Io, Item, LoadOptions, Memory, Origin};
use crate::model::groups;
use crate::part::{st_part, Interval};
use crate::record::{st_range, st_tensor};

/// What the functions that load are given.
pub(super) struct GivenLoad<'a> {
    pub(super) checkpoint: &'a st_checkpoint,
    items: Vec<GivenItem<'a>>,
    pub(super) options: LoadOptions,
    pub(super) progress: Option<CallerProgress>,
    pub(super) item_done: Option<CallerItemDone>,
    pub(super) cancel: Option<&'a AtomicI32>,
    pub(super) sink: Option<CallerSink>,
    pieces: bool,
    buffers: Vec<Memory<'a>>,
}

/// An item, with what it is made of where C has it in another form.
pub(super) struct GivenItem<'a> {
    of: GivenOrigin<'a>,
    dtype: Option<Dtype>,
    place: Memory<'a>,
    strides: Option<&'a [i64]>,
    transform: Option<Box<CallerTransform>>,
}

enum GivenOrigin<'a> {
    Ranges(&'a st_tensor, &'a [st_range]),
    Lists(&'a st_tensor, Vec<Option<&'a [Interval]>>),
    Group(Box<dyn Assembly + 'a>, &'a [st_range]),
    GroupLists(Box<dyn Assembly + 'a>, Vec<Option<&'a [Interval]>>),
}

impl<'a> GivenLoad<'a> {
    /// # Safety
    /// Everything is as the header's rules say, and outlives the result.
    pub(super) unsafe fn read(
        checkpoint: *const st_checkpoint,
        items: *const st_load_item,
        count: usize,
        options: *const st_load_options,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let mut this = Self {
                checkpoint: required(checkpoint, "checkpoint")?,
                items: Vec::new(),
                options: LoadOptions::default(),
                progress: None,
                item_done: None,
                cancel: None,
                sink: None,
                pieces: false,
                buffers: Vec::new(),
            };
            if let Some(options) = read_options(options)? {
                this.read_options(&options)?;
            }
            let given = array_at(items, count, "items")?;
            this.items = memory::vec_with_capacity(given.len(), "the items of a load")?;
            for (number, item) in given.iter().enumerate() {
                let item = GivenItem::read(item, this.sink.is_some());
                let item = item.and_then(|item| item.of_checkpoint(this.checkpoint));
                let item = item.map_err(|error| in_item(number, &error))?;
                this.items.push(item);
            }
            Ok(this)
        }
    }

    /// # Safety
    /// As for `read`.
    unsafe fn read_options(&mut self, options: &st_load_options) -> Result<()> {
        self.options = load_options(options)?;
        self.progress = options.progress.map(|progress| CallerProgress::new(progress, options.user_data));
        self.item_done = options.item_done.map(|done| CallerItemDone::new(done, options.user_data));
        if !options.cancel.is_null() {
            if !options.cancel.is_aligned() {
                return Err(Error::new(ErrorKind::InvalidArgument, "st_load_options.cancel is not aligned"));
            }
            // SAFETY: not null, aligned, and by the header's rules there for the
            // call; whoever sets it meanwhile does so as C's threads do.
            self.cancel = Some(unsafe { AtomicI32::from_ptr(options.cancel.cast_mut()) });
        }
        if options.sink.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe {
            let sink = read_sized(options.sink)?;
            for buffer in array_at(sink.buffers, sink.buffer_count, "st_sink.buffers")? {
                memory::reserve(&mut self.buffers, 1, "a sink's buffers")?;
                let size = destination_size(buffer.data, buffer.size, "size")?;
                self.buffers.push(Memory::new(buffer.data.cast(), size));
            }
            let sink = CallerSink::new(sink)?;
            self.pieces = sink.takes_pieces();
            self.sink = Some(sink);
        }
        Ok(())
    }

    pub(super) fn buffers(&self) -> Buffers<'_> {
        Buffers { memory: &self.buffers, pieces: self.pieces }
    }

    /// The items as loading takes them.
    pub(super) fn items(&self) -> Result<Vec<Item<'_>>> {
        memory::collect(self.items.iter().map(|item| Ok(item.as_item())), self.items.len(), "the items of a load")
    }
}

impl<'a> GivenItem<'a> {
    /// # Safety
    /// The item's pointers are as the header's rules say; with a sink, dst may be anything.
    pub(super) unsafe fn read(item: &'a st_load_item, sink: bool) -> Result<Self> {
        if item.reserved0 != 0 || item.reserved.iter().any(|word| *word != 0) {
            let text = "st_load_item has fields set that this version does not know";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let dtype = match item.dtype {
            0 => None,
            number => Some(Dtype::from_number(number).ok_or_else(|| {
                Error::new(ErrorKind::InvalidArgument, format!("dtype is {number}, which is not an ST_DTYPE_ constant"))
            })?),
        };
        // SAFETY: the caller's promise.
        unsafe {
            let (of, rank) = origin(item)?;
            let transform = match item.transform.is_null() {
                true => None,
                false => Some(Box::new(CallerTransform::new(read_sized(item.transform)?)?)),
            };
            Ok(Self {
                of,
                dtype,
                place: match sink {
                    true => Memory::NONE,
                    false => Memory::new(item.dst.cast(), destination_size(item.dst, item.dst_size, "dst_size")?),
                },
                strides: match item.dst_strides.is_null() {
                    true => None,
                    // The record's own rank counts; one that is not the checkpoint's is refused later.
                    false => Some(array_at(item.dst_strides, rank, "dst_strides")?),
                },
                transform,
            })
        }
    }

    /// Itself, unless it is of a group of another checkpoint; records of tensors are looked at later.
    fn of_checkpoint(self, checkpoint: &st_checkpoint) -> Result<Self> {
        match &self.of {
            GivenOrigin::Group(group, _) | GivenOrigin::GroupLists(group, _)
                if checkpoint.0.index_of(group.anchor()).is_none() =>
            {
                Err(Error::new(ErrorKind::InvalidArgument, "the group is one of another checkpoint"))
            }
            _ => Ok(self),
        }
    }

    pub(super) fn as_item(&self) -> Item<'_> {
        Item {
            of: match &self.of {
                GivenOrigin::Ranges(tensor, ranges) => Origin::Ranges(tensor, ranges),
                GivenOrigin::Lists(tensor, lists) => Origin::Lists(tensor, lists),
                GivenOrigin::Group(group, ranges) => Origin::Group(&**group, ranges),
                GivenOrigin::GroupLists(group, lists) => Origin::GroupLists(&**group, lists),
            },
            dtype: self.dtype,
            place: self.place,
            strides: self.strides,
            transform: self.transform.as_ref().map(|transform| transform.as_transform()),
        }
    }
}

/// What an item loads, and of how many dimensions.
///
/// # Safety
/// The item's pointers are as the header's rules say.
unsafe fn origin(item: &st_load_item) -> Result<(GivenOrigin<'_>, usize)> {
    let refuse = |text: &str| Err(Error::new(ErrorKind::InvalidArgument, text));
    let given = [!item.tensor.is_null(), !item.part.is_null(), !item.group.is_null()];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return refuse("more than one of tensor, part and group is set");
    }
    // SAFETY: the caller's promise.
    unsafe {
        let ranges = all_ranges(item.ranges, item.range_count)?;
        if let Some(part) = item.part.as_ref() {
            if !ranges.is_empty() {
                return refuse("ranges are set beside part");
            }
            return part_of(part);
        }
        if !item.group.is_null() {
            let group = assembly(item.group)?;
            let rank = group.shape().len();
            return Ok((GivenOrigin::Group(group, ranges), rank));
        }
        let tensor = required(item.tensor, "tensor")?;
        Ok((GivenOrigin::Ranges(tensor, ranges), tensor.rank))
    }
}

/// # Safety
/// The part's pointers are as the header's rules say.
unsafe fn part_of(part: &st_part) -> Result<(GivenOrigin<'_>, usize)> {
    let refuse = |text: String| Err(Error::new(ErrorKind::InvalidArgument, text));
    // SAFETY: the caller's promise.
    unsafe {
        if part.tensor.is_null() == part.group.is_null() {
            return refuse("part: expected one of tensor and group".to_owned());
        }
        let group = if part.group.is_null() { None } else { Some(assembly(part.group)?) };
        let shape = match &group {
            Some(group) => group.shape(),
            None => {
                let tensor = required(part.tensor, "part->tensor")?;
                array_at(tensor.shape, tensor.rank, "part->tensor->shape")?
            }
        };
        if part.rank != shape.len() {
            return refuse(format!("part has the rank {}, and what it is of {}", part.rank, shape.len()));
        }
        let mut lists = memory::vec_with_capacity(part.rank, "interval lists")?;
        let intervals = array_at(part.intervals, part.rank, "part->intervals")?;
        let counts = array_at(part.interval_counts, part.rank, "part->interval_counts")?;
        for (list, count) in intervals.iter().zip(counts) {
            lists.push(match list.is_null() {
                true => None,
                false => Some(array_at(*list, *count, "part->intervals")?),
            });
        }
        let local = array_at(part.shape, part.rank, "part->shape")?;
        if shape_of_lists(shape, &lists)? != local {
            return refuse("part: its shape is not what its intervals take".to_owned());
        }
        Ok(match group {
            Some(group) => (GivenOrigin::GroupLists(group, lists), part.rank),
            None => (GivenOrigin::Lists(required(part.tensor, "part->tensor")?, lists), part.rank),
        })
    }
}

/// # Safety
/// The group is as the header's rules say.
unsafe fn assembly<'a>(group: *const st_group) -> Result<Box<dyn Assembly + 'a>> {
    // SAFETY: the caller's promise.
    unsafe { groups::assembly(required(group, "group")?) }
}

pub(super) fn in_item(number: usize, error: &Error) -> Error {
    Error::new(error.kind(), format!("item {number}: {}", error.message(usize::MAX)))
}

fn load_options(given: &st_load_options) -> Result<LoadOptions> {
    if given.reserved0 != 0 {
        let text = "st_load_options.reserved0 is set, which this version does not know";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    Ok(LoadOptions {
        threads: usize::try_from(given.threads).unwrap_or(usize::MAX),
        io: match given.io {
            ST_IO_AUTO => Io::Auto,
            ST_IO_CACHED => Io::Cached,
            ST_IO_DIRECT => Io::Direct,
            ST_IO_MAPPED => Io::Mapped,
            other => return Err(no_such("st_load_options.io", other, "ST_IO_AUTO, _CACHED, _DIRECT or _MAPPED")),
        },
        staging_bytes: given.staging_bytes,
        drop_cache: given.drop_cache != 0,
        max_gap: given.max_gap,
    })
}
