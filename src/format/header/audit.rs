// SPDX-License-Identifier: Apache-2.0
//! All rules that a header breaks, where opening wants the first.
//!
//! Nothing is stored for a broken rule, as a header can break millions: the
//! text is parsed once to see which ranks of rules are broken, and once more
//! for each of those, telling as it goes.
#![forbid(unsafe_code)]

use super::check::{self, Judge};
use super::parser::{self, Context, Parsed};
use super::rule::{Listener, RuleRank};
use super::{explained, in_file, read_text, start_of, Header};
use crate::base::json;
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::budget::HeaderBudget;
use crate::format::finding::{Finding, FindingSink};
use crate::format::foreign;
use crate::format::lookup::Hasher;
use crate::options::{Limits, Tolerate};
use crate::record::Tensor;
use crate::source::Source;

/// What the parser is to do with rules that rank after JSON.
struct Audit<'a> {
    /// The ranks met, one bit each.
    met: u32,
    /// All faults of this rank are reported.
    rank: Option<RuleRank>,
    sink: &'a mut FindingSink<'a>,
    result: Result<()>,
}

impl<'a> Audit<'a> {
    fn new(rank: Option<RuleRank>, sink: &'a mut FindingSink<'a>) -> Self {
        Self { met: 0, rank, sink, result: Ok(()) }
    }
}

impl Listener for Audit<'_> {
    fn wants(&mut self, rank: RuleRank) -> bool {
        self.met |= bit(rank);
        self.rank == Some(rank) && self.result.is_ok()
    }

    fn tell(&mut self, finding: Finding<'_>) {
        self.result = (self.sink)(finding);
    }
}

fn bit(rank: RuleRank) -> u32 {
    1_u32.wrapping_shl(rank as u32)
}

/// Validation's way to judge.
struct Every<'a, 'b> {
    /// The text as it was before it was parsed.
    text: &'a [u8],
    context: Context<'a>,
    met: u32,
    /// What was no UTF-8 has been replaced, so equal names prove nothing.
    replaced: bool,
    sink: &'a mut FindingSink<'b>,
}

impl Judge for Every<'_, '_> {
    fn tell(&mut self, finding: Finding<'_>) -> Result<()> {
        if self.replaced && finding.error.kind() == ErrorKind::DuplicateKey {
            return Ok(());
        }
        (self.sink)(finding)
    }

    fn met(&mut self, from: RuleRank, to: RuleRank) -> Result<bool> {
        let mut any = false;
        for rank in RuleRank::ALL.iter().filter(|rank| (from..=to).contains(rank) && self.met & bit(**rank) != 0) {
            let mut text = memory::concat(&[self.text], "header")?;
            let (context, replaced) = (self.context, self.replaced && *rank == RuleRank::Duplicate);
            let mut tensors = Vec::new();
            let mut sink = |finding: Finding<'_>| if replaced { Ok(()) } else { (self.sink)(finding) };
            let mut audit = Audit::new(Some(*rank), &mut sink);
            // A fault of the JSON has been reported, and ends this pass where it ended the first.
            let again = pass(&mut text, &mut tensors, context, &mut audit);
            audit.result?;
            match again {
                Err((error, _)) if error.kind() == ErrorKind::OutOfMemory => return Err(error),
                _ => any = true,
            }
        }
        Ok(any)
    }
}

impl Header {
    /// Reports every rule that the header of shard number `shard` breaks, in the order
    /// in which opening checks them. What can be read of it, if it is JSON.
    pub(crate) fn audit(
        source: &Source,
        shard: u32,
        limits: &Limits,
        budget: &HeaderBudget,
        sink: &mut FindingSink<'_>,
    ) -> Result<Option<Self>> {
        let mut start = None;
        let sink: &mut FindingSink<'_> = &mut |finding: Finding<'_>| {
            let error = match foreign::may_explain(finding.error.kind()) {
                true => explained(finding.error, start.get_or_insert_with(|| start_of(source)), source.size()),
                false => finding.error,
            };
            sink(Finding { error, ..finding })
        };
        let (mut text, data_offset) = match read_text(source, limits, budget) {
            Ok(read) => read,
            Err(error) => return sink(Finding::new(error, 0, None)).map(|()| None),
        };
        let mut original = memory::concat(&[&text], "header")?;
        let hasher = Hasher::default();
        let tolerate = Tolerate::default();
        let context = Context { shard, data_offset, mapped: None, limits, tolerate, hasher: &hasher };
        let (mut tensors, mut nobody) = (Vec::new(), |_: Finding<'_>| Ok(()));
        let mut audit = Audit::new(None, &mut nobody);
        let mut found = pass(&mut text, &mut tensors, context, &mut audit);
        // This one ranks before bytes that are no UTF-8.
        if matches!(&found, Err((error, _)) if error.kind() == ErrorKind::HeaderStart) {
            tell_fault(found, sink)?;
            return replace_all_but_utf8(&mut original, sink).map(|_| None);
        }
        let replaced = replace_all_but_utf8(&mut original, sink)?;
        if replaced {
            text.copy_from_slice(&original);
            found = pass(&mut text, &mut tensors, context, &mut audit);
        }
        let met = audit.met;
        let found = tell_fault(found, sink)?;
        let mut judge = Every { text: &original, context, met, replaced, sink };
        match found {
            Some(found) => check::check(text, tensors, found, &context, source.size(), &mut judge).map(Some),
            None => judge.met(RuleRank::Entry, RuleRank::Size).map(|_| None),
        }
    }
}

/// Parses the text; without room for its records, says so.
fn pass(
    text: &mut [u8],
    tensors: &mut Vec<Tensor>,
    context: Context<'_>,
    audit: &mut Audit<'_>,
) -> Result<Parsed, (Error, usize)> {
    *tensors = memory::vec_with_capacity(parser::most_tensors(text), "tensors").map_err(|error| (error, 0))?;
    super::whole(text, tensors, context, Some(audit))
}

/// Reports what ended the parse, if something did.
fn tell_fault(found: Result<Parsed, (Error, usize)>, sink: &mut FindingSink<'_>) -> Result<Option<Parsed>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err((error, at)) => sink(Finding::new(error, in_file(at), None)).map(|()| None),
    }
}

/// Reports bytes that are not UTF-8, and makes question marks of them: what else there
/// is to find can then be found. Whether there were any.
fn replace_all_but_utf8(text: &mut [u8], sink: &mut FindingSink<'_>) -> Result<bool> {
    let mut at = 0_usize;
    while let Err(error) = std::str::from_utf8(text.get(at..).unwrap_or_default()) {
        at = at.saturating_add(error.valid_up_to());
        sink(Finding::new(json::not_utf8("header", at), in_file(at), None))?;
        let len = error.error_len().unwrap_or(usize::MAX);
        let end = at.saturating_add(len).min(text.len());
        text.get_mut(at..end).unwrap_or_default().fill(b'?');
        at = end;
    }
    Ok(at > 0)
}
