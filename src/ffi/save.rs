// SPDX-License-Identifier: Apache-2.0
//! Writing.

use std::ffi::{c_char, c_void, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::arguments::{memory_at, no_such, null, required, required_text, st_buffer};
use super::boundary::{guard, read_options, read_sized, CallerStruct};
use super::callbacks::call;
use super::given_save::{durability, metadata_changes, metadata_entries, st_save_options, GivenSave, RecordData};
use super::status::{st_error, st_status, ST_OK};
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{st_metadata, st_tensor};
use crate::writer::{self, EditOptions, Writer};

/// How to change metadata. Begin with ST_METADATA_OPTIONS_INIT; zero in any field is the default.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_metadata_options {
    /// sizeof(st_metadata_options), as set by ST_METADATA_OPTIONS_INIT.
    pub struct_size: usize,
    /// Not 0: where the file system can't share blocks, overwrite the header
    /// where it is. A crash of the system or a power failure in that moment can
    /// leave old and new text mixed, and then no tensor in the file can be found
    /// again, though their bytes are whole: keep a copy of the header. A process
    /// that is killed can do the same where the file system has no direct writes
    /// (ext4, xfs, btrfs and f2fs have them) and the header has more than 4,096
    /// bytes.
    pub in_place: i32,
    /// ST_SYNC_FULL or ST_SYNC_NONE.
    pub sync: i32,
    /// Not 0: set these keys and keep the others; a value of NULL removes its
    /// key. Since 0.2.
    pub merge: i32,
    /// Zero.
    pub reserved0: i32,
}

// SAFETY: it begins with struct_size, and consists of numbers.
unsafe impl CallerStruct for st_metadata_options {
    const NAME: &'static str = "st_metadata_options";
}

/// Where the bytes of a file go. Begin with ST_OUTPUT_INIT. Since 0.2.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_output {
    /// sizeof(st_output), as set by ST_OUTPUT_INIT.
    pub struct_size: usize,
    /// Takes the next size bytes, all of them; data is borrowed for the call.
    /// Returns ST_OK, or what ends the save: its code, and errno and message in
    /// error, are passed on. Called from the thread that called st_save_to.
    pub write: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            data: *const c_void,
            size: usize,
            error: *mut st_error,
        ) -> st_status,
    >,
    /// Yours; passed to write.
    pub user_data: *mut c_void,
}

// SAFETY: it begins with struct_size; null pointers and functions are valid.
unsafe impl CallerStruct for st_output {
    const NAME: &'static str = "st_output";
}

/// A file being written in pieces. Opaque; made by st_writer_open.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC, repr(opaque))]
pub struct st_writer(Writer);

