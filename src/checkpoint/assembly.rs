// SPDX-License-Identifier: Apache-2.0
//! Opened files become one table of tensors.
#![forbid(unsafe_code)]

use super::loaded::LoadedTensors;
use super::{in_both, lacking, names_of, Checkpoint};
use crate::base::{memory, sort};
use crate::error::{Error, ErrorKind, Result};
use crate::format::header::Header;
use crate::format::index::Index;
use crate::format::lookup::Lookup;
use crate::record::{st_shard, Metadata, Tensor};
use crate::source::Source;

/// One opened shard on its way into a checkpoint.
pub(crate) struct OpenedFile {
    /// NUL-terminated.
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) source: Source,
    pub(crate) records: Records,
}

/// What a shard's header says.
pub(crate) enum Records {
    Own(Header),
    /// The shard is the same file as the one of this number, which comes before it.
    Of(usize),
}

/// What is kept of a shard's file for others that are the same file.
enum SharedFile {
    /// There are none.
    Alone,
    /// There are some, and it has not been read yet.
    Wanted,
    Read {
        tensors: Vec<Tensor>,
        names: Lookup,
        data_offset: u64,
        data_size: u64,
    },
}

/// Stands for a tensor of the index that no shard has shown yet.
const NOT_SEEN: u32 = u32::MAX;

impl Checkpoint {
    /// One file.
    pub(crate) fn single(path: Option<Vec<u8>>, source: Source, header: Header, label: &str) -> Result<Self> {
        let mut this = Self::empty(1, label)?;
        this.add_shard(path, source, header.data_offset, header.data_size);
        let Header { tensors, names, metadata, arena, .. } = header;
        (this.tensors, this.names, this.metadata) = (tensors, names, metadata);
        this._arenas.push(arena);
        Ok(this)
    }

    /// Puts shards together, in their order. An index says which of their
    /// tensors are shown.
    pub(crate) fn assemble(parts: Vec<OpenedFile>, index: Option<Index>, label: &str) -> Result<Self> {
        memory::headroom()?;
        let mut this = Self::empty(parts.len(), label)?;
        let mut metadata: Option<Vec<Metadata>> = None;
        if let Some(entries) = index.as_ref().and_then(Index::metadata) {
            add_metadata(&mut metadata, entries)?;
        }
        let mut shown = index.map(ShownTensors::new).transpose()?;
        if let Some(shown) = &shown {
            memory::reserve(&mut this.tensors, shown.records.len(), "tensors")?;
        }
        let mut shared = shared_by(&parts)?;
        for (number, OpenedFile { path, source, records }) in parts.into_iter().enumerate() {
            let header = match records {
                Records::Own(header) => header,
                Records::Of(first) => {
                    let Some(SharedFile::Read { tensors, names, data_offset, data_size }) = shared.get(first) else {
                        return Err(Error::new(ErrorKind::Internal, "a shard's file is not where it should be"));
                    };
                    this.add_shard(path, source, *data_offset, *data_size);
                    match &mut shown {
                        Some(shown) => this.show_again(tensors, names, shown, number)?,
                        None => this.refuse_again(tensors, number)?,
                    }
                    continue;
                }
            };
            this.add_shard(path, source, header.data_offset, header.data_size);
            let Header { tensors, names, metadata: entries, arena, data_offset, data_size } = header;
            this._arenas.push(arena);
            if let Some(entries) = entries {
                add_metadata(&mut metadata, entries)?;
            }
            match &mut shown {
                Some(shown) => this.show(&tensors, shown, number)?,
                None => {
                    memory::reserve(&mut this.tensors, tensors.len(), "tensors")?;
                    this.tensors.extend(tensors.iter().map(copied));
                }
            }
            if let Some(file @ SharedFile::Wanted) = shared.get_mut(number) {
                *file = SharedFile::Read { tensors, names, data_offset, data_size };
            }
        }
        this.metadata = metadata.map(keep_first).transpose()?;
        match shown {
            Some(shown) => this.take_names(shown)?,
            None => this.build_names()?,
        }
        Ok(this)
    }

