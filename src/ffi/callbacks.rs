// SPDX-License-Identifier: Apache-2.0
//! The caller's own functions: sources, resolvers, sinks, progress.

use std::ffi::{c_char, c_void, CString};

use super::arguments::{null, required, st_buffer};
use super::boundary::{check_tail, read_known, CallerStruct, LARGEST_STRUCT};
use super::status::{st_error, st_status, ST_OK};
use crate::error::{Error, ErrorKind, Result};
use crate::load::{Sink, Transform, TransformStep};
use crate::record::st_piece;
use crate::{ReadAt, Resolver};

/// Your own bytes: HTTP, object stores, asset packs. Begin with ST_IO_INIT.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_io {
    /// sizeof(st_io), as set by ST_IO_INIT.
    pub struct_size: usize,
    /// Bytes in the file.
    pub size: u64,
    /// Reads up to len bytes at offset into dst and sets *done to their number:
    /// fewer than len is fine, 0 is an error (ST_ERROR_IO). Returns ST_OK, or a
    /// status, which the function that needed the bytes then returns; what it
    /// wrote to error (os_errno, message) is passed on. May be called from
    /// several threads at once. Required.
    pub read_at: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            offset: u64,
            dst: *mut c_void,
            len: usize,
            done: *mut usize,
            error: *mut st_error,
        ) -> st_status,
    >,
    /// Called exactly once, when the library is done with user_data: with the
    /// last st_free, or before a failed open returns. NULL: nothing to release.
    /// (Not called where struct_size itself is not valid.)
    pub release: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    /// Yours; passed to both functions.
    pub user_data: *mut c_void,
    /// The request size that suits you best, in bytes; 0: no preference.
    pub preferred_read: usize,
    /// How many read_at calls may be under way at once; 0: any number.
    pub max_parallel: usize,
}

// SAFETY: it begins with struct_size; null pointers and functions are valid.
unsafe impl CallerStruct for st_io {
    const NAME: &'static str = "st_io";
}

/// Finds the files of a sharded checkpoint that is reached through callbacks. Begin
/// with ST_RESOLVER_INIT.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_resolver {
    /// sizeof(st_resolver), as set by ST_RESOLVER_INIT.
    pub struct_size: usize,
    /// Fills *out (which arrives as ST_IO_INIT) for the file or index of this
    /// name: the one given to st_open_resolved, then each shard's, with the
    /// same folder before it. Returns ST_OK or a status, as st_io.read_at does;
    /// a status other than ST_OK means *out holds nothing to release. Called
    /// from the thread that opens, one name after another. Required.
    pub open: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            name: *const c_char,
            out: *mut st_io,
            error: *mut st_error,
        ) -> st_status,
    >,
    /// Called exactly once, before st_open_resolved returns. NULL: nothing to
    /// release.
    pub release: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    /// Yours; passed to both functions.
    pub user_data: *mut c_void,
}

// SAFETY: it begins with struct_size; null pointers and functions are valid.
unsafe impl CallerStruct for st_resolver {
    const NAME: &'static str = "st_resolver";
}

/// Takes results in pieces, instead of plain destinations: the library fills the
/// caller's buffers in turn, and the caller copies each to where it belongs (a
/// device, say) while the next is being filled. Begin with ST_SINK_INIT.
///
/// All functions are called on the thread that called st_load, never two at once.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_sink {
    /// sizeof(st_sink), as set by ST_SINK_INIT.
    pub struct_size: usize,
    /// The buffers: buffer_count of them, 4096 bytes or more each, apart from
    /// one another. Borrowed for the call. Results come in pieces as large as
    /// the smallest of them.
    pub buffers: *const st_buffer,
    /// One is enough; with more of them than threads, reading never waits for the
    /// copies, as long as those are as fast.
    pub buffer_count: usize,
    /// buffers[buffer] holds size bytes of the dense result of items[item], from
    /// its byte item_offset on. May start a copy and return. Returns ST_OK, or a
    /// status that ends the load; what it wrote to error is passed on, and that
    /// buffer is not waited for. NULL where pieces is set; one of them is required.
    pub chunk: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            buffer: usize,
            item: usize,
            item_offset: u64,
            size: usize,
            error: *mut st_error,
        ) -> st_status,
    >,
    /// Returns when the copy out of buffers[buffer] is over: called once for each
    /// chunk or pieces, before the buffer is filled again or st_load returns,
    /// even if the load failed. A status other than ST_OK ends the load. NULL:
    /// chunk, or pieces, is done with the buffer when it returns.
    pub wait: Option<unsafe extern "C" fn(user_data: *mut c_void, buffer: usize, error: *mut st_error) -> st_status>,
    /// Yours; passed to these functions.
    pub user_data: *mut c_void,
    /// Instead of chunk, for many items in a buffer: results are written one
    /// after the other into buffers[buffer] until it is full or no work is left,
    /// and it then holds count pieces. Called and returns as chunk. Since 0.2.
    pub pieces: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            buffer: usize,
            pieces: *const st_piece,
            count: usize,
            error: *mut st_error,
        ) -> st_status,
    >,
}

