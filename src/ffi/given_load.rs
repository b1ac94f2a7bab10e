// SPDX-License-Identifier: Apache-2.0
//! What the functions that load are given, checked and converted.

use std::sync::atomic::AtomicI32;

use std::ffi::c_void;

use super::arguments::{all_ranges, array_at, destination_size, no_such, required, st_checkpoint};
use super::boundary::{read_options, read_sized, CallerStruct};
use super::callbacks::{st_sink, st_transform, CallerItemDone, CallerProgress, CallerSink, CallerTransform};
use crate::base::memory;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::slice::shape_of_lists;
use crate::group::st_group;
use crate::load::{Assembly, Buffers, Io, Item, LoadOptions, Memory, Origin};
use crate::model::groups;
use crate::part::{st_part, Interval};
use crate::record::{st_range, st_tensor};

/// st_load_options.io: from the page cache where the bytes are in it; on local file systems,
/// large reads of the rest bypass it, and leave nothing in it. Loads of less than 2 MiB don't.
pub const ST_IO_AUTO: i32 = 0;
/// Through the page cache, where the next load finds the bytes.
pub const ST_IO_CACHED: i32 = 1;
/// Bypassing the page cache (O_DIRECT) where the file system supports it; else through it.
pub const ST_IO_DIRECT: i32 = 2;
/// From the mapping where there is one, else as ST_IO_AUTO: the fastest way for
/// files that are in the page cache, and for parts of tensors above all. A file
/// that is cut short raises SIGBUS then, as touching data does. Since 0.2.
pub const ST_IO_MAPPED: i32 = 3;

/// One thing to load. Zero is the default in every field but the first.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_load_item {
    /// A record of the checkpoint, or a copy of one.
    pub tensor: *const st_tensor,
    /// Which part of it, as for st_read_slice; NULL where range_count is 0.
    pub ranges: *const st_range,
    /// Ranges; dimensions without one are taken whole.
    pub range_count: usize,
    /// The dtype of the result: ST_DTYPE_AS_STORED, or one that st_convert converts to.
    pub dtype: i32,
    /// Zero.
    pub reserved0: u32,
    /// Where the result goes: dense and in C order, or by dst_strides. With a sink
    /// nothing goes there, and it may be anything that overlaps none of the sink's
    /// buffers. May be NULL for a result without bytes.
    pub dst: *mut c_void,
    /// Bytes at dst; more than needed is fine.
    pub dst_size: usize,
    /// For each of the tensor's dimensions the bytes from one element of the
    /// result to the next. They may be in any order of sizes (a transposed
    /// result, say), and each leaves room for the dimensions inside. Elements of
    /// less than a byte are packed in the last dimension, whose stride is 0.
    /// Borrowed for the call; NULL: dense.
    pub dst_strides: *const i64,
    /// Yours; not looked at.
    pub user_data: *mut c_void,
    /// Instead of tensor and ranges: what a rank holds, zeros included. Borrowed
    /// for the call. Since 0.2.
    pub part: *const st_part,
    /// Instead of tensor: a quantised group, decoded to dtype; ranges are of its
    /// logical shape. Borrowed for the call. Since 0.2.
    pub group: *const st_group,
    /// The last step, by the caller, on the library's threads; not with
    /// dst_strides. Borrowed for the call; NULL: none. Since 0.2.
    pub transform: *const st_transform,
    /// Zero.
    pub reserved: [u64; 3],
}

