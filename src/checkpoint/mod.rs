// SPDX-License-Identifier: Apache-2.0
//! One opened set of named tensors. What reads them stands above it, in `load`.

pub(crate) mod assembly;
pub(crate) mod folder;
mod hub;
mod listing;
pub(crate) mod loaded;
pub(crate) mod name;
pub(crate) mod open;
pub(crate) mod resolved;
pub(crate) mod shards;
pub(crate) mod validate;

use self::loaded::{Loaded, LoadedTensors};
use crate::base::memory;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::format::header::Arena;
use crate::format::lookup::{Hasher, Lookup};
use crate::record::{st_shard, Metadata, Tensor};
use crate::source::{FileRef, Source};

/// An opened checkpoint: whatever it is made of, one table of tensors.
///
/// Immutable, so any number of threads may use it at once.
pub struct Checkpoint {
    /// By shard and offset.
    tensors: Vec<Tensor>,
    names: Lookup,
    metadata: Option<Vec<Metadata>>,
    shards: Vec<st_shard>,
    sources: Vec<Source>,
    loaded: LoadedTensors,
    /// What messages about the whole call it.
    label: String,
    /// What the records above point into.
    _arenas: Vec<Arena>,
    _texts: Vec<Vec<u8>>,
}

impl Checkpoint {
    pub(crate) fn shard_label(&self, shard: usize) -> &[u8] {
        let Some(shard) = self.shards.get(shard).filter(|shard| !shard.path.is_null()) else {
            return b"";
        };
        // SAFETY: the path is one of this checkpoint's own texts.
        unsafe { std::ffi::CStr::from_ptr(shard.path) }.to_bytes()
    }

    /// All tensors, by shard and offset.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The files.
    #[must_use]
    pub fn shards(&self) -> &[st_shard] {
        &self.shards
    }

    /// The metadata: `None` where no file has any.
    #[must_use]
    pub fn metadata(&self) -> Option<&[Metadata]> {
        self.metadata.as_deref()
    }

    /// The tensor of this name.
    #[must_use]
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Tensor> {
        self.tensors.get(self.names.find(&self.tensors, name)?)
    }

    /// The tensor of this name and its place in the table.
    pub(crate) fn require(&self, name: &[u8]) -> Result<(usize, &Tensor)> {
        let index = self.names.find(&self.tensors, name);
        index.and_then(|index| Some((index, self.tensors.get(index)?))).ok_or_else(|| {
            let mut text = format!("none of the {} tensors has this name", self.tensors.len());
            if let Some(other) = self.alias(name) {
                text += &format!("; the metadata says that it is an alias of {}", quoted(other));
            }
            Error::tensor(ErrorKind::NotFound, name, text).in_file(&self.label)
        })
    }

    /// The tensor that the metadata says this name stands for: writers leave tied
    /// weights out, and keep their names there.
    fn alias(&self, name: &[u8]) -> Option<&[u8]> {
        let entry = self.metadata.iter().flatten().find(|entry| entry.key() == name)?;
        self.find(entry.value()).map(Tensor::name)
    }

    /// The record number `index` with bytes that `load` reads, once for all callers.
    pub(crate) fn loaded(&self, index: usize, load: impl FnOnce() -> Result<Loaded>) -> Result<&Tensor> {
        let shard = self.tensors.get(index).map_or(usize::MAX, Tensor::shard);
        let inside = self.sources.get(shard).is_some_and(Source::is_inside);
        self.loaded.get(index, self.tensors.len(), inside, load)
    }

    /// Bytes of a shard's file; `name` is the tensor that an error names.
    pub(crate) fn read_bytes(&self, shard: usize, offset: u64, name: &[u8], place: &mut [u8]) -> Result<()> {
        self.source(shard)?.read_exact_at(offset, place).map_err(|error| self.named(shard, name, &error))
    }

    /// Where a shard's bytes are.
    pub(crate) fn source(&self, shard: usize) -> Result<&Source> {
        let source = self.sources.get(shard);
        source.ok_or_else(|| Error::new(ErrorKind::Internal, "a shard's number is out of range"))
    }

    /// A source's error as one about this tensor of this shard.
    pub(crate) fn named(&self, shard: usize, name: &[u8], error: &Error) -> Error {
        let named = Error::tensor(error.kind(), name, error.message(usize::MAX));
        self.in_shard(shard, named.with_errno(error.os_errno()))
    }

