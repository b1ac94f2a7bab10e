// SPDX-License-Identifier: Apache-2.0
//! A large header is parsed by two threads, each half by one.
//!
//! Where an entry begins can't be known from the middle of a text: the place
//! may be inside a string that looks like one. So the second half is parsed on
//! a guess, and counts only if the first one, parsed from the start, ends just
//! there. If it doesn't, or if any rule is broken, the caller parses the whole
//! text again, from its start, so that errors are those of a single pass.
#![forbid(unsafe_code)]

use super::parser::{Context, Parsed};
use super::pass::{first_half, second_half};
use crate::base::memory;
use crate::base::parallel;
use crate::record::Tensor;

/// Starting a thread takes about 50 us, the time to parse 50 kB.
const WORTH_IT: usize = 1 << 20;

/// Where one entry ends and the next begins, as nearly every writer spells it.
const BETWEEN: &[u8] = b"]},\"";

/// Where to divide: after a comma near the middle, or nowhere.
pub(super) fn middle(text: &[u8]) -> Option<usize> {
    let from = text.len() / 2;
    if text.len() < WORTH_IT || parallel::cores() < 2 {
        return None;
    }
    let found = text.get(from..)?.windows(BETWEEN.len()).position(|window| window == BETWEEN)?;
    from.checked_add(found)?.checked_add(BETWEEN.len().saturating_sub(1))
}

/// Parses both halves. `None`: the text has to be read and parsed again.
pub(super) fn parse(text: &mut [u8], middle: usize, tensors: &mut Vec<Tensor>, context: Context<'_>) -> Option<Parsed> {
    let (first, second) = text.split_at_mut_checked(middle)?;
    // Where the second half's records go is a guess too. It is wrong where a
    // name contains a brace, and then the first half doesn't fill its room.
    let first_count = braces(first).saturating_sub(usize::from(first.starts_with(b"{\"__metadata__\":{")));
    let found = memory::fill(tensors, first_count, |first_tensors, second_tensors| {
        let (mut first_found, mut second_found) = (None, None);
        let parse_first = &mut || {
            first_found = first_half(first, first_tensors, context);
            Ok(())
        };
        let parse_second = &mut || {
            second_found = second_half(second, second_tensors, context);
            Ok(())
        };
        parallel::both(parse_first, parse_second).ok()?;
        join(first_found?, second_found?)
    })?;
    (tensors.len() as u64 <= context.limits.tensors).then_some(found)
}

/// Counts closing braces: one a tensor.
fn braces(text: &[u8]) -> usize {
    // Eight bytes at a time, each counted in a byte of its own, in pieces whose
    // count fits there.
    let words = text.chunks_exact(8);
    let rest = words.remainder().iter().filter(|byte| **byte == b'}').count();
    let pieces = text.get(..text.len().saturating_sub(words.remainder().len())).unwrap_or_default().chunks(8 * 255);
    let count = |piece: &[u8]| {
        let counts = piece.chunks_exact(8).fold(0_u64, |counts, word| {
            let word = word.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes)) ^ BRACES;
            // The high bit of each byte that is not zero now.
            let others = (word & LOW_BITS).wrapping_add(LOW_BITS) | word;
            counts.wrapping_add((!others & !LOW_BITS) >> 7)
        });
        counts.to_ne_bytes().into_iter().map(usize::from).sum::<usize>()
    };
    pieces.map(count).fold(rest, usize::saturating_add)
}

const BRACES: u64 = u64::from_ne_bytes([b'}'; 8]);
const LOW_BITS: u64 = u64::from_ne_bytes([0x7F; 8]);

fn join(mut first: Parsed, mut second: Parsed) -> Option<Parsed> {
    if first.hashes.is_empty() || second.hashes.is_empty() || (first.seen_metadata && second.seen_metadata) {
        return None;
    }
    first.hashes.try_reserve(second.hashes.len()).ok()?;
    first.hashes.append(&mut second.hashes);
    first.shapes.join(second.shapes);
    Some(Parsed {
        metadata: first.metadata.or(second.metadata),
        seen_metadata: first.seen_metadata || second.seen_metadata,
        in_order: first.in_order && second.in_order && first.end == second.begin,
        end: second.end,
        ..first
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn braces_are_counted(text in prop::collection::vec(prop_oneof![Just(b'}'), any::<u8>()], 0..9000)) {
            prop_assert_eq!(braces(&text), text.iter().filter(|byte| **byte == b'}').count());
        }
    }
}
