// SPDX-License-Identifier: Apache-2.0
//! The one pass over the header's text.
//!
//! The format's rules are checked in a fixed order, and the first one broken is
//! reported, wherever in the text it is. A fault of the JSON ends the pass; what
//! breaks a later rule waits in `pending` until the text is known to be JSON.

#![forbid(unsafe_code)]

use crate::base::memory::{self, Filler, ShapeArena};
use crate::base::sort;
use crate::dtype::Dtype;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::format::finding::Finding;
use crate::format::lookup::Hasher;
use crate::options::{Limits, Tolerate};
use crate::record::{Metadata, Tensor};

use super::canonical::{self, CanonicalEntry};
use super::rule::{Listener, RuleRank};
use crate::base::json::{Cursor, JsonFault, Span};

/// `"":{"dtype":0,"shape":0,"data_offsets":0},` is the least that makes a
/// record, be it one that is then refused.
const SHORTEST_ENTRY: usize = 41;
/// Levels open around a field of a tensor: the header and the entry.
const FIELD_DEPTH: u32 = 2;
/// Levels open around an entry of the header.
const ENTRY_DEPTH: u32 = 1;

/// Stands for data_offsets that are not two integers; like all that end before
/// they begin, it is reported once, and not measured.
const UNREADABLE: (u64, u64) = (1, 0);

/// What the parser has to know besides the text.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) shard: u32,
    pub(super) data_offset: u64,
    /// The file's bytes, where they can be addressed.
    pub(super) mapped: Option<&'a [u8]>,
    pub(super) limits: &'a Limits,
    pub(super) tolerate: Tolerate,
    pub(super) hasher: &'a Hasher,
}

/// What a text, or a half of one, says. Rules that concern all records
/// together have not been checked yet.
pub(super) struct Parsed {
    /// Of the tensors' names, in their order.
    pub(super) hashes: Vec<u32>,
    pub(super) shapes: ShapeArena,
    pub(super) metadata: Option<Vec<Metadata>>,
    pub(super) seen_metadata: bool,
    /// Where the first tensor begins and the last one ends, and whether each
    /// of the others begins where the one before it ends.
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) in_order: bool,
    pub(super) pending: Option<(RuleRank, Error)>,
}

/// How many tensors a text can describe at most.
pub(super) fn most_tensors(text: &[u8]) -> usize {
    (text.len() / SHORTEST_ENTRY).saturating_add(1)
}

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

struct HeaderParser<'a, 'b, 'c> {
    cursor: Cursor<'a>,
    /// Names are addressed from here. It stays right when the text's owner moves.
    origin: *const u8,
    context: Context<'a>,
    tensors: &'a mut Filler<'b, Tensor>,
    /// The text is a first half; whether its end has been met as one.
    continued: bool,
    ended_in_comma: bool,
    listener: Option<&'c mut (dyn Listener + 'c)>,
    found: Parsed,
}

/// The three fields of an entry as far as they have been seen.
#[derive(Default)]
struct Fields {
    dtype: Option<(Dtype, *const u8)>,
    /// Elements, or `None` inside for a shape that breaks its rule.
    shape: Option<Option<u64>>,
    offsets: Option<(u64, u64)>,
}

