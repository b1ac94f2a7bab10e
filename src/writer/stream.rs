// SPDX-License-Identifier: Apache-2.0
//! Writing while the data is still being made: shapes first, then bytes in any
//! order, in pieces, from any thread. The library holds none of them.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use super::coverage::Coverage;
use super::layout::{HeaderRoom, SaveLayout, Supply, TensorPlace};
use super::output::Output;
use super::transfer::PACE;
use super::{MetadataEntry, NewTensor, SaveOptions};
use crate::base::extent::Extent;
use crate::base::lock::lock;
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};

/// A file, or several, to which tensors' bytes are still to be written.
/// Dropped before it is finished, it leaves nothing behind.
pub struct Writer {
    tensors: Vec<Expected>,
    /// Their names, one after another: where memory ends, one block leaves room for
    /// the message.
    names: Vec<u8>,
    phase: RwLock<Phase>,
    unpaced: AtomicU64,
}

struct Expected {
    name: Range<usize>,
    size: u64,
    place: TensorPlace,
    written: Mutex<Coverage>,
}

enum Phase {
    Open(Box<Output>),
    Finished,
    Failed,
}

impl Writer {
    /// Lays the tensors out and writes the header. Nothing of what is given is
    /// kept, and data that tensors may have is not looked at.
    ///
    /// # Errors
    /// As [`super::save`].
    pub fn open(
        path: &Path,
        tensors: &[NewTensor<'_>],
        metadata: Option<&[MetadataEntry<'_>]>,
        options: &SaveOptions,
    ) -> Result<Self> {
        let layout = SaveLayout::new(tensors, metadata, options, Supply::Later, HeaderRoom::Alone)?;
        let mut output = Output::create(path, &layout, tensors, options)?;
        output.begin()?;
        for (number, file) in layout.files.iter().enumerate() {
            output.file(number)?.write_at(&file.header, 0)?;
        }
        let what = "tensors to be written";
        let bytes = tensors.iter().map(|tensor| tensor.name.len()).fold(0, usize::saturating_add);
        let mut names = memory::vec_with_capacity(bytes, what)?;
        let mut expected = memory::vec_with_capacity(tensors.len(), what)?;
        expected.extend(tensors.iter().zip(layout.places()?).map(|(tensor, place)| {
            let start = names.len();
            names.extend_from_slice(tensor.name.as_bytes());
            Expected { name: start..names.len(), size: tensor.size(), place, written: Mutex::default() }
        }));
        Ok(Self {
            tensors: expected,
            names,
            phase: RwLock::new(Phase::Open(Box::new(output))),
            unpaced: AtomicU64::new(0),
        })
    }

    /// Writes bytes of a tensor, which has the number under which it was
    /// declared, from its byte `offset` on.
    ///
    /// # Errors
    /// `InvalidArgument` for bytes that are outside the tensor or written
    /// already, and after the end; `Io` and `OutOfMemory`, after which they may
    /// be written again.
    pub fn write(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(expected) = self.tensors.get(tensor) else {
            let text = format!("there is no tensor number {tensor}: {} were declared", self.tensors.len());
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        };
        let new = Extent::new(offset, bytes.len() as u64);
        if new.end() > expected.size {
            let text = format!("{} bytes at {offset} go past its end at {}", bytes.len(), expected.size);
            return Err(self.about(expected, ErrorKind::InvalidArgument, &text));
        }
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        let output = phase.output()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let file = output.file(expected.place.file)?;
        if let Some(old) = expected.written().claim(new)? {
            let (end, start, to) = (new.end(), old.start, old.end());
            let text = format!("bytes {offset} to {end} are to be written, but {start} to {to} have been already");
            return Err(self.about(expected, ErrorKind::InvalidArgument, &text).in_file(&file.label()));
        }
        let written = file.write_at(bytes, expected.place.offset.saturating_add(offset));
        if written.is_err() {
            expected.written().release(new);
        }
        written?;
        if self.unpaced.fetch_add(new.len, Ordering::Relaxed).saturating_add(new.len) >= PACE {
            self.unpaced.store(0, Ordering::Relaxed);
            output.start_writeback(expected.place.file);
        }
        Ok(())
    }

    /// Gives the finished files their names. Waits for writes that other
    /// threads have begun.
    ///
    /// # Errors
    /// `DataNotCovered` while bytes are missing, which may then still be
    /// written; `Io`, after which there is nothing left but to drop it.
    pub fn finish(&self) -> Result<()> {
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        let output = phase.output()?;
        for expected in &self.tensors {
            if let Some(gap) = expected.written().gap(expected.size) {
                let (start, end) = (gap.start, gap.end());
                let text = format!("of its {} bytes {start} to {end} have not been written", expected.size);
                let error = self.about(expected, ErrorKind::DataNotCovered, &text);
                return Err(error.in_file(&output.file(expected.place.file)?.label()));
            }
        }
        match std::mem::replace(&mut *phase, Phase::Failed) {
            Phase::Open(output) => output.publish(&mut || Ok(()))?,
            other => *phase = other,
        }
        *phase = Phase::Finished;
        Ok(())
    }
}

impl Writer {
    fn about(&self, tensor: &Expected, kind: ErrorKind, text: &str) -> Error {
        Error::tensor(kind, self.names.get(tensor.name.clone()).unwrap_or_default(), text)
    }
}

impl Phase {
    fn output(&self) -> Result<&Output> {
        let text = match self {
            Self::Open(output) => return Ok(output),
            Self::Finished => "the writer has been finished",
            Self::Failed => "finishing the writer has failed",
        };
        Err(Error::new(ErrorKind::InvalidArgument, text))
    }
}

impl Expected {
    fn written(&self) -> std::sync::MutexGuard<'_, Coverage> {
        lock(&self.written)
    }
}