// SAFETY: it begins with struct_size, and consists of numbers, pointers and
// functions that may be null.
unsafe impl CallerStruct for st_sink {
    const NAME: &'static str = "st_sink";
}

/// The last step of an item, by the caller, on the library's threads: quantising
/// to an engine's blocks, repacking, hashing, over data that is still in the
/// cache. Begin with ST_TRANSFORM_INIT. Since 0.2.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_transform {
    /// sizeof(st_transform), as set by ST_TRANSFORM_INIT.
    pub struct_size: usize,
    /// Elements that belong together, 1 or more: a block, a row. The result's
    /// elements are whole units.
    pub unit: u64,
    /// Bytes that a unit becomes; 0: none, and the item's result is empty.
    pub unit_size: u64,
    /// Turns count elements of the dense result, the first of which has the
    /// number element, into count / unit * unit_size bytes at dst. item is the
    /// item's number. src is dense, aligned to 64 bytes, and of the item's dtype;
    /// count is a multiple of unit. Called on several threads at once, in any
    /// order, and never for the same elements twice. Returns ST_OK, or a status
    /// that ends the load; what it wrote to error is passed on. Required.
    pub run: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            item: usize,
            element: u64,
            count: usize,
            src: *const c_void,
            dst: *mut c_void,
            error: *mut st_error,
        ) -> st_status,
    >,
    /// Yours; passed to run.
    pub user_data: *mut c_void,
}

// SAFETY: it begins with struct_size; null pointers and functions are valid.
unsafe impl CallerStruct for st_transform {
    const NAME: &'static str = "st_transform";
}

/// Releases what is the caller's, when dropped.
struct Release(Option<unsafe extern "C" fn(*mut c_void)>, *mut c_void);

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(release) = self.0 {
            // SAFETY: the caller's function with the caller's data, once.
            unsafe { release(self.1) }
        }
    }
}

/// The caller's st_io; releases it when dropped.
pub(super) struct CallerIo(st_io, #[allow(dead_code, reason = "dropped with it")] Release);

// SAFETY: the header demands of read_at that it may be called from any thread,
// and release is called once, by the last owner.
unsafe impl Send for CallerIo {}
// SAFETY: as above.
unsafe impl Sync for CallerIo {}

impl CallerIo {
    /// # Safety
    /// `io` is null or as the header's rules say.
    pub(super) unsafe fn read(io: *const st_io) -> Result<Self> {
        // SAFETY: the caller's promise. From its first line on, whatever fails
        // releases what has been given.
        let this = unsafe {
            let known = read_known(required(io, "io")?)?;
            let this = Self(known, Release(known.release, known.user_data));
            check_tail(io)?;
            this
        };
        match this.0.read_at {
            Some(_) => Ok(this),
            None => Err(null("st_io.read_at")),
        }
    }
}

impl ReadAt for CallerIo {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read_at = self.0.read_at.ok_or_else(|| null("st_io.read_at"))?;
        let mut done = 0;
        let dst = buffer.as_mut_ptr().cast();
        // SAFETY: the caller's function; dst has room for the length given.
        call("read_at", |error| unsafe { read_at(self.0.user_data, offset, dst, buffer.len(), &raw mut done, error) })?;
        Ok(done)
    }

    fn preferred_read(&self) -> usize {
        self.0.preferred_read
    }

    fn max_parallel(&self) -> usize {
        self.0.max_parallel
    }
}

