// SPDX-License-Identifier: Apache-2.0
//! The one pass over the header's text.
//!
//! The format's rules are checked in a fixed order, and the first one broken is
//! reported, wherever in the text it is. A fault of the JSON ends the pass; what
//! breaks a later rule waits in `pending` until the text is known to be JSON.
#![forbid(unsafe_code)]

use super::canonical::{self, CanonicalEntry};
use super::fields::{Elements, Fields};
use super::parser::{Context, HeaderParser, Parsed, ENTRY_DEPTH};
use super::rule::{Listener, RuleRank};
use crate::base::extent::TextExtent;
use crate::base::json::JsonFault;
use crate::base::memory::Filler;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Limits;
use crate::record::Tensor;

/// The pass over a whole header. A fault of the JSON comes with its place.
pub(super) fn whole(
    text: &mut [u8],
    tensors: &mut Filler<'_, Tensor>,
    context: Context<'_>,
    listener: Option<&mut dyn Listener>,
) -> Result<Parsed, (Error, usize)> {
    let mut parser = HeaderParser::new(text, tensors, context).map_err(|error| (error, 0))?;
    parser.listener = listener;
    match parser.open().and_then(|()| parser.entries()) {
        Ok(()) => Ok(parser.found),
        Err(fault) => Err(parser.cursor.error(fault, "header")),
    }
}

/// The pass over the first entries of a header, up to a comma where the text
/// ends. `None`: it doesn't end there, or breaks a rule.
pub(super) fn first_half(text: &mut [u8], tensors: &mut Filler<'_, Tensor>, context: Context<'_>) -> Option<Parsed> {
    let mut parser = HeaderParser::new(text, tensors, context).ok()?;
    parser.continued = true;
    parser.open().and_then(|()| parser.entries()).ok()?;
    (parser.ended_in_comma && parser.found.pending.is_none()).then_some(parser.found)
}

/// The pass over the other entries of a header, after that comma.
pub(super) fn second_half(text: &mut [u8], tensors: &mut Filler<'_, Tensor>, context: Context<'_>) -> Option<Parsed> {
    let mut parser = HeaderParser::new(text, tensors, context).ok()?;
    parser.entries().ok()?;
    parser.found.pending.is_none().then_some(parser.found)
}

