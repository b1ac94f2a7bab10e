// SPDX-License-Identifier: Apache-2.0
//! The three fields of a tensor's entry, in any order and spelling.
#![forbid(unsafe_code)]

use super::parser::{HeaderParser, FIELD_DEPTH};
use super::rule::RuleRank;
use crate::base::extent::TextExtent;
use crate::base::json::JsonFault;
use crate::dtype::Dtype;
use crate::error::{quoted, ErrorKind};

/// Stands for data_offsets that are not two integers; like all that end before
/// they begin, it is reported once, and not measured.
const UNREADABLE: (u64, u64) = (1, 0);

/// How many elements a shape has; `None` for one that breaks its rule.
pub(super) struct Elements(pub(super) Option<u64>);

/// The three fields of an entry as far as they have been seen.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) dtype: Option<(Dtype, *const u8)>,
    pub(super) shape: Option<Elements>,
    pub(super) offsets: Option<(u64, u64)>,
}

impl HeaderParser<'_, '_, '_> {
    /// One `"key":value` of an entry, from its opening quote on.
    #[inline]
    pub(super) fn field(&mut self, name: TextExtent, fields: &mut Fields) -> Result<(), JsonFault> {
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
    fn spelled_field(&mut self, name: TextExtent, fields: &mut Fields) -> Result<(), JsonFault> {
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
    fn twice(&mut self, name: TextExtent, field: &str) {
        self.pend_tensor(RuleRank::Duplicate, ErrorKind::DuplicateKey, name, |_| {
            format!("the field {field} appears twice")
        });
    }

    #[inline]
    fn dtype(&mut self, name: TextExtent, fields: &mut Fields) -> Result<(), JsonFault> {
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
    fn shape(&mut self, name: TextExtent, fields: &mut Fields) -> Result<(), JsonFault> {
        if fields.shape.is_some() {
            self.twice(name, "shape");
            self.found.shapes.abandon();
        }
        self.cursor.skip_space();
        let start = self.cursor.position();
        fields.shape = Some(Elements(Some(1)));
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
        fields.shape = Some(Elements(None));
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
                fields.shape = Some(Elements(product(self.found.shapes.current())));
                return Ok(true);
            }
            if !self.cursor.take(b',') {
                return Ok(false);
            }
        }
    }

    #[inline]
    fn offsets(&mut self, name: TextExtent, fields: &mut Fields) -> Result<(), JsonFault> {
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
    pub(super) fn backwards(&mut self, name: TextExtent, begin: u64, end: u64) {
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
}

/// Elements in a shape, multiplied from left to right; `None` beyond 64 bits.
#[inline]
fn product(shape: &[i64]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |elements, dimension| elements.checked_mul(dimension.unsigned_abs()))
}
