// SPDX-License-Identifier: Apache-2.0
//! Rules and `stored` entries whose form has been checked.
#![forbid(unsafe_code)]

use super::expression::Expression;
use super::fault::{Fault, List, PlanPosition};
use super::pattern::NamePattern;
use super::reader::{self, fields, required, PlanReader, Read, SplitText};
use super::split::Split;
use crate::base::numbering::Numbering;
use crate::error::{quoted, Error};
use crate::model::json::Json;

/// Bytes of the longest plan, and of the longest config.json.
pub(super) const LONGEST_TEXT: usize = 16 << 20;

/// What a rule does with tensors on its axis.
pub(super) enum Action {
    Whole,
    /// On these ranks; negative ones count from the end.
    On(Vec<i64>),
    Pick(Pick),
    Cut(Cut),
}

/// On the ranks that own a tensor's number.
pub(super) struct Pick {
    /// Which `*` has the number, from 1.
    pub(super) star: usize,
    pub(super) of: Option<Expression>,
    pub(super) split: Split,
}

/// A part of one dimension.
pub(super) struct Cut {
    pub(super) dim: u64,
    pub(super) segments: Segments,
    /// `None`: 1.
    pub(super) repeat: Option<Expression>,
}

pub(super) enum Segments {
    /// This many of equal size, all cut in one way.
    Equal(u64, Dealt),
    Listed(Vec<Segment>),
}

pub(super) struct Segment {
    pub(super) size: Expression,
    /// `None`: whole on every rank.
    pub(super) dealt: Option<Dealt>,
}

/// How one segment is dealt to the ranks.
pub(super) struct Dealt {
    pub(super) unit: UnitOf,
    pub(super) pad: Option<Expression>,
    pub(super) split: Split,
}

/// What stays together.
pub(super) enum UnitOf {
    /// This many elements; `None`: 1.
    Elements(Option<Expression>),
    /// A segment's size by this.
    Heads(Expression),
}

pub(super) struct Rule {
    pub(super) place: PlanPosition,
    pub(super) patterns: Vec<NamePattern>,
    /// The axis, by its number.
    pub(super) axis: usize,
    pub(super) action: Action,
    pub(super) absent: Option<NamePattern>,
    pub(super) unless: Option<usize>,
    pub(super) optional: bool,
}

/// How a tensor in the file shows a logical one.
pub(super) struct StoredEntry {
    pub(super) place: PlanPosition,
    pub(super) pattern: NamePattern,
    pub(super) logical: NamePattern,
    pub(super) dims: Vec<Option<ShownDim>>,
}

/// A logical dimension in a stored one.
pub(super) struct ShownDim {
    pub(super) dim: u64,
    pub(super) how: How,
    /// `None`: 1.
    pub(super) by: Option<Expression>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum How {
    Pack,
    Block,
}

/// All plans as one.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) rules: Vec<Rule>,
    pub(super) stored: Vec<StoredEntry>,
    /// Symbols by their numbers, in the order of the plans.
    pub(super) definitions: Vec<(usize, Expression)>,
    /// Strict axes by their numbers.
    pub(super) strict: Vec<usize>,
    pub(super) reader: PlanReader,
}

impl Rules {
    /// Adds the plan of this number.
    pub(super) fn add(&mut self, number: usize, text: &[u8]) -> Result<(), Error> {
        let mut place = None;
        let read = Json::parse(text, LONGEST_TEXT).and_then(|plan| self.read(number, &plan, &mut place));
        read.map_err(|what| match place {
            Some(place) => Fault::PlanSyntax.at(&place, &what),
            None => Fault::PlanSyntax.error(&format!("plan {number}: {what}")),
        })
    }

