// SPDX-License-Identifier: Apache-2.0
//! Splits: how units are dealt to ranks.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::fault::Fault;
use crate::error::Result;

/// One rank of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rank {
    pub(super) rank: u64,
    pub(super) size: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Split {
    Even,
    Replicate,
    Ceil,
    Balanced,
    Robin,
    Counts(Counts),
    Lists(Lists),
}

/// Units one after the other, that many for each rank.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// Where each rank's units begin, and the end of the last.
    starts: Vec<u128>,
}

/// Units by name, for each rank.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    /// In the given order.
    lists: Vec<Vec<u64>>,
    /// In order, to look into.
    sorted: Vec<Vec<u64>>,
    largest: Option<u64>,
    /// The first list with a unit that it has twice, and that unit.
    twice: Option<(usize, u64)>,
    /// The smallest unit that is in no list.
    hole: u64,
}

impl Counts {
    pub(super) fn new(counts: &[u64]) -> Self {
        let ends = counts.iter().scan(0_u128, |end, count| {
            *end = end.saturating_add(u128::from(*count));
            Some(*end)
        });
        Self { starts: std::iter::once(0).chain(ends).collect() }
    }

    fn ranks(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    fn sum(&self) -> u128 {
        self.starts.last().copied().unwrap_or(0)
    }
}

impl Lists {
    pub(super) fn new(lists: Vec<Vec<u64>>) -> Self {
        let mut sorted = lists.clone();
        sorted.iter_mut().for_each(|list| list.sort_unstable());
        let repeated =
            |list: &Vec<u64>| list.windows(2).find_map(|pair| Some(*pair.first()?).filter(|u| pair.ends_with(&[*u])));
        let twice = sorted.iter().enumerate().find_map(|(number, list)| Some((number, repeated(list)?)));
        let mut all: Vec<u64> = lists.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        let hole =
            all.iter().zip(0..).find(|(unit, place)| **unit != *place).map_or(all.len() as u64, |(_, place)| place);
        Self { lists, sorted, largest: all.last().copied(), twice, hole }
    }
}

/// Why units can't be dealt to that many ranks.
pub(super) struct Misfit(pub(super) Fault, pub(super) String);

impl Split {
    /// Whether `units` can be dealt to `ranks` at all.
    pub(super) fn check(&self, units: u64, ranks: u64) -> std::result::Result<(), Misfit> {
        let divides = |a: u64, b: u64| b.checked_rem(a) == Some(0);
        let indivisible = |how: &str| {
            let text = format!(
                "{units} units can't be dealt {how} to {ranks} ranks: a unit would be cut, or ranks would differ"
            );
            Err(Misfit(Fault::Indivisible, text))
        };
        let split = |text: String| Err(Misfit(Fault::Split, text));
        match self {
            Self::Even if !divides(ranks, units) => indivisible("evenly"),
            Self::Replicate if !divides(ranks, units) && !divides(units, ranks) => indivisible("evenly or as copies"),
            Self::Counts(counts) if counts.ranks() as u64 != ranks => {
                split(format!("{} counts for {ranks} ranks and {units} units", counts.ranks()))
            }
            Self::Counts(counts) if counts.sum() != u128::from(units) => split(format!(
                "the counts are {} together, and there are {units} units (for {ranks} ranks)",
                counts.sum()
            )),
            Self::Lists(Lists { lists, largest, twice, hole, .. }) => match (largest, twice) {
                _ if lists.len() as u64 != ranks => {
                    split(format!("{} lists for {ranks} ranks and {units} units", lists.len()))
                }
                (Some(unit), _) if *unit >= units => {
                    split(format!("the lists name unit {unit}, and there are {units} units (for {ranks} ranks)"))
                }
                (_, Some((list, unit))) => {
                    split(format!("list {list} has unit {unit} twice ({units} units, {ranks} ranks)"))
                }
                _ if *hole < units => split(format!("unit {hole} of {units} units is in no list (of {ranks} ranks)")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Calls `take` with a rank's units, as ranges in its order, of a split that has passed [`Self::check`].
    pub(super) fn units(&self, rank: Rank, units: u64, take: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        match self.run(rank, units) {
            Some(run) => take(run),
            None => match self {
                Self::Lists(Lists { lists, .. }) => {
                    let list = usize::try_from(rank.rank).ok().and_then(|rank| lists.get(rank));
                    list.into_iter().flatten().try_for_each(|unit| take(*unit..unit.saturating_add(1)))
                }
                _ => {
                    let mut unit = rank.rank;
                    while unit < units {
                        take(unit..unit.saturating_add(1))?;
                        unit = unit.saturating_add(rank.size);
                    }
                    Ok(())
                }
            },
        }
    }

    /// Whether a rank has this unit.
    pub(super) fn has(&self, rank: Rank, units: u64, unit: u64) -> bool {
        match (self.run(rank, units), self) {
            (Some(run), _) => run.contains(&unit),
            (None, Self::Lists(Lists { sorted, .. })) => {
                let list = usize::try_from(rank.rank).ok().and_then(|rank| sorted.get(rank));
                list.is_some_and(|list| list.binary_search(&unit).is_ok())
            }
            (None, _) => unit.checked_rem(rank.size) == Some(rank.rank),
        }
    }

    /// A rank's units, where the split is one that deals runs of them.
    pub(super) fn run(&self, rank: Rank, units: u64) -> Option<Range<u64>> {
        let (r, n, all) = (u128::from(rank.rank), u128::from(rank.size), u128::from(units));
        let next = r.saturating_add(1);
        let share = |r: u128| r.saturating_mul(all).checked_div(n).unwrap_or(0);
        let (start, end) = match self {
            Self::Robin | Self::Lists(_) => return None,
            Self::Replicate if all.checked_rem(n) != Some(0) => (share(r), share(r).saturating_add(1)),
            Self::Even | Self::Replicate => (share(r), share(next)),
            Self::Ceil => {
                let each = all.div_ceil(n.max(1));
                (r.saturating_mul(each).min(all), next.saturating_mul(each).min(all))
            }
            Self::Balanced => {
                let (each, more) = (all.checked_div(n).unwrap_or(0), all.checked_rem(n).unwrap_or(0));
                let start = |r: u128| r.saturating_mul(each).saturating_add(r.min(more));
                (start(r), start(next))
            }
            Self::Counts(Counts { starts }) => {
                let at = usize::try_from(rank.rank).ok()?;
                (starts.get(at).copied().unwrap_or(all), starts.get(at.saturating_add(1)).copied().unwrap_or(all))
            }
        };
        Some(u64::try_from(start).unwrap_or(units)..u64::try_from(end).unwrap_or(units))
    }

    /// Calls `mark` with ranks such that every other rank has what one of them
    /// has, or nothing: what is true of these is true of all.
    pub(super) fn distinct(&self, units: u64, ranks: u64, mark: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        match self {
            Self::Replicate if units < ranks && units > 0 => {
                let each = ranks.checked_div(units).unwrap_or(1);
                (0..units).try_for_each(|unit| mark(unit.saturating_mul(each)))
            }
            // A rank that is past the units has none of them.
            Self::Even | Self::Replicate | Self::Ceil | Self::Balanced | Self::Robin => {
                (0..=units).take_while(|rank| *rank < ranks).try_for_each(mark)
            }
            Self::Counts(_) | Self::Lists(_) => (0..ranks).try_for_each(mark),
        }
    }
}
