// SPDX-License-Identifier: Apache-2.0
//! Texts of what is wrong with a group, out of names, shapes and numbers. In one place, as
//! each `format!` of them is a hundred bytes of code and more.
#![forbid(unsafe_code)]

use crate::error::quoted;
use crate::record::Tensor;

/// A piece of a text.
#[derive(Clone, Copy)]
pub(super) enum Word<'a> {
    Text(&'a str),
    /// A tensor's name.
    Name(&'a Tensor),
    /// A tensor's name and shape, as "'m.scales' is [2, 3]".
    Is(&'a Tensor),
    /// Text from a file.
    Given(&'a [u8]),
    Number(u64),
    /// The sizes of a shape.
    All(&'a [u64]),
}

#[cold]
#[inline(never)]
pub(super) fn say(words: &[Word<'_>]) -> String {
    let mut text = String::new();
    for word in words {
        match word {
            Word::Text(word) => text.push_str(word),
            Word::Name(tensor) => text.push_str(&quoted(tensor.name())),
            Word::Is(tensor) => text.push_str(&format!("{} is {:?}", quoted(tensor.name()), tensor.shape())),
            Word::Given(bytes) => text.push_str(&quoted(bytes)),
            Word::Number(number) => text.push_str(&number.to_string()),
            Word::All(sizes) => text.push_str(&format!("{sizes:?}")),
        }
    }
    text
}
