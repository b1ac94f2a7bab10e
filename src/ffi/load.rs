// SPDX-License-Identifier: Apache-2.0
//! Loading into the caller's own memory.

use std::ffi::c_void;

use super::arguments::{null, required, st_checkpoint};
use super::boundary::{guard, CallerStruct};
use super::callbacks::{st_sink, st_transform};
use super::given_load::GivenLoad;
use super::load_helpers::records;
use super::status::{st_error, st_status, ST_OK};
use crate::group::st_group;
use crate::load::{self, SinkBuffers};
use crate::part::st_part;
use crate::record::{st_range, st_tensor};

/// st_load_options.io: from the page cache where the bytes are in it; on local file systems,
/// large reads of the rest bypass it, and leave nothing in it.
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
    /// Where the result goes: dense and in C order, or by dst_strides. Not
    /// looked at with a sink; may be NULL for a result without bytes.
    pub dst: *mut c_void,
    /// Bytes at dst; more than needed is fine.
    pub dst_size: usize,
    /// For each of the tensor's dimensions the bytes from one element of the
    /// result to the next, in any order of sizes (a transposed result, say), and
    /// leaving room for what lies inside. Elements of less than a byte are packed
    /// in the last dimension, whose stride is 0. Borrowed for the call; NULL: dense.
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
    /// Not 0: drop what was read through the page cache from it, so that a load does not
    /// displace what other programs have there.
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
    /// items[item]'s result is whole: called once for each item of a load that
    /// succeeds, for those without bytes too, on the thread that called st_load,
    /// and never with a sink. NULL: none. Since 0.2.
    pub item_done: Option<unsafe extern "C" fn(user_data: *mut c_void, item: usize)>,
    /// Any thread may set it to another value than 0, which ends the load with
    /// ST_ERROR_CANCELLED: no further read is begun. Borrowed for the call; NULL:
    /// none. Since 0.2.
    pub cancel: *const i32,
    /// Widest gap between pieces, in bytes, that is read over instead of reading
    /// twice: more for disks and mounts where a seek costs more. 0: 4 KiB for
    /// files, 64 KiB for an st_io. Since 0.2.
    pub max_gap: u64,
}

// SAFETY: it begins with struct_size, and consists of numbers, pointers and
// functions that may be null.
unsafe impl CallerStruct for st_load_options {
    const NAME: &'static str = "st_load_options";
}

/// What a load would do. As filled in by st_load_plan.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_plan {
    /// Bytes of all results: the total that progress receives.
    pub bytes: u64,
    /// Bytes that will be read from the files. (Past the page cache, up to two
    /// blocks of 4 KiB come on top of each read.)
    pub read_bytes: u64,
    /// Of those, bytes that belong to no item: gaps of at most 4 KiB (64 KiB
    /// through an st_io) between pieces that are fetched together. (Too few are
    /// counted where items pick the same bytes.)
    pub over_read_bytes: u64,
    /// Reads through the page cache, where none comes back short.
    pub requests: u64,
    /// Most bytes of memory that staging takes.
    pub staging_bytes: u64,
    /// Most threads at work, the calling one among them.
    pub threads: u32,
    /// Files that are read from.
    pub shards: u32,
    /// Zero.
    pub reserved: [u64; 8],
}

