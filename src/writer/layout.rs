// SPDX-License-Identifier: Apache-2.0
//! What goes where: which file, which byte, under which header.
#![forbid(unsafe_code)]

use super::order;
use super::tensor::NewTensor;
use super::text::{self, HeaderText};
use super::{MetadataEntry, Order, SaveOptions};
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::memory;
use crate::sort;

/// Where the format puts the data at least.
const ALIGNMENT: u64 = 8;
/// A huge page: nobody has a use for more.
const LARGEST_ALIGNMENT: u64 = 2 << 20;

/// Where every tensor goes.
pub(super) struct Layout {
    pub(super) files: Vec<FileLayout>,
    /// For each tensor as given.
    pub(super) places: Vec<Place>,
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
    /// Bytes in all.
    pub(super) size: u64,
}

/// A tensor's place.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) file: usize,
    /// From the file's start.
    pub(super) offset: u64,
}

impl Layout {
    /// Lays tensors out, and refuses what could not be read back.
    pub(super) fn new(
        tensors: &[NewTensor<'_>],
        metadata: Option<&[MetadataEntry<'_>]>,
        options: &SaveOptions,
    ) -> Result<Self> {
        let alignment = checked_alignment(options.alignment)?;
        let metadata = metadata.map(sorted_metadata).transpose()?;
        let by_name = order::by_name(tensors)?;
        let order = match options.order {
            Order::Reference => order::reference(&by_name, tensors)?,
            Order::Given => {
                let mut given = memory::vec_with_capacity(by_name.len(), "the order of tensors")?;
                given.extend((0..).take(by_name.len()));
                given
            }
        };
        let mut this = Self {
            files: Vec::new(),
            places: memory::vec_with_capacity(tensors.len(), "places of tensors")?,
            by_name,
            data_size: 0,
        };
        this.places.resize(tensors.len(), Place::default());
        for shard in split(order, tensors, options.max_shard_size)? {
            let number = this.files.len();
            let file = this.file(number, shard, tensors, metadata.as_deref(), options.header_reserve, alignment)?;
            this.files.push(file);
        }
        Ok(this)
    }

    fn file(
        &mut self,
        number: usize,
        shard: Vec<u32>,
        tensors: &[NewTensor<'_>],
        metadata: Option<&[MetadataEntry<'_>]>,
        reserve: u64,
        alignment: u64,
    ) -> Result<FileLayout> {
        // Gathered first, in a loop so short that the cache misses overlap.
        let mut in_order = memory::vec_with_capacity(shard.len(), "the order of tensors")?;
        in_order.extend(shard.iter().filter_map(|index| order::tensor(tensors, *index).copied()));
        let room = in_order.iter().map(text::entry_room).fold(0, usize::saturating_add);
        let mut text = HeaderText::new(metadata, room)?;
        let mut end: u64 = 0;
        for (tensor, index) in in_order.iter().zip(&shard) {
            let begin = end;
            end = begin
                .checked_add(tensor.size)
                .filter(|end| *end <= i64::MAX.unsigned_abs())
                .ok_or_else(|| too_large(tensor))?;
            text.push(tensor, begin, end);
            if let Some(place) = usize::try_from(*index).ok().and_then(|index| self.places.get_mut(index)) {
                *place = Place { file: number, offset: begin };
            }
        }
        let header = text.finish(reserve, alignment)?;
        let start = header.len() as u64;
        for index in &shard {
            if let Some(place) = usize::try_from(*index).ok().and_then(|index| self.places.get_mut(index)) {
                place.offset = place.offset.saturating_add(start);
            }
        }
        self.data_size = self.data_size.saturating_add(end);
        Ok(FileLayout { header, tensors: shard, size: start.saturating_add(end) })
    }
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
