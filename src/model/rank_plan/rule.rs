// SPDX-License-Identifier: Apache-2.0
//! Rules and `stored` entries whose form has been checked.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::expression::Expression;
use super::fault::{Fault, List, Place};
use super::pattern::Pattern;
use super::split::Split;
use super::text::{
    DimText, Item, Numbered, Object, PlanText, RuleText, SegmentText, SegmentsText, SplitText, StoredText,
};
use crate::error::Error;

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
    pub(super) repeat: Expression,
}

pub(super) enum Segments {
    /// So many of equal size, all cut in one way.
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
    /// So many elements.
    Elements(Expression),
    /// A segment's size by this.
    Heads(Expression),
}

pub(super) struct Rule {
    pub(super) place: Place,
    pub(super) patterns: Vec<Pattern>,
    pub(super) axis: Box<str>,
    pub(super) action: Action,
    pub(super) absent: Option<Pattern>,
    pub(super) unless: Option<Box<str>>,
    pub(super) optional: bool,
}

/// How a tensor in the file shows a logical one.
pub(super) struct StoredEntry {
    pub(super) place: Place,
    pub(super) pattern: Pattern,
    pub(super) logical: Pattern,
    pub(super) dims: Vec<Option<Shown>>,
}

/// A logical dimension in a stored one.
pub(super) struct Shown {
    pub(super) dim: u64,
    pub(super) how: How,
    pub(super) by: Expression,
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
    pub(super) symbols: HashMap<Box<str>, Expression>,
    pub(super) strict: Vec<Box<str>>,
    /// Expressions so far.
    expressions: usize,
}

impl Rules {
    /// Adds the plan of this number.
    pub(super) fn add(&mut self, number: usize, text: &[u8]) -> Result<(), Error> {
        let wrong = |what: String| Fault::PlanSyntax.error(format_args!("plan {number}: {what}"));
        if text.len() > LONGEST_TEXT {
            return Err(wrong(format!("the text has {} bytes, and {LONGEST_TEXT} are the most", text.len())));
        }
        let Object(PlanText {
            format, strict, symbols, rules: Numbered(mut rules), stored: Numbered(mut stored), ..
        }) = serde_json::from_slice(text).map_err(|error| {
            // "rule 3: …" becomes "plan 0 rule 3: …".
            let text = crate::error::escaped(error.to_string().as_bytes());
            match text.starts_with("rule ") || text.starts_with("stored ") {
                true => Fault::PlanSyntax.error(format_args!("plan {number} {text}")),
                false => wrong(text),
            }
        })?;
        if format != 1 {
            return Err(wrong(format!("the format is {format}, and 1 is the only one")));
        }
        let mut expressions = self.expressions;
        let mut count = |expression: &mut Expression| {
            expression.id = expressions;
            expressions = expressions.saturating_add(1);
        };
        for (at, rule) in rules.iter_mut().enumerate() {
            rule.place = Place { plan: number, list: List::Rules, number: at };
            rule.each_expression(&mut count);
        }
        for (at, entry) in stored.iter_mut().enumerate() {
            entry.place = Place { plan: number, list: List::Stored, number: at };
            entry.dims.iter_mut().flatten().for_each(|shown| count(&mut shown.by));
        }
        self.expressions = expressions;
        self.rules.extend(rules);
        self.stored.extend(stored);
        for (name, expression) in symbols.0 {
            self.symbols.entry(name).or_insert(expression);
        }
        self.strict.extend(strict.into_iter().map(|axis| axis.0));
        Ok(())
    }
}

const NOWHERE: Place = Place { plan: 0, list: List::Rules, number: 0 };

impl Rule {
    fn each_expression(&mut self, visit: &mut dyn FnMut(&mut Expression)) {
        let dealt = |Dealt { unit, pad, .. }: &mut Dealt, visit: &mut dyn FnMut(&mut Expression)| {
            match unit {
                UnitOf::Elements(expression) | UnitOf::Heads(expression) => visit(expression),
            }
            pad.iter_mut().for_each(visit);
        };
        match &mut self.action {
            Action::Whole | Action::On(_) => {}
            Action::Pick(pick) => pick.of.iter_mut().for_each(visit),
            Action::Cut(cut) => {
                visit(&mut cut.repeat);
                match &mut cut.segments {
                    Segments::Equal(_, all) => dealt(all, visit),
                    Segments::Listed(list) => list.iter_mut().for_each(|segment| {
                        visit(&mut segment.size);
                        segment.dealt.iter_mut().for_each(|one| dealt(one, visit));
                    }),
                }
            }
        }
    }
}

impl Item for Rule {
    type Text = RuleText;
    const LIST: List = List::Rules;

