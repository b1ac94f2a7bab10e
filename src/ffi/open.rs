// SPDX-License-Identifier: Apache-2.0
//! Opening and closing.

use std::ffi::{c_char, c_void, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::slice;
use std::sync::Arc;

use super::boundary::{
    check_tail, guard, null, read_known, read_options, required, required_text, Sized, LARGEST_STRUCT,
};
use super::status::{st_error, st_status, ST_OK};
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Access, OpenOptions, Prefetch};
use crate::{Checkpoint, ReadAt, Resolver};

/// One opened set of named tensors. Opaque; made by the st_open functions.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC, repr(opaque))]
pub struct st_checkpoint(pub(super) Checkpoint);

/// st_open_options.access: map on file systems known to be local, read elsewhere.
pub const ST_ACCESS_AUTO: i32 = 0;
/// Zero-copy: data points into a mapping in every record.
pub const ST_ACCESS_MAP: i32 = 1;
/// Nothing is mapped: a failing disk is an error code, never a SIGBUS.
pub const ST_ACCESS_READ: i32 = 2;
/// In st_shard.access only: the caller's memory.
pub const ST_ACCESS_MEMORY: i32 = 3;
/// In st_shard.access only: the caller's read_at.
pub const ST_ACCESS_CALLBACK: i32 = 4;

/// st_open_options.tolerate: allow bytes behind the last tensor.
pub const ST_TOLERATE_TRAILING_BYTES: u32 = 1;
/// st_open_options.tolerate: keep tensors of unknown dtypes, as opaque bytes.
pub const ST_TOLERATE_UNKNOWN_DTYPE: u32 = 2;

/// st_open_options.prefetch: nothing.
pub const ST_PREFETCH_NONE: i32 = 0;
/// st_open_options.prefetch: tell the system to read ahead, and don't wait.
pub const ST_PREFETCH_ADVISE: i32 = 1;
/// st_open_options.prefetch: mapped files are in memory when opening returns; as _ADVISE for others.
pub const ST_PREFETCH_POPULATE: i32 = 2;

/// How to open. Begin with ST_OPEN_OPTIONS_INIT; zero in any field is the default.
///
/// Limits hold for each file by itself.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_open_options {
    /// sizeof(st_open_options), as set by ST_OPEN_OPTIONS_INIT.
    pub struct_size: usize,
    /// ST_ACCESS_AUTO, ST_ACCESS_MAP or ST_ACCESS_READ.
    pub access: i32,
    /// Any of ST_TOLERATE_*, or'ed.
    pub tolerate: u32,
    /// ST_PREFETCH_NONE, ST_PREFETCH_ADVISE or ST_PREFETCH_POPULATE.
    pub prefetch: i32,
    /// Zero.
    pub reserved0: u32,
    /// Largest header, and largest index file, in bytes; 0: 100,000,000.
    pub max_header_size: u64,
    /// Most tensors in a header; 0: as many as fit.
    pub max_tensors: u64,
    /// Most dimensions of a tensor; 0: as many as fit.
    pub max_rank: u64,
    /// Longest name of a tensor in bytes; 0: as long as fits.
    pub max_name_length: u64,
}

// SAFETY: it begins with struct_size, and consists of numbers.
unsafe impl Sized for st_open_options {
    const NAME: &'static str = "st_open_options";
}

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
    /// Called just once when the library is done with user_data: with the last
    /// st_free, or before a failed open returns. NULL: nothing to release. (Not
    /// called where struct_size itself is not valid.)
    pub release: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    /// Yours; passed to both functions.
    pub user_data: *mut c_void,
    /// The request size that suits you best, in bytes; 0: no preference.
    pub preferred_read: usize,
    /// How many read_at calls may be under way at once; 0: any number.
    pub max_parallel: usize,
}

// SAFETY: it begins with struct_size; null pointers and functions are valid.
unsafe impl Sized for st_io {
    const NAME: &'static str = "st_io";
}

/// Finds the files of a sharded checkpoint that lies behind callbacks. Begin
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
    /// Called just once, before st_open_resolved returns. NULL: nothing to release.
    pub release: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    /// Yours; passed to both functions.
    pub user_data: *mut c_void,
}

// SAFETY: it begins with struct_size; null pointers and functions are valid.
unsafe impl Sized for st_resolver {
    const NAME: &'static str = "st_resolver";
}

