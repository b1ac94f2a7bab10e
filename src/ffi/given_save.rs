// SPDX-License-Identifier: Apache-2.0
//! What callers give to be written, checked and converted.

use std::ffi::c_void;

use super::arguments::{array_at, given_bytes, given_text, memory_at, most, no_such, null, st_checkpoint, utf8};
use super::boundary::{read_options, CallerStruct};
use super::callbacks::CallerProgress;
use crate::base::memory::{self, Filler};
use crate::base::parallel;
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{st_metadata, st_tensor};
use crate::writer::{self, Durability, MetadataEntry, NewTensor, Overwrite, SaveOptions, TensorOrder};

/// st_save_options.order: by dtype, widest first, then by name, as the reference
/// implementation writes.
pub const ST_ORDER_REFERENCE: i32 = 0;
/// As given.
pub const ST_ORDER_GIVEN: i32 = 1;

/// st_save_options.sync: files and their names are on the disk when the call returns.
pub const ST_SYNC_FULL: i32 = 0;
/// The system writes them in its own time: a power failure may lose them.
pub const ST_SYNC_NONE: i32 = 1;

/// st_save_options.overwrite: a file that exists is replaced, in one step.
pub const ST_OVERWRITE_REPLACE: i32 = 0;
/// A file that exists stays: ST_ERROR_IO with EEXIST.
pub const ST_OVERWRITE_REFUSE: i32 = 1;
/// Writes straight into the file of that name, front to back: for mounts that
/// cannot rename, for a file that is mounted by itself, and for a writable file
/// in a folder that is not. A file that exists is emptied first; a crash leaves a
/// part of it. Since 0.2.
pub const ST_OVERWRITE_DIRECT: i32 = 2;

/// How to write. Begin with ST_SAVE_OPTIONS_INIT; zero in any field is the default.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_save_options {
    /// sizeof(st_save_options), as set by ST_SAVE_OPTIONS_INIT.
    pub struct_size: usize,
    /// ST_ORDER_REFERENCE or ST_ORDER_GIVEN: how tensors follow one another.
    pub order: i32,
    /// The data section begins at a multiple of this many bytes (spaces in the
    /// header make up the difference): a power of two from 8 to 2097152; 0: 8.
    /// With 64, tensors whose sizes are multiples of 64 begin at such addresses
    /// in the file as they do in an engine's memory: the system then copies up to
    /// 1.4 times as fast.
    pub alignment: u32,
    /// Most bytes of tensors in one file; 0: one file. What takes more becomes
    /// shards and an index; one tensor larger than this is a shard by itself.
    pub max_shard_size: u64,
    /// ST_SYNC_FULL or ST_SYNC_NONE.
    pub sync: i32,
    /// ST_OVERWRITE_REPLACE, ST_OVERWRITE_REFUSE or ST_OVERWRITE_DIRECT.
    pub overwrite: i32,
    /// Spare bytes in the header, for a later st_set_metadata.
    pub header_reserve: u64,
    /// For st_save and st_serialize: called now and then with how many of the
    /// tensors' bytes are written, and at the end with all of them, before the file
    /// gets its name. A result other than 0 ends the call with ST_ERROR_CANCELLED. May
    /// be called from other threads than the caller's, one at a time. NULL: none.
    pub progress: Option<unsafe extern "C" fn(user_data: *mut c_void, done: u64, total: u64) -> i32>,
    /// Yours; passed to progress.
    pub user_data: *mut c_void,
    /// For st_save and st_serialize: records of this checkpoint whose data is
    /// NULL or its mapping are read from its files, by shard, offset and size,
    /// so that a file cut short is an error and not a signal. Borrowed for the
    /// call. NULL: every record has data.
    pub source: *const st_checkpoint,
    /// Several, where one is not enough: source_count checkpoints, none NULL;
    /// source is one more after them. A record says in st_tensor.source which
    /// one it comes from; where that is 0 it comes from the first that has a
    /// record of its name, shard, offset and size. Borrowed for the call. Since
    /// 0.2.
    pub sources: *const *const st_checkpoint,
    /// How many there are, at most 65534. Since 0.2.
    pub source_count: usize,
}

// SAFETY: it begins with struct_size; null pointers and functions are valid.
unsafe impl CallerStruct for st_save_options {
    const NAME: &'static str = "st_save_options";
}

/// What becomes of the data of records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordData {
    Written,
    /// It comes later, in pieces.
    Ignored,
}

/// How many records are looked at together.
const BATCH: usize = 64;

