// SPDX-License-Identifier: Apache-2.0
//! One tensor to be written: checked when it is made, so that what is laid out
//! can be read back.
#![forbid(unsafe_code)]

use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Tensor;

/// A tensor to be written. Its shape's size fits, and fills whole bytes.
#[derive(Clone, Copy, Debug)]
pub struct NewTensor<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [i64],
    pub(super) size: u64,
    pub(super) data: Data<'a>,
}

/// Where a tensor's bytes come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    /// They are handed over later, or there are none.
    Later,
    Memory(&'a [u8]),
    /// In a file of the source checkpoint.
    File {
        shard: usize,
        offset: u64,
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
        if name == "__metadata__" {
            let text = "the name is the format's own and can't be a tensor's";
            return Err(Error::tensor(ErrorKind::InvalidArgument, name.as_bytes(), text));
        }
        let size = byte_size(dtype, shape).map_err(|(kind, text)| Error::tensor(kind, name.as_bytes(), text))?;
        Ok(Self { name, dtype, shape, size, data: Data::Later })
    }

    /// Its bytes: what dtype and shape take.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The same tensor with its bytes.
    ///
    /// # Errors
    /// `SizeMismatch` where they are more or fewer than dtype and shape take.
    pub fn with_data(self, bytes: &'a [u8]) -> Result<Self> {
        self.require_size(bytes.len() as u64)?;
        Ok(Self { data: Data::Memory(bytes), ..self })
    }

    /// The same tensor, whose bytes are those of a record of `source`.
    ///
    /// # Errors
    /// `SizeMismatch`, and `InvalidArgument` for a record that is not `source`'s.
    pub fn with_source(self, source: &Checkpoint, record: &Tensor) -> Result<Self> {
        self.require_size(record.size())?;
        source.require_own(record)?;
        Ok(Self { data: Data::File { shard: record.shard(), offset: record.offset() }, ..self })
    }

    pub(crate) fn require_size(&self, size: u64) -> Result<()> {
        if size == self.size {
            return Ok(());
        }
        let text =
            format!("has {size} bytes, but {} of shape {:?} takes {}", self.dtype.name(), Shape(self.shape), self.size);
        Err(Error::tensor(ErrorKind::SizeMismatch, self.name.as_bytes(), text))
    }

    /// Refuses a tensor whose bytes are nowhere.
    pub(super) fn require_data(&self, source: Option<&Checkpoint>) -> Result<()> {
        let missing = match self.data {
            Data::Later => self.size != 0,
            Data::Memory(_) => false,
            Data::File { .. } => source.is_none(),
        };
        if missing {
            let text = format!("has no data for its {} bytes, and there is no source to read them from", self.size);
            return Err(Error::tensor(ErrorKind::InvalidArgument, self.name.as_bytes(), text));
        }
        Ok(())
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
/// to right, so an overflow before a zero is one.
fn byte_size(dtype: Dtype, shape: &[i64]) -> Result<u64, (ErrorKind, String)> {
    if dtype == Dtype::Unknown {
        return Err((ErrorKind::Unsupported, "a tensor of unknown dtype can't be saved".into()));
    }
    let mut bits: u64 = 1;
    for dimension in shape {
        let Ok(dimension) = u64::try_from(*dimension) else {
            return Err((ErrorKind::Shape, format!("shape {:?} has a negative dimension", Shape(shape))));
        };
        bits = bits.checked_mul(dimension).ok_or_else(|| too_large(shape))?;
    }
    bits = bits.checked_mul(u64::from(dtype.bits())).ok_or_else(|| too_large(shape))?;
    if bits % 8 != 0 {
        let text = format!("{bits} bits of {} in shape {:?} are not whole bytes", dtype.name(), Shape(shape));
        return Err((ErrorKind::SubByte, text));
    }
    Ok(bits / 8)
}

fn too_large(shape: &[i64]) -> (ErrorKind, String) {
    (ErrorKind::Shape, format!("shape {:?} is beyond 64 bits", Shape(shape)))
}