/// The caller's st_resolver; releases it when dropped.
pub(super) struct CallerResolver(st_resolver, #[allow(dead_code, reason = "dropped with it")] Release);

impl CallerResolver {
    /// # Safety
    /// `resolver` is null or as the header's rules say.
    pub(super) unsafe fn read(resolver: *const st_resolver) -> Result<Self> {
        // SAFETY: the caller's promise. From its first line on, whatever fails
        // releases what has been given.
        let this = unsafe {
            let known = read_known(required(resolver, "resolver")?)?;
            let this = Self(known, Release(known.release, known.user_data));
            check_tail(resolver)?;
            this
        };
        match this.0.open {
            Some(_) => Ok(this),
            None => Err(null("st_resolver.open")),
        }
    }
}

impl Resolver for CallerResolver {
    fn open(&self, name: &[u8]) -> Result<Box<dyn ReadAt>> {
        let open = self.0.open.ok_or_else(|| null("st_resolver.open"))?;
        let name = CString::new(name).map_err(|_| Error::new(ErrorKind::InvalidArgument, "a name with NUL"))?;
        // Zero, and with room after what this version knows: who was compiled
        // against another header assigns a struct of another size.
        let mut room = [0_u64; LARGEST_STRUCT / size_of::<u64>()];
        let out = room.as_mut_ptr().cast::<st_io>();
        // SAFETY: the room is larger than the struct, and aligned for it; the
        // caller's function fills in as much as struct_size then says.
        unsafe {
            (*out).struct_size = size_of::<st_io>();
            call("open", |error| open(self.0.user_data, name.as_ptr(), out, error))?;
            Ok(Box::new(CallerIo::read(out)?))
        }
    }
}

/// Calls one of the caller's functions; its status, errno and text become ours.
pub(super) fn call(what: &str, function: impl FnOnce(*mut st_error) -> st_status) -> Result<()> {
    let mut error = st_error { code: ST_OK, os_errno: 0, message: [0; 504] };
    let status = function(&raw mut error);
    if status == ST_OK {
        return Ok(());
    }
    let text = match error.text() {
        said if said.is_empty() => format!("{what} returned status {status}"),
        said => said,
    };
    // A number that is not one of our statuses can't be passed on as one.
    let kind = ErrorKind::from_number(status).unwrap_or(ErrorKind::Io);
    Err(Error::new(kind, text).with_errno(error.os_errno))
}

/// The caller's sink.
pub(super) struct CallerSink(st_sink);

impl CallerSink {
    pub(super) fn new(sink: st_sink) -> Result<Self> {
        match (sink.chunk, sink.pieces) {
            (Some(_), Some(_)) => {
                let text = "st_sink.chunk and st_sink.pieces are both set; expected one of them";
                Err(Error::new(ErrorKind::InvalidArgument, text))
            }
            (None, None) => {
                let text = "st_sink.chunk and st_sink.pieces are both NULL; expected one of them";
                Err(Error::new(ErrorKind::InvalidArgument, text))
            }
            _ => Ok(Self(sink)),
        }
    }

    pub(super) fn takes_pieces(&self) -> bool {
        self.0.pieces.is_some()
    }
}

impl Sink for CallerSink {
    fn chunk(&mut self, buffer: usize, item: usize, offset: u64, size: usize) -> Result<()> {
        let chunk = self.0.chunk.ok_or_else(|| null("st_sink.chunk"))?;
        // SAFETY: the caller's function with the caller's data.
        call("chunk", |error| unsafe { chunk(self.0.user_data, buffer, item, offset, size, error) })
    }

    fn pieces(&mut self, buffer: usize, all: &[st_piece]) -> Result<()> {
        let pieces = self.0.pieces.ok_or_else(|| null("st_sink.pieces"))?;
        // SAFETY: as above.
        call("pieces", |error| unsafe { pieces(self.0.user_data, buffer, all.as_ptr(), all.len(), error) })
    }

    fn wait(&mut self, buffer: usize) -> Result<()> {
        match self.0.wait {
            // SAFETY: as above.
            Some(wait) => call("wait", |error| unsafe { wait(self.0.user_data, buffer, error) }),
            None => Ok(()),
        }
    }
}

/// The caller's last step.
pub(super) struct CallerTransform(st_transform);

// SAFETY: the header says that run is called on several threads at once.
unsafe impl Sync for CallerTransform {}

impl CallerTransform {
    pub(super) fn new(transform: st_transform) -> Result<Self> {
        match transform.run {
            Some(_) => Ok(Self(transform)),
            None => Err(null("transform.run")),
        }
    }

    pub(super) fn as_transform(&self) -> Transform<'_> {
        Transform { unit: self.0.unit, unit_size: self.0.unit_size, step: self }
    }
}

impl TransformStep for CallerTransform {
    fn run(&self, item: usize, element: u64, count: usize, src: &[u8], dst: &mut [u8]) -> Result<()> {
        let run = self.0.run.ok_or_else(|| null("transform.run"))?;
        let (src, dst) = (src.as_ptr().cast(), dst.as_mut_ptr().cast());
        // SAFETY: the caller's function with the caller's data; both places have
        // the bytes that the header says.
        call("run", |error| unsafe { run(self.0.user_data, item, element, count, src, dst, error) })
    }
}

/// The caller's function for items that are done.
#[derive(Clone, Copy)]
pub(super) struct CallerItemDone(unsafe extern "C" fn(*mut c_void, usize), *mut c_void);

impl CallerItemDone {
    pub(super) fn new(done: unsafe extern "C" fn(*mut c_void, usize), user_data: *mut c_void) -> Self {
        Self(done, user_data)
    }

    pub(super) fn tell(&self, item: usize) {
        // SAFETY: the caller's function with the caller's data.
        unsafe { self.0(self.1, item) }
    }
}

/// The caller's progress function.
pub(super) struct CallerProgress(unsafe extern "C" fn(*mut c_void, u64, u64) -> i32, *mut c_void);

// SAFETY: the header says that it may be called from other threads, one at a time.
unsafe impl Send for CallerProgress {}
// SAFETY: as above; the library holds a lock around each call.
unsafe impl Sync for CallerProgress {}

impl CallerProgress {
    pub(super) fn new(progress: unsafe extern "C" fn(*mut c_void, u64, u64) -> i32, user_data: *mut c_void) -> Self {
        Self(progress, user_data)
    }

    pub(super) fn goes_on(&self, done: u64, total: u64) -> bool {
        // SAFETY: the caller's function with the caller's data.
        unsafe { self.0(self.1, done, total) == 0 }
    }
}
