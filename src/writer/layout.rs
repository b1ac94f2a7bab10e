// SPDX-License-Identifier: Apache-2.0
//! What goes where: which file, which byte, under which header.
#![forbid(unsafe_code)]

use super::order;
use super::tensor::NewTensor;
use super::text::{self, HeaderText};
use super::{MetadataEntry, Order, SaveOptions};
use crate::checkpoint::Checkpoint;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::memory;
use crate::parallel::{self, WORTH_A_THREAD};
use crate::sort;

/// Where the format puts the data at least.
const ALIGNMENT: u64 = 8;
/// A huge page: nobody has a use for more.
const LARGEST_ALIGNMENT: u64 = 2 << 20;
/// How many tensors are gathered at once.
const BATCH: usize = 64;

/// Where every tensor goes.
pub(super) struct Layout {
    pub(super) files: Vec<FileLayout>,
    /// Tensors by name, as the index lists them.
    pub(super) by_name: Vec<u32>,
    /// Bytes of all tensors.
    pub(super) data_size: u64,
}

/// One file.
pub(super) struct FileLayout {
    /// Length field and header.
    pub(super) header: Vec<u8>,
    /// Tensors as they follow one another.
    pub(super) tensors: Vec<u32>,
    /// Where each of them ends, from the start of the data.
    pub(super) ends: Vec<u64>,
}

impl FileLayout {
    /// Where the data begins.
    pub(super) fn start(&self) -> u64 {
        self.header.len() as u64
    }

    /// Bytes in all.
    pub(super) fn size(&self) -> u64 {
        self.start().saturating_add(self.ends.last().copied().unwrap_or(0))
    }
}

/// A tensor's place.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) file: usize,
    /// From the file's start.
    pub(super) offset: u64,
}

