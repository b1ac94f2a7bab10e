// SPDX-License-Identifier: Apache-2.0
//! Pieces of a dimension in their shortest form, and how logical ones become
//! those of a stored dimension.
#![forbid(unsafe_code)]

use super::budget::Budget;
use super::rule::How;
use crate::base::memory;
use crate::error::Result;
use crate::part::Interval;

/// Pieces that are joined as they come.
#[derive(Debug, Default)]
pub(super) struct IntervalList(pub(super) Vec<Interval>);

impl IntervalList {
    /// Adds stored elements and the zeros after them.
    pub(super) fn push(&mut self, start: i64, stop: i64, zeros: i64, budget: &mut Budget) -> Result<()> {
        budget.spend(1)?;
        let elements = start < stop;
        match self.0.last_mut() {
            _ if !elements && zeros == 0 => {}
            Some(last) if !elements => last.zeros = last.zeros.saturating_add(zeros),
            Some(last) if last.zeros == 0 && last.stop == start => {
                last.stop = stop;
                last.zeros = zeros;
            }
            _ => {
                memory::reserve(&mut self.0, 1, "pieces of a dimension")?;
                let (start, stop) = if elements { (start, stop) } else { (0, 0) };
                self.0.push(Interval { start, stop, zeros, skip: 0 });
            }
        }
        Ok(())
    }
}

/// What a stored index stands for: by that many logical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scale {
    pub(super) how: How,
    pub(super) by: i64,
}

impl Scale {
    pub(super) const ONE: Self = Self { how: How::Pack, by: 1 };

    /// The stored piece of a logical one, or the index at which that would cut a packed element.
    pub(super) fn stored(self, piece: Interval) -> Result<Interval, i64> {
        let down = |value: i64| value.checked_div(self.by).unwrap_or(0);
        let rest = |value: i64| value.checked_rem(self.by).unwrap_or(0);
        let up = |value: i64| down(value).saturating_add(i64::from(rest(value) != 0));
        let Interval { start, stop, zeros, .. } = piece;
        match self.how {
            How::Pack => match [start, stop, zeros].into_iter().find(|value| rest(*value) != 0) {
                Some(cut) => Err(cut),
                None => Ok(Interval { start: down(start), stop: down(stop), zeros: down(zeros), skip: 0 }),
            },
            How::Block if start == stop => Ok(Interval { start: 0, stop: 0, zeros: up(zeros), skip: 0 }),
            How::Block => {
                let zeros = up(stop.saturating_add(zeros)).saturating_sub(up(stop));
                Ok(Interval { start: down(start), stop: up(stop), zeros, skip: rest(start) })
            }
        }
    }
}

/// Whether pieces are just all of a dimension, in order.
pub(super) fn is_all(pieces: &[Interval], size: i64) -> bool {
    let mut at = 0;
    for piece in pieces {
        if piece.start != at || piece.zeros != 0 || piece.skip != 0 {
            return false;
        }
        at = piece.stop;
    }
    at == size
}
