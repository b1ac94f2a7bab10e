// SPDX-License-Identifier: Apache-2.0
//! Loading into the caller's own memory.

use super::arguments::{null, records, required, st_checkpoint};
use super::boundary::guard;
use super::given_load::{st_load_item, st_load_options, GivenLoad};
use super::status::{st_error, st_status, ST_OK};
use crate::load::{self, SinkBuffers};
use crate::record::st_tensor;

/// What a load would do. As filled in by st_load_plan.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_plan {
    /// Bytes of all results: the total that progress receives.
    pub bytes: u64,
    /// Bytes that will be read from the files. (Reads that bypass the page cache
    /// take up to two blocks of 4 KiB more each.)
    pub read_bytes: u64,
    /// Of those, bytes that belong to no item: gaps of at most max_gap bytes
    /// between pieces that are fetched together. (The count is too low where
    /// items pick the same bytes.)
    pub over_read_bytes: u64,
    /// Reads through the page cache, where none comes back short; with pieces there may be
    /// fewer, as neighbours that fit into a sink's buffer are read into it at once.
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
        let progress = tell.as_mut().map(|tell| -> load::LoadProgress<'_> { tell });
        let mut item_done = given.item_done.map(|done| move |item| done.tell(item));
        let item_done = item_done.as_mut().map(|done| -> load::ItemDone<'_> { done });
        let caller = load::Caller { progress, item_done, sink, cancel: given.cancel };
        let mut items = given.items();
        load::load(&given.checkpoint.0, &mut items, &given.options, caller)
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
        let found = load::summary(&given.checkpoint.0, &mut given.items(), &given.options, buffers)?;
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

/// Brings tensors into memory before they are used through a mapping: large reads and
/// filled page tables, in place of a page fault for each 4 KiB. Mapped files are there
/// when this returns; for others the system is asked to read ahead; memory and an st_io
/// have nothing to gain. It is a hint: what the system declines is not an error.
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