/// ==== Open and close ====
///
/// Opens a checkpoint with all defaults: st_open_with with options NULL.
///
/// Returns a handle that the caller owns and releases with st_free, or NULL
/// with error filled. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open(path: *const c_char, error: *mut st_error) -> *mut st_checkpoint {
    // SAFETY: the same contract.
    unsafe { st_open_with(path, std::ptr::null(), error) }
}

/// Opens a checkpoint: a .safetensors file, a .safetensors.index.json with its
/// shards beside it, or a folder. In a folder: model.safetensors.index.json,
/// else its only *.safetensors.index.json, else model.safetensors, else all
/// *.safetensors by name. Symbolic links are followed. Everything a header says
/// has been checked when this returns.
///
/// path: NUL-terminated, in the system's bytes, borrowed for the call.
/// options: borrowed for the call; NULL: all defaults.
///
/// Returns a handle that the caller owns and releases with st_free, or NULL:
/// ST_ERROR_IO (with errno), every ST_ERROR_ of the format from
/// ST_ERROR_TRUNCATED on, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_UNSUPPORTED,
/// ST_ERROR_OUT_OF_MEMORY. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open_with(
    path: *const c_char,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say.
    unsafe {
        open(error, || {
            let path = required_text(path, "path")?;
            Checkpoint::open(OsStr::from_bytes(path), &open_options(options)?)
        })
    }
}

/// Opens one file's bytes that are in memory already.
///
/// data: size bytes, borrowed until the last st_free; records point into it.
/// size: bytes. options: borrowed for the call; NULL: all defaults.
///
/// Returns and errors as st_open_with. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open_memory(
    data: *const c_void,
    size: usize,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say; the caller keeps data
    // as it is until the last st_free.
    unsafe {
        open(error, || {
            if size > isize::MAX.unsigned_abs() {
                return Err(Error::new(ErrorKind::InvalidArgument, format!("size {size} is beyond any memory")));
            }
            let bytes = match size {
                0 if !data.is_null() => &[],
                _ => slice::from_raw_parts(required(data.cast::<u8>(), "data")?, size),
            };
            Checkpoint::open_memory(bytes, &open_options(options)?)
        })
    }
}

/// Opens one file through your own read_at.
///
/// io: borrowed for the call, its user_data until release is called.
/// options: borrowed for the call; NULL: all defaults. access is of no effect.
///
/// Returns and errors as st_open_with, and whatever read_at returns. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open_io(
    io: *const st_io,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say.
    unsafe {
        open(error, || {
            let reader = CallerIo::read(io)?;
            Checkpoint::open_reader(Box::new(reader), &open_options(options)?)
        })
    }
}

/// Opens a file, or an index with its shards, through your own resolver. A name
/// that ends in .index.json is an index. Shards' headers are read concurrently.
///
/// resolver: borrowed for the call. name: NUL-terminated, borrowed for the
/// call. options: borrowed for the call; NULL: all defaults.
///
/// Returns and errors as st_open_with, and whatever the callbacks return. A
/// shard that open reports as ST_ERROR_IO is ST_ERROR_SHARD. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open_resolved(
    resolver: *const st_resolver,
    name: *const c_char,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say.
    unsafe {
        open(error, || {
            let resolver = CallerResolver::read(resolver)?;
            let name = required_text(name, "name")?;
            Checkpoint::open_resolved(&resolver, name, &open_options(options)?)
        })
    }
}

/// One more owner of a handle: it is closed by the last st_free. Any thread.
///
/// Returns the handle itself; NULL for NULL. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_retain(checkpoint: *mut st_checkpoint) -> *mut st_checkpoint {
    if !checkpoint.is_null() {
        // SAFETY: a live handle is an Arc's pointer.
        unsafe { Arc::increment_strong_count(checkpoint.cast_const()) };
    }
    checkpoint
}

/// Gives up one ownership of a handle. With the last one everything that the
/// checkpoint owns goes: records, names, data. Any thread; NULL is fine.
///
/// Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_free(checkpoint: *mut st_checkpoint) {
    if !checkpoint.is_null() {
        let release = || {
            // SAFETY: a live handle is an Arc's pointer.
            unsafe { Arc::decrement_strong_count(checkpoint.cast_const()) };
            Ok(())
        };
        // SAFETY: no error is asked for.
        unsafe { guard(std::ptr::null_mut(), |_| (), release) };
    }
}