impl Layout {
    /// Lays tensors out, and refuses what could not be read back. `source`:
    /// where the bytes are that tensors lack; `None`: they come later.
    pub(super) fn new(
        tensors: &[NewTensor<'_>],
        metadata: Option<&[MetadataEntry<'_>]>,
        options: &SaveOptions,
        source: Option<Option<&Checkpoint>>,
    ) -> Result<Self> {
        let alignment = checked_alignment(options.alignment)?;
        let metadata = metadata.map(sorted_metadata).transpose()?;
        // Everything that is asked of all tensors in one pass: they are many
        // megabytes, and their names by themselves fit into a processor's cache.
        let mut names = memory::vec_with_capacity(tensors.len(), "the order of tensors")?;
        let (mut room, mut dtypes, mut without) = (0_usize, 0, None);
        names.extend(tensors.iter().map(|tensor| {
            room = room.saturating_add(text::entry_room(tensor));
            dtypes |= order::bit(tensor.dtype);
            if source.is_some_and(|source| tensor.lacks_data(source)) {
                without = without.or(Some(tensor));
            }
            tensor.name.as_bytes()
        }));
        let by_name = order::by_name(&names)?;
        if let Some(tensor) = without {
            return Err(tensor.no_data());
        }
        let order = match options.order {
            Order::Reference => order::reference(&by_name, tensors, dtypes)?,
            Order::Given => {
                let mut given = memory::vec_with_capacity(by_name.len(), "the order of tensors")?;
                given.extend((0..).take(by_name.len()));
                given
            }
        };
        let mut this = Self { files: Vec::new(), by_name, data_size: 0 };
        for shard in split(order, tensors, options.max_shard_size)? {
            if shard.len() != tensors.len() {
                let in_shard = shard.iter().filter_map(|index| order::tensor(tensors, *index));
                room = in_shard.map(text::entry_room).fold(0, usize::saturating_add);
            }
            let text = HeaderText::new(metadata.as_deref(), room)?;
            let file = file(text, room, shard, tensors, options.header_reserve, alignment)?;
            this.data_size = this.data_size.saturating_add(file.size().saturating_sub(file.start()));
            this.files.push(file);
        }
        Ok(this)
    }

    /// For each tensor as given, where it goes.
    pub(super) fn places(&self) -> Result<Vec<Place>> {
        let mut places = memory::vec_with_capacity(self.by_name.len(), "places of tensors")?;
        places.resize(self.by_name.len(), Place::default());
        for (number, file) in self.files.iter().enumerate() {
            let mut offset = file.start();
            for (index, end) in file.tensors.iter().zip(&file.ends) {
                if let Some(place) = usize::try_from(*index).ok().and_then(|index| places.get_mut(index)) {
                    *place = Place { file: number, offset };
                }
                offset = file.start().saturating_add(*end);
            }
        }
        Ok(places)
    }
}

fn file(
    mut text: HeaderText,
    room: usize,
    shard: Vec<u32>,
    tensors: &[NewTensor<'_>],
    reserve: u64,
    alignment: u64,
) -> Result<FileLayout> {
    let middle = if shard.len() < WORTH_A_THREAD { shard.len() } else { shard.len() / 2 };
    let (first, second) = shard.split_at_checked(middle).unwrap_or_default();
    let mut ends = memory::vec_with_capacity(shard.len(), "the order of tensors")?;
    if second.is_empty() {
        entries(&mut text, 0, first, tensors, &mut ends)?;
    } else {
        let sizes = first.iter().filter_map(|index| order::tensor(tensors, *index)).map(|tensor| tensor.size);
        let begin = sizes.fold(0, u64::saturating_add);
        let mut rest = HeaderText::rest(room)?;
        let mut more = memory::vec_with_capacity(second.len(), "the order of tensors")?;
        parallel::both(&mut || entries(&mut text, 0, first, tensors, &mut ends), &mut || {
            entries(&mut rest, begin, second, tensors, &mut more)
        })?;
        text.join(rest)?;
        ends.append(&mut more);
    }
    Ok(FileLayout { header: text.finish(reserve, alignment)?, tensors: shard, ends })
}

/// The text of tensors that follow one another from `begin` on, and where they end.
fn entries(
    text: &mut HeaderText,
    begin: u64,
    indices: &[u32],
    tensors: &[NewTensor<'_>],
    ends: &mut Vec<u64>,
) -> Result<()> {
    let mut end = begin;
    let mut batch = Vec::with_capacity(BATCH);
    for indices in indices.chunks(BATCH) {
        // Gathered first and their names touched, in loops so short that the
        // cache misses overlap.
        batch.clear();
        batch.extend(indices.iter().filter_map(|index| order::tensor(tensors, *index).copied()));
        let first = |tensor: &NewTensor<'_>| tensor.name.as_bytes().first().copied();
        std::hint::black_box(batch.iter().filter_map(first).fold(0, |all, byte| all ^ byte));
        for tensor in &batch {
            let begin = end;
            let fits = |end: &u64| *end <= i64::MAX.unsigned_abs();
            end = begin.checked_add(tensor.size).filter(fits).ok_or_else(|| too_large(tensor))?;
            text.push(tensor, begin, end);
            ends.push(end);
        }
    }
    Ok(())
}

fn too_large(tensor: &NewTensor<'_>) -> Error {
    Error::tensor(ErrorKind::Shape, tensor.name.as_bytes(), "no file holds so many bytes")
}

fn checked_alignment(given: u64) -> Result<u64> {
    match given {
        0 => Ok(ALIGNMENT),
        ALIGNMENT..=LARGEST_ALIGNMENT if given.is_power_of_two() => Ok(given),
        _ => {
            let text = format!("alignment {given} is not a power of two from {ALIGNMENT} to {LARGEST_ALIGNMENT}");
            Err(Error::new(ErrorKind::InvalidArgument, text))
        }
    }
}

/// Metadata by key, so that the same input gives the same bytes.
pub(super) fn sorted_metadata<'a>(entries: &[MetadataEntry<'a>]) -> Result<Vec<MetadataEntry<'a>>> {
    let keys = sort::sorted(entries.iter().map(|(key, _)| key.as_bytes()), "metadata keys")?;
    if let Some((key, _)) = sort::repeated(&keys).next() {
        return Err(Error::new(ErrorKind::DuplicateKey, format!("metadata has the key {} twice", quoted(key))));
    }
    let mut sorted = memory::vec_with_capacity(entries.len(), "metadata")?;
    sorted.extend(keys.iter().filter_map(|(_, number)| entries.get(*number).copied()));
    Ok(sorted)
}

/// Fills one shard after another up to the limit, as the hub's libraries do. A
/// tensor larger than the limit has a shard of its own.
fn split(order: Vec<u32>, tensors: &[NewTensor<'_>], limit: u64) -> Result<Vec<Vec<u32>>> {
    if limit == 0 {
        return Ok(vec![order]);
    }
    let (mut shards, mut shard, mut held) = (Vec::new(), Vec::new(), 0_u64);
    for index in order {
        let size = order::tensor(tensors, index).map_or(0, |tensor| tensor.size);
        if held.saturating_add(size) > limit && !shard.is_empty() {
            shards.push(std::mem::take(&mut shard));
            held = 0;
        }
        memory::reserve(&mut shard, 1, "shards")?;
        shard.push(index);
        held = held.saturating_add(size);
    }
    if !shard.is_empty() || shards.is_empty() {
        shards.push(shard);
    }
    Ok(shards)
}
