// SPDX-License-Identifier: Apache-2.0
//! Patterns of tensors' names.
#![forbid(unsafe_code)]

use std::fmt::{self, Display};

use crate::error::quoted;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(Box<str>),
    /// `before*after`
    Star {
        before: Box<str>,
        after: Box<str>,
    },
    /// `**`
    Rest,
}

/// What a name has to be like. At most one part is `**`, so the others lie at
/// fixed places from the front or from the end, and matching never goes back.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = 0_usize;
        for part in text.split('.') {
            let wrong = |what: &str| Err(format!("the pattern {} {what}", quoted(text.as_bytes())));
            parts.push(match part.split_once('*') {
                _ if part.is_empty() => return wrong("has an empty part"),
                _ if part == "**" => {
                    rest = rest.saturating_add(1);
                    Part::Rest
                }
                None => Part::Text(part.into()),
                Some((_, after)) if after.contains('*') => {
                    return wrong("has a part with more than one * (** is a part by itself)");
                }
                Some((before, after)) => Part::Star { before: before.into(), after: after.into() },
            });
            if rest > 1 {
                return wrong("has more than one **");
            }
        }
        Ok(Self { parts })
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How many `*` it has, `**` not counted.
    pub(super) fn stars(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Star { .. })).count()
    }

    /// Whether it has a `**`.
    pub(super) fn has_rest(&self) -> bool {
        self.parts.contains(&Part::Rest)
    }

    /// Where the star of this number (from 1) is.
    pub(super) fn star(&self, number: usize) -> Option<Star<'_>> {
        let mut stars = self.parts.iter().enumerate().filter_map(|(at, part)| match part {
            Part::Star { before, after } => Some((at, before.as_bytes(), after.as_bytes())),
            _ => None,
        });
        let (at, before, after) = stars.nth(number.checked_sub(1)?)?;
        let rest = self.parts.iter().position(|part| *part == Part::Rest);
        let from_end = rest.is_some_and(|rest| rest < at).then(|| self.parts.len().saturating_sub(at));
        Some(Star { at, from_end, before, after })
    }

    /// The name that this pattern gives with the texts of `from`'s `*` and `**`
    /// in a name that matches that.
    pub(super) fn rename(&self, from: &Self, name: &[u8]) -> Option<Vec<u8>> {
        let mut stars = Vec::new();
        let mut taken = None;
        let count = name.split(|byte| *byte == b'.').count();
        // The `**` of a pattern takes what the other parts leave.
        let rest = count.checked_sub(from.parts.len().checked_sub(usize::from(from.has_rest()))?)?;
        let mut left = Some(name);
        for part in &from.parts {
            match part {
                Part::Text(_) => left = split_parts(left?, 1)?.1,
                Part::Rest if rest == 0 => {}
                Part::Rest => (taken, left) = split_parts(left?, rest).map(|(text, left)| (Some(text), left))?,
                Part::Star { before, after } => {
                    let (text, after_it) = split_parts(left?, 1)?;
                    left = after_it;
                    stars.push(text.strip_prefix(before.as_bytes())?.strip_suffix(after.as_bytes())?);
                }
            }
        }
        let mut stars = stars.into_iter();
        let mut out = Vec::with_capacity(name.len().saturating_add(8));
        let mut dot: &[u8] = b"";
        for part in &self.parts {
            if *part == Part::Rest && taken.is_none() {
                continue;
            }
            out.extend_from_slice(dot);
            dot = b".";
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Rest => out.extend_from_slice(taken?),
                Part::Star { before, after } => {
                    [before.as_bytes(), stars.next()?, after.as_bytes()].iter().for_each(|t| out.extend_from_slice(t));
                }
            }
        }
        Some(out)
    }
}

/// Where the text that a star stands for is in a name that matches.
pub(super) struct Star<'p> {
    /// In which part, from the front.
    at: usize,
    /// From the end, from 1, where a `**` comes before it.
    from_end: Option<usize>,
    before: &'p [u8],
    after: &'p [u8],
}

impl Star<'_> {
    /// The text, in a name with its dots at these places.
    pub(super) fn text<'n>(&self, name: &'n [u8], dots: &[usize]) -> Option<&'n [u8]> {
        let at = match self.from_end {
            None => self.at,
            Some(from_end) => dots.len().checked_add(1)?.checked_sub(from_end)?,
        };
        let start = match at.checked_sub(1) {
            None => 0,
            Some(before) => dots.get(before)?.checked_add(1)?,
        };
        let part = name.get(start..dots.get(at).copied().unwrap_or(name.len()))?;
        part.strip_prefix(self.before)?.strip_suffix(self.after)
    }
}

/// The first parts of a name, and what comes after the next dot.
fn split_parts(name: &[u8], parts: usize) -> Option<(&[u8], Option<&[u8]>)> {
    let mut dots = name.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    match dots.nth(parts.checked_sub(1)?) {
        None => Some((name, None)),
        Some(dot) => Some((name.get(..dot)?, Some(name.get(dot.checked_add(1)?..)?))),
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            match part {
                Part::Text(text) => write!(f, "{dot}{text}")?,
                Part::Rest => write!(f, "{dot}**")?,
                Part::Star { before, after } => write!(f, "{dot}{before}*{after}")?,
            }
        }
        Ok(())
    }
}
