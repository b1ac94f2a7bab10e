// SPDX-License-Identifier: Apache-2.0
//! Random sizes, plans and splits against the language written down again, one
//! index after the other; and what must hold whatever the plan: the union of all
//! ranks' parts is the whole, with nothing twice but declared copies.

use std::collections::BTreeMap;

use proptest::prelude::*;
use safetensors::part::st_interval;

use super::checkpoint::{counted, one_file, Listed};
use super::plan::{load, Given, Opened, Part, Plan};

/// A segment or a whole dimension: its size, what stays together, padding, split.
#[derive(Clone, Debug)]
struct Segment {
    size: u64,
    unit: Unit,
    pad: u64,
    split: Split,
}

#[derive(Clone, Debug)]
enum Unit {
    Elements(u64),
    Heads(u64),
}

#[derive(Clone, Debug)]
enum Split {
    Named(&'static str),
    Counts(Vec<u64>),
    Lists(Vec<Vec<u64>>),
}

impl Split {
    fn json(&self) -> String {
        match self {
            Self::Named(name) => format!("{name:?}"),
            Self::Counts(counts) => format!(r#"{{"counts": {counts:?}}}"#),
            Self::Lists(lists) => format!(r#"{{"lists": {lists:?}}}"#),
        }
    }

    /// A rank's units, one by one.
    fn units(&self, r: u64, n: u64, all: u64) -> Result<Vec<u64>, &'static str> {
        let every = || 0..all;
        Ok(match self {
            Self::Named("even") if all % n != 0 => return Err("INDIVISIBLE"),
            Self::Named("even") => every().filter(|unit| unit / (all / n) == r).collect(),
            Self::Named("replicate") if all % n == 0 => every().filter(|unit| unit / (all / n) == r).collect(),
            Self::Named("replicate") if all == 0 || n % all != 0 => return Err("INDIVISIBLE"),
            Self::Named("replicate") => vec![r * all / n],
            Self::Named("ceil") => every().filter(|unit| unit / all.div_ceil(n) == r).collect(),
            Self::Named("balanced") => {
                // Dealt like cards, and each hand then sorted into a run.
                let hand = |r: u64| every().filter(|unit| unit % n == r).count() as u64;
                let before: u64 = (0..r).map(hand).sum();
                (before..before + hand(r)).collect()
            }
            Self::Named("robin") => every().filter(|unit| unit % n == r).collect(),
            Self::Named(other) => panic!("{other}"),
            Self::Counts(counts) => {
                if counts.len() as u64 != n || counts.iter().sum::<u64>() != all {
                    return Err("SPLIT");
                }
                let before: u64 = counts[..r as usize].iter().sum();
                (before..before + counts[r as usize]).collect()
            }
            Self::Lists(lists) => {
                let twice = |list: &Vec<u64>| list.iter().enumerate().any(|(i, unit)| list[..i].contains(unit));
                let bad = lists.len() as u64 != n
                    || lists.iter().flatten().any(|unit| *unit >= all)
                    || lists.iter().any(twice)
                    || every().any(|unit| lists.iter().all(|list| !list.contains(&unit)));
                if bad {
                    return Err("SPLIT");
                }
                lists[r as usize].clone()
            }
        })
    }
}

impl Segment {
    fn json(&self, with_size: bool) -> String {
        let unit = match self.unit {
            Unit::Elements(unit) => format!(r#""unit": {unit}"#),
            Unit::Heads(heads) => format!(r#""heads": {heads}"#),
        };
        let size = if with_size { format!(r#""size": {}, "#, self.size) } else { String::new() };
        format!(r#"{size}{unit}, "pad": {}, "split": {}"#, self.pad, self.split.json())
    }

    /// The stored index of each local one; `None` is a zero.
    fn take(&self, offset: u64, r: u64, n: u64) -> Result<Vec<Option<u64>>, &'static str> {
        let padded = self.size.div_ceil(self.pad) * self.pad;
        let unit = match self.unit {
            Unit::Elements(unit) => unit,
            Unit::Heads(heads) if heads == 0 || self.size % heads != 0 => return Err("UNIT"),
            Unit::Heads(heads) => (self.size / heads).max(1),
        };
        if unit == 0 || padded % unit != 0 {
            return Err("UNIT");
        }
        let units = self.split.units(r, n, padded / unit)?;
        let elements = units.iter().flat_map(|at| at * unit..(at + 1) * unit);
        Ok(elements.map(|at| (at < self.size).then_some(offset + at)).collect())
    }
}

/// Pieces of a list of indices, by walking along it.
fn pieces(indices: &[Option<u64>]) -> Vec<st_interval> {
    let mut pieces: Vec<st_interval> = Vec::new();
    for index in indices {
        match (index, pieces.last_mut()) {
            (None, Some(last)) => last.zeros += 1,
            (None, None) => pieces.push(st_interval { zeros: 1, ..Default::default() }),
            (Some(index), Some(last)) if last.zeros == 0 && last.stop as u64 == *index => last.stop += 1,
            (Some(index), _) => {
                let start = *index as i64;
                pieces.push(st_interval { start, stop: start + 1, ..Default::default() });
            }
        }
    }
    pieces
}

fn split() -> impl Strategy<Value = Split> {
    let name = prop_oneof![Just("even"), Just("replicate"), Just("ceil"), Just("balanced"), Just("robin")];
    let unit = 0..6_u64;
    prop_oneof![
        5 => name.prop_map(Split::Named),
        1 => prop::collection::vec(0..5_u64, 1..4).prop_map(Split::Counts),
        1 => prop::collection::vec(prop::collection::vec(unit, 0..5), 1..4).prop_map(Split::Lists),
    ]
}

fn segment() -> impl Strategy<Value = Segment> {
    let unit = prop_oneof![(0..4_u64).prop_map(Unit::Elements), (0..5_u64).prop_map(Unit::Heads)];
    (0..13_u64, unit, 1..5_u64, split()).prop_map(|(size, unit, pad, split)| Segment { size, unit, pad, split })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_are_what_the_language_says(
        segments in prop::collection::vec(segment(), 1..4),
        repeat in 1..3_u64,
        listed in any::<bool>(),
        ranks in 1..6_u64,
        columns in 0..4_u64,
    ) {
        let listed = listed || segments.len() > 1;
        let repeat = if listed { repeat } else { 1 };
        let size = segments.iter().map(|segment| segment.size).sum::<u64>() * repeat;
        let tensor = [Listed::new("w", "I16", &[columns, size])];
        let how = match listed {
            true => {
                let list: Vec<_> = segments.iter().map(|segment| format!("{{{}}}", segment.json(true))).collect();
                format!(r#""repeat": {repeat}, "segments": [{}]"#, list.join(", "))
            }
            false => segments[0].json(false),
        };
        let plan = format!(r#"{{"format": 1, "rules": [{{"match": "w", "axis": "tp", "cut": 1, {how}}}]}}"#);

        let indices = |rank: u64| {
            let (mut indices, mut offset) = (Vec::new(), 0);
            for segment in segments.iter().cycle().take(segments.len() * repeat as usize) {
                indices.extend(segment.take(offset, rank, ranks)?);
                offset += segment.size;
            }
            Ok::<_, &'static str>(indices)
        };
        // The first error of any segment, be it on whichever rank.
        let verdict = segments.iter().find_map(|segment| (0..ranks).find_map(|rank| segment.take(0, rank, ranks).err()));

        let folder = tempfile::tempdir().unwrap();
        let opened = Opened::new(&one_file(folder.path(), &tensor));
        let given = Plan::new(&opened, &Given::plan(&plan)).unwrap();
        let bytes = &counted(&tensor)[0];
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for rank in 0..ranks {
            let records = given.records(&[("tp", rank as i64, ranks as i64)]);
            if let Some(wanted) = verdict {
                let message = records.err().map(|failure| failure.message).unwrap_or_default();
                prop_assert!(message.starts_with(&format!("{wanted}: ")), "{wanted} wanted: {message} ({plan})");
                continue;
            }
            let records = records.map_err(|failure| TestCaseError::fail(format!("{}: {plan}", failure.message)))?;
            let part = Part::new(&records[0]);
            let indices = indices(rank).unwrap();
            let whole = indices.iter().copied().eq((0..size).map(Some));
            let wanted = (!whole).then(|| pieces(&indices));
            prop_assert_eq!(&part.pieces, &vec![None, wanted], "{}", plan);
            let loaded = load(&opened, records).unwrap();
            prop_assert_eq!(&loaded[0], &part.of(bytes, &tensor[0].shape, 16));
            indices.iter().flatten().for_each(|index| *seen.entry(*index).or_default() += 1);
        }
        if verdict.is_none() {
            prop_assert!(seen.keys().copied().eq(0..size), "all of it is somewhere: {}", plan);
            let copies = |segment: &Segment| matches!(segment.split, Split::Named("replicate") | Split::Lists(_));
            if !segments.iter().any(copies) {
                prop_assert!(seen.values().all(|times| *times == 1), "nothing twice: {}", plan);
            }
        }
    }
}
