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

    /// The text that the star of this number (from 1) stands for in a name that matches.
    pub(super) fn star<'n>(&self, number: usize, name: &'n [u8]) -> Option<&'n [u8]> {
        let mut left = number;
        let mut found = None;
        for (at, part) in self.parts.iter().enumerate() {
            if let Part::Star { before, after } = part {
                left = left.checked_sub(1)?;
                if left == 0 {
                    found = Some((at, before, after));
                    break;
                }
            }
        }
        let (at, before, after) = found?;
        let rest = self.parts.iter().position(|part| *part == Part::Rest);
        let part = match rest {
            Some(rest) if rest < at => {
                let from_end = self.parts.len().checked_sub(at)?.checked_sub(1)?;
                name.rsplit(|byte| *byte == b'.').nth(from_end)?
            }
            _ => name.split(|byte| *byte == b'.').nth(at)?,
        };
        part.strip_prefix(before.as_bytes())?.strip_suffix(after.as_bytes())
    }

    /// The name that this pattern gives with the texts of `from`'s `*` and `**`
    /// in a name that matches that.
    pub(super) fn rename(&self, from: &Self, name: &[u8]) -> Option<Vec<u8>> {
        let given: Vec<&[u8]> = name.split(|byte| *byte == b'.').collect();
        // The `**` of a pattern takes what the other parts leave.
        let rest = given.len().checked_sub(from.parts.len().checked_sub(usize::from(from.has_rest()))?)?;
        let mut stars = Vec::new();
        let mut taken: &[&[u8]] = &[];
        let mut left = given.as_slice();
        for part in &from.parts {
            let (these, after) = left.split_at_checked(if *part == Part::Rest { rest } else { 1 })?;
            left = after;
            match part {
                Part::Text(_) => {}
                Part::Rest => taken = these,
                Part::Star { before, after } => {
                    let text = these.first()?.strip_prefix(before.as_bytes())?;
                    stars.push(text.strip_suffix(after.as_bytes())?);
                }
            }
        }
        let mut stars = stars.into_iter();
        let mut out: Vec<Vec<u8>> = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push(text.as_bytes().to_vec()),
                Part::Rest => out.extend(taken.iter().map(|text| text.to_vec())),
                Part::Star { before, after } => {
                    out.push([before.as_bytes(), stars.next()?, after.as_bytes()].concat());
                }
            }
        }
        Some(out.join(&b'.'))
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
