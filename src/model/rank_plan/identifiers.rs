// SPDX-License-Identifier: Apache-2.0
//! The names of axes and symbols in plans: their forms, and their numbers.
#![forbid(unsafe_code)]

use crate::base::numbering::Numbering;

/// What plans name, by numbers.
#[derive(Default)]
pub(super) struct Identifiers {
    pub(super) symbols: Numbering,
    pub(super) axes: Numbering,
}

impl Identifiers {
    pub(super) fn symbol(&mut self, text: &str) -> Result<usize, String> {
        self.symbols.number(text.as_bytes()).map_err(|error| error.to_string())
    }

    pub(super) fn axis(&mut self, text: &str) -> Result<usize, String> {
        self.axes.number(text.as_bytes()).map_err(|error| error.to_string())
    }
}

/// `[a-z][a-z0-9_]*`
pub(super) fn is_axis(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Letters, digits and underscores, joined by dots; no part begins with a digit.
pub(super) fn is_symbol(text: &str) -> bool {
    text.split('.').all(|part| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}