/// What the functions that write are given.
pub(super) struct GivenSave<'a> {
    pub(super) tensors: Vec<NewTensor<'a>>,
    pub(super) metadata: Option<Vec<MetadataEntry<'a>>>,
    pub(super) options: SaveOptions,
    pub(super) sources: Vec<&'a Checkpoint>,
    progress: Option<CallerProgress>,
}

impl GivenSave<'_> {
    /// # Safety
    /// Everything is as the header's rules say, and outlives the result.
    pub(super) unsafe fn read(
        tensors: *const st_tensor,
        count: usize,
        metadata: *const st_metadata,
        metadata_count: usize,
        options: *const st_save_options,
        data: RecordData,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let given = read_options(options)?;
            let (sources, rule) = sources(given.as_ref())?;
            let records = array_at(tensors, count, "tensors")?;
            Ok(Self {
                tensors: new_tensors(records, &sources, rule, data)?,
                metadata: metadata_entries(metadata, metadata_count)?,
                options: given.map_or(Ok(SaveOptions::default()), |given| save_options(&given))?,
                sources,
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

/// # Safety
/// The records' pointers are as the header's rules say.
unsafe fn new_tensors<'a>(
    records: &'a [st_tensor],
    sources: &[&Checkpoint],
    rule: SourceRule,
    data: RecordData,
) -> Result<Vec<NewTensor<'a>>> {
    let new = |from: usize, records: &'a [st_tensor], tensors: &mut Filler<'_, NewTensor<'a>>| {
        for (batch, numbers) in records.chunks(BATCH).zip((from..).step_by(BATCH)) {
            // SAFETY: the caller's promise.
            unsafe { touch_names(batch) };
            for (record, number) in batch.iter().zip(numbers..) {
                // SAFETY: as above.
                tensors.push(unsafe { new_tensor(record, number, sources, rule, data)? }).unwrap_or(());
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
    sources: &[&Checkpoint],
    rule: SourceRule,
    data: RecordData,
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
    let dtype = Dtype::from_number(record.dtype)
        .ok_or_else(|| refuse(format!("dtype is {}; expected an ST_DTYPE_ constant", record.dtype)))?;
    if (record.rank != 0 && record.shape.is_null()) || record.rank > most::<i64>() {
        return Err(refuse(format!("has rank {} and no shape", record.rank)));
    }
    let tensor = NewTensor::with_plain(name, plain, dtype, record.shape())?;
    if record.size() != 0 {
        tensor.require_size(record.size())?;
    }
    if data == RecordData::Ignored {
        return Ok(tensor);
    }
    // A size of 0 stands for what dtype and shape take.
    let sized = st_tensor { size: tensor.size(), reserved: [0; 1], ..*record };
    if record.data.is_null() && tensor.size() == 0 {
        return Ok(tensor);
    }
    match source_of(&sized, name.as_bytes(), sources, rule)? {
        Some((number, source)) => tensor.with_numbered_source(number, source, &sized),
        None if record.data.is_null() => Ok(tensor),
        None => {
            let size = usize::try_from(tensor.size()).unwrap_or(usize::MAX);
            // SAFETY: the caller's promise.
            tensor.with_data(unsafe { memory_at(record.data, size, "data")? })
        }
    }
}

/// How a record finds its source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceRule {
    /// There is one, by its place.
    OnlyOne,
    /// By the number in the record, or by name and place.
    Numbered,
}

/// The checkpoints that records may come from.
///
/// # Safety
/// The options are as the header's rules say, and outlive `'a`.
unsafe fn sources<'a>(given: Option<&st_save_options>) -> Result<(Vec<&'a Checkpoint>, SourceRule)> {
    let Some(given) = given else { return Ok((Vec::new(), SourceRule::OnlyOne)) };
    // SAFETY: the caller's promise.
    let several = unsafe { array_at(given.sources, given.source_count, "sources")? };
    let count = several.len().saturating_add(1);
    if count > usize::from(u16::MAX) {
        return Err(no_such("st_save_options.source_count", several.len(), "at most 65534"));
    }
    let mut all = memory::vec_with_capacity(count, "sources")?;
    for (number, source) in several.iter().enumerate() {
        // SAFETY: as above.
        let source = unsafe { source.as_ref() }.ok_or_else(|| null(&format!("st_save_options.sources[{number}]")))?;
        all.push(&source.0);
    }
    // SAFETY: as above.
    all.extend(unsafe { given.source.as_ref() }.map(|source| &source.0));
    Ok((all, if several.is_empty() { SourceRule::OnlyOne } else { SourceRule::Numbered }))
}

/// The source from whose files a record is read, and its number; `None`: it is
/// read from where its data is.
#[inline]
fn source_of<'a>(
    record: &st_tensor,
    name: &[u8],
    sources: &[&'a Checkpoint],
    rule: SourceRule,
) -> Result<Option<(u16, &'a Checkpoint)>> {
    // A part of a mapped tensor is not a record of the source: it is memory.
    let maps = |source: &Checkpoint| source.maps(record) && source.require_own(record).is_ok();
    let is_null = record.data.is_null();
    let found = match (rule, record.source) {
        (SourceRule::OnlyOne, _) => sources.iter().position(|source| is_null || maps(source)),
        (SourceRule::Numbered, 0) if is_null => {
            let has = |source: &&Checkpoint| {
                let place = |tensor: &st_tensor| (tensor.shard, tensor.offset, tensor.size);
                source.find(name).is_some_and(|found| place(found) == place(record))
            };
            Some(sources.iter().position(has).ok_or_else(|| in_no_source(record, name, sources.len()))?)
        }
        (SourceRule::Numbered, 0) => sources.iter().position(|source| maps(source)),
        (SourceRule::Numbered, number) => {
            let number = usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
            let source = sources.get(number).ok_or_else(|| no_such_source(record, name, sources.len()))?;
            (is_null || maps(source)).then_some(number)
        }
    };
    let numbered = |number: usize| Some((u16::try_from(number).ok()?, *sources.get(number)?));
    Ok(found.and_then(numbered))
}

#[cold]
fn in_no_source(record: &st_tensor, name: &[u8], count: usize) -> Error {
    let text = format!(
        "none of the {count} sources has it (shard {}, offset {}, {} bytes); under another name, say which one in source",
        record.shard, record.offset, record.size
    );
    Error::tensor(ErrorKind::InvalidArgument, name, text)
}

#[cold]
fn no_such_source(record: &st_tensor, name: &[u8], count: usize) -> Error {
    let text =
        format!("source is {}, and there are {count}: 1 to {count}, or 0 for the first that has it", record.source);
    Error::tensor(ErrorKind::InvalidArgument, name, text)
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
    memory::collect(texts, entries.len(), "metadata").map(Some)
}

/// Keys and what they are set to; NULL removes one.
///
/// # Safety
/// As for [`metadata_entries`].
pub(super) unsafe fn metadata_changes<'a>(
    entries: *const st_metadata,
    count: usize,
) -> Result<Vec<(&'a str, Option<&'a str>)>> {
    // SAFETY: the caller's promise.
    let entries = unsafe { array_at(entries, count, "metadata")? };
    let texts = entries.iter().enumerate().map(|(number, entry)| {
        // SAFETY: the caller's promise.
        unsafe {
            let key = given_text(entry.key, entry.key_len, || format!("metadata[{number}].key"))?;
            if entry.value.is_null() {
                return Ok((key, None));
            }
            let value = given_text(entry.value, entry.value_len, || format!("metadata[{number}].value"))?;
            Ok((key, Some(value)))
        }
    });
    memory::collect(texts, entries.len(), "metadata")
}