/// How to load. Begin with ST_LOAD_OPTIONS_INIT; zero in any field is the default.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_load_options {
    /// sizeof(st_load_options), as set by ST_LOAD_OPTIONS_INIT.
    pub struct_size: usize,
    /// Most threads at work, the calling one among them; 0: as many as are useful.
    pub threads: u32,
    /// ST_IO_AUTO, ST_IO_CACHED, ST_IO_DIRECT or ST_IO_MAPPED.
    pub io: i32,
    /// Most bytes of memory that the load takes for staging, 65536 or more; less
    /// memory means fewer threads. 0: 16 MiB.
    pub staging_bytes: u64,
    /// Not 0: drop from the page cache what the load has read through it, so that
    /// it does not displace what other programs have there.
    pub drop_cache: u32,
    /// Zero.
    pub reserved0: u32,
    /// Called now and then with how many bytes of all results are in place, and at
    /// the end with all of them. A result other than 0 ends the load with
    /// ST_ERROR_CANCELLED. Called on the thread that called st_load. NULL: none.
    pub progress: Option<unsafe extern "C" fn(user_data: *mut c_void, done: u64, total: u64) -> i32>,
    /// Yours; passed to progress and item_done.
    pub user_data: *mut c_void,
    /// Takes the results in pieces; NULL: they go to the items' destinations.
    pub sink: *const st_sink,
    /// Called when the result of items[item] is whole: once for each item of a
    /// load that succeeds, items without bytes too, on the thread that called
    /// st_load, and never with a sink. NULL: none. Since 0.2.
    pub item_done: Option<unsafe extern "C" fn(user_data: *mut c_void, item: usize)>,
    /// Any thread may set it to a value other than 0, which ends the load with
    /// ST_ERROR_CANCELLED: no further read is begun. Borrowed for the call; NULL:
    /// none. Since 0.2.
    pub cancel: *const i32,
    /// Widest gap between pieces, in bytes, that is read over instead of reading
    /// twice: set more for disks and mounts where a seek costs more. 0: 64 KiB
    /// for an st_io; for files, as many bytes as are read in the time of a system
    /// call on this machine, which is measured once (0.5 to 32 KiB, and fewer between
    /// large pieces than between small ones). Since 0.2.
    pub max_gap: u64,
}

// SAFETY: it begins with struct_size, and consists of numbers, pointers and
// functions that may be null.
unsafe impl CallerStruct for st_load_options {
    const NAME: &'static str = "st_load_options";
}

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
            check_apart(given, &this.buffers)?;
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
    pub(super) fn items(&self) -> impl ExactSizeIterator<Item = Item<'_>> {
        self.items.iter().map(GivenItem::as_item)
    }
}

/// Refuses items that say they are where a sink's buffers are: who copies out of
/// those to there copies over what comes next.
fn check_apart(items: &[st_load_item], buffers: &[Memory<'_>]) -> Result<()> {
    let mut places = memory::vec_with_capacity(buffers.len(), "a sink's buffers")?;
    places.extend(buffers.iter().map(|buffer| buffer.addresses()).zip(0_usize..));
    places.sort_unstable_by_key(|(addresses, _)| addresses.start);
    for (number, item) in items.iter().enumerate().filter(|(_, item)| !item.dst.is_null()) {
        let (start, end) = (item.dst.addr(), item.dst.addr().saturating_add(item.dst_size));
        // Buffers that overlap one another are refused later.
        let after = places.partition_point(|(addresses, _)| addresses.end <= start);
        let met = places.get(after).filter(|(addresses, _)| start < end && addresses.start < end);
        if let Some((_, buffer)) = met {
            let text = format!("dst and its {} bytes overlap st_sink.buffers[{buffer}]", item.dst_size);
            return Err(in_item(number, &Error::new(ErrorKind::InvalidArgument, text)));
        }
    }
    Ok(())
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
            number => {
                let known = Dtype::from_number(number);
                Some(known.ok_or_else(|| no_such("dtype", number, "an ST_DTYPE_ constant, or 0 for the stored one"))?)
            }
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
                return refuse("ranges can't be set together with part");
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
            return refuse("part: expected exactly one of tensor and group".to_owned());
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
            return refuse(format!("part has rank {}, but what it is a part of has rank {}", part.rank, shape.len()));
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
            return refuse("part: its shape does not match its intervals".to_owned());
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