/// Writes tensors to a file: byte for byte what the reference implementation
/// writes for the same tensors and metadata, with metadata ordered by key.
///
/// path: NUL-terminated, in the system's bytes, borrowed for the call. With
/// max_shard_size it ends in NAME.safetensors; where one file is not enough,
/// NAME-00001-of-0000N.safetensors and NAME.safetensors.index.json are written
/// beside it instead, filled in order, the index last. With max_shard_size or
/// without, files of NAME's older set that the new one does not replace are
/// then removed: shards NAME-#####-of-#####.safetensors, the index, and the
/// single file beside new shards.
/// tensors: count records, borrowed for the call; name, name_len (0: up to the
/// NUL), dtype, rank, shape, data and size (0 or what dtype and shape take) are
/// used, and with options->source also shard and offset.
/// metadata: metadata_count entries, borrowed for the call; a key_len or
/// value_len of 0 means up to the NUL; NULL: no metadata, which differs from
/// metadata without entries. It is written as given, into every shard; the index
/// gets only total_size. options: borrowed for the call; NULL: all defaults.
///
/// What could not be read back is refused before anything is written:
/// ST_ERROR_DUPLICATE_KEY (names, metadata keys), ST_ERROR_SHAPE,
/// ST_ERROR_SIZE_MISMATCH, ST_ERROR_SUB_BYTE, ST_ERROR_HEADER_TOO_LARGE (over
/// 100,000,000 bytes), ST_ERROR_UNSUPPORTED (ST_DTYPE_UNKNOWN),
/// ST_ERROR_INVALID_ARGUMENT (the name __metadata__, missing data, text that is
/// not UTF-8).
///
/// Returns ST_OK, one of those, ST_ERROR_IO with errno, ST_ERROR_CANCELLED,
/// ST_ERROR_OUT_OF_MEMORY, or what the source's read_at returned. After an
/// error nothing new is left, and what was there is as it was; only where
/// nothing but bringing a name to the disk has failed, the new files are in
/// place: the message says so and names the last of them. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_save(
    path: *const c_char,
    tensors: *const st_tensor,
    count: usize,
    metadata: *const st_metadata,
    metadata_count: usize,
    options: *const st_save_options,
    error: *mut st_error,
) -> st_status {
    let save = || {
        // SAFETY: arguments are as the header's rules say.
        let (path, given) = unsafe {
            (file_path(path)?, GivenSave::read(tensors, count, metadata, metadata_count, options, RecordData::Written)?)
        };
        given.with_progress(|progress| {
            let (tensors, metadata) = (&given.tensors, given.metadata.as_deref());
            writer::save(path, tensors, metadata, &given.options, given.sources.iter().copied(), progress)
        })
    };
    // SAFETY: as above.
    unsafe { status(error, save) }
}

/// The bytes of the file that st_save would write, in memory.
///
/// tensors, metadata, options: as for st_save; max_shard_size must not make
/// several files of it (ST_ERROR_UNSUPPORTED), and sync and overwrite have no
/// effect. out: receives a block that the caller owns and releases with
/// st_buffer_free; untouched after an error.
///
/// Returns as st_save. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_serialize(
    tensors: *const st_tensor,
    count: usize,
    metadata: *const st_metadata,
    metadata_count: usize,
    options: *const st_save_options,
    out: *mut st_buffer,
    error: *mut st_error,
) -> st_status {
    let serialize = || {
        // SAFETY: arguments are as the header's rules say.
        let given = unsafe { GivenSave::read(tensors, count, metadata, metadata_count, options, RecordData::Written)? };
        if out.is_null() {
            return Err(null("out"));
        }
        let mut bytes = given.with_progress(|progress| {
            let (tensors, metadata) = (&given.tensors, given.metadata.as_deref());
            writer::serialize(tensors, metadata, &given.options, given.sources.iter().copied(), progress)
        })?;
        memory::shrink(&mut bytes);
        let bytes = Box::leak(bytes.into_boxed_slice());
        // SAFETY: as above.
        unsafe { out.write(st_buffer { data: bytes.as_mut_ptr().cast(), size: bytes.len() }) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { status(error, serialize) }
}

/// Hands the bytes of the file that st_save would write to a function, front to
/// back: for a socket, an upload or a pipe. Nothing but the header is held in
/// memory; sources are read as they are needed.
///
/// output: its write takes the bytes, in pieces of up to 32 MiB; borrowed for the
/// call. tensors, metadata, options: as for st_serialize.
///
/// Returns as st_serialize, or what write returned. After an error some bytes
/// may have been handed over. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_save_to(
    output: *const st_output,
    tensors: *const st_tensor,
    count: usize,
    metadata: *const st_metadata,
    metadata_count: usize,
    options: *const st_save_options,
    error: *mut st_error,
) -> st_status {
    let save = || {
        // SAFETY: arguments are as the header's rules say.
        let (output, given) = unsafe {
            let given = GivenSave::read(tensors, count, metadata, metadata_count, options, RecordData::Written)?;
            (read_sized(required(output, "output")?)?, given)
        };
        let write = output.write.ok_or_else(|| null("st_output.write"))?;
        let mut take = |bytes: &[u8]| {
            let data = bytes.as_ptr().cast();
            // SAFETY: the caller's function with the caller's data.
            call("write", |error| unsafe { write(output.user_data, data, bytes.len(), error) })
        };
        given.with_progress(|progress| {
            let (tensors, metadata) = (&given.tensors, given.metadata.as_deref());
            writer::save_to(&mut take, tensors, metadata, &given.options, given.sources.iter().copied(), progress)
        })
    };
    // SAFETY: as above.
    unsafe { status(error, save) }
}

/// Begins a file whose tensors' bytes come later, in any order.
///
/// path, tensors, metadata, options: as for st_save, and nothing of them is
/// kept; the records' data is not looked at, and progress and source have no
/// effect. The room that the files take is set aside now where the file system
/// can: a full disk is an error here.
///
/// Returns a handle that the caller owns and releases with st_writer_free, or
/// NULL with the codes of st_save. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_writer_open(
    path: *const c_char,
    tensors: *const st_tensor,
    count: usize,
    metadata: *const st_metadata,
    metadata_count: usize,
    options: *const st_save_options,
    error: *mut st_error,
) -> *mut st_writer {
    let open = || {
        // SAFETY: arguments are as the header's rules say.
        let (path, given) = unsafe {
            (file_path(path)?, GivenSave::read(tensors, count, metadata, metadata_count, options, RecordData::Ignored)?)
        };
        let writer = Writer::open(path, &given.tensors, given.metadata.as_deref(), &given.options)?;
        Ok(Box::into_raw(Box::new(st_writer(writer))))
    };
    // SAFETY: as above.
    unsafe { guard(error, |_| std::ptr::null_mut(), open) }
}

