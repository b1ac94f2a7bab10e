// SPDX-License-Identifier: Apache-2.0
//! A large header is parsed by two threads, each half by one.
//!
//! Where an entry begins can't be known from the middle of a text: the place
//! may be inside a string that looks like one. So the second half is parsed on
//! a guess, and counts only if the first one, parsed from the start, ends just
//! there. If it doesn't, or if any rule is broken, the caller parses the whole
//! text again, from its start, so that errors are those of a single pass.
#![forbid(unsafe_code)]

use std::thread;

use super::parse::{first_half, second_half, Context, Found};

/// Starting a thread takes about 50 us, the time to parse 50 kB.
const WORTH_IT: usize = 1 << 20;

/// Where one entry ends and the next begins, as nearly every writer spells it.
const BETWEEN: &[u8] = b"]},\"";

/// Where to divide: behind a comma near the middle, or nowhere.
pub(super) fn middle(text: &[u8]) -> Option<usize> {
    // The second half is copied behind the first, so it is the smaller one.
    let from = (text.len() / 16).saturating_mul(9);
    if text.len() < WORTH_IT || thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return None;
    }
    let found = text.get(from..)?.windows(BETWEEN.len()).position(|window| window == BETWEEN)?;
    from.checked_add(found)?.checked_add(BETWEEN.len().saturating_sub(1))
}

/// Parses both halves. `None`: the text has to be read and parsed again.
pub(super) fn parse(text: &mut [u8], middle: usize, context: Context<'_>) -> Option<Found> {
    let (first, second) = text.split_at_mut_checked(middle)?;
    thread::scope(|scope| {
        let second =
            thread::Builder::new().name("safetensors".into()).spawn_scoped(scope, || second_half(second, context));
        let first = first_half(first, context);
        let found = join(first?, second.ok()?.join().ok()??)?;
        (found.tensors.len() as u64 <= context.limits.tensors).then_some(found)
    })
}

fn join(mut first: Found, mut second: Found) -> Option<Found> {
    if first.seen_metadata && second.seen_metadata {
        return None;
    }
    if first.tensors.is_empty() || second.tensors.is_empty() {
        return None;
    }
    first.tensors.try_reserve(second.tensors.len()).ok()?;
    first.tensors.append(&mut second.tensors);
    first.hashes.try_reserve(second.hashes.len()).ok()?;
    first.hashes.append(&mut second.hashes);
    first.shapes.join(second.shapes);
    Some(Found {
        metadata: first.metadata.or(second.metadata),
        seen_metadata: first.seen_metadata || second.seen_metadata,
        in_order: first.in_order && second.in_order && first.end == second.begin,
        end: second.end,
        ..first
    })
}
