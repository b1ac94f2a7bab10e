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
pub(super) struct NamePattern {
    parts: Vec<Part>,
}

impl NamePattern {
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

    /// Where its stars are, from left to right.
    pub(super) fn places(&self) -> impl Iterator<Item = StarPlace<'_>> {
        let rest = self.parts.iter().position(|part| *part == Part::Rest);
        self.parts.iter().enumerate().filter_map(move |(at, part)| match part {
            Part::Star { before, after } => {
                let from_end = rest.is_some_and(|rest| rest < at).then(|| self.parts.len().saturating_sub(at));
                Some(StarPlace { at, from_end, before: before.as_bytes(), after: after.as_bytes() })
            }
            _ => None,
        })
    }

    /// Writes the name that this pattern gives with the texts of `from`'s `*` and
    /// `**` in a name that matches that.
    pub(super) fn rename(&self, from: &Self, name: &Dotted<'_>, out: &mut Vec<u8>) -> Option<()> {
        let mut stars = from.places();
        // The `**` of a pattern takes what the other parts leave.
        let rest = from.parts.iter().position(|part| *part == Part::Rest);
        let rest_end = rest.and_then(|at| name.count().checked_sub(from.parts.len().checked_sub(at)?.checked_sub(1)?));
        out.clear();
        for part in &self.parts {
            let mut piece = |text: &[u8]| out.extend_from_slice(text);
            match part {
                Part::Text(text) => piece(text.as_bytes()),
                Part::Rest if rest == rest_end => continue,
                Part::Rest => piece(name.parts(rest?, rest_end?)?),
                Part::Star { before, after } => {
                    piece(before.as_bytes());
                    piece(stars.next()?.text(name)?);
                    piece(after.as_bytes());
                }
            }
            out.push(b'.');
        }
        out.pop();
        Some(())
    }
}

/// A name and where its dots are.
pub(super) struct Dotted<'n> {
    name: &'n [u8],
    dots: &'n [usize],
}

impl<'n> Dotted<'n> {
    pub(super) fn new(name: &'n [u8], dots: &'n [usize]) -> Self {
        Self { name, dots }
    }

    /// How many parts it has.
    fn count(&self) -> usize {
        self.dots.len().saturating_add(1)
    }

    /// The parts from one up to another, with the dots between them.
    fn parts(&self, from: usize, to: usize) -> Option<&'n [u8]> {
        let start = match from.checked_sub(1) {
            None => 0,
            Some(before) => self.dots.get(before)?.checked_add(1)?,
        };
        let end = to.checked_sub(1).and_then(|last| self.dots.get(last)).copied();
        self.name.get(start..end.unwrap_or(self.name.len()))
    }
}

/// Where the text that a star stands for is in a name that matches.
pub(super) struct StarPlace<'p> {
    /// In which part, from the front.
    at: usize,
    /// From the end, from 1, where a `**` comes before it.
    from_end: Option<usize>,
    before: &'p [u8],
    after: &'p [u8],
}

impl StarPlace<'_> {
    pub(super) fn text<'n>(&self, name: &Dotted<'n>) -> Option<&'n [u8]> {
        let at = match self.from_end {
            None => self.at,
            Some(from_end) => name.count().checked_sub(from_end)?,
        };
        name.parts(at, at.checked_add(1)?)?.strip_prefix(self.before)?.strip_suffix(self.after)
    }
}

impl Display for NamePattern {
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
