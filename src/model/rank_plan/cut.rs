// SPDX-License-Identifier: Apache-2.0
//! Cutting one dimension: its segments, and what of them a rank takes.
#![forbid(unsafe_code)]

use super::budget::Budget;
use super::evaluator::Evaluator;
use super::expression::{Expression, LARGEST};
use super::fault::Fault;
use super::intervals::IntervalList;
use super::rule::{Cut, Dealt, Segments, UnitOf};
use super::split::{Misfit, Rank, Split};
use crate::base::memory;
use crate::error::{Error, Result};
use crate::part::Interval;

/// Sizes that a message shows of segments.
const SHOWN: usize = 12;

/// A cut of a dimension of one size, which has passed every check: it is the
/// same for all ranks.
pub(super) struct SizedCut<'p> {
    segments: Vec<SizedSegment<'p>>,
    /// How often the segments come one after the other.
    times: u64,
    /// The dimension with all its padding.
    pub(super) padded: u64,
}

/// Such a cut with the pieces of one rank.
pub(super) struct SharedCut<'p> {
    pub(super) sized: SizedCut<'p>,
    pub(super) pieces: Vec<Interval>,
}

struct SizedSegment<'p> {
    size: u64,
    /// Elements of a unit; of the last, some may be padding.
    unit: u64,
    units: u64,
    /// `None`: all of it on every rank.
    split: Option<&'p Split>,
}

/// What a cut is made for; `place` says it in messages.
pub(super) struct CutContext<'a> {
    pub(super) size: u64,
    pub(super) ranks: u64,
    pub(super) place: &'a dyn Fn() -> String,
}

impl<'p> SizedCut<'p> {
    pub(super) fn new(cut: &'p Cut, context: &CutContext<'_>, values: &mut Evaluator<'p>) -> Result<Self> {
        let size = context.size;
        let wrong = |text: String| context.wrong(Fault::Segments, &text);
        let mut segments = Vec::new();
        let times = match &cut.segments {
            Segments::Equal(number, dealt) => {
                let repeat = at_least_one(cut.repeat.as_ref(), "repeat", context, values)?;
                let pieces = u128::from(*number).saturating_mul(u128::from(repeat));
                if u128::from(size).checked_rem(pieces) != Some(0) {
                    return Err(wrong(format!(
                        "{number} equal segments, repeated {repeat} times, don't divide the size {size}"
                    )));
                }
                let each = u128::from(size).checked_div(pieces).and_then(|each| u64::try_from(each).ok()).unwrap_or(0);
                segments.push(SizedSegment::new(each, Some(dealt), context, values)?);
                u64::try_from(pieces).unwrap_or(u64::MAX)
            }
            Segments::Listed(list) => {
                let sizes = list.iter().map(|segment| values.get(&segment.size, "size", context.place));
                let sizes = sizes.collect::<Result<Vec<_>>>()?;
                let repeat = at_least_one(cut.repeat.as_ref(), "repeat", context, values)?;
                let sum = sizes.iter().fold(0_u128, |sum, size| sum.saturating_add(u128::from(*size)));
                if sum.saturating_mul(u128::from(repeat)) != u128::from(size) {
                    let shown: Vec<_> = sizes.iter().take(SHOWN).map(u64::to_string).collect();
                    let more = if sizes.len() > SHOWN { " + …" } else { "" };
                    let shown = shown.join(" + ");
                    return Err(wrong(format!(
                        "segments of {shown}{more} = {sum}, repeated {repeat} times, don't add up to the size {size}"
                    )));
                }
                for (segment, size) in list.iter().zip(sizes) {
                    segments.push(SizedSegment::new(size, segment.dealt.as_ref(), context, values)?);
                }
                repeat
            }
        };
        let padded = segments.iter().fold(0_u128, |sum, segment| sum.saturating_add(segment.padded()));
        // Any number of nothings is nothing.
        let times = if padded == 0 { 1 } else { times };
        let padded = u64::try_from(padded.saturating_mul(u128::from(times))).ok().filter(|padded| *padded <= LARGEST);
        let too_large = || context.wrong(Fault::Expression, &format!("pad makes {size} more than {LARGEST}"));
        let padded = padded.ok_or_else(too_large)?;
        Ok(Self { segments, times, padded })
    }

    /// The pieces that a rank takes.
    pub(super) fn pieces(&self, rank: Rank, budget: &mut Budget) -> Result<Vec<Interval>> {
        let mut pieces = IntervalList::default();
        let mut offset = 0_u64;
        for _ in 0..self.times {
            for segment in &self.segments {
                segment.take(offset, rank, &mut pieces, budget)?;
                offset = offset.saturating_add(segment.size);
            }
        }
        Ok(pieces.0)
    }