/// Runs an open and makes a handle of its result.
///
/// # Safety
/// `error` is null or writable.
unsafe fn open(error: *mut st_error, body: impl FnOnce() -> Result<Checkpoint>) -> *mut st_checkpoint {
    let handle = || Ok(Arc::into_raw(Arc::new(st_checkpoint(body()?))).cast_mut());
    // SAFETY: the caller's promise.
    unsafe { guard(error, |_| std::ptr::null_mut(), handle) }
}

/// # Safety
/// As for [`read_options`].
pub(super) unsafe fn open_options(given: *const st_open_options) -> Result<OpenOptions> {
    let mut options = OpenOptions::default();
    // SAFETY: the caller's promise.
    let Some(given) = (unsafe { read_options(given) })? else { return Ok(options) };
    options.access = match given.access {
        ST_ACCESS_AUTO => Access::Auto,
        ST_ACCESS_MAP => Access::Map,
        ST_ACCESS_READ => Access::Read,
        other => return Err(no_such("access", other)),
    };
    options.prefetch = match given.prefetch {
        ST_PREFETCH_NONE => Prefetch::None,
        ST_PREFETCH_ADVISE => Prefetch::Advise,
        ST_PREFETCH_POPULATE => Prefetch::Populate,
        other => return Err(no_such("prefetch", other)),
    };
    if given.tolerate & !(ST_TOLERATE_TRAILING_BYTES | ST_TOLERATE_UNKNOWN_DTYPE) != 0 {
        return Err(no_such("tolerate", given.tolerate));
    }
    if given.reserved0 != 0 {
        return Err(no_such("reserved0", given.reserved0));
    }
    options.tolerate.trailing_bytes = given.tolerate & ST_TOLERATE_TRAILING_BYTES != 0;
    options.tolerate.unknown_dtype = given.tolerate & ST_TOLERATE_UNKNOWN_DTYPE != 0;
    let limits = &mut options.limits;
    for (limit, given) in [
        (&mut limits.header_bytes, given.max_header_size),
        (&mut limits.tensors, given.max_tensors),
        (&mut limits.rank, given.max_rank),
        (&mut limits.name_bytes, given.max_name_length),
    ] {
        if given != 0 {
            *limit = given;
        }
    }
    Ok(options)
}

fn no_such(field: &str, value: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("st_open_options.{field} has the value {value}, which means nothing"),
    )
}

/// The caller's st_io; releases it when dropped.
struct CallerIo(st_io);

// SAFETY: the header demands of read_at that it may be called from any thread,
// and release is called once, by the last owner.
unsafe impl Send for CallerIo {}
// SAFETY: as above.
unsafe impl Sync for CallerIo {}

impl CallerIo {
    /// # Safety
    /// `io` is null or as the header's rules say.
    unsafe fn read(io: *const st_io) -> Result<Self> {
        // SAFETY: the caller's promise. From its first line on, whatever fails
        // releases what has been given.
        let this = unsafe {
            let this = Self(read_known(required(io, "io")?)?);
            check_tail(io)?;
            this
        };
        match this.0.read_at {
            Some(_) => Ok(this),
            None => Err(null("st_io.read_at")),
        }
    }
}

impl Drop for CallerIo {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the caller's function with the caller's data, once.
            unsafe { release(self.0.user_data) }
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
struct CallerResolver(st_resolver);

impl CallerResolver {
    /// # Safety
    /// `resolver` is null or as the header's rules say.
    unsafe fn read(resolver: *const st_resolver) -> Result<Self> {
        // SAFETY: the caller's promise. From its first line on, whatever fails
        // releases what has been given.
        let this = unsafe {
            let this = Self(read_known(required(resolver, "resolver")?)?);
            check_tail(resolver)?;
            this
        };
        match this.0.open {
            Some(_) => Ok(this),
            None => Err(null("st_resolver.open")),
        }
    }
}

impl Drop for CallerResolver {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the caller's function with the caller's data, once.
            unsafe { release(self.0.user_data) }
        }
    }
}

impl Resolver for CallerResolver {
    fn open(&self, name: &[u8]) -> Result<Box<dyn ReadAt>> {
        let open = self.0.open.ok_or_else(|| null("st_resolver.open"))?;
        let name = CString::new(name).map_err(|_| Error::new(ErrorKind::InvalidArgument, "a name with NUL"))?;
        // Zero, and with room behind what this version knows: who was compiled
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
    // A number that is no status of ours can't be passed on as one.
    let kind = ErrorKind::from_number(status).unwrap_or(ErrorKind::Io);
    Err(Error::new(kind, text).with_errno(error.os_errno))
}
