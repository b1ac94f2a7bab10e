// SPDX-License-Identifier: Apache-2.0
//! The rules that concern all records together: names differ, tensors fill the
//! data section.
#![forbid(unsafe_code)]

use super::parse::{Context, Found, Rank};
use super::{Arena, Header};
use crate::error::{Error, ErrorKind, Result};
use crate::lookup::Lookup;
use crate::record::Tensor;

/// Makes a header of what its text says.
pub(super) fn check(
    text: Vec<u8>,
    mut tensors: Vec<Tensor>,
    found: Found,
    context: &Context<'_>,
    file_size: u64,
) -> Result<Header> {
    let Found { mut hashes, shapes, metadata, pending, begin, end, in_order, .. } = found;
    tensors.shrink_to_fit();
    let in_order = in_order && begin == 0;
    if !in_order {
        // Empty tensors may share an offset; they stay in the header's order,
        // which is that of their names' addresses.
        tensors.sort_unstable_by_key(|tensor| (relative(tensor.offset, context), tensor.size, tensor.name.addr()));
        for (hash, tensor) in hashes.iter_mut().zip(&tensors) {
            *hash = context.hasher.hash(tensor.name());
        }
    }
    let names = Lookup::build(context.hasher.clone(), &tensors, &hashes, |_, second| {
        Error::tensor(ErrorKind::DuplicateKey, second.name(), "the name stands twice in the header")
    })?;
    let tiled = if in_order { Ok(end) } else { check_tiling(&tensors, context) };
    let end = match pending {
        Some((rank, error)) if rank <= Rank::Offsets || tiled.is_ok() => return Err(error),
        _ => tiled?,
    };
    check_end(end, file_size.saturating_sub(context.data_offset), context)?;
    let arena = Arena { text, shapes };
    Ok(Header { tensors, names, metadata, data_offset: context.data_offset, data_size: end, arena })
}

/// Offsets are absolute in records and relative in the header. An absurd one
/// wraps on the way there and back.
fn relative(offset: u64, context: &Context<'_>) -> u64 {
    offset.wrapping_sub(context.data_offset)
}

/// Each tensor begins where the one before ends; returns the last end.
fn check_tiling(tensors: &[Tensor], context: &Context<'_>) -> Result<u64> {
    let mut end: u64 = 0;
    for tensor in tensors {
        let begin = relative(tensor.offset, context);
        // No overflow: the header gave begin and this sum as two u64.
        let next = begin.wrapping_add(tensor.size);
        if begin != end {
            let (what, gap) = (if begin > end { "a hole" } else { "an overlap" }, begin.abs_diff(end));
            let text =
                format!("data_offsets [{begin}, {next}] leave {what} of {gap} bytes: the tensors before end at {end}");
            return Err(Error::tensor(ErrorKind::Offsets, tensor.name(), text));
        }
        end = next;
    }
    Ok(end)
}

/// The data ends where the file does.
fn check_end(end: u64, data: u64, context: &Context<'_>) -> Result<()> {
    let text = format!("tensors take {end} bytes, but behind the header the file holds {data}");
    if end > data {
        return Err(Error::new(ErrorKind::Truncated, text));
    }
    if end < data && !context.tolerate.trailing_bytes {
        let rest = data.wrapping_sub(end);
        return Err(Error::new(ErrorKind::DataNotCovered, format!("{text}: {rest} belong to no tensor")));
    }
    Ok(())
}
