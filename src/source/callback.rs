// SPDX-License-Identifier: Apache-2.0
//! Bytes that somebody else fetches: HTTP, object stores, asset packs.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::sync::{Condvar, Mutex, PoisonError};

use super::ended;
use crate::base::lock::lock;
use crate::error::{Error, ErrorKind, Result};

/// Positioned reads from anywhere. Called from several threads at once.
pub trait ReadAt: Send + Sync {
    /// Bytes in all.
    fn size(&self) -> u64;

    /// Reads from `offset` into `buffer` and says how many bytes it read; fewer
    /// than asked is fine, 0 before the end is an error.
    ///
    /// # Errors
    /// Whatever kept it from reading; it reaches the caller as it is.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// The request size that suits it best in bytes; 0: no preference.
    fn preferred_read(&self) -> usize {
        0
    }

    /// How many reads may be under way at once; 0: any number.
    fn max_parallel(&self) -> usize {
        0
    }
}

/// What the first request asks for where nothing is preferred: the header of
/// most published shards fits into it.
const FIRST_READ: usize = 64 << 10;

pub(super) struct Callback {
    reader: Box<dyn ReadAt>,
    size: u64,
    free: Mutex<usize>,
    freed: Condvar,
}

impl Callback {
    pub(super) fn new(reader: Box<dyn ReadAt>) -> Self {
        let size = reader.size();
        let free = Mutex::new(reader.max_parallel());
        Self { reader, size, free, freed: Condvar::new() }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn first_read(&self) -> u64 {
        match self.reader.preferred_read() {
            0 => FIRST_READ as u64,
            preferred => preferred.max(8) as u64,
        }
    }

    /// The most that it is asked for at once: what it prefers, or what takes a
    /// quarter of a second on a network of 250 Mbit/s.
    pub(super) fn largest_read(&self) -> u64 {
        match self.reader.preferred_read() {
            0 => 8 << 20,
            preferred => preferred as u64,
        }
    }

    /// As many as it takes at once, within reason; each waits for a journey.
    pub(super) fn useful_threads(&self) -> usize {
        match self.reader.max_parallel() {
            0 => 8,
            most => most.min(64),
        }
    }

    /// Reads while `goes_on` says so, which is asked before each call.
    pub(super) fn read_exact_at(
        &self,
        mut offset: u64,
        mut buffer: &mut [u8],
        goes_on: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(ended(offset, buffer.len(), self.size));
        }
        while !buffer.is_empty() {
            // In nearly equal shares, so that no crumb is left for the last.
            let left = buffer.len() as u64;
            let share = left.div_ceil(left.div_ceil(self.largest_read()).max(1));
            let wanted = usize::try_from(share).unwrap_or(usize::MAX).min(buffer.len());
            let place = self.place()?;
            goes_on()?;
            let inside = Inside::new(self.address());
            let done = self.reader.read_at(offset, buffer.get_mut(..wanted).unwrap_or_default())?;
            drop((inside, place));
            if done == 0 || done > wanted {
                let text =
                    format!("read_at gave {done} of {wanted} bytes at {offset}, where the end is at {}", self.size);
                return Err(Error::new(ErrorKind::Io, text));
            }
            offset = offset.saturating_add(done as u64);
            buffer = buffer.get_mut(done..).unwrap_or_default();
        }
        Ok(())
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(&*self.reader).addr()
    }

    /// Whether this thread is within a read of it, and has been called back.
    pub(super) fn is_inside(&self) -> bool {
        let address = self.address();
        INSIDE.with(|inside| inside.borrow().contains(&address))
    }

    pub(super) fn is_limited(&self) -> bool {
        self.reader.max_parallel() != 0
    }

    /// Waits until one more read may be under way.
    fn place(&self) -> Result<Option<ReadSlot<'_>>> {
        let most = self.reader.max_parallel();
        if most == 0 {
            return Ok(None);
        }
        if self.is_inside() {
            let text = format!(
                "read_at called the library for bytes of its own source, of which max_parallel {most} reads may be \
                 under way"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let free = lock(&self.free);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_sub(1);
        Ok(Some(ReadSlot(self)))
    }
}

thread_local! {
    /// The readers that this thread is within a read of. One that calls back for
    /// more of itself would wait for its own end.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A read that this thread is within.
struct Inside;

impl Inside {
    fn new(address: usize) -> Self {
        INSIDE.with(|inside| inside.borrow_mut().push(address));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.borrow_mut().pop());
    }
}

/// One of the reads that may be under way.
struct ReadSlot<'a>(&'a Callback);

impl Drop for ReadSlot<'_> {
    fn drop(&mut self) {
        let mut free = lock(&self.0.free);
        *free = free.saturating_add(1);
        self.0.freed.notify_one();
    }
}
