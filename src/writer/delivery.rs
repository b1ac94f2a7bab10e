// SPDX-License-Identifier: Apache-2.0
//! A file's bytes handed to somebody who takes them front to back: a socket, an
//! upload, a pipe.
#![forbid(unsafe_code)]

use super::transfer::{Bytes, FilePieces, Meter, GATHERED, GATHER_BELOW, STEP};
use crate::base::memory;
use crate::error::Result;

/// Who takes them.
type Taker<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

impl FilePieces<'_> {
    /// All of the file. What is large and in memory is handed on from where it
    /// is; all else through a buffer.
    pub(super) fn deliver(&self, taker: Taker<'_>, meter: &mut Meter<'_>) -> Result<()> {
        let mut buffer = memory::vec_with_capacity(GATHERED, "a staging buffer")?;
        for piece in self.all() {
            let mut at = 0;
            while at < piece.len {
                let left = piece.len.saturating_sub(at);
                let start = piece.offset.saturating_add(at);
                let len = match piece.from {
                    Bytes::Memory(bytes) if left >= GATHER_BELOW => {
                        flush(&mut buffer, taker)?;
                        let rest = bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
                        let len = usize::try_from(left.min(STEP)).unwrap_or(usize::MAX);
                        let now = rest.get(..len).unwrap_or(rest);
                        taker(now)?;
                        now.len()
                    }
                    _ => {
                        if buffer.len() == GATHERED {
                            flush(&mut buffer, taker)?;
                        }
                        let old = buffer.len();
                        let room = GATHERED.saturating_sub(old);
                        let len = usize::try_from(left).unwrap_or(usize::MAX).min(room);
                        buffer.resize(old.saturating_add(len), 0);
                        self.copy(&piece, at, buffer.get_mut(old..).unwrap_or_default())?;
                        len
                    }
                } as u64;
                at = at.saturating_add(len);
                meter.advance(self.data_bytes(start, start.saturating_add(len)))?;
            }
        }
        flush(&mut buffer, taker)
    }
}

fn flush(buffer: &mut Vec<u8>, taker: Taker<'_>) -> Result<()> {
    if !buffer.is_empty() {
        taker(buffer)?;
        buffer.clear();
    }
    Ok(())
}
