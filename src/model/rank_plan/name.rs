// SPDX-License-Identifier: Apache-2.0
//! The forms of names in plans.
#![forbid(unsafe_code)]

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
