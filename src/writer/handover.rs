// SPDX-License-Identifier: Apache-2.0
//! A file's bytes handed to somebody who takes them front to back: a socket, an
//! upload, a pipe.
#![forbid(unsafe_code)]

use super::transfer::{FilePieces, Meter, GATHERED, GATHER_BELOW, STEP};
use crate::base::memory;
use crate::error::Result;

/// Who takes them.
type Taker<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

impl FilePieces<'_> {
    /// All of the file. What is large and in memory is handed on from where it
    /// is; all else through a buffer.
    pub(super) fn deliver(&self, taker: Taker<'_>, meter: &mut Meter<'_>) -> Result<()> {
        let mut buffer = memory::vec_with_capacity(GATHERED, "a staging buffer")?;
        for mut piece in self.all() {
            while !piece.place.is_empty() {
                let left = piece.place.len;
                let len = match piece.in_memory(STEP) {
                    Some(bytes) if left >= GATHER_BELOW => {
                        flush(&mut buffer, taker)?;
                        taker(bytes)?;
                        bytes.len()
                    }
                    _ => {
                        if buffer.len() == GATHERED {
                            flush(&mut buffer, taker)?;
                        }
                        let old = buffer.len();
                        let len = usize::try_from(left).unwrap_or(usize::MAX).min(GATHERED.saturating_sub(old));
                        buffer.resize(old.saturating_add(len), 0);
                        self.copy(&piece, buffer.get_mut(old..).unwrap_or_default())?;
                        len
                    }
                } as u64;
                meter.advance(self.data_bytes(piece.place.first(len)))?;
                piece = piece.after(len);
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
