// SPDX-License-Identifier: Apache-2.0
//! One tensor to be written: checked when it is made, so that what is laid out
//! can be read back.
#![forbid(unsafe_code)]

use super::spelling;
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Tensor;

/// A tensor to be written. Its shape's size fits, and fills whole bytes.
///
/// One cache line: a header of many tensors is mostly the reading of these.
#[derive(Clone, Copy, Debug)]
pub struct NewTensor<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [i64],
    pub(super) data: Data<'a>,
    pub(super) dtype: Dtype,
    /// Bytes of its entry in a header but for the offsets, where its name is
    /// its own spelling in JSON; 0: it may not be.
    entry: u32,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<NewTensor<'_>>() == 64);

/// A tensor's bytes, and how many they are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    /// They are handed over later, or there are none.
    Later(u64),
    Memory(&'a [u8]),
    /// In a file of a source.
    File {
        source: u16,
        shard: u32,
        offset: u64,
        size: u64,
    },
}

impl<'a> NewTensor<'a> {
    /// Declares a tensor.
    ///
    /// # Errors
    /// `Shape`, `SubByte`, and `InvalidArgument` for the name `__metadata__`,
    /// which no reader would take for a tensor's; `Unsupported` for a dtype
    /// that is not known.
    pub fn new(name: &'a str, dtype: Dtype, shape: &'a [i64]) -> Result<Self> {
        Self::with_plain(name, spelling::is_plain(name.as_bytes()), dtype, shape)
    }

    /// The same where it is known already whether the name is plain.
    #[inline(always)]
    pub(crate) fn with_plain(name: &'a str, plain: bool, dtype: Dtype, shape: &'a [i64]) -> Result<Self> {
        let size = match byte_size(dtype, shape) {
            Some(size) if name != "__metadata__" => size,
            _ => return Err(refusal(name, dtype, shape)),
        };
        let entry = if plain { spelling::entry_len(name.len(), dtype, shape) } else { 0 };
        Ok(Self { name, shape, data: Data::Later(size), dtype, entry: u32::try_from(entry).unwrap_or(0) })
    }

    /// Whether its name is surely its own spelling in JSON.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.entry != 0
    }

    /// Bytes of its entry in a header but for the offsets.
    #[inline]
    pub(super) fn entry_len(&self) -> usize {
        match self.entry {
            0 => spelling::entry_len(spelling::spelled_len(self.name), self.dtype, self.shape),
            len => len as usize,
        }
    }

    /// Its bytes: what dtype and shape take.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u64 {
        match self.data {
            Data::Memory(bytes) => bytes.len() as u64,
            Data::Later(size) | Data::File { size, .. } => size,
        }
    }

    /// The same tensor with its bytes.
    ///
    /// # Errors
    /// `SizeMismatch` where they are more or fewer than dtype and shape take.
    #[inline]
    pub fn with_data(mut self, bytes: &'a [u8]) -> Result<Self> {
        self.require_size(bytes.len() as u64)?;
        self.data = Data::Memory(bytes);
        Ok(self)
    }

    /// The same tensor, whose bytes are those of a record of `source`.
    ///
    /// # Errors
    /// `SizeMismatch`, and `InvalidArgument` for a record that is not `source`'s.
    pub fn with_source(self, source: &Checkpoint, record: &Tensor) -> Result<Self> {
        self.with_numbered_source(0, source, record)
    }

    /// The same where there are several sources, of which this one is the
    /// `number`th, counted from 0.
    ///
    /// # Errors
    /// As [`with_source`](Self::with_source).
    pub fn with_numbered_source(mut self, number: u16, source: &Checkpoint, record: &Tensor) -> Result<Self> {
        self.require_size(record.size())?;
        source.require_own(record).map_err(|error| self.foreign(&error))?;
        self.data = Data::File { source: number, shard: record.shard, offset: record.offset(), size: record.size() };
        Ok(self)
    }

    /// The error for a record that is not one of its source's.
    #[cold]
    fn foreign(&self, error: &Error) -> Error {
        let text = error.message(usize::MAX);
        Error::tensor(error.kind(), self.name.as_bytes(), text).with_errno(error.os_errno())
    }

    #[inline]
    pub(crate) fn require_size(&self, size: u64) -> Result<()> {
        match size == self.size() {
            true => Ok(()),
            false => Err(self.other_size(size)),
        }
    }

    #[cold]
    fn other_size(&self, size: u64) -> Error {
        let (dtype, shape, takes) = (self.dtype.name(), Shape(self.shape), self.size());
        let text = format!("has {size} bytes, but {dtype} of shape {shape:?} takes {takes}");
        Error::tensor(ErrorKind::SizeMismatch, self.name.as_bytes(), text)
    }

    /// Whether its bytes are nowhere.
    pub(super) fn lacks_data(&self, sources: &[&Checkpoint]) -> bool {
        match self.data {
            Data::Later(size) => size != 0,
            Data::Memory(_) => false,
            Data::File { source, .. } => usize::from(source) >= sources.len(),
        }
    }

    /// The error for that.
    #[cold]
    pub(super) fn no_data(&self) -> Error {
        let text = format!("has no data for its {} bytes, and there is no source to read them from", self.size());
        Error::tensor(ErrorKind::InvalidArgument, self.name.as_bytes(), text)
    }
}

/// A shape for a message: a hundred thousand dimensions are not worth showing.
struct Shape<'a>(&'a [i64]);

impl std::fmt::Debug for Shape<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.get(..8) {
            Some(first) if self.0.len() > 8 => write!(f, "{first:?}... ({} dimensions)", self.0.len()),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

/// Bytes that dtype and shape take, by the rules of reading: multiplied left
/// to right, so an overflow before a zero is one. `None`: see [`refusal`].
#[inline]
fn byte_size(dtype: Dtype, shape: &[i64]) -> Option<u64> {
    let mut bits: u64 = 1;
    for dimension in shape {
        bits = bits.checked_mul(u64::try_from(*dimension).ok()?)?;
    }
    bits = bits.checked_mul(u64::from(dtype.bits()))?;
    (bits.is_multiple_of(8) && dtype != Dtype::Unknown).then_some(bits / 8)
}

/// Why a tensor can't be written.
#[cold]
fn refusal(name: &str, dtype: Dtype, shape: &[i64]) -> Error {
    let shown = Shape(shape);
    let elements = shape.iter().try_fold(1_u64, |all, dimension| all.checked_mul(dimension.unsigned_abs()));
    let bits = elements.and_then(|elements| elements.checked_mul(u64::from(dtype.bits())));
    let (kind, text) = match bits {
        _ if name == "__metadata__" => (ErrorKind::InvalidArgument, "the name is reserved by the format".into()),
        _ if dtype == Dtype::Unknown => (ErrorKind::Unsupported, "a tensor of unknown dtype can't be saved".into()),
        _ if shape.iter().any(|dimension| *dimension < 0) => {
            (ErrorKind::Shape, format!("shape {shown:?} has a negative dimension"))
        }
        None => (ErrorKind::Shape, format!("shape {shown:?} is beyond 64 bits")),
        Some(bits) => {
            (ErrorKind::SubByte, format!("{bits} bits of {} in shape {shown:?} are not whole bytes", dtype.name()))
        }
    };
    Error::tensor(kind, name.as_bytes(), text)
}