    fn empty(shards: usize, label: &str) -> Result<Self> {
        Ok(Self {
            tensors: Vec::new(),
            names: Lookup::default(),
            metadata: None,
            shards: memory::vec_with_capacity(shards, "shards")?,
            sources: memory::vec_with_capacity(shards, "shards")?,
            loaded: LoadedTensors::default(),
            label: label.to_owned(),
            _arenas: memory::vec_with_capacity(shards, "shards")?,
            _texts: memory::vec_with_capacity(shards.saturating_add(1), "shards")?,
        })
    }

    fn add_shard(&mut self, path: Option<Vec<u8>>, source: Source, data_offset: u64, data_size: u64) {
        self.shards.push(st_shard {
            path: path.as_ref().map_or(std::ptr::null(), |path| path.as_ptr().cast()),
            path_len: path.as_ref().map_or(0, |path| path.len().saturating_sub(1)),
            size: source.size(),
            data_offset,
            data_size,
            access: source.access() as i32,
            reserved0: 0,
            reason: source.reason().as_ptr(),
            reserved: [0; 2],
        });
        self._texts.extend(path);
        self.sources.push(source);
    }

    /// Of a shard's tensors those that the index maps to it.
    fn show(&mut self, tensors: &[Tensor], shown: &mut ShownTensors, shard: usize) -> Result<()> {
        memory::reserve(&mut self.tensors, tensors.len().min(shown.records.len()), "tensors")?;
        let (index, records) = (&shown.index, &mut shown.records);
        index.find_all(tensors, |tensor, found| {
            let entry = found.filter(|(_, of)| *of == shard).and_then(|(entry, _)| records.get_mut(entry));
            if let Some(record) = entry {
                *record = u32::try_from(self.tensors.len()).unwrap_or(NOT_SEEN);
                self.tensors.push(copied(tensor));
            }
        });
        Ok(())
    }

    /// The same where a shard before this one is the same file: found by the index's
    /// names, so a thousand links to a file of a thousand tensors don't make a million.
    fn show_again(&mut self, tensors: &[Tensor], names: &Lookup, shown: &mut ShownTensors, shard: usize) -> Result<()> {
        if shown.by_shard.is_none() {
            shown.by_shard = Some(by_shard(&shown.index)?);
        }
        let entries = shown.of_shard(shard);
        let mut found = memory::vec_with_capacity(entries.len(), "tensors")?;
        for [_, entry, _] in entries {
            let Some((name, _)) = shown.index.tensor(to_usize(*entry)) else { continue };
            found.extend(names.find(tensors, name).map(|tensor| [tensor as u64, *entry, 0]));
        }
        sort::rows(&mut found);
        let mapped = self.sources.get(shard).and_then(Source::mapped);
        for [tensor, entry, _] in found {
            let place = (tensors.get(to_usize(tensor)), shown.records.get_mut(to_usize(entry)));
            let (Some(tensor), Some(record)) = place else { continue };
            let offset = usize::try_from(tensor.offset).unwrap_or(usize::MAX);
            let data = mapped.and_then(|mapped| mapped.get(offset..)).map_or(std::ptr::null(), <[u8]>::as_ptr);
            let number = u32::try_from(shard).unwrap_or(u32::MAX);
            *record = u32::try_from(self.tensors.len()).unwrap_or(NOT_SEEN);
            memory::reserve(&mut self.tensors, 1, "tensors")?;
            self.tensors.push(Tensor { shard: number, data: data.cast(), ..copied(tensor) });
        }
        Ok(())
    }

    /// Without an index a file that is there twice has its tensors twice.
    fn refuse_again(&self, tensors: &[Tensor], shard: usize) -> Result<()> {
        let Some(tensor) = tensors.first() else { return Ok(()) };
        let error = in_both(tensor.name(), self.shard_label(tensor.shard()), self.shard_label(shard));
        Err(error.in_file(&self.label_of(shard)))
    }

