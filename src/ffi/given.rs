// SPDX-License-Identifier: Apache-2.0
//! What callers give to be written, checked and converted.

use std::ffi::{c_char, c_void, CStr};
use std::slice;

use super::boundary::{null, read_options};
use super::save::{
    st_save_options, ST_ORDER_GIVEN, ST_ORDER_REFERENCE, ST_OVERWRITE_REFUSE, ST_OVERWRITE_REPLACE, ST_SYNC_FULL,
    ST_SYNC_NONE,
};
use crate::base::memory::Filler;
use crate::base::parallel;
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{st_metadata, st_tensor};
use crate::writer::{self, Durability, MetadataEntry, NewTensor, Order, Overwrite, SaveOptions};

/// How many records are looked at together.
const BATCH: usize = 64;

/// What the functions that write are given.
pub(super) struct Given<'a> {
    pub(super) tensors: Vec<NewTensor<'a>>,
    pub(super) metadata: Option<Vec<MetadataEntry<'a>>>,
    pub(super) options: SaveOptions,
    pub(super) source: Option<&'a Checkpoint>,
    progress: Option<CallerProgress>,
}

impl Given<'_> {
    /// # Safety
    /// Everything is as the header's rules say, and outlives the result.
    pub(super) unsafe fn read(
        tensors: *const st_tensor,
        count: usize,
        metadata: *const st_metadata,
        metadata_count: usize,
        options: *const st_save_options,
        with_data: bool,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let given = read_options(options)?;
            let source = given.and_then(|given| given.source.as_ref()).map(|source| &source.0);
            let records = array_at(tensors, count, "tensors")?;
            Ok(Self {
                tensors: new_tensors(records, source, with_data)?,
                metadata: metadata_entries(metadata, metadata_count)?,
                options: given.map_or(Ok(SaveOptions::default()), |given| save_options(&given))?,
                source,
                progress: given.and_then(|given| Some(CallerProgress::new(given.progress?, given.user_data))),
            })
        }
    }

    pub(super) fn with_progress<T>(&self, body: impl FnOnce(Option<writer::Progress<'_>>) -> Result<T>) -> Result<T> {
        match &self.progress {
            Some(progress) => body(Some(&mut |done, total| progress.goes_on(done, total))),
            None => body(None),
        }
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

/// # Safety
/// The records' pointers are as the header's rules say.
unsafe fn new_tensors<'a>(
    records: &'a [st_tensor],
    source: Option<&Checkpoint>,
    with_data: bool,
) -> Result<Vec<NewTensor<'a>>> {
    let new = |from: usize, records: &'a [st_tensor], tensors: &mut Filler<'_, NewTensor<'a>>| {
        for (batch, numbers) in records.chunks(BATCH).zip((from..).step_by(BATCH)) {
            // SAFETY: the caller's promise.
            unsafe { touch_names(batch) };
            for (record, number) in batch.iter().zip(numbers..) {
                // SAFETY: as above.
                tensors.push(unsafe { new_tensor(record, number, source, with_data)? }).unwrap_or(());
            }
        }
        Ok(())
    };
    parallel::halves(records, "tensors", &new)
}

/// Reads a byte of each name, in a loop so short that the cache misses overlap.
///
/// # Safety
/// The records' names are as the header's rules say.
unsafe fn touch_names(records: &[st_tensor]) {
    // SAFETY: a name that is not null has a byte, be it its NUL.
    let first = |record: &st_tensor| unsafe { record.name.as_ref() }.copied();
    std::hint::black_box(records.iter().filter_map(first).fold(0, |all, byte| all ^ byte));
}

/// # Safety
/// The record's pointers are as the header's rules say.
#[inline]
unsafe fn new_tensor<'a>(
    record: &'a st_tensor,
    number: usize,
    source: Option<&Checkpoint>,
    with_data: bool,
) -> Result<NewTensor<'a>> {
    // SAFETY: the caller's promise.
    let name = unsafe { given_bytes(record.name, record.name_len, &|| format!("tensors[{number}].name"))? };
    // One look at the name instead of two: what is plain is ASCII.
    let plain = writer::is_plain(name);
    let name = match plain {
        // SAFETY: ASCII is UTF-8.
        true => unsafe { std::str::from_utf8_unchecked(name) },
        false => utf8(name, || format!("tensors[{number}].name"))?,
    };
    let refuse = |text: String| Error::tensor(ErrorKind::InvalidArgument, name.as_bytes(), text);
    let dtype = Dtype::from_number(record.dtype).ok_or_else(|| refuse(format!("dtype {} is none", record.dtype)))?;
    if (record.rank != 0 && record.shape.is_null()) || record.rank > most::<i64>() {
        return Err(refuse(format!("has the rank {} and no shape to it", record.rank)));
    }
    let tensor = NewTensor::with_plain(name, plain, dtype, record.shape())?;
    if record.size() != 0 {
        tensor.require_size(record.size())?;
    }
    if !with_data {
        return Ok(tensor);
    }
    // A size of 0 stands for what dtype and shape take.
    let sized = st_tensor { size: tensor.size(), reserved: [0; 2], ..*record };
    match source {
        _ if record.data.is_null() && tensor.size() == 0 => Ok(tensor),
        Some(source) if record.data.is_null() => tensor.with_source(source, &sized),
        // A part of a mapped tensor is no record of the source's: memory.
        Some(source) if source.maps(&sized) && source.require_own(&sized).is_ok() => tensor.with_source(source, &sized),
        _ if record.data.is_null() => Ok(tensor),
        _ => {
            let size = usize::try_from(tensor.size()).unwrap_or(usize::MAX);
            // SAFETY: the caller's promise.
            tensor.with_data(unsafe { memory_at(record.data, size, "data")? })
        }
    }
}

