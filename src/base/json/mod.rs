// SPDX-License-Identifier: Apache-2.0
//! JSON in place: a cursor over a header's or an index's text that unescapes strings where
//! they stand and NUL-terminates them, so the text itself is the arena of all
//! names and nothing is allocated for them.
//!
//! It accepts exactly what serde_json accepts; the tests hold it against that.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "positions stay within the text, whose length is at most isize::MAX"
)]

pub(crate) mod digits;
mod string;
mod value;

use crate::base::extent::TextExtent;
use crate::error::{as_it_stands, Error, ErrorKind};

/// Why the text is not acceptable JSON, and at which byte.
#[derive(Debug)]
pub(crate) enum JsonFault {
    Syntax { at: usize, expected: &'static str },
    Other(Error),
}

impl From<Error> for JsonFault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A text and how far it has been read. A string in it is the extent that it has after unescaping.
pub(crate) struct Cursor<'a> {
    text: &'a mut [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a mut [u8]) -> Self {
        Self { text, pos: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.pos
    }

    /// Back to an earlier position, over bytes that held no string.
    pub(crate) fn rewind(&mut self, position: usize) {
        self.pos = position;
    }

    pub(crate) fn get(&self, string: TextExtent) -> &[u8] {
        string.of(self.text)
    }

    /// The raw text from `start` to here.
    pub(crate) fn extent_from(&self, start: usize) -> TextExtent {
        TextExtent { start, len: self.pos - start }
    }

    /// The raw text from `start` to here, as it stands, for a message.
    pub(crate) fn excerpt(&self, start: usize) -> String {
        as_it_stands(self.get(self.extent_from(start)))
    }

    /// All of the text.
    pub(crate) fn text(&self) -> &[u8] {
        self.text
    }

    /// The next byte; NUL, which no JSON contains, at the end.
    #[inline]
    pub(crate) fn peek(&self) -> u8 {
        self.text.get(self.pos).copied().unwrap_or(0)
    }

    pub(crate) fn at_end(&self) -> bool {
        self.pos >= self.text.len()
    }

    #[inline]
    pub(crate) fn skip_space(&mut self) {
        // All of white space, and nothing else in JSON, is this low.
        if self.peek() <= b' ' {
            self.skip_spaces();
        }
    }

    #[cold]
    fn skip_spaces(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.pos += 1;
        }
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.pos += usize::from(found);
        found
    }

    /// Takes `literal` if it is next.
    #[inline]
    pub(crate) fn take_literal(&mut self, literal: &[u8]) -> bool {
        let found = self.rest().starts_with(literal);
        self.pos += if found { literal.len() } else { 0 };
        found
    }

    #[inline]
    pub(crate) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonFault> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.fault(expected))
        }
    }

    #[cold]
    pub(crate) fn fault(&self, expected: &'static str) -> JsonFault {
        JsonFault::Syntax { at: self.pos, expected }
    }

    /// Plain digits within u64, as lengths and offsets are written. `None`
    /// leaves the cursor anywhere: rewind.
    #[inline]
    pub(crate) fn digits(&mut self) -> Option<u64> {
        let (value, len) = digits::digits(self.rest())?;
        self.pos += len;
        (!matches!(self.peek(), b'.' | b'e' | b'E')).then_some(value)
    }

    /// The text from here on.
    #[inline]
    pub(crate) fn rest(&self) -> &[u8] {
        self.text.get(self.pos..).unwrap_or_default()
    }

    /// Passes over bytes that have been read through [`rest`](Self::rest).
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) {
        self.pos += len;
    }

    /// The error for a fault in `what`, and its place: bytes that are no UTF-8 outrank all
    /// other faults, wherever they are.
    #[cold]
    pub(crate) fn error(&self, fault: JsonFault, what: &str) -> (Error, usize) {
        let (at, expected) = match fault {
            JsonFault::Syntax { at, expected } => (at, expected),
            JsonFault::Other(error) => return (error, self.pos),
        };
        if let Err(utf8) = std::str::from_utf8(self.text) {
            return (not_utf8(what, utf8.valid_up_to()), utf8.valid_up_to());
        }
        let text = format!("{what} byte {at} of {}: expected {expected}", self.text.len());
        (Error::new(ErrorKind::HeaderJson, text), at)
    }
}

/// The error for a byte of `what` that begins no character.
pub(crate) fn not_utf8(what: &str, at: usize) -> Error {
    Error::new(ErrorKind::HeaderUtf8, format!("{what} byte {at} is not UTF-8"))
}

#[cfg(test)]
mod tests;