    /// An error as one about this shard, unless it names a file already.
    pub(crate) fn in_shard(&self, shard: usize, error: Error) -> Error {
        error.in_file(&self.label_of(shard))
    }

    /// A shard's open file, where it is one.
    pub(crate) fn file_of(&self, shard: usize) -> Result<Option<FileRef<'_>>> {
        match self.sources.get(shard) {
            Some(source) => source.as_file().map_err(|error| self.in_shard(shard, error)),
            None => Ok(None),
        }
    }

    /// Refuses a record that is not one of this checkpoint's or a copy of one.
    pub(crate) fn require_own(&self, tensor: &Tensor) -> Result<()> {
        self.own(tensor).map(|_| ())
    }

    /// Whether the record's data is this checkpoint's mapping, or the memory
    /// it was opened from.
    pub(crate) fn maps(&self, tensor: &Tensor) -> bool {
        let mapped = self.sources.get(tensor.shard()).and_then(Source::mapped);
        let offset = usize::try_from(tensor.offset).ok();
        let there = mapped.zip(offset).and_then(|(mapped, offset)| mapped.get(offset..));
        there.is_some_and(|there| std::ptr::eq(there.as_ptr(), tensor.data.cast()))
    }

    /// This checkpoint's own record for one that may be a copy.
    pub(crate) fn own(&self, tensor: &Tensor) -> Result<&Tensor> {
        // Mostly it is that record itself.
        let itself = self.index_of(tensor).and_then(|index| self.tensors.get(index));
        if let Some(own) = itself.filter(|own| std::ptr::eq(*own, tensor)) {
            return Ok(own);
        }
        // Empty tensors may share a place; a copy still has its name's address,
        // by which they are sorted.
        let place = |tensor: &Tensor| (tensor.shard, tensor.offset, tensor.size);
        let exact = |tensor: &Tensor| (place(tensor), tensor.name.addr());
        let found = self.tensors.binary_search_by_key(&exact(tensor), exact);
        let found = found.or_else(|_| self.tensors.binary_search_by_key(&place(tensor), place));
        found.ok().and_then(|found| self.tensors.get(found)).ok_or_else(|| not_ours(tensor).in_file(&self.label))
    }

    /// The folder of the first file, where it has a path.
    pub(crate) fn folder(&self) -> Option<std::path::PathBuf> {
        use std::os::unix::ffi::OsStrExt as _;
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(self.shard_label(0)));
        path.parent().map(std::path::Path::to_owned)
    }

    /// The number of one of this checkpoint's own records.
    pub(crate) fn index_of(&self, tensor: &Tensor) -> Option<usize> {
        let distance = std::ptr::from_ref(tensor).addr().checked_sub(self.tensors.as_ptr().addr())?;
        distance.checked_div(size_of::<Tensor>()).filter(|index| *index < self.tensors.len())
    }

    pub(crate) fn label_of(&self, shard: usize) -> String {
        shards::label(self.shard_label(shard))
    }
}

/// The names in several files. `twice` is called with a tensor that has the name of
/// one before it.
pub(crate) fn names_of(tensors: &[Tensor], twice: &mut dyn FnMut(&Tensor, &Tensor) -> Result<()>) -> Result<Lookup> {
    let hasher = Hasher::default();
    let mut hashes = memory::vec_with_capacity(tensors.len(), "hashes")?;
    hashes.extend(tensors.iter().map(|tensor| hasher.hash(tensor.name())));
    Lookup::build(hasher, tensors, &hashes, twice)
}

/// The error for a tensor that two shards have.
pub(crate) fn in_both(name: &[u8], first: &[u8], again: &[u8]) -> Error {
    let text = format!("is in {} and again in {}", file_name(first), file_name(again));
    Error::tensor(ErrorKind::DuplicateKey, name, text)
}

/// The error for a tensor that is not in the shard to which the index maps it.
pub(crate) fn lacking(name: &[u8], shard: &[u8]) -> Error {
    let text = format!("is mapped to the shard {}, which lacks it", file_name(shard));
    Error::tensor(ErrorKind::Shard, name, text)
}

/// A path's last part for a message.
fn file_name(path: &[u8]) -> String {
    quoted(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
}

fn not_ours(tensor: &Tensor) -> Error {
    let text = format!(
        "the record (shard {}, offset {}, {} bytes) is not one of this checkpoint's",
        tensor.shard, tensor.offset, tensor.size
    );
    Error::new(ErrorKind::InvalidArgument, text)
}
