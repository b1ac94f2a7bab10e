// SPDX-License-Identifier: Apache-2.0
//! Where bytes live: a file (mapped or read), memory, or somebody's callback.

mod callback;
mod direct;
mod file;
mod filesystem;
pub(crate) mod scatter;
mod share;

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::path::Path;

pub use callback::ReadAt;
pub(crate) use direct::{drop_cached, open_direct, read_blocks, Probe, BLOCK};
pub(crate) use file::{check_regular, look_at, read_exact, read_start, require_regular, FileRef, Stamp};
pub(crate) use share::{descriptors_to_spare, Manner};

use crate::base::extent::Extent;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Access, Prefetch};
use callback::Callback;
use file::MappableFile;
use scatter::CallCosts;

/// How a shard's bytes are reached; the numbers are the C constants `ST_ACCESS_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Chosen {
    /// Through a mapping.
    Map = 1,
    /// By reading the file.
    Read = 2,
    /// In the caller's memory.
    Memory = 3,
    /// Through the caller's `read_at`.
    Callback = 4,
}

/// One shard's bytes.
pub(crate) struct Source {
    kind: SourceKind,
    reason: CString,
}

enum SourceKind {
    File(MappableFile),
    Memory(&'static [u8]),
    Callback(Callback),
}

impl Source {
    /// Opens a regular file.
    pub(crate) fn file(path: &Path, manner: &Manner) -> Result<Self> {
        let (file, reason) = MappableFile::open(path, manner)?;
        Ok(Self { kind: SourceKind::File(file), reason: text(&reason) })
    }

    /// A part of a file that somebody has opened; all up to its end where `size` is 0.
    pub(crate) fn part(fd: BorrowedFd<'_>, offset: u64, size: u64, access: Access) -> Result<Self> {
        let (file, reason) = MappableFile::part(fd, offset, size, access)?;
        Ok(Self { kind: SourceKind::File(file), reason: text(&reason) })
    }

    pub(crate) fn memory(bytes: &'static [u8]) -> Self {
        Self { kind: SourceKind::Memory(bytes), reason: text("the bytes are the caller's") }
    }

    pub(crate) fn callback(reader: Box<dyn ReadAt>) -> Self {
        Self {
            kind: SourceKind::Callback(Callback::new(reader)),
            reason: text("the bytes come from the caller's read_at"),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match &self.kind {
            SourceKind::File(file) => file.size(),
            SourceKind::Memory(bytes) => bytes.len() as u64,
            SourceKind::Callback(callback) => callback.size(),
        }
    }

    /// Which file it is, where it is one.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match &self.kind {
            SourceKind::File(file) => Some(file.stamp()),
            SourceKind::Memory(_) | SourceKind::Callback(_) => None,
        }
    }

    /// How the bytes are reached.
    pub(crate) fn access(&self) -> Chosen {
        match &self.kind {
            SourceKind::File(file) if file.mapped().is_some() => Chosen::Map,
            SourceKind::File(_) => Chosen::Read,
            SourceKind::Memory(_) => Chosen::Memory,
            SourceKind::Callback(_) => Chosen::Callback,
        }
    }

    /// Why they are reached so, for people.
    pub(crate) fn reason(&self) -> &CStr {
        &self.reason
    }

    /// All bytes, where they can be addressed.
    pub(crate) fn mapped(&self) -> Option<&[u8]> {
        match &self.kind {
            SourceKind::File(file) => file.mapped(),
            SourceKind::Memory(bytes) => Some(bytes),
            SourceKind::Callback(_) => None,
        }
    }

    /// The caller's memory, where that is what it is: bytes that reading may
    /// take straight from there, which it may not from a mapping.
    pub(crate) fn callers_memory(&self) -> Option<&[u8]> {
        match &self.kind {
            SourceKind::Memory(bytes) => Some(bytes),
            SourceKind::File(_) | SourceKind::Callback(_) => None,
        }
    }

    /// How much the first request should bring: the length field, or all of a
    /// usual header where each request is a journey.
    pub(crate) fn first_read(&self) -> u64 {
        match &self.kind {
            SourceKind::Callback(callback) => callback.first_read(),
            _ => 8,
        }
    }

    /// Up to how many bytes that nobody wants, between runs of `run` bytes, are better read
    /// than left out, at the price of one more request.
    pub(crate) fn widest_gap(&self, run: u64) -> u64 {
        match &self.kind {
            SourceKind::File(_) => CallCosts::of_this_machine().widest_gap(run),
            SourceKind::Callback(_) => 64 << 10,
            SourceKind::Memory(_) => 0,
        }
    }

    /// Whether runs that lie apart can be read to their places at once.
    pub(crate) fn scatters(&self) -> bool {
        matches!(&self.kind, SourceKind::File(file) if file.base() == 0)
    }

