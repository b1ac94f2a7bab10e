// SPDX-License-Identifier: Apache-2.0
//! Bytes on their way from tensors to a file.
//!
//! Two ways, by what was measured for 2 GiB on an NVMe disk under ext4. Not
//! synced: one thread, large writes to the page cache, straight from the
//! tensor's memory. Synced: several threads fill aligned buffers and write past
//! the page cache, so that the disk works from the first moment on.
#![forbid(unsafe_code)]

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;

use super::layout::{FileLayout, SaveLayout};
use super::stage::Staged;
use super::system;
use super::tensor::{Data, NewTensor};
use super::Progress;
use crate::base::extent::Extent;
use crate::base::lock::{lock, unlocked};
use crate::base::memory::{self, Aligned};
use crate::base::parallel;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::source;

/// One write, and so the time between two calls of a progress function.
pub(super) const STEP: u64 = 32 << 20;
/// Smaller pieces are gathered: a system call costs as much as copying 10 KiB.
pub(super) const GATHER_BELOW: u64 = 256 << 10;
/// Where they are gathered; it stays in the processor's cache.
pub(super) const GATHERED: usize = 1 << 20;
/// How much is written before the disk is set to work on it.
pub(super) const PACE: u64 = 32 << 20;
/// Past the page cache: each buffer, and how many at once. Blocks from 4 MiB on
/// are aligned to huge pages, and so to any disk's blocks.
const DIRECT_STEP: usize = 4 << 20;
const DIRECT_THREADS: usize = 4;

/// Counts bytes and tells the caller, who may stop the save.
pub(super) struct Meter<'a> {
    done: u64,
    total: u64,
    progress: Option<Progress<'a>>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(total: u64, progress: Option<Progress<'a>>) -> Self {
        Self { done: 0, total, progress }
    }

    pub(super) fn advance(&mut self, bytes: u64) -> Result<()> {
        self.done = self.done.saturating_add(bytes);
        match self.done < self.total {
            true => self.tell(),
            // The end is reported once, by finish.
            false => Ok(()),
        }
    }

    /// All bytes are written; the last moment to stop.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.done = self.total;
        self.tell()
    }

    /// Tells the caller where the save is, who may stop it.
    pub(super) fn tell(&mut self) -> Result<()> {
        let (done, total) = (self.done, self.total);
        if self.progress.as_mut().is_none_or(|progress| progress(done, total)) {
            return Ok(());
        }
        let text = format!("stopped by the progress callback after {done} of {total} bytes");
        Err(Error::new(ErrorKind::Cancelled, text))
    }
}

/// What a file consists of, from its first byte to its last.
pub(super) struct FilePieces<'a> {
    file: &'a FileLayout,
    tensors: &'a [NewTensor<'a>],
    sources: &'a [&'a Checkpoint],
}

#[derive(Clone, Copy)]
pub(super) struct FilePiece<'a> {
    /// In the file.
    pub(super) place: Extent,
    pub(super) from: Bytes<'a>,
    name: &'a str,
}

#[derive(Clone, Copy)]
pub(super) enum Bytes<'a> {
    Memory(&'a [u8]),
    File { source: u16, shard: usize, offset: u64 },
}

impl<'a> FilePiece<'a> {
    /// What comes after that many of its bytes.
    pub(super) fn after(self, bytes: u64) -> Self {
        let from = match self.from {
            Bytes::Memory(all) => Bytes::Memory(all.get(to_usize(bytes)..).unwrap_or_default()),
            Bytes::File { source, shard, offset } => {
                Bytes::File { source, shard, offset: offset.saturating_add(bytes) }
            }
        };
        Self { place: self.place.after(bytes), from, ..self }
    }

    /// At most that many bytes from its start, where they are in memory.
    pub(super) fn in_memory(&self, most: u64) -> Option<&'a [u8]> {
        match self.from {
            Bytes::Memory(bytes) => bytes.get(..to_usize(self.place.len.min(most))),
            Bytes::File { .. } => None,
        }
    }
}

impl<'a> FilePieces<'a> {
    pub(super) fn of(layout: &'a SaveLayout<'a>, file: &'a FileLayout, sources: &'a [&'a Checkpoint]) -> Self {
        Self { file, tensors: layout.tensors(file), sources }
    }

    /// The header.
    fn head(&self) -> FilePiece<'a> {
        FilePiece { place: Extent::new(0, self.file.start()), from: Bytes::Memory(&self.file.header), name: "" }
    }