impl HeaderParser<'_, '_, '_> {
    /// The start of the header, up to its first entry.
    fn open(&mut self) -> Result<(), JsonFault> {
        self.cursor.skip_space();
        if self.cursor.take(b'{') {
            return Ok(());
        }
        let text = if self.cursor.at_end() {
            format!("header of {} bytes holds no JSON object", self.cursor.position())
        } else {
            format!("header begins with byte {:#04x} instead of {{", self.cursor.peek())
        };
        Err(Error::new(ErrorKind::HeaderStart, text).into())
    }

    /// All entries up to the end of the text.
    fn entries(&mut self) -> Result<(), JsonFault> {
        self.cursor.skip_space();
        if !self.cursor.take(b'}') {
            loop {
                self.cursor.skip_space();
                self.cursor.expect(b'"', "a name in quotes")?;
                let name = self.cursor.string()?;
                self.cursor.skip_space();
                self.cursor.expect(b':', "a colon after the name")?;
                self.cursor.skip_space();
                if self.cursor.get(name) == b"__metadata__" {
                    self.metadata()?;
                } else {
                    self.tensor(name)?;
                }
                self.cursor.skip_space();
                if self.cursor.take(b',') {
                    if self.continued && self.cursor.at_end() {
                        self.ended_in_comma = true;
                        return Ok(());
                    }
                } else {
                    self.cursor.expect(b'}', "a comma or } after the entry")?;
                    break;
                }
            }
        }
        self.cursor.skip_space();
        if self.cursor.at_end() {
            Ok(())
        } else {
            Err(self.cursor.fault("nothing but white space after the object"))
        }
    }

    /// The entry of one tensor.
    #[inline]
    fn tensor(&mut self, name: TextExtent) -> Result<(), JsonFault> {
        let window = self.cursor.rest().first_chunk();
        if let Some(entry) = window.and_then(|window| canonical::entry(window, &mut self.found.shapes)) {
            let CanonicalEntry { dtype, elements, begin, end, len } = entry;
            self.cursor.advance(len);
            if end < begin {
                self.backwards(name, begin, end);
            }
            return self.record(name, dtype, dtype.c_name().as_ptr().cast(), elements, begin, end);
        }
        self.found.shapes.abandon();
        let start = self.cursor.position();
        let mut fields = Fields::default();
        if !self.cursor.take(b'{') {
            self.cursor.skip_value(ENTRY_DEPTH)?;
            self.pend_tensor(RuleRank::Entry, ErrorKind::HeaderJson, name, |this| {
                format!("its entry is {}, not an object", this.cursor.excerpt(start))
            });
            return Ok(());
        }
        self.cursor.skip_space();
        if !self.cursor.take(b'}') {
            loop {
                self.field(name, &mut fields)?;
                self.cursor.skip_space();
                if self.cursor.take(b'}') {
                    break;
                }
                self.cursor.expect(b',', "a comma or } after the field")?;
                self.cursor.skip_space();
            }
        }
        let Fields { dtype: Some((dtype, dtype_name)), shape: Some(Elements(elements)), offsets: Some((begin, end)) } =
            fields
        else {
            self.found.shapes.abandon();
            self.pend_tensor(RuleRank::Entry, ErrorKind::HeaderJson, name, |_| {
                "its entry lacks one of the fields dtype, shape and data_offsets".into()
            });
            return Ok(());
        };
        self.record(name, dtype, dtype_name, elements, begin, end)
    }

    /// Adds the record of a tensor whose three fields have been read.
    #[inline]
    fn record(
        &mut self,
        name: TextExtent,
        dtype: Dtype,
        dtype_name: *const u8,
        elements: Option<u64>,
        begin: u64,
        end: u64,
    ) -> Result<(), JsonFault> {
        let bits = elements.and_then(|n| n.checked_mul(u64::from(dtype.bits())));
        let size = end.wrapping_sub(begin);
        if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != size) && dtype != Dtype::Unknown || elements.is_none() {
            self.misfit(name, dtype, elements, bits, begin, end);
        }
        let (shape, rank) = self.found.shapes.finish();
        let limits = self.context.limits;
        if self.tensors.len() as u64 >= limits.tensors
            || name.len as u64 > limits.name_bytes
            || rank as u64 > limits.rank
        {
            self.beyond_limits(name, rank);
        }
        let hash = self.context.hasher.hash(self.cursor.get(name));
        let offset = self.context.data_offset.wrapping_add(begin);
        // Where the offset is absurd, so is this pointer; the record is not handed out then.
        let data = match (self.context.mapped, usize::try_from(offset)) {
            (Some(mapped), Ok(offset)) => mapped.as_ptr().wrapping_add(offset),
            _ => std::ptr::null(),
        };
        let name = (self.pointer(name).cast(), name.len);
        let found = &mut self.found;
        if self.tensors.len() == 0 {
            found.begin = begin;
        } else {
            found.in_order &= begin == found.end;
        }
        found.end = end;
        found.hashes.push(hash);
        let record = Tensor {
            name: name.0,
            name_len: name.1,
            dtype: dtype as i32,
            shard: self.context.shard,
            rank,
            shape,
            element_count: elements.unwrap_or(0),
            offset,
            size,
            data: data.cast(),
            dtype_name: dtype_name.cast(),
            source: 0,
            reserved: [0; 1],
        };
        let pushed = self.tensors.push(record);
        pushed.ok_or_else(|| Error::new(ErrorKind::Internal, "more tensors than were counted").into())
    }

    #[cold]
    fn beyond_limits(&mut self, name: TextExtent, rank: usize) {
        let Limits { tensors, name_bytes, rank: most_rank, .. } = *self.context.limits;
        let count = self.tensors.len().saturating_add(1);
        for (kind, what, found, limit) in [
            (ErrorKind::HeaderTooLarge, "tensors in the header", count, tensors),
            (ErrorKind::HeaderTooLarge, "bytes in the name", name.len, name_bytes),
            (ErrorKind::Shape, "dimensions", rank, most_rank),
        ] {
            if found as u64 > limit {
                self.pend_tensor(RuleRank::Limit, kind, name, |_| {
                    format!("{found} {what} exceed the limit of {limit}")
                });
            }
        }
    }

    /// Dtype and shape don't make the size that data_offsets say: which rule is it?
    #[cold]
    fn misfit(
        &mut self,
        name: TextExtent,
        dtype: Dtype,
        elements: Option<u64>,
        bits: Option<u64>,
        begin: u64,
        end: u64,
    ) {
        let (rank, kind) = match (elements, bits) {
            (None, _) | (_, None) => (RuleRank::Shape, ErrorKind::Shape),
            (_, Some(bits)) if bits % 8 != 0 => (RuleRank::SubByte, ErrorKind::SubByte),
            _ => (RuleRank::Size, ErrorKind::SizeMismatch),
        };
        // What can't be read (a shape then has no dimensions) has been reported.
        let unreadable = elements.is_none() && self.found.shapes.current().is_empty();
        if unreadable || rank == RuleRank::Size && end < begin {
            return;
        }
        self.pend_tensor(rank, kind, name, |this| {
            let what = format!("{} {}", dtype.name(), shown(this.found.shapes.current()));
            let bits = bits.unwrap_or(0);
            match rank {
                RuleRank::Shape => format!("{what} does not fit into 64 bits"),
                RuleRank::SubByte => format!("{what} takes {bits} bits, which are not whole bytes"),
                _ => {
                    let (holds, needs) = (end.wrapping_sub(begin), bits / 8);
                    format!("data_offsets [{begin}, {end}] hold {holds} bytes, but {what} needs {needs}")
                }
            }
        });
    }
}

/// A shape for a message, which has no room for a million dimensions.
fn shown(shape: &[i64]) -> String {
    match shape.get(..8) {
        Some(first) if shape.len() > 8 => format!("{first:?}... of rank {}", shape.len()),
        _ => format!("{shape:?}"),
    }
}
