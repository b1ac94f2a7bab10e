// SPDX-License-Identifier: Apache-2.0
//! What goes where: which file, which byte, under which header.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use super::order;
use super::tensor::NewTensor;
use super::text::HeaderText;
use super::{MetadataEntry, SaveOptions, TensorOrder};
use crate::base::memory;
use crate::base::sort;
use crate::checkpoint::Checkpoint;
use crate::error::{quoted, Error, ErrorKind, Result};

/// Where the format puts the data at least.
const ALIGNMENT: u64 = 8;
/// A huge page: nobody has a use for more.
const LARGEST_ALIGNMENT: u64 = 2 << 20;

/// Where every tensor goes.
pub(super) struct SaveLayout<'a> {
    pub(super) files: Vec<FileLayout>,
    /// Tensors as they follow one another, from file to file: those that were
    /// given where they were in order, so that many are not copied for nothing.
    tensors: Cow<'a, [NewTensor<'a>]>,
    /// Under which number each of them was given.
    order: Vec<u32>,
    /// Numbers of tensors by name, as the index lists them.
    pub(super) by_name: Vec<u32>,
    /// Bytes of all tensors.
    pub(super) data_size: u64,
}

/// Where the bytes are that tensors lack.
#[derive(Clone, Copy)]
pub(super) enum Supply<'a> {
    /// In the files of these.
    From(&'a [&'a Checkpoint]),
    /// They come in pieces.
    Later,
}

/// What a header's block of memory has room for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderRoom {
    /// The header.
    Alone,
    /// The data after it too, where it is one file.
    WithData,
}

/// One file.
pub(super) struct FileLayout {
    /// Length field and header.
    pub(super) header: Vec<u8>,
    /// Which tensors of all it has.
    tensors: Range<usize>,
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
        self.start().saturating_add(self.data_size())
    }

    fn data_size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// A tensor's place.
#[derive(Clone, Copy, Default)]
pub(super) struct TensorPlace {
    pub(super) file: usize,
    /// From the file's start.
    pub(super) offset: u64,
}

impl<'a> SaveLayout<'a> {
    /// Lays tensors out, and refuses what could not be read back.
    pub(super) fn new(
        given: &'a [NewTensor<'a>],
        metadata: Option<&[MetadataEntry<'_>]>,
        options: &SaveOptions,
        supply: Supply<'_>,
        room: HeaderRoom,
    ) -> Result<Self> {
        let alignment = checked_alignment(options.alignment)?;
        let metadata = metadata.map(sorted_metadata).transpose()?;
        // Everything that is asked of all tensors in one pass: they are many
        // megabytes, and their names by themselves fit into a processor's cache.
        let mut names = memory::vec_with_capacity(given.len(), "the order of tensors")?;
        let (mut dtypes, mut without) = (0, None);
        names.extend(given.iter().map(|tensor| {
            dtypes |= order::bit(tensor.dtype);
            if let Supply::From(sources) = supply {
                without = without.or(tensor.lacks_data(sources).then_some(tensor));
            }
            tensor.name.as_bytes()
        }));
        let by_name = order::by_name(&names)?;
        if let Some(tensor) = without {
            return Err(tensor.no_data());
        }
        let order = match options.order {
            TensorOrder::Reference => order::reference(&by_name, given, dtypes)?,
            TensorOrder::Given => order::given(given.len())?,
        };
        let tensors = order::ordered(given, &order)?;
        let mut this = Self { files: Vec::new(), tensors, order, by_name, data_size: 0 };
        let shards = split(&this.tensors, options.max_shard_size)?;
        let with_data = room == HeaderRoom::WithData && shards.len() == 1;
        for tensors in shards {
            let in_file = this.tensors.get(tensors.clone()).unwrap_or_default();
            let ends = ends(in_file)?;
            let text = HeaderText::new(metadata.as_deref(), in_file, &ends)?;
            let start = text.end().checked_add(options.header_reserve);
            let start = start.and_then(|end| end.checked_next_multiple_of(alignment)).unwrap_or(u64::MAX);
            let size = ends.last().copied().unwrap_or(0);
            let after = if with_data { usize::try_from(size).unwrap_or(usize::MAX) } else { 0 };
            let header = text.write(start, after)?;
            this.data_size = this.data_size.saturating_add(size);
            memory::reserve(&mut this.files, 1, "shards")?;
            this.files.push(FileLayout { header, tensors, ends });
        }
        Ok(this)
    }

    /// The tensors of one of the files, as they follow one another.
    pub(super) fn tensors(&self, file: &FileLayout) -> &[NewTensor<'a>] {
        self.tensors.get(file.tensors.clone()).unwrap_or_default()
    }

    /// For each tensor as given, where it goes.
    pub(super) fn places(&self) -> Result<Vec<TensorPlace>> {
        let mut places = memory::vec_with_capacity(self.order.len(), "places of tensors")?;
        places.resize(self.order.len(), TensorPlace::default());
        for (number, file) in self.files.iter().enumerate() {
            let mut offset = file.start();
            for (index, end) in self.order.get(file.tensors.clone()).unwrap_or_default().iter().zip(&file.ends) {
                if let Some(place) = usize::try_from(*index).ok().and_then(|index| places.get_mut(index)) {
                    *place = TensorPlace { file: number, offset };
                }
                offset = file.start().saturating_add(*end);
            }
        }
        Ok(places)
    }
}

/// Where tensors that follow one another end.
fn ends(tensors: &[NewTensor<'_>]) -> Result<Vec<u64>> {
    let ends = tensors.iter().scan(0_u64, |end, tensor| {
        let sum = end.checked_add(tensor.size()).filter(|end| *end <= i64::MAX.unsigned_abs());
        *end = sum.unwrap_or(0);
        Some(sum.ok_or_else(|| too_large(tensor)))
    });
    memory::collect(ends, tensors.len(), "the order of tensors")
}

fn too_large(tensor: &NewTensor<'_>) -> Error {
    Error::tensor(ErrorKind::Shape, tensor.name.as_bytes(), "no file can hold that many bytes")
}

fn checked_alignment(given: u64) -> Result<u64> {
    match given {
        0 => Ok(ALIGNMENT),
        ALIGNMENT..=LARGEST_ALIGNMENT if given.is_power_of_two() => Ok(given),
        _ => {
            let text =
                format!("alignment is {given}; expected a power of two from {ALIGNMENT} to {LARGEST_ALIGNMENT}, or 0");
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
fn split(tensors: &[NewTensor<'_>], limit: u64) -> Result<Vec<Range<usize>>> {
    let (mut shards, mut first, mut held) = (Vec::new(), 0, 0_u64);
    for (number, tensor) in tensors.iter().enumerate().filter(|_| limit != 0) {
        if held.saturating_add(tensor.size()) > limit && number != first {
            memory::reserve(&mut shards, 1, "shards")?;
            shards.push(first..number);
            (first, held) = (number, 0);
        }
        held = held.saturating_add(tensor.size());
    }
    memory::reserve(&mut shards, 1, "shards")?;
    shards.push(first..tensors.len());
    Ok(shards)
}
