// SPDX-License-Identifier: Apache-2.0
//! Strings: found, checked and unescaped where they stand.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "positions stay within the text, whose length is at most isize::MAX"
)]

use super::{Cursor, JsonFault};
use crate::base::extent::TextExtent;

impl Cursor<'_> {
    /// A string whose opening quote has been taken: unescaped in place, its
    /// closing quote (or an earlier byte) replaced by NUL.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<TextExtent, JsonFault> {
        let start = self.pos;
        let mut ascii = true;
        loop {
            self.pos += plain_len(self.rest());
            match self.text.get_mut(self.pos) {
                Some(byte @ b'"') => {
                    *byte = 0;
                    break;
                }
                Some(b'\\') => return self.unescape(start),
                Some(0x80..) => {
                    ascii = false;
                    self.pos += 1;
                }
                _ => return Err(self.fault("a closing quote; control characters must be escaped")),
            }
        }
        let string = TextExtent { start, len: self.pos - start };
        if !ascii {
            self.require_utf8(start)?;
        }
        self.pos += 1;
        Ok(string)
    }

    /// The slow half of [`string`](Self::string), from the first backslash on.
    /// All of it is checked before any of it moves, so that a fault is where it
    /// was in the file.
    #[cold]
    fn unescape(&mut self, start: usize) -> Result<TextExtent, JsonFault> {
        let mut write = self.pos;
        self.pass_string(start)?;
        let end = self.pos;
        self.pos = write;
        loop {
            let mut utf8 = [0; 4];
            let piece: &[u8] = match self.peek() {
                b'"' => break,
                b'\\' => {
                    self.pos += 1;
                    self.escape()?.encode_utf8(&mut utf8).as_bytes()
                }
                byte => {
                    self.pos += 1;
                    utf8[0] = byte;
                    &utf8[..1]
                }
            };
            // An escape is never shorter than what it stands for.
            if let Some(place) = self.text.get_mut(write..write + piece.len()) {
                place.copy_from_slice(piece);
            }
            write += piece.len();
        }
        // NUL up to where the text goes on: the name is terminated, and a text that
        // is UTF-8 stays so.
        if let Some(gap) = self.text.get_mut(write..end) {
            gap.fill(0);
        }
        self.pos = end;
        Ok(TextExtent { start, len: write - start })
    }

    /// What stands after a backslash.
    fn escape(&mut self) -> Result<char, JsonFault> {
        let byte = self.peek();
        self.pos += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                let code = match high {
                    0xD800..=0xDBFF if self.take_literal(b"\\u") => match self.hex4()? {
                        low @ 0xDC00..=0xDFFF => 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                        _ => return Err(self.fault("the second half of a surrogate pair")),
                    },
                    _ => high,
                };
                char::from_u32(code).ok_or_else(|| self.fault("no lone surrogate"))?
            }
            _ => return Err(self.fault("a known escape")),
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonFault> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = char::from(self.peek()).to_digit(16);
            value = value * 16 + digit.ok_or_else(|| self.fault("four hexadecimal digits"))?;
            self.pos += 1;
        }
        Ok(value)
    }

    /// A string that begins at `start`, from here on: checked, and left as it is.
    pub(super) fn pass_string(&mut self, start: usize) -> Result<(), JsonFault> {
        loop {
            self.pos += plain_len(self.rest());
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    self.pos += 1;
                    self.escape()?;
                }
                0x80.. => self.pos += 1,
                _ => return Err(self.fault("a closing quote; control characters must be escaped")),
            }
        }
        self.require_utf8(start)?;
        self.pos += 1;
        Ok(())
    }

    fn require_utf8(&self, start: usize) -> Result<(), JsonFault> {
        std::str::from_utf8(self.get(self.extent_from(start))).map(|_| ()).map_err(|_| self.fault("UTF-8"))
    }
}

/// How many bytes from the start are plain string content: printable ASCII but
/// for quote and backslash. Eight at a time.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let mut len = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        // Each term sets the high bit of the lowest byte that is what it looks
        // for; false hits are only ever above a true one.
        let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
        let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
        let control = word.wrapping_sub(ONES * 0x20);
        let special = (quote | backslash | control | word) & HIGHS;
        if special != 0 {
            let in_word = special.trailing_zeros() / 8;
            return len + in_word as usize;
        }
        len += 8;
    }
    let plain = |byte: &u8| matches!(byte, 0x20..=0x7F) && !matches!(byte, b'"' | b'\\');
    len + bytes.get(len..).unwrap_or_default().iter().take_while(|byte| plain(byte)).count()
}