impl<'a, 'b> HeaderParser<'a, 'b, '_> {
    fn new(text: &'a mut [u8], tensors: &'a mut Filler<'b, Tensor>, context: Context<'a>) -> Result<Self> {
        let found = Parsed {
            hashes: memory::vec_with_capacity(most_tensors(text), "hashes")?,
            shapes: ShapeArena::default(),
            metadata: None,
            seen_metadata: false,
            begin: 0,
            end: 0,
            in_order: true,
            pending: None,
        };
        let origin = text.as_mut_ptr().cast_const();
        let cursor = Cursor::new(text);
        Ok(Self { cursor, origin, context, tensors, continued: false, ended_in_comma: false, listener: None, found })
    }

    /// Keeps the error, whose place is `at`, unless one that ranks no later is
    /// kept already.
    #[cold]
    fn pend(&mut self, rank: RuleRank, kind: ErrorKind, at: usize, text: impl FnOnce(&Self) -> String) {
        if self.wants(rank) {
            let text = text(self);
            self.keep(rank, kind, at, None, text);
        }
    }

    #[cold]
    fn pend_tensor(&mut self, rank: RuleRank, kind: ErrorKind, name: Span, text: impl FnOnce(&Self) -> String) {
        if self.wants(rank) {
            let text = text(self);
            self.keep(rank, kind, name.start.saturating_sub(1), Some(name), text);
        }
    }

    fn wants(&mut self, rank: RuleRank) -> bool {
        match &mut self.listener {
            Some(listener) => listener.wants(rank),
            None => self.found.pending.as_ref().is_none_or(|(kept, _)| rank < *kept),
        }
    }

    #[inline(never)]
    fn keep(&mut self, rank: RuleRank, kind: ErrorKind, at: usize, name: Option<Span>, text: String) {
        let name = name.map(|name| self.cursor.get(name));
        let error = match name {
            Some(name) => Error::tensor(kind, name, text),
            None => Error::new(kind, text),
        };
        match &mut self.listener {
            Some(listener) => listener.tell(Finding {
                tolerable: rank == RuleRank::UnknownDtype,
                ..Finding::new(error, super::in_file(at), name)
            }),
            None => self.found.pending = Some((rank, error)),
        }
    }

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

    /// The value of `__metadata__`.
    fn metadata(&mut self) -> Result<(), JsonFault> {
        let start = self.cursor.position();
        if self.found.seen_metadata {
            self.pend(RuleRank::Duplicate, ErrorKind::DuplicateKey, start, |_| "__metadata__ appears twice".into());
        }
        self.found.seen_metadata = true;
        if self.cursor.take_literal(b"null") {
            return Ok(());
        }
        if !self.cursor.take(b'{') {
            self.cursor.skip_value(ENTRY_DEPTH)?;
            self.pend(RuleRank::Metadata, ErrorKind::Metadata, start, |this| {
                format!("__metadata__ is {}, not a map of strings", this.cursor.excerpt(start))
            });
            return Ok(());
        }
        let mut entries = Vec::new();
        self.cursor.skip_space();
        if !self.cursor.take(b'}') {
            loop {
                self.cursor.skip_space();
                self.cursor.expect(b'"', "a metadata key in quotes")?;
                let key = self.cursor.string()?;
                self.cursor.skip_space();
                self.cursor.expect(b':', "a colon after the key")?;
                self.cursor.skip_space();
                let value = if self.cursor.take(b'"') {
                    self.cursor.string()?
                } else {
                    let start = self.cursor.position();
                    self.cursor.skip_value(FIELD_DEPTH)?;
                    self.pend(RuleRank::Metadata, ErrorKind::Metadata, start, |this| {
                        let (key, found) = (quoted(this.cursor.get(key)), this.cursor.excerpt(start));
                        format!("__metadata__ key {key} has the value {found}, which is not a string")
                    });
                    Span { start: key.start, len: 0 }
                };
                if entries.len() == entries.capacity() {
                    memory::grow(&mut entries, "metadata")?;
                }
                entries.push(Metadata {
                    key: self.pointer(key).cast(),
                    key_len: key.len,
                    value: self.pointer(value).cast(),
                    value_len: value.len,
                    reserved: [0; 2],
                });
                self.cursor.skip_space();
                if self.cursor.take(b'}') {
                    break;
                }
                self.cursor.expect(b',', "a comma or } after the metadata entry")?;
            }
        }
        self.equal_keys(&entries)?;
        self.found.metadata = Some(entries);
        Ok(())
    }

    /// Looks for keys that several entries share.
    fn equal_keys(&mut self, entries: &[Metadata]) -> Result<()> {
        for (key, _) in sort::repeated(&sort::sorted(entries.iter().map(Metadata::key), "metadata keys")?) {
            let at = key.as_ptr().addr().saturating_sub(self.origin.addr()).saturating_sub(1);
            self.pend(RuleRank::Duplicate, ErrorKind::DuplicateKey, at, |_| {
                format!("__metadata__ key {} appears twice", quoted(key))
            });
        }
        Ok(())
    }

    fn pointer(&self, span: Span) -> *const u8 {
        self.origin.wrapping_add(span.start)
    }

    /// The entry of one tensor.
    #[inline]
    fn tensor(&mut self, name: Span) -> Result<(), JsonFault> {
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
        let Fields { dtype: Some((dtype, dtype_name)), shape: Some(elements), offsets: Some((begin, end)) } = fields
        else {
            self.found.shapes.abandon();
            self.pend_tensor(RuleRank::Entry, ErrorKind::HeaderJson, name, |_| {
                "its entry lacks one of the fields dtype, shape and data_offsets".into()
            });
            return Ok(());
        };
        self.record(name, dtype, dtype_name, elements, begin, end)
    }

    /// One `"key":value` of an entry, from its opening quote on.
    #[inline]
    fn field(&mut self, name: Span, fields: &mut Fields) -> Result<(), JsonFault> {
        // As every writer spells them; anything else takes the way below.
        if self.cursor.take_literal(b"\"dtype\":") {
            self.dtype(name, fields)
        } else if self.cursor.take_literal(b"\"shape\":") {
            self.shape(name, fields)
        } else if self.cursor.take_literal(b"\"data_offsets\":") {
            self.offsets(name, fields)
        } else {
            self.spelled_field(name, fields)
        }
    }

    #[cold]
    fn spelled_field(&mut self, name: Span, fields: &mut Fields) -> Result<(), JsonFault> {
        self.cursor.expect(b'"', "a field name in quotes")?;
        let key = self.cursor.string()?;
        self.cursor.skip_space();
        self.cursor.expect(b':', "a colon after the field name")?;
        match self.cursor.get(key) {
            b"dtype" => self.dtype(name, fields),
            b"shape" => self.shape(name, fields),
            b"data_offsets" => self.offsets(name, fields),
            _ => self.cursor.skip_value(FIELD_DEPTH),
        }
    }

    #[cold]
    fn twice(&mut self, name: Span, field: &str) {
        self.pend_tensor(RuleRank::Duplicate, ErrorKind::DuplicateKey, name, |_| {
            format!("the field {field} appears twice")
        });
    }

    #[inline]
    fn dtype(&mut self, name: Span, fields: &mut Fields) -> Result<(), JsonFault> {
        if fields.dtype.is_some() {
            self.twice(name, "dtype");
        }
        self.cursor.skip_space();
        let start = self.cursor.position();
        let mut found = (Dtype::Unknown, self.origin);
        if self.cursor.take(b'"') {
            let span = self.cursor.string()?;
            if let Some(dtype) = Dtype::from_name(self.cursor.get(span)) {
                found = (dtype, dtype.c_name().as_ptr().cast());
            } else if self.context.tolerate.unknown_dtype && !self.cursor.get(span).contains(&0) {
                found.1 = self.pointer(span);
            } else {
                let nul = self.cursor.get(span).contains(&0);
                let rank = if nul { RuleRank::Dtype } else { RuleRank::UnknownDtype };
                self.pend_tensor(rank, ErrorKind::Dtype, name, |this| {
                    format!("dtype {} is not one of the format's", quoted(this.cursor.get(span)))
                });
            }
        } else {
            self.cursor.skip_value(FIELD_DEPTH)?;
            self.pend_tensor(RuleRank::Dtype, ErrorKind::Dtype, name, |this| {
                format!("dtype is {}, not a string", this.cursor.excerpt(start))
            });
        }
        fields.dtype = Some(found);
        Ok(())
    }

    #[inline]
    fn shape(&mut self, name: Span, fields: &mut Fields) -> Result<(), JsonFault> {
        if fields.shape.is_some() {
            self.twice(name, "shape");
            self.found.shapes.abandon();
        }
        self.cursor.skip_space();
        let start = self.cursor.position();
        fields.shape = Some(Some(1));
        if self.plain_shape(fields)? {
            return Ok(());
        }
        self.found.shapes.abandon();
        self.cursor.rewind(start);
        self.cursor.skip_value(FIELD_DEPTH)?;
        self.pend_tensor(RuleRank::Shape, ErrorKind::Shape, name, |this| {
            let found = this.cursor.excerpt(start);
            format!("shape is {found}, not an array of integers from 0 to 2^63 - 1")
        });
        fields.shape = Some(None);
        Ok(())
    }

    /// Whether a shape as the format wants it was next.
    #[inline]
    fn plain_shape(&mut self, fields: &mut Fields) -> Result<bool, JsonFault> {
        if !self.cursor.take(b'[') {
            return Ok(false);
        }
        self.cursor.skip_space();
        if self.cursor.take(b']') {
            return Ok(true);
        }
        loop {
            self.cursor.skip_space();
            let Some(Ok(dimension)) = self.cursor.digits().map(i64::try_from) else {
                return Ok(false);
            };
            self.found.shapes.push(dimension)?;
            self.cursor.skip_space();
            if self.cursor.take(b']') {
                fields.shape = Some(product(self.found.shapes.current()));
                return Ok(true);
            }
            if !self.cursor.take(b',') {
                return Ok(false);
            }
        }
    }

    #[inline]
    fn offsets(&mut self, name: Span, fields: &mut Fields) -> Result<(), JsonFault> {
        if fields.offsets.is_some() {
            self.twice(name, "data_offsets");
        }
        self.cursor.skip_space();
        let start = self.cursor.position();
        if let Some((begin, end)) = self.plain_offsets() {
            if end < begin {
                self.backwards(name, begin, end);
            }
            fields.offsets = Some((begin, end));
            return Ok(());
        }
        self.cursor.rewind(start);
        self.cursor.skip_value(FIELD_DEPTH)?;
        self.pend_tensor(RuleRank::Offsets, ErrorKind::Offsets, name, |this| {
            format!("data_offsets are {}, not two integers", this.cursor.excerpt(start))
        });
        fields.offsets = Some(UNREADABLE);
        Ok(())
    }

    #[cold]
    fn backwards(&mut self, name: Span, begin: u64, end: u64) {
        self.pend_tensor(RuleRank::Offsets, ErrorKind::Offsets, name, |_| {
            format!("data_offsets [{begin}, {end}] end before they begin")
        });
    }

    #[inline]
    fn plain_offsets(&mut self) -> Option<(u64, u64)> {
        let mut integer = |before: u8| {
            let found = self.cursor.take(before);
            self.cursor.skip_space();
            let value = self.cursor.digits().filter(|_| found)?;
            self.cursor.skip_space();
            Some(value)
        };
        let begin = integer(b'[')?;
        let end = integer(b',')?;
        self.cursor.take(b']').then_some((begin, end))
    }

    /// Adds the record of a tensor whose three fields have been read.
    #[inline]
    fn record(
        &mut self,
        name: Span,
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
    fn beyond_limits(&mut self, name: Span, rank: usize) {
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
    fn misfit(&mut self, name: Span, dtype: Dtype, elements: Option<u64>, bits: Option<u64>, begin: u64, end: u64) {
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
                RuleRank::SubByte => format!("{what} takes {bits} bits, which are no whole bytes"),
                _ => {
                    let (holds, needs) = (end.wrapping_sub(begin), bits / 8);
                    format!("data_offsets [{begin}, {end}] hold {holds} bytes, but {what} needs {needs}")
                }
            }
        });
    }
}

/// Elements in a shape, multiplied from left to right; `None` beyond 64 bits.
#[inline]
fn product(shape: &[i64]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |elements, dimension| elements.checked_mul(dimension.unsigned_abs()))
}

/// A shape for a message, which has no room for a million dimensions.
fn shown(shape: &[i64]) -> String {
    match shape.get(..8) {
        Some(first) if shape.len() > 8 => format!("{first:?}... of rank {}", shape.len()),
        _ => format!("{shape:?}"),
    }
}