/// Writes bytes of one tensor. Any number of threads may do so at once.
///
/// tensor: its number in the array given to st_writer_open. offset: the first
/// byte to write, from the tensor's start. data: size bytes, borrowed for the
/// call; may be NULL where size is 0.
///
/// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT (no such tensor, past its end,
/// bytes that are written already, a finished writer), or ST_ERROR_IO or
/// ST_ERROR_OUT_OF_MEMORY, after which the same bytes may be written again.
/// Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_writer_write(
    writer: *mut st_writer,
    tensor: usize,
    offset: u64,
    data: *const c_void,
    size: usize,
    error: *mut st_error,
) -> st_status {
    let write = || {
        // SAFETY: arguments are as the header's rules say.
        let (writer, bytes) = unsafe { (required(writer.cast_const(), "writer")?, memory_at(data, size, "data")?) };
        writer.0.write(tensor, offset, bytes)
    };
    // SAFETY: as above.
    unsafe { status(error, write) }
}

/// Brings the files to the disk and gives them their names.
///
/// Returns ST_OK; ST_ERROR_DATA_NOT_COVERED while bytes of a tensor are missing
/// (the message says which; write them and finish again);
/// ST_ERROR_INVALID_ARGUMENT after it has been finished; ST_ERROR_IO, after
/// which the writer can only be released. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_writer_finish(writer: *mut st_writer, error: *mut st_error) -> st_status {
    // SAFETY: arguments are as the header's rules say.
    let finish = || unsafe { required(writer.cast_const(), "writer")? }.0.finish();
    // SAFETY: as above.
    unsafe { status(error, finish) }
}

/// Releases a writer. Where it has not been finished, nothing is left behind,
/// and an older file at the path is as it was. NULL is fine. No other thread
/// may still be using it.
///
/// Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_writer_free(writer: *mut st_writer) {
    if !writer.is_null() {
        let release = || {
            // SAFETY: a live handle is a Box's pointer.
            drop(unsafe { Box::from_raw(writer) });
            Ok(())
        };
        // SAFETY: no error is asked for.
        unsafe { guard(std::ptr::null_mut(), |_| (), release) };
    }
}