    /// The tensors as they follow one another, from the one on that has the
    /// byte at `start` of the data.
    fn tensors(&self, start: u64) -> impl Iterator<Item = FilePiece<'a>> + '_ {
        let file = self.file;
        let first = match start {
            0 => 0,
            _ => file.ends.partition_point(|end| *end <= start),
        };
        let before = first.checked_sub(1).and_then(|before| file.ends.get(before)).copied().unwrap_or(0);
        let mut offset = file.start().saturating_add(before);
        let tensors = self.tensors.get(first..).unwrap_or_default();
        tensors.iter().zip(file.ends.get(first..).unwrap_or_default()).map(move |(tensor, end)| {
            let from = match tensor.data {
                Data::Memory(bytes) => Bytes::Memory(bytes),
                Data::File { source, shard, offset, .. } => Bytes::File { source, shard: shard as usize, offset },
                Data::Later(_) => Bytes::Memory(&[]),
            };
            let piece = FilePiece { place: Extent::new(offset, tensor.size()), from, name: tensor.name };
            offset = file.start().saturating_add(*end);
            piece
        })
    }

    /// All pieces.
    pub(super) fn all(&self) -> impl Iterator<Item = FilePiece<'a>> + '_ {
        std::iter::once(self.head()).chain(self.tensors(0))
    }

    pub(super) fn size(&self) -> u64 {
        self.file.size()
    }

    /// Whether the file system may take blocks over from the source instead of
    /// copying: only asking for it tells.
    pub(super) fn shares_blocks(&self, to: &Staged) -> Result<bool> {
        let from_file = |tensor: &NewTensor<'_>| matches!(tensor.data, Data::File { .. });
        Ok(self.tensors.iter().any(from_file) && source::shares_blocks(&*to.file()?))
    }

    /// How many of these bytes of the file are tensors'.
    pub(super) fn data_bytes(&self, place: Extent) -> u64 {
        Extent::between(place.start.max(self.file.start()), place.end()).len
    }

    /// Copies the piece's first bytes to `place`.
    pub(super) fn copy(&self, piece: &FilePiece<'_>, place: &mut [u8]) -> Result<()> {
        match piece.from {
            Bytes::Memory(bytes) => {
                let from = bytes.get(..place.len());
                place.copy_from_slice(from.ok_or_else(|| Error::new(ErrorKind::Internal, "a piece is too short"))?);
                Ok(())
            }
            Bytes::File { source, shard, offset } => {
                let source = self.sources.get(usize::from(source));
                let source = source.ok_or_else(|| Error::new(ErrorKind::Internal, "no source to read from"))?;
                source.read_bytes(shard, offset, piece.name.as_bytes(), place)
            }
        }
    }