    /// Takes what a plan has; `at` is where it fails.
    fn read(&mut self, plan: usize, json: &Json, at: &mut Option<PlanPosition>) -> Read<()> {
        let names = ["format", "about", "strict", "symbols", "rules", "stored"];
        let [format, _, strict, symbols, rules, stored] = fields(json, "a plan", &names)?;
        let format = reader::unsigned(required(format, "format")?)?;
        if format != 1 {
            return Err(format!("format is {format}; expected 1"));
        }
        for axis in list(strict, "a list of axes")? {
            self.strict.push(self.reader.axis(axis)?);
        }
        if let Some(symbols) = symbols {
            let Json::Map(symbols) = symbols else { return Err(reader::not(symbols, "an object of symbols")) };
            for (name, expression) in symbols {
                let shown = quoted(name.as_bytes());
                if !super::identifiers::is_symbol(name) {
                    return Err(format!("{shown} is not the name of a symbol: letters, digits and _, joined by dots"));
                }
                let expression = self.reader.expression(expression);
                let expression = expression.map_err(|what| format!("the symbol {shown}: {what}"))?;
                self.definitions.push((self.reader.identifiers.symbol(name)?, expression));
            }
        }
        for (number, rule) in list(rules, "a list of rules")?.iter().enumerate() {
            let place = PlanPosition { plan, list: List::Rules, number };
            *at = Some(place);
            self.rules.push(Rule::new(place, rule, &mut self.reader)?);
        }
        *at = None;
        for (number, entry) in list(stored, "a list of entries")?.iter().enumerate() {
            let place = PlanPosition { plan, list: List::Stored, number };
            *at = Some(place);
            self.stored.push(StoredEntry::new(place, entry, &mut self.reader)?);
        }
        *at = None;
        Ok(())
    }
}

/// The items of a list that may be left out.
fn list<'j>(json: Option<&'j Json>, what: &str) -> Read<&'j [Json]> {
    json.map_or(Ok(&[]), |json| reader::items(json, what))
}

impl Rule {
    fn new(place: PlanPosition, json: &Json, reader: &mut PlanReader) -> Read<Self> {
        let names = [
            "match", "axis", "about", "cut", "pick", "on", "whole", "absent", "unless", "optional", "of", "split",
            "unit", "heads", "pad", "segments", "repeat",
        ];
        let found = fields(json, "a rule", &names)?;
        let [patterns, axis, _, cut, pick, on, whole, absent, unless, optional, of, split, unit, heads, pad, ..] =
            found;
        let [.., segments, repeat] = found;
        let patterns = reader::patterns(required(patterns, "match")?)?;
        let axis = reader.axis(required(axis, "axis")?)?;
        let absent = absent.map(reader::pattern).transpose()?;
        let unless = unless.map(|axis| reader.axis(axis)).transpose()?;
        let optional = optional.map_or(Ok(false), reader::boolean)?;
        let action = match (cut, pick, on, whole) {
            (Some(dim), None, None, None) => {
                let given = Dealing { unit, heads, pad, split };
                let segments = new_segments(segments, given, reader)?;
                Action::Cut(Cut { dim: reader::unsigned(dim)?, segments, repeat: reader.optional(repeat)? })
            }
            (None, Some(star), None, None) => {
                let wanted = reader::unsigned(star)?;
                let short = patterns.iter().any(|pattern| (pattern.stars() as u64) < wanted);
                let star = usize::try_from(wanted).ok().filter(|number| *number > 0 && !short);
                let star = star.ok_or_else(|| {
                    format!("pick {wanted}: stars count from 1, and each pattern of the rule needs that many")
                })?;
                Action::Pick(Pick { star, of: reader.optional(of)?, split: rule_split(split)? })
            }
            (None, None, Some(ranks), None) => {
                Action::On(reader::items(ranks, "a list of ranks")?.iter().map(reader::signed).collect::<Read<_>>()?)
            }
            (None, None, None, Some(Json::Bool(true))) => Action::Whole,
            (None, None, None, Some(other)) => return Err(reader::not(other, "true, the only value of whole")),
            _ => return Err("a rule has exactly one of cut, pick, on and whole".to_owned()),
        };
        // The fields from "split" on are those of cuts; "of" and "split" are those of picks.
        let fitting = match action {
            Action::Cut(_) => 11..names.len(),
            Action::Pick(_) => 10..12,
            Action::On(_) | Action::Whole => 0..0,
        };
        let stray = names.iter().zip(found).enumerate().skip(10);
        let mut stray = stray.filter(|(at, (_, value))| value.is_some() && !fitting.contains(at));
        match stray.next() {
            Some((_, (field, _))) => Err(format!("{field} does not go with what the rule does")),
            None => Ok(Self { place, patterns, axis, action, absent, unless, optional }),
        }
    }
}

/// The fields of a rule or a segment that say how it is dealt.
#[derive(Clone, Copy)]
struct Dealing<'j> {
    unit: Option<&'j Json>,
    heads: Option<&'j Json>,
    pad: Option<&'j Json>,
    split: Option<&'j Json>,
}