    /// Whether whatever a rank takes begins and ends at a multiple of this, by
    /// what its segments and units are alone.
    pub(super) fn is_aligned(&self, to: u64) -> bool {
        let whole = |value: u64| value.checked_rem(to) == Some(0);
        self.segments.iter().all(|segment| whole(segment.size) && whole(segment.unit))
    }

    /// Ranks, in order, such that what is true of their pieces is true of every rank's.
    pub(super) fn distinct(&self, ranks: u64, budget: &mut Budget) -> Result<Vec<u64>> {
        let mut distinct = vec![0];
        for segment in &self.segments {
            let Some(split) = segment.split else { continue };
            split.distinct(segment.units, ranks, &mut |rank| {
                budget.spend(1)?;
                memory::reserve(&mut distinct, 1, "ranks")?;
                distinct.push(rank);
                Ok(())
            })?;
        }
        distinct.sort_unstable();
        distinct.dedup();
        Ok(distinct)
    }
}

impl CutContext<'_> {
    #[cold]
    fn wrong(&self, fault: Fault, text: &str) -> Error {
        fault.error(&format!("{}: {text}", (self.place)()))
    }
}

impl<'p> SizedSegment<'p> {
    fn new(size: u64, dealt: Option<&'p Dealt>, context: &CutContext<'_>, values: &mut Evaluator<'p>) -> Result<Self> {
        let Some(Dealt { unit, pad, split }) = dealt else {
            return Ok(Self { size, unit: size.max(1), units: u64::from(size > 0), split: None });
        };
        let pad = at_least_one(pad.as_ref(), "pad", context, values)?;
        let padded = u128::from(size).div_ceil(u128::from(pad.max(1))).saturating_mul(u128::from(pad));
        let too_large = || context.wrong(Fault::Expression, &format!("pad {pad} makes {size} more than {LARGEST}"));
        let padded = u64::try_from(padded).ok().filter(|padded| *padded <= LARGEST).ok_or_else(too_large)?;
        let wrong = |text: String| context.wrong(Fault::Unit, &text);
        let unit = match unit {
            UnitOf::Elements(None) => 1,
            UnitOf::Elements(Some(unit)) => values.get(unit, "unit", context.place)?,
            UnitOf::Heads(heads) => {
                let heads = values.get(heads, "heads", context.place)?;
                if size.checked_rem(heads) != Some(0) {
                    return Err(wrong(format!("the size {size} is not a whole number of {heads} heads")));
                }
                size.checked_div(heads).unwrap_or(1).max(1)
            }
        };
        let units = match padded.checked_rem(unit) {
            None => return Err(wrong(format!("the unit is 0 (size {size}, padded to {padded})"))),
            Some(0) => padded.checked_div(unit).unwrap_or(0),
            Some(_) => {
                let text = format!("the size {size}, padded to {padded}, is not a whole number of units of {unit}");
                return Err(wrong(text));
            }
        };
        if let Err(Misfit(fault, text)) = split.check(units, context.ranks) {
            return Err(context.wrong(fault, &format!("{text} (size {size}, padded to {padded}, unit {unit})")));
        }
        Ok(Self { size, unit, units, split: Some(split) })
    }

    fn padded(&self) -> u128 {
        u128::from(self.unit).saturating_mul(u128::from(self.units))
    }

    /// Adds what a rank takes of the segment that begins at `offset`.
    fn take(&self, offset: u64, rank: Rank, pieces: &mut IntervalList, budget: &mut Budget) -> Result<()> {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let Some(split) = self.split else {
            return pieces.push(signed(offset), signed(offset.saturating_add(self.size)), 0, budget);
        };
        split.units(rank, self.units, &mut |units| {
            let (start, end) = (units.start.saturating_mul(self.unit), units.end.saturating_mul(self.unit));
            let (first, last) = (start.min(self.size), end.min(self.size));
            let zeros = end.saturating_sub(last).min(end.saturating_sub(start));
            pieces.push(
                signed(offset.saturating_add(first)),
                signed(offset.saturating_add(last)),
                signed(zeros),
                budget,
            )
        })
    }
}

fn at_least_one<'p>(
    expression: Option<&'p Expression>,
    what: &str,
    context: &CutContext<'_>,
    values: &mut Evaluator<'p>,
) -> Result<u64> {
    let Some(expression) = expression else { return Ok(1) };
    match values.get(expression, what, context.place)? {
        0 => Err(context.wrong(Fault::Expression, &format!("{what} {expression} is 0, below 1"))),
        value => Ok(value),
    }
}
