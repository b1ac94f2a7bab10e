// SPDX-License-Identifier: Apache-2.0
//! Values that nobody asks for: checked as serde_json checks them, and passed over.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "positions stay within the text, whose length is at most isize::MAX"
)]

use super::{digits, Cursor, JsonFault};

/// serde_json refuses the 128th level.
const MAX_DEPTH: u32 = 127;

impl Cursor<'_> {
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
        if digits::exceeds_f64(self.get(self.extent_from(start))) {
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
}