fn save_options(given: &st_save_options) -> Result<SaveOptions> {
    Ok(SaveOptions {
        order: match given.order {
            ST_ORDER_REFERENCE => TensorOrder::Reference,
            ST_ORDER_GIVEN => TensorOrder::Given,
            other => return Err(no_such("st_save_options.order", other, "ST_ORDER_REFERENCE or ST_ORDER_GIVEN")),
        },
        alignment: u64::from(given.alignment),
        max_shard_size: given.max_shard_size,
        sync: durability("st_save_options", given.sync)?,
        overwrite: match given.overwrite {
            ST_OVERWRITE_REPLACE => Overwrite::Replace,
            ST_OVERWRITE_REFUSE => Overwrite::Refuse,
            ST_OVERWRITE_DIRECT => Overwrite::Direct,
            other => {
                let allowed = "ST_OVERWRITE_REPLACE, ST_OVERWRITE_REFUSE or ST_OVERWRITE_DIRECT";
                return Err(no_such("st_save_options.overwrite", other, allowed));
            }
        },
        header_reserve: given.header_reserve,
    })
}

pub(super) fn durability(of: &str, given: i32) -> Result<Durability> {
    match given {
        ST_SYNC_FULL => Ok(Durability::Synced),
        ST_SYNC_NONE => Ok(Durability::Unsynced),
        other => Err(no_such(&format!("{of}.sync"), other, "ST_SYNC_FULL or ST_SYNC_NONE")),
    }
}