    fn new(text: RuleText) -> Result<Self, String> {
        let RuleText { patterns, axis, cut, pick, on, whole, absent, unless, optional, .. } = text;
        let RuleText { of, unit, heads, pad, split, segments, repeat, .. } = text;
        let actions = [cut.is_some(), pick.is_some(), on.is_some(), whole.is_some()];
        if actions.iter().filter(|given| **given).count() != 1 {
            return Err("a rule has exactly one of cut, pick, on and whole".to_owned());
        }
        let given = [
            ("of", of.is_some(), actions[1]),
            ("split", split.is_some(), actions[0] || actions[1]),
            ("unit", unit.is_some(), actions[0]),
            ("heads", heads.is_some(), actions[0]),
            ("pad", pad.is_some(), actions[0]),
            ("segments", segments.is_some(), actions[0]),
            ("repeat", repeat.is_some(), actions[0]),
        ];
        if let Some((field, ..)) = given.iter().find(|(_, given, fits)| *given && !*fits) {
            return Err(format!("{field} does not go with what the rule does"));
        }
        let action = match (cut, pick, on) {
            (Some(dim), ..) => Action::Cut(Cut {
                dim,
                segments: new_segments(segments, SegmentFields { unit, heads, pad, split })?,
                repeat: repeat.unwrap_or_else(|| Expression::number(1)),
            }),
            (_, Some(star), _) => {
                let short = patterns.0.iter().any(|pattern| (pattern.stars() as u64) < star);
                if star == 0 || short {
                    return Err(format!(
                        "pick {star}: stars count from 1, and each pattern of the rule needs that many"
                    ));
                }
                let star = usize::try_from(star).map_err(|_| "pick is too large".to_owned())?;
                Action::Pick(Pick { star, of, split: rule_split(split)? })
            }
            (_, _, Some(ranks)) => Action::On(ranks),
            _ if whole == Some(true) => Action::Whole,
            _ => return Err("whole can only be true".to_owned()),
        };
        let (axis, unless) = (axis.0, unless.map(|axis| axis.0));
        Ok(Self { place: NOWHERE, patterns: patterns.0, axis, action, absent, unless, optional })
    }
}

struct SegmentFields {
    unit: Option<Expression>,
    heads: Option<Expression>,
    pad: Option<Expression>,
    split: Option<SplitText>,
}

fn new_segments(segments: Option<SegmentsText>, fields: SegmentFields) -> Result<Segments, String> {
    let list = match segments {
        None => {
            return Ok(Segments::Equal(1, new_dealt(fields.unit, fields.heads, fields.pad, rule_split(fields.split)?)?))
        }
        Some(SegmentsText::Equal(0)) => return Err("segments is 0".to_owned()),
        Some(SegmentsText::Equal(number)) => {
            let dealt = new_dealt(fields.unit, fields.heads, fields.pad, rule_split(fields.split)?)?;
            return Ok(Segments::Equal(number, dealt));
        }
        Some(SegmentsText::Listed(list)) => list,
    };
    if list.is_empty() {
        return Err("segments is an empty list".to_owned());
    }
    let SegmentFields { unit, heads, pad, split } = fields;
    if unit.is_some() || heads.is_some() || pad.is_some() || split.is_some() {
        return Err("with a list of segments, unit, heads, pad and split are theirs, not the rule's".to_owned());
    }
    let new = |(number, Object(SegmentText { size, unit, heads, pad, split, .. })): (usize, Object<SegmentText>)| {
        let in_segment = |error| format!("segment {number}: {error}");
        let split = match split {
            None => Some(Split::Even),
            Some(SplitText::Split(split)) => Some(split),
            Some(SplitText::Whole) => None,
        };
        // The form of what is not looked at is checked too.
        let whole = split.is_none();
        let dealt = new_dealt(unit, heads, pad, split.unwrap_or(Split::Even)).map_err(in_segment)?;
        Ok(Segment { size, dealt: (!whole).then_some(dealt) })
    };
    Ok(Segments::Listed(list.into_iter().enumerate().map(new).collect::<Result<_, String>>()?))
}

fn new_dealt(
    unit: Option<Expression>,
    heads: Option<Expression>,
    pad: Option<Expression>,
    split: Split,
) -> Result<Dealt, String> {
    let unit = match (unit, heads) {
        (Some(_), Some(_)) => return Err("unit and heads exclude one another".to_owned()),
        (None, Some(heads)) => UnitOf::Heads(heads),
        (Some(unit), None) => UnitOf::Elements(unit),
        (None, None) => UnitOf::Elements(Expression::number(1)),
    };
    Ok(Dealt { unit, pad, split })
}

fn rule_split(split: Option<SplitText>) -> Result<Split, String> {
    match split {
        None => Ok(Split::Even),
        Some(SplitText::Split(split)) => Ok(split),
        Some(SplitText::Whole) => Err("the split whole is for segments alone; a rule has \"whole\": true".to_owned()),
    }
}

impl Item for StoredEntry {
    type Text = StoredText;
    const LIST: List = List::Stored;

    fn new(text: StoredText) -> Result<Self, String> {
        let StoredText { pattern, logical, dims, .. } = text;
        if pattern.stars() != logical.stars() || pattern.has_rest() != logical.has_rest() {
            return Err("match and as need as many * and ** as one another".to_owned());
        }
        let mut seen = std::collections::HashSet::new();
        let mut shown = |Object(DimText { dim, pack, block }): Object<DimText>| {
            if !seen.insert(dim) {
                return Err(format!("dims has the dimension {dim} twice"));
            }
            let (how, by) = match (pack, block) {
                (Some(_), Some(_)) => return Err("a dimension is shown by pack or by block".to_owned()),
                (None, Some(block)) => (How::Block, block),
                (pack, None) => (How::Pack, pack.unwrap_or_else(|| Expression::number(1))),
            };
            Ok(Shown { dim, how, by })
        };
        let dims = dims.into_iter().map(|dim| dim.map(&mut shown).transpose()).collect::<Result<_, _>>()?;
        Ok(Self { place: NOWHERE, pattern, logical, dims })
    }
}