    fn build_names(&mut self) -> Result<()> {
        self.names = names_of(&self.tensors, &mut |first, second| {
            let error = in_both(second.name(), self.shard_label(first.shard()), self.shard_label(second.shard()));
            Err(error.in_file(&self.label_of(second.shard())))
        })?;
        Ok(())
    }

    /// The index's table of names is this checkpoint's, once all of them are there.
    fn take_names(&mut self, shown: ShownTensors) -> Result<()> {
        if let Some(entry) = shown.records.iter().position(|record| *record == NOT_SEEN) {
            let (name, shard) = shown.index.tensor(entry).unwrap_or_default();
            return Err(lacking(name, self.shard_label(shard)));
        }
        let (text, names) = shown.index.into_names(&self.tensors, &shown.records)?;
        self._texts.push(text);
        self.names = names;
        Ok(())
    }
}

/// An index, and what has been found of its tensors.
struct ShownTensors {
    index: Index,
    /// For each of them its record.
    records: Vec<u32>,
    /// Shard and number of each, in this order; made when first asked for.
    by_shard: Option<Vec<[u64; 3]>>,
}

impl ShownTensors {
    fn new(index: Index) -> Result<Self> {
        let count = index.tensors().len();
        let mut records = memory::vec_with_capacity(count, "tensors")?;
        records.resize(count, NOT_SEEN);
        Ok(Self { index, records, by_shard: None })
    }

    /// A shard's tensors: its number and theirs.
    fn of_shard(&self, shard: usize) -> &[[u64; 3]] {
        let all = self.by_shard.as_deref().unwrap_or_default();
        let start = all.partition_point(|row| to_usize(row[0]) < shard);
        let all = all.get(start..).unwrap_or_default();
        all.get(..all.partition_point(|row| to_usize(row[0]) == shard)).unwrap_or_default()
    }
}

fn by_shard(index: &Index) -> Result<Vec<[u64; 3]>> {
    let mut rows = memory::vec_with_capacity(index.tensors().len(), "the weight_map")?;
    rows.extend(index.tensors().zip(0_u64..).map(|((_, shard), number)| [shard as u64, number, 0]));
    sort::rows(&mut rows);
    Ok(rows)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Which shards others share their file with; empty where none do.
fn shared_by(parts: &[OpenedFile]) -> Result<Vec<SharedFile>> {
    let mut shared: Vec<SharedFile> = Vec::new();
    for part in parts {
        if let Records::Of(first) = part.records {
            if shared.is_empty() {
                shared = memory::vec_with_capacity(parts.len(), "shards")?;
                shared.resize_with(parts.len(), || SharedFile::Alone);
            }
            if let Some(file) = shared.get_mut(first) {
                *file = SharedFile::Wanted;
            }
        }
    }
    Ok(shared)
}

fn copied(tensor: &Tensor) -> Tensor {
    Tensor { source: 0, reserved: [0; 1], ..*tensor }
}

/// Collects the metadata of several files, in their order.
fn add_metadata(all: &mut Option<Vec<Metadata>>, entries: impl IntoIterator<Item = Metadata>) -> Result<()> {
    let all = all.get_or_insert_default();
    for entry in entries {
        memory::reserve(all, 1, "metadata")?;
        all.push(entry);
    }
    Ok(())
}

/// Of entries with equal keys, the first.
fn keep_first(mut entries: Vec<Metadata>) -> Result<Vec<Metadata>> {
    let mut again = memory::vec_with_capacity(entries.len(), "metadata keys")?;
    again.resize(entries.len(), false);
    for (_, number) in sort::repeated(&sort::sorted(entries.iter().map(Metadata::key), "metadata keys")?) {
        if let Some(again) = again.get_mut(number) {
            *again = true;
        }
    }
    let mut again = again.into_iter();
    entries.retain(|_| again.next() == Some(false));
    Ok(entries)
}