    /// Fills `place` with the file's bytes from `start` on.
    fn fill(&self, start: u64, mut place: &mut [u8]) -> Result<()> {
        let in_data = start.checked_sub(self.file.start());
        let head = in_data.is_none().then(|| self.head());
        let mut at = start;
        for piece in head.into_iter().chain(self.tensors(in_data.unwrap_or(0))) {
            let piece = piece.after(at.saturating_sub(piece.place.start));
            let now = piece.place.first(place.len() as u64);
            let Some((to, rest)) = place.split_at_mut_checked(to_usize(now.len)) else { break };
            self.copy(&piece, to)?;
            (at, place) = (now.end(), rest);
            if place.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Appends the tensors' bytes to a header, within the room that the caller
    /// made.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, meter: &mut Meter<'_>) -> Result<()> {
        for mut piece in self.tensors(0) {
            while !piece.place.is_empty() {
                let len = piece.place.first(STEP).len;
                match piece.in_memory(len) {
                    Some(bytes) => out.extend_from_slice(bytes),
                    None => {
                        let old = out.len();
                        out.resize(old.saturating_add(to_usize(len)), 0);
                        self.copy(&piece, out.get_mut(old..).unwrap_or_default())?;
                    }
                }
                piece = piece.after(len);
                meter.advance(len)?;
            }
        }
        Ok(())
    }

    /// Writes them through the page cache. With `pace` the disk begins while
    /// the rest is still being written.
    pub(super) fn write(&self, to: &Staged, pace: bool, meter: &mut Meter<'_>) -> Result<()> {
        let mut writer = Buffered { to, buffer: Vec::new(), at: 0, pace, unpaced: 0 };
        let mut clone = true;
        for mut piece in self.all() {
            while !piece.place.is_empty() {
                let left = piece.place.len;
                let mut len = left.min(STEP);
                let is_written = match (piece.from, piece.in_memory(len)) {
                    _ if left < GATHER_BELOW => false,
                    (_, Some(bytes)) => {
                        writer.write(bytes)?;
                        true
                    }
                    (Bytes::File { source, shard, offset }, _) if clone => {
                        writer.flush()?;
                        match self.copy_range(source, shard, offset, to, piece.place.first(len))? {
                            Some(done) => {
                                len = done;
                                writer.skip(done);
                                true
                            }
                            None => {
                                clone = false;
                                false
                            }
                        }
                    }
                    _ => false,
                };
                if !is_written {
                    len = left.min(GATHERED as u64);
                    self.copy(&piece, writer.room(to_usize(len))?)?;
                }
                meter.advance(self.data_bytes(piece.place.first(len)))?;
                piece = piece.after(len);
            }
        }
        writer.flush()
    }

    /// Copies inside the kernel, as much as it does at once.
    fn copy_range(&self, source: u16, shard: usize, offset: u64, to: &Staged, place: Extent) -> Result<Option<u64>> {
        let source = self.sources.get(usize::from(source));
        let Some(from) = source.and_then(|source| source.file_of(shard).transpose()).transpose()? else {
            return Ok(None);
        };
        let Extent { start, len } = place;
        let copied = system::copy_range(&from, offset, &*to.file()?, start, len);
        copied.map_err(|error| to.failed(&format!("copying {len} bytes to {start}"), &error))
    }

    /// Writes them past the page cache, from several threads; where the file system
    /// declines halfway, through the cache.
    pub(super) fn write_direct(&self, to: &Staged, meter: &mut Meter<'_>) -> Result<()> {
        // Whole blocks past the cache, the rest through it.
        let whole = self.size().saturating_sub(self.size().checked_rem(source::BLOCK as u64).unwrap_or(0));
        let step = DIRECT_STEP as u64;
        let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let meter = Mutex::new(meter);
        let work = || -> Result<()> {
            let mut buffer = Aligned::zeroed(DIRECT_STEP, "a staging buffer")?;
            loop {
                let now = Extent::between(next.fetch_add(step, Ordering::Relaxed), whole).first(step);
                if now.is_empty() || failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let bytes = buffer.as_mut().get_mut(..to_usize(now.len)).unwrap_or_default();
                self.fill(now.start, bytes)?;
                write_direct_or_not(to, bytes, now.start)?;
                lock(&meter).advance(self.data_bytes(now))?;
            }
        };
        let first_error = Mutex::new(None);
        let worker = || {
            if let Err(error) = work() {
                failed.store(true, Ordering::Relaxed);
                lock(&first_error).get_or_insert(error);
            }
        };
        parallel::on_threads(to_usize(whole.div_ceil(step)).min(DIRECT_THREADS), &worker);
        system::direct(&*to.file()?, false);
        match unlocked(first_error) {
            Some(error) => Err(error),
            None => self.write_tail(to, whole, *lock(&meter)),
        }
    }

    fn write_tail(&self, to: &Staged, start: u64, meter: &mut Meter<'_>) -> Result<()> {
        let rest = Extent::between(start, self.size());
        let mut tail = memory::zeroed(to_usize(rest.len), "a file's tail")?;
        self.fill(start, &mut tail)?;
        write_direct_or_not(to, &tail, start)?;
        meter.advance(self.data_bytes(rest))
    }
}

fn write_direct_or_not(to: &Staged, bytes: &[u8], at: u64) -> Result<()> {
    match to.file()?.write_all_at(bytes, at) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            // Opening it so was accepted, writing is not (or these are the last
            // bytes, which fill no block): through the cache from now on, also
            // for threads that find out at the same time.
            system::direct(&*to.file()?, false);
            to.write_at(bytes, at)
        }
        Err(error) => Err(to.failed(&format!("writing {} bytes at {at}", bytes.len()), &error)),
        Ok(()) => Ok(()),
    }
}

/// What is in memory or fits into it.
fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Writes from a file's start to its end; gathers what is small.
struct Buffered<'a> {
    to: &'a Staged,
    buffer: Vec<u8>,
    /// Where the buffer's first byte goes.
    at: u64,
    pace: bool,
    unpaced: u64,
}

impl Buffered<'_> {
    /// Room for `len` bytes that come next; at most `GATHERED`.
    fn room(&mut self, len: usize) -> Result<&mut [u8]> {
        if self.buffer.capacity() == 0 {
            self.buffer = memory::vec_with_capacity(GATHERED, "a staging buffer")?;
        }
        if self.buffer.len().saturating_add(len) > GATHERED {
            self.flush()?;
        }
        let start = self.buffer.len();
        self.buffer.resize(start.saturating_add(len), 0);
        Ok(self.buffer.get_mut(start..).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.to.write_at(bytes, self.at)?;
        self.skip(bytes.len() as u64);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.to.write_at(&self.buffer, self.at)?;
        self.skip(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    /// These many bytes are in the file.
    fn skip(&mut self, bytes: u64) {
        self.at = self.at.saturating_add(bytes);
        self.unpaced = self.unpaced.saturating_add(bytes);
        if self.pace && self.unpaced >= PACE {
            self.unpaced = 0;
            if let Ok(file) = self.to.file() {
                system::start_writeback(&file);
            }
        }
    }
}
