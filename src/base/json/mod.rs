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

use crate::error::{as_it_stands, Error, ErrorKind};

/// serde_json refuses the 128th level.
const MAX_DEPTH: u32 = 127;

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

/// A string's place in the text, after unescaping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

pub(crate) struct Cursor<'a> {
    text: &'a mut [u8],
    pos: usize,
}

impl Span {
    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start..self.start + self.len).unwrap_or_default()
    }
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

    pub(crate) fn get(&self, span: Span) -> &[u8] {
        span.of(self.text)
    }

    /// The raw text from `start` to here.
    pub(crate) fn span_from(&self, start: usize) -> Span {
        Span { start, len: self.pos - start }
    }

    /// The raw text from `start` to here, as it stands, for a message.
    pub(crate) fn excerpt(&self, start: usize) -> String {
        as_it_stands(self.get(self.span_from(start)))
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

    /// A string whose opening quote has been taken: unescaped in place, its
    /// closing quote (or an earlier byte) replaced by NUL.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Span, JsonFault> {
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
        let span = Span { start, len: self.pos - start };
        if !ascii {
            self.require_utf8(start)?;
        }
        self.pos += 1;
        Ok(span)
    }

    /// The slow half of [`string`](Self::string), from the first backslash on.
    /// All of it is checked before any of it moves, so that a fault is where it
    /// was in the file.
    #[cold]
    fn unescape(&mut self, start: usize) -> Result<Span, JsonFault> {
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
        Ok(Span { start, len: write - start })
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
    fn pass_string(&mut self, start: usize) -> Result<(), JsonFault> {
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
        std::str::from_utf8(self.get(self.span_from(start))).map(|_| ()).map_err(|_| self.fault("UTF-8"))
    }

    /// Any value, checked and passed over, `depth` levels deep already. No
    /// recursion: the open brackets are the bits of one number.
    pub(crate) fn skip_value(&mut self, depth: u32) -> Result<(), JsonFault> {
        let mut objects: u128 = 0;
        let mut open = depth;
        loop {
            // At the start of a value.
            self.skip_space();
            match self.peek() {
                bracket @ (b'{' | b'[') => {
                    if open == MAX_DEPTH {
                        return Err(self.fault("no more than 127 nested levels"));
                    }
                    self.pos += 1;
                    self.skip_space();
                    let (is_object, close) = if bracket == b'{' { (1, b'}') } else { (0, b']') };
                    if !self.take(close) {
                        open += 1;
                        objects = objects << 1 | is_object;
                        if is_object == 1 {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => {
                    self.pos += 1;
                    self.pass_string(self.pos)?;
                }
                b't' if self.take_literal(b"true") => {}
                b'f' if self.take_literal(b"false") => {}
                b'n' if self.take_literal(b"null") => {}
                _ => self.number()?,
            }
            // At the end of a value.
            loop {
                if open == depth {
                    return Ok(());
                }
                self.skip_space();
                let in_object = objects & 1 == 1;
                if self.take(b',') {
                    if in_object {
                        self.skip_space();
                        self.key()?;
                    }
                    break;
                }
                let close = if in_object { b'}' } else { b']' };
                self.expect(close, "a comma or a closing bracket")?;
                open -= 1;
                objects >>= 1;
            }
        }
    }

    fn key(&mut self) -> Result<(), JsonFault> {
        self.expect(b'"', "a key in quotes")?;
        self.pass_string(self.pos)?;
        self.skip_space();
        self.expect(b':', "a colon")
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        let start = self.pos;
        self.take(b'-');
        let plain = self.digit_run()?;
        if plain > 1 && self.text.get(self.pos - plain) == Some(&b'0') {
            return Err(self.fault("a number without leading zeros"));
        }
        if self.take(b'.') {
            self.digit_run()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digit_run()?;
        }
        if digits::exceeds_f64(self.get(self.span_from(start))) {
            return Err(self.fault("a number within range"));
        }
        Ok(())
    }

    fn digit_run(&mut self) -> Result<usize, JsonFault> {
        let start = self.pos;
        while self.peek().is_ascii_digit() {
            self.pos += 1;
        }
        if self.pos == start {
            return Err(self.fault("a value"));
        }
        Ok(self.pos - start)
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

/// How many bytes from the start are plain string content: printable ASCII but
/// for quote and backslash. Eight at a time.
#[inline]
fn plain_len(bytes: &[u8]) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Our verdict on `text` as one value.
    fn accepts(text: &[u8], depth: u32) -> bool {
        let mut copy = text.to_vec();
        let mut cursor = Cursor::new(&mut copy);
        let found = cursor.skip_value(depth);
        cursor.skip_space();
        found.is_ok() && cursor.at_end()
    }

    fn serde_accepts(text: &[u8]) -> bool {
        serde_json::from_slice::<serde_json::Value>(text).is_ok()
    }

    #[test]
    fn plain_len_stops_at_each_special_byte() {
        for at in 0..40 {
            for byte in 0..=255_u8 {
                let mut text = [b'a'; 40];
                text[at] = byte;
                let special = !(0x20..0x80).contains(&byte) || byte == b'"' || byte == b'\\';
                assert_eq!(plain_len(&text), if special { at } else { 40 }, "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn depth_limit_is_serde_jsons() {
        for depth in [1, 2, 126, 127, 128, 129] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(accepts(text.as_bytes(), 0), serde_accepts(text.as_bytes()), "{depth}");
        }
    }

    #[test]
    fn numbers_are_judged_as_serde_json_judges_them() {
        for text in [
            "0",
            "-0",
            "01",
            "-",
            "1.",
            ".5",
            "1.5",
            "1e5",
            "1E+5",
            "1e-5",
            "1e",
            "1e400",
            "-1e400",
            "1e-400",
            "18446744073709551616",
            "1.7976931348623157e308",
            "1.7976931348623159e309",
            "00",
            "1 2",
            "+1",
            "0x1",
            "NaN",
            "Infinity",
            "--1",
            "1e+",
            "123456789012345678901234567890",
        ] {
            assert_eq!(accepts(text.as_bytes(), 0), serde_accepts(text.as_bytes()), "{text}");
        }
        let long = "9".repeat(400);
        assert_eq!(accepts(long.as_bytes(), 0), serde_accepts(long.as_bytes()));
    }

    #[test]
    fn strings_come_out_as_serde_json_reads_them() {
        for text in [
            r#""a\u0041\n\"\\\/\b\f\r\tz""#,
            r#""\ud83d\ude00x""#,
            "\"\\u0000é\\u00e9\u{1F600}\"",
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\u0041""#,
            r#""\x""#,
            r#""\u12g4""#,
            "\"a\nb\"",
            r#"""#,
            "\"\u{7f}\"",
            r#""\u""#,
            r#""\ud83d\u""#,
        ] {
            let mut copy = text.as_bytes().to_vec();
            let mut cursor = Cursor::new(&mut copy);
            assert!(cursor.take(b'"'));
            let ours = cursor.string().ok().map(|span| {
                assert_eq!(cursor.text.get(span.start + span.len), Some(&0), "terminated");
                String::from_utf8(cursor.get(span).to_vec()).unwrap()
            });
            assert_eq!(ours, serde_json::from_str::<String>(text).ok(), "{text}");
            assert!(std::str::from_utf8(&copy).is_ok(), "the text stays UTF-8");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn any_text_gets_serde_jsons_verdict(text in r#"[\[\]{},:"\\ \nu0-9dD8cC.eE+\-atrufalsn/é]{0,24}"#) {
            prop_assert_eq!(accepts(text.as_bytes(), 0), serde_accepts(text.as_bytes()), "{}", text);
        }

        #[test]
        fn any_mutation_gets_serde_jsons_verdict(at in 0_usize..90, byte: u8) {
            let mut text = br#" {"a\u00e9": [1, -2.5e3, true, null, {"b": "c\ud83d\ude00", "": []}], "d": {}, "e" : false} "#.to_vec();
            let at = at.min(text.len() - 1);
            text[at] = byte;
            prop_assert_eq!(accepts(&text, 0), serde_accepts(&text), "{:?}", String::from_utf8_lossy(&text));
        }
    }
}