fn new_segments(segments: Option<&Json>, given: Dealing<'_>, reader: &mut PlanReader) -> Read<Segments> {
    let list = match segments {
        Some(Json::List(list)) => list,
        number => {
            let number = number.map_or(Ok(1), reader::unsigned)?;
            if number == 0 {
                return Err("segments is 0".to_owned());
            }
            let dealt = Dealt::new(given, rule_split(given.split)?, reader)?;
            return Ok(Segments::Equal(number, dealt));
        }
    };
    if list.is_empty() {
        return Err("segments is an empty list".to_owned());
    }
    let Dealing { unit, heads, pad, split } = given;
    if [unit, heads, pad, split].iter().any(Option::is_some) {
        return Err(
            "with a list of segments, unit, heads, pad and split belong to the segments, not to the rule".to_owned()
        );
    }
    let mut found = Vec::new();
    for (number, json) in list.iter().enumerate() {
        let segment = Segment::new(json, reader);
        found.push(segment.map_err(|what| format!("segment {number}: {what}"))?);
    }
    Ok(Segments::Listed(found))
}

impl Segment {
    fn new(json: &Json, reader: &mut PlanReader) -> Read<Self> {
        let names = ["size", "about", "unit", "heads", "pad", "split"];
        let [size, _, unit, heads, pad, split] = fields(json, "a segment", &names)?;
        let size = reader.expression(required(size, "size")?)?;
        // The form of what is not looked at is checked too.
        let (how, is_whole) = match split.map(reader::split).transpose()? {
            None => (Split::Even, false),
            Some(SplitText::Split(split)) => (split, false),
            Some(SplitText::Whole) => (Split::Even, true),
        };
        let dealt = Dealt::new(Dealing { unit, heads, pad, split }, how, reader)?;
        Ok(Self { size, dealt: (!is_whole).then_some(dealt) })
    }
}

impl Dealt {
    fn new(given: Dealing<'_>, split: Split, reader: &mut PlanReader) -> Read<Self> {
        let (unit, heads) = (reader.optional(given.unit)?, reader.optional(given.heads)?);
        let unit = match (unit, heads) {
            (Some(_), Some(_)) => return Err("unit and heads exclude one another".to_owned()),
            (None, Some(heads)) => UnitOf::Heads(heads),
            (unit, None) => UnitOf::Elements(unit),
        };
        Ok(Self { unit, pad: reader.optional(given.pad)?, split })
    }
}

fn rule_split(json: Option<&Json>) -> Read<Split> {
    match json.map(reader::split).transpose()? {
        None => Ok(Split::Even),
        Some(SplitText::Split(split)) => Ok(split),
        Some(SplitText::Whole) => Err("the split whole is only for segments; a rule has \"whole\": true".to_owned()),
    }
}

impl StoredEntry {
    fn new(place: PlanPosition, json: &Json, reader: &mut PlanReader) -> Read<Self> {
        let [pattern, logical, dims, _] = fields(json, "an entry", &["match", "as", "dims", "about"])?;
        let pattern = reader::pattern(required(pattern, "match")?)?;
        let logical = reader::pattern(required(logical, "as")?)?;
        if pattern.stars() != logical.stars() || pattern.has_rest() != logical.has_rest() {
            return Err("match and as need the same number of * and of **".to_owned());
        }
        let mut shown = Vec::new();
        let mut seen = Numbering::default();
        for json in reader::items(required(dims, "dims")?, "a list of dimensions")? {
            if *json == Json::Null {
                shown.push(None);
                continue;
            }
            let [dim, pack, block] = fields(json, "a dimension", &["dim", "pack", "block"])?;
            let dim = reader::unsigned(required(dim, "dim")?)?;
            let known = seen.len();
            if seen.number(&dim.to_le_bytes()).map_err(|error| error.to_string())? < known {
                return Err(format!("dims has the dimension {dim} twice"));
            }
            let (how, by) = match (pack, block) {
                (Some(_), Some(_)) => return Err("a dimension is shown by pack or by block, not by both".to_owned()),
                (None, Some(block)) => (How::Block, Some(block)),
                (pack, None) => (How::Pack, pack),
            };
            shown.push(Some(ShownDim { dim, how, by: reader.optional(by)? }));
        }
        Ok(Self { place, pattern, logical, dims: shown })
    }
}