/// Fills the caller's own memory with any number of tensors or parts of them,
/// converted on the way: in file order, in large reads, on several threads.
///
/// items: item_count of them, borrowed for the call. options: borrowed for the
/// call; NULL: all defaults.
///
/// Before the first byte is read, everything is checked: records, ranges,
/// dtypes, room, and that no two destinations share a byte. Pieces below 64 KiB that
/// lie together are read together, whichever items they belong to: many small
/// tensors, or the columns of one matrix that go to different places. Files are
/// read and not touched through their mapping (but for ST_IO_MAPPED), so one that
/// is cut short is an error and not a signal. An st_io has up to options->threads
/// calls of read_at under way (by default 8, or its max_parallel).
///
/// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_BUFFER_SIZE,
/// ST_ERROR_UNSUPPORTED (a pair of dtypes), ST_ERROR_SUB_BYTE,
/// ST_ERROR_OUT_OF_MEMORY, ST_ERROR_IO, ST_ERROR_CANCELLED, or what read_at or
/// the sink returned; messages name the item, its tensor, its file and the
/// bytes. After an error the contents of the destinations are unspecified; no
/// thread is left, and no buffer that has not been waited for. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_load(
    checkpoint: *const st_checkpoint,
    items: *const st_load_item,
    item_count: usize,
    options: *const st_load_options,
    error: *mut st_error,
) -> st_status {
    let load = || {
        // SAFETY: arguments are as the header's rules say.
        let mut given = unsafe { GivenLoad::read(checkpoint, items, item_count, options)? };
        let (mut sink, progress) = (given.sink.take(), given.progress.take());
        let buffers = given.buffers();
        let sink = sink.as_mut().map(|sink| SinkBuffers { sink, buffers });
        let mut tell = progress.map(|progress| move |done, total| progress.goes_on(done, total));
        let progress = tell.as_mut().map(|tell| -> load::Progress<'_> { tell });
        let mut item_done = given.item_done.map(|done| move |item| done.tell(item));
        let item_done = item_done.as_mut().map(|done| -> load::ItemDone<'_> { done });
        let caller = load::Caller { progress, item_done, sink, cancel: given.cancel };
        load::load(&given.checkpoint.0, &given.items()?, &given.options, caller)
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || load().map(|()| ST_OK)) }
}

/// What st_load would do with the same arguments, found without reading.
///
/// plan: receives it, on success only. Takes time in proportion to the pieces
/// that the items' ranges make.
///
/// Returns as st_load does before the first byte is read. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_load_plan(
    checkpoint: *const st_checkpoint,
    items: *const st_load_item,
    item_count: usize,
    options: *const st_load_options,
    plan: *mut st_plan,
    error: *mut st_error,
) -> st_status {
    let find = || {
        // SAFETY: arguments are as the header's rules say.
        let given = unsafe { GivenLoad::read(checkpoint, items, item_count, options)? };
        if plan.is_null() {
            return Err(null("plan"));
        }
        let buffers = given.sink.is_some().then(|| given.buffers());
        let found = load::summary(&given.checkpoint.0, &given.items()?, &given.options, buffers)?;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let found = st_plan {
            bytes: found.bytes,
            read_bytes: found.read_bytes,
            over_read_bytes: found.over_read_bytes,
            requests: found.requests,
            staging_bytes: found.staging_bytes,
            threads: number(found.threads),
            shards: number(found.shards),
            reserved: [0; 8],
        };
        // SAFETY: not null, and writable by the header's rules.
        unsafe { plan.write(found) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || find().map(|()| ST_OK)) }
}

/// Brings tensors into memory before they are used through a mapping: large
/// reads and filled page tables, in place of a page fault for each 4 KiB.
/// Mapped files are there when this returns; for others the system is asked to
/// read ahead; memory and an st_io have nothing to gain. It is a hint: what the
/// system declines is no error.
///
/// tensors: count pointers to records of this checkpoint or copies, borrowed
/// for the call; NULL with a count of 0: everything.
///
/// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_OUT_OF_MEMORY, or
/// ST_ERROR_IO where a mapped file can't be read. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_prefetch(
    checkpoint: *const st_checkpoint,
    tensors: *const *const st_tensor,
    count: usize,
    error: *mut st_error,
) -> st_status {
    let prefetch = || {
        // SAFETY: arguments are as the header's rules say.
        let checkpoint = unsafe { required(checkpoint, "checkpoint")? };
        // SAFETY: as above.
        let tensors = unsafe { records(tensors, count)? };
        load::prefetch(&checkpoint.0, tensors.as_deref())
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || prefetch().map(|()| ST_OK)) }
}