    /// The most that one request brings where each is a journey.
    pub(crate) fn preferred_request(&self) -> Option<u64> {
        match &self.kind {
            SourceKind::Callback(callback) => Some(callback.largest_read()),
            SourceKind::File(_) | SourceKind::Memory(_) => None,
        }
    }

    /// How many reads it takes to read that many bytes, if none comes back short.
    pub(crate) fn reads(&self, len: u64) -> u64 {
        let most = match &self.kind {
            SourceKind::Callback(callback) => callback.largest_read(),
            SourceKind::File(_) | SourceKind::Memory(_) => u64::MAX,
        };
        len.div_ceil(most)
    }

    /// How many requests are worth having under way at once, on that many
    /// processors. Files: two for each, as one of two waits for the disk.
    pub(crate) fn useful_threads(&self, cores: usize) -> usize {
        match &self.kind {
            SourceKind::File(_) => cores.saturating_mul(2).clamp(2, 16),
            SourceKind::Memory(_) => cores.min(16),
            SourceKind::Callback(callback) => callback.useful_threads(),
        }
    }

    /// Whether each who reads from it takes a descriptor for that.
    pub(crate) fn is_opened_anew(&self) -> bool {
        matches!(&self.kind, SourceKind::File(file) if !file.is_kept_open())
    }

    /// Fills `buffer` from `offset` on. Never through the mapping: a file that
    /// has become shorter is an error here.
    pub(crate) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_while(offset, buffer, &|| Ok(()))
    }

    /// Whether the thread is within a callback's read of it.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(&self.kind, SourceKind::Callback(callback) if callback.is_inside())
    }

    /// Whether only that many reads of it may be under way.
    pub(crate) fn is_limited(&self) -> bool {
        matches!(&self.kind, SourceKind::Callback(callback) if callback.is_limited())
    }

    /// [`Source::read_exact_at`], asking before each of a callback's reads whether it goes on.
    pub(crate) fn read_while(&self, offset: u64, buffer: &mut [u8], goes_on: &dyn Fn() -> Result<()>) -> Result<()> {
        match &self.kind {
            SourceKind::File(file) => file.read_exact_at(offset, buffer),
            SourceKind::Memory(bytes) => {
                let range = usize::try_from(offset).ok().and_then(|start| bytes.get(start..));
                let from = range.and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(from.ok_or_else(|| ended(offset, buffer.len(), bytes.len() as u64))?);
                Ok(())
            }
            SourceKind::Callback(callback) => callback.read_exact_at(offset, buffer, goes_on),
        }
    }

    /// The open file, for what only the system can do with it; `None` for a part of
    /// one, whose offsets are not the file's.
    pub(crate) fn as_file(&self) -> Result<Option<FileRef<'_>>> {
        match &self.kind {
            SourceKind::File(file) if file.base() == 0 => file.file().map(Some),
            SourceKind::File(_) | SourceKind::Memory(_) | SourceKind::Callback(_) => Ok(None),
        }
    }

    /// Reads ahead, as far as the system goes along.
    pub(crate) fn prefetch(&self, how: Prefetch) {
        match how {
            Prefetch::None => {}
            Prefetch::Advise => self.advise(Extent::new(0, self.size())),
            // What can't be read is found by whoever reads it.
            Prefetch::Populate => drop(self.populate(Extent::new(0, self.size()))),
        }
    }

    /// Tells the system that these bytes will be wanted.
    fn advise(&self, bytes: Extent) {
        if let SourceKind::File(file) = &self.kind {
            file.advise(bytes);
        }
    }

    /// These bytes need not stay in memory; a hint.
    pub(crate) fn evict(&self, bytes: Extent) {
        if let SourceKind::File(file) = &self.kind {
            file.evict(bytes);
        }
    }

    /// These bytes are in memory, and mapped ones in the page tables, when this
    /// returns; where nothing is mapped it does not wait.
    pub(crate) fn populate(&self, bytes: Extent) -> Result<()> {
        match &self.kind {
            SourceKind::File(file) => file.populate(bytes),
            SourceKind::Memory(_) | SourceKind::Callback(_) => Ok(()),
        }
    }
}

/// Whether only this machine writes to the file system that the file is on.
pub(crate) fn is_local(file: &std::fs::File) -> bool {
    filesystem::is_local(file).is_ok()
}

/// Whether the file system can copy without moving bytes: shared blocks, or a
/// copy on the server.
pub(crate) fn shares_blocks(file: &std::fs::File) -> bool {
    filesystem::shares_blocks(file)
}

/// The error of a file that ends within a read.
fn ended(offset: u64, len: usize, end: u64) -> Error {
    Error::new(ErrorKind::Io, format!("reading {len} bytes at {offset}: the file ends at {end}"))
}

fn text(reason: &str) -> CString {
    CString::new(reason).unwrap_or_default()
}