/// # Safety
/// As for [`array_at`], and the entries' pointers too.
pub(super) unsafe fn metadata_entries<'a>(
    entries: *const st_metadata,
    count: usize,
) -> Result<Option<Vec<MetadataEntry<'a>>>> {
    if entries.is_null() && count == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let entries = unsafe { array_at(entries, count, "metadata")? };
    let texts = entries.iter().enumerate().map(|(number, entry)| {
        // SAFETY: the caller's promise.
        unsafe {
            let key = given_text(entry.key, entry.key_len, || format!("metadata[{number}].key"))?;
            let value = given_text(entry.value, entry.value_len, || format!("metadata[{number}].value"))?;
            Ok((key, value))
        }
    });
    texts.collect::<Result<_>>().map(Some)
}

/// Text with its length, or up to its NUL where that is 0.
///
/// # Safety
/// `text` is null or points to `len` bytes, or to a NUL-terminated text where
/// that is 0, which outlive `'a`.
unsafe fn given_text<'a>(text: *const c_char, len: usize, what: impl Fn() -> String) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    utf8(unsafe { given_bytes(text, len, &what)? }, what)
}

/// # Safety
/// As for [`given_text`].
unsafe fn given_bytes<'a>(text: *const c_char, len: usize, what: &impl Fn() -> String) -> Result<&'a [u8]> {
    match len {
        _ if text.is_null() => Err(null(&what())),
        // SAFETY: the caller's promise.
        0 => Ok(unsafe { CStr::from_ptr(text) }.to_bytes()),
        // SAFETY: as above.
        _ => unsafe { memory_at(text.cast(), len, "text") },
    }
}

fn utf8(bytes: &[u8], what: impl Fn() -> String) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let text = format!("{} is not UTF-8 from its byte {} on", what(), error.valid_up_to());
        Error::new(ErrorKind::InvalidArgument, text)
    })
}

/// # Safety
/// `items` is null or points to `count` items that outlive `'a`.
pub(super) unsafe fn array_at<'a, T>(items: *const T, count: usize, what: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(null(what));
    }
    if count > most::<T>() {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("{count} {what} are beyond any memory")));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice::from_raw_parts(items, count) })
}

/// How many of them memory can hold.
fn most<T>() -> usize {
    isize::MAX.unsigned_abs().checked_div(size_of::<T>()).unwrap_or(usize::MAX)
}

/// # Safety
/// As for [`array_at`].
pub(super) unsafe fn memory_at<'a>(data: *const c_void, size: usize, what: &str) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { array_at(data.cast::<u8>(), size, what) }
}

fn save_options(given: &st_save_options) -> Result<SaveOptions> {
    Ok(SaveOptions {
        order: match given.order {
            ST_ORDER_REFERENCE => Order::Reference,
            ST_ORDER_GIVEN => Order::Given,
            other => return Err(no_such("st_save_options.order", other)),
        },
        alignment: u64::from(given.alignment),
        max_shard_size: given.max_shard_size,
        sync: durability("st_save_options", given.sync)?,
        overwrite: match given.overwrite {
            ST_OVERWRITE_REPLACE => Overwrite::Replace,
            ST_OVERWRITE_REFUSE => Overwrite::Refuse,
            other => return Err(no_such("st_save_options.overwrite", other)),
        },
        header_reserve: given.header_reserve,
    })
}

pub(super) fn durability(of: &str, given: i32) -> Result<Durability> {
    match given {
        ST_SYNC_FULL => Ok(Durability::Synced),
        ST_SYNC_NONE => Ok(Durability::Unsynced),
        other => Err(no_such(&format!("{of}.sync"), other)),
    }
}

fn no_such(field: &str, value: i32) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{field} has the value {value}, which means nothing"))
}