/// Replaces all metadata of a file without rewriting its tensors.
///
/// On file systems that share blocks (xfs, btrfs, bcachefs) a new file takes over
/// the old one's data at no cost and replaces it, as safely as st_save does, and
/// the room in the header does not matter. Elsewhere the header can only be
/// overwritten where it is, with one write, if it fits
/// (st_save_options.header_reserve leaves room) and options->in_place allows it,
/// which says what a crash in that moment can cost.
///
/// path: one .safetensors file, NUL-terminated, borrowed for the call; or (since
/// 0.2) an index: then all of its shards, one after another, once it is known
/// that each can be changed. metadata: as for st_save; NULL removes it. With
/// options->merge: the keys to set or remove. options: borrowed for the call;
/// NULL: all defaults.
///
/// Where there is no room, write the file anew:
///
///     st_checkpoint *older = st_open(path, &error);
///     options.source = older;  options.header_reserve = 4096;
///     st_save(path, st_tensors(older, &count), count, entries, entry_count, &options, &error);
///     st_free(older);
///
/// Returns ST_OK, ST_ERROR_BUFFER_SIZE where the header does not fit (the
/// message has the room needed and the room there is), ST_ERROR_UNSUPPORTED
/// where it would have to be overwritten and that was not allowed, the codes of
/// st_open_with, ST_ERROR_DUPLICATE_KEY, or ST_ERROR_IO. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_set_metadata(
    path: *const c_char,
    metadata: *const st_metadata,
    metadata_count: usize,
    options: *const st_metadata_options,
    error: *mut st_error,
) -> st_status {
    let set = || {
        // SAFETY: arguments are as the header's rules say.
        let (path, given) = unsafe { (file_path(path)?, read_options(options)?) };
        let options = match given {
            Some(given) if given.reserved0 != 0 => {
                return Err(no_such("st_metadata_options.reserved0", given.reserved0, "0"));
            }
            Some(given) => {
                EditOptions { in_place: given.in_place != 0, sync: durability("st_metadata_options", given.sync)? }
            }
            None => EditOptions::default(),
        };
        if given.is_some_and(|given| given.merge != 0) {
            // SAFETY: as above.
            let changes = unsafe { metadata_changes(metadata, metadata_count)? };
            return writer::merge_metadata(path, &changes, &options);
        }
        // SAFETY: as above.
        let entries = unsafe { metadata_entries(metadata, metadata_count)? };
        writer::set_metadata(path, entries.as_deref(), &options)
    };
    // SAFETY: as above.
    unsafe { status(error, set) }
}

/// Releases what st_serialize has filled in, and empties the struct: a second
/// call does nothing. NULL is fine.
///
/// buffer: as it was filled in. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_buffer_free(buffer: *mut st_buffer) {
    // SAFETY: null or valid, by the header's rules.
    if let Some(buffer) = unsafe { buffer.as_mut() } {
        if !buffer.data.is_null() {
            // SAFETY: st_serialize leaked a box of just these bytes.
            drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.data.cast::<u8>(), buffer.size)) });
        }
        *buffer = st_buffer { data: std::ptr::null_mut(), size: 0 };
    }
}

/// # Safety
/// `error` is null or writable.
unsafe fn status(error: *mut st_error, body: impl FnOnce() -> Result<()>) -> st_status {
    // SAFETY: the caller's promise.
    unsafe { guard(error, |kind| kind as st_status, || body().map(|()| ST_OK)) }
}

/// # Safety
/// `path` is null or NUL-terminated and outlives `'a`.
unsafe fn file_path<'a>(path: *const c_char) -> Result<&'a Path> {
    // SAFETY: the caller's promise.
    match unsafe { required_text(path, "path")? } {
        b"" => Err(Error::new(ErrorKind::Io, "the path is empty").with_errno(libc::ENOENT)),
        path => Ok(Path::new(OsStr::from_bytes(path))),
    }
}
