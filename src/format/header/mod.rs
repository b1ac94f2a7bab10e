// SPDX-License-Identifier: Apache-2.0
//! Length and JSON → records: everything a file says about itself, checked.
#![forbid(unsafe_code)]

mod audit;
mod canonical;
mod check;
mod fields;
mod halves;
mod metadata;
mod parser;
mod pass;
mod rule;

use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::budget::HeaderBudget;
use crate::format::foreign;
use crate::format::lookup::{Hasher, Lookup};
use crate::format::shapes::ShapeArena;
use crate::options::{Limits, Tolerate};
use crate::record::{Metadata, Tensor};
use crate::source::Source;
use check::First;
use parser::{Context, Parsed};
use rule::Listener;

/// The length field.
pub(crate) const LENGTH_BYTES: usize = 8;
const LENGTH: u64 = LENGTH_BYTES as u64;

/// A validated header, and the memory its records point into.
pub(crate) struct Header {
    /// Sorted by offset.
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) names: Lookup,
    pub(crate) metadata: Option<Vec<Metadata>>,
    /// First byte of the data section in the file.
    pub(crate) data_offset: u64,
    /// Bytes of the data section that tensors cover.
    pub(crate) data_size: u64,
    pub(crate) arena: Arena,
}

/// What the pointers in records lead to; kept for as long as they are. Moving
/// the arena moves no text and no shape.
pub(crate) struct Arena {
    text: Vec<u8>,
    #[allow(dead_code, reason = "held for the records' pointers")]
    shapes: ShapeArena,
}

impl Arena {
    /// Where in its file the entry of one of its tensors begins.
    pub(crate) fn place(&self, tensor: &Tensor) -> usize {
        in_file(tensor.name.addr().saturating_sub(self.text.as_ptr().addr()).saturating_sub(1))
    }
}

impl Header {
    /// Reads and checks the header of shard number `shard`.
    pub(crate) fn read(
        source: &Source,
        shard: u32,
        limits: &Limits,
        tolerate: Tolerate,
        budget: &HeaderBudget,
    ) -> Result<Self> {
        let read = Self::read_strange(source, shard, limits, tolerate, budget);
        read.map_err(|error| match foreign::may_explain(error.kind()) {
            true => explained(error, &start_of(source), source.size()),
            false => error,
        })
    }

    /// The same for a file that may be something else altogether.
    fn read_strange(
        source: &Source,
        shard: u32,
        limits: &Limits,
        tolerate: Tolerate,
        budget: &HeaderBudget,
    ) -> Result<Self> {
        let (mut text, data_offset) = read_text(source, limits, budget)?;
        let hasher = Hasher::default();
        let context = Context { shard, data_offset, mapped: source.mapped(), limits, tolerate, hasher: &hasher };
        let mut tensors = memory::vec_with_capacity(parser::most_tensors(&text), "tensors")?;
        let mut found = None;
        if let Some(middle) = halves::middle(&text) {
            found = halves::parse(&mut text, middle, &mut tensors, context);
            if found.is_none() {
                source.read_exact_at(LENGTH, &mut text)?;
            }
        }
        let mut found = match found {
            Some(found) => found,
            None => whole(&mut text, &mut tensors, context, None).map_err(|(error, _)| error)?,
        };
        let mut judge = First(found.pending.take());
        check::check(text, tensors, found, &context, source.size(), &mut judge)
    }
}

/// Parses the text in one go. A fault of the JSON comes with its place.
fn whole(
    text: &mut [u8],
    tensors: &mut Vec<Tensor>,
    context: Context<'_>,
    listener: Option<&mut dyn Listener>,
) -> Result<Parsed, (Error, usize)> {
    memory::fill(tensors, 0, |_, tensors| Some(pass::whole(text, tensors, context, listener)))
        .unwrap_or_else(|| Err((Error::new(ErrorKind::Internal, "records are not where they should be"), 0)))
}

/// A place in the header's text, in the file.
fn in_file(at: usize) -> usize {
    at.saturating_add(8)
}

/// A file's first bytes.
fn start_of(source: &Source) -> Vec<u8> {
    let len = usize::try_from(source.size()).unwrap_or(usize::MAX).min(foreign::ENOUGH);
    let mut start = memory::zeroed(len, "a file's start").unwrap_or_default();
    match source.read_exact_at(0, &mut start) {
        Ok(()) => start,
        Err(_) => Vec::new(),
    }
}

/// The error for a file that is something else, as its start tells, says so. What
/// stands for a length there is then none of a header that is too large.
fn explained(error: Error, start: &[u8], size: u64) -> Error {
    if !foreign::may_explain(error.kind()) || foreign::what(start, foreign::ReadAs::File).is_none() {
        return error;
    }
    let length = start.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let beyond = error.kind() == ErrorKind::HeaderTooLarge && length.saturating_add(LENGTH) > size;
    let error = if beyond { beyond_the_file(length, size) } else { error };
    foreign::named(error, start, foreign::ReadAs::File)
}

fn beyond_the_file(length: u64, size: u64) -> Error {
    let end = length.saturating_add(LENGTH);
    let text = format!("header of {length} bytes needs a file of {end}, but it holds {size}");
    Error::new(ErrorKind::HeaderLength, text)
}

/// The header's JSON and where it ends. No size is believed before it is
/// compared with the file's.
fn read_text(source: &Source, limits: &Limits, budget: &HeaderBudget) -> Result<(Vec<u8>, u64)> {
    let size = source.size();
    if size < LENGTH {
        let text = format!("file holds {size} bytes, but the header's length alone takes 8");
        return Err(Error::new(ErrorKind::Truncated, text));
    }
    // Where a request is expensive (HTTP), the first one brings the header along.
    let first = size.min(source.first_read());
    let mut head = memory::zeroed(to_usize(first, "header")?, "header")?;
    source.read_exact_at(0, &mut head)?;
    let length = head.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if length > limits.header_bytes {
        let mut text = format!("header of {length} bytes exceeds the limit of {}", limits.header_bytes);
        if length > size {
            text += &format!(", and the file of {size}: is it a safetensors file?");
        }
        return Err(Error::new(ErrorKind::HeaderTooLarge, text));
    }
    let end = length.saturating_add(LENGTH);
    if end > size {
        return Err(beyond_the_file(length, size));
    }
    budget.take(end)?;
    let mut text = memory::zeroed(to_usize(length, "header")?, "header")?;
    let brought = head.get(8..).unwrap_or_default();
    let brought = brought.get(..text.len()).unwrap_or(brought);
    let (have, missing) = text.split_at_mut(brought.len());
    have.copy_from_slice(brought);
    if !missing.is_empty() {
        source.read_exact_at(LENGTH.saturating_add(brought.len() as u64), missing)?;
    }
    Ok((text, end))
}

fn to_usize(bytes: u64, what: &str) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| Error::out_of_memory(what, usize::MAX))
}
