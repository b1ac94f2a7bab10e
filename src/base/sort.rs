// SPDX-License-Identifier: Apache-2.0
//! Sorting, compiled once for each kind of key: std's sort is 8 kB of machine
//! code for each type that is sorted, and most of ours sort a few things once.
#![forbid(unsafe_code)]

use crate::base::memory;
use crate::error::Result;

/// Rows of numbers, in order.
#[inline(never)]
pub(crate) fn rows(rows: &mut [[u64; 3]]) {
    rows.sort_unstable();
}

/// Texts with their numbers, in order.
#[inline(never)]
pub(crate) fn texts(texts: &mut [(&[u8], usize)]) {
    texts.sort_unstable();
}

/// Texts in order, each with its place among those given; `what` they are.
pub(crate) fn sorted<'a>(given: impl ExactSizeIterator<Item = &'a [u8]>, what: &str) -> Result<Vec<(&'a [u8], usize)>> {
    let mut sorted = memory::vec_with_capacity(given.len(), what)?;
    sorted.extend(given.zip(0..));
    by_prefixes(&mut sorted, what)?;
    Ok(sorted)
}

/// How many bytes two texts begin with in common.
pub(crate) fn common(one: &[u8], other: &[u8]) -> usize {
    let eights = one.chunks_exact(8).zip(other.chunks_exact(8));
    let mut at = 0_usize;
    for (one, other) in eights {
        let differing = eight(one, 0) ^ eight(other, 0);
        if differing != 0 {
            return at.saturating_add(differing.leading_zeros() as usize / 8);
        }
        at = at.saturating_add(8);
    }
    let rest = one.get(at..).unwrap_or_default().iter().zip(other.get(at..).unwrap_or_default());
    at.saturating_add(rest.take_while(|(a, b)| a == b).count())
}

/// Eight bytes of a text as a number in the same order; zeros where it ends.
fn eight(text: &[u8], at: usize) -> u64 {
    let rest = text.get(at..).unwrap_or_default();
    if let Some(eight) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*eight);
    }
    let mut eight = [0; 8];
    eight.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(eight)
}

/// Below this many texts their bytes are compared one pair after the other.
const FEW: usize = 24;

/// Sorts by 16 bytes at a time, after what all texts of a stretch begin with:
/// names of tensors have most of their bytes in common, and comparing them pair
/// by pair reads those again and again. A third of the time for 100,000 of them.
fn by_prefixes(all: &mut [(&[u8], usize)], what: &str) -> Result<()> {
    if all.is_sorted() {
        return Ok(());
    }
    let mut rows = memory::vec_with_capacity(all.len(), what)?;
    let mut moved = memory::vec_with_capacity(all.len(), what)?;
    let mut stretches = vec![(0, all.len(), 0)];
    while let Some((from, to, known)) = stretches.pop() {
        let Some(stretch) = all.get_mut(from..to) else { continue };
        let Some((first, _)) = stretch.first().copied() else { continue };
        // Only lengths tell texts apart that have ended.
        if stretch.len() < FEW || stretch.iter().any(|(text, _)| text.len() < known) {
            texts(stretch);
            continue;
        }
        let beyond =
            |text: &[u8]| text.get(known..).map_or(0, |rest| common(rest, first.get(known..).unwrap_or_default()));
        let same = known.saturating_add(stretch.iter().map(|(text, _)| beyond(text)).min().unwrap_or(0));
        rows.clear();
        rows.extend(
            stretch
                .iter()
                .zip(0..)
                .map(|((text, _), number): (_, u64)| [eight(text, same), eight(text, same.saturating_add(8)), number]),
        );
        self::rows(&mut rows);
        moved.clear();
        moved.extend(rows.iter().filter_map(|[_, _, number]| stretch.get(usize::try_from(*number).ok()?)).copied());
        stretch.copy_from_slice(&moved);
        let mut start = 0_usize;
        for alike in rows.chunk_by(|one, other| one.iter().zip(other).take(2).all(|(a, b)| a == b)) {
            let end = start.saturating_add(alike.len());
            if alike.len() > 1 {
                memory::reserve(&mut stretches, 1, what)?;
                let (begin, end) = (from.saturating_add(start), from.saturating_add(end));
                stretches.push((begin, end, same.saturating_add(16)));
            }
            start = end;
        }
    }
    Ok(())
}

/// Those of sorted texts that are equal to the one before.
pub(crate) fn repeated<'s, 'a>(
    sorted: &'s [(&'a [u8], usize)],
) -> impl Iterator<Item = (&'a [u8], usize)> + use<'s, 'a> {
    sorted.windows(2).filter_map(|pair| match pair {
        [(text, _), again] if *text == again.0 => Some(*again),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_sorted_as_comparing_them_would() {
        let mut given: Vec<Vec<u8>> = Vec::new();
        for layer in 0..40 {
            for expert in 0..20 {
                given.push(format!("model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight").into_bytes());
                given.push(format!("model.layers.{layer}.{}", "x".repeat(expert)).into_bytes());
            }
        }
        // Ends and zeros, equal ones, and nothing at all.
        given.extend((0..60).map(|zeros| [b"model.layers.1", vec![0; zeros % 40].as_slice()].concat()));
        given.extend([vec![], vec![0xFF; 100], vec![0xFF; 99]]);
        let sorted = sorted(given.iter().map(Vec::as_slice), "texts").unwrap();
        let mut wanted: Vec<(&[u8], usize)> = given.iter().map(Vec::as_slice).zip(0..).collect();
        wanted.sort();
        assert_eq!(sorted, wanted);
        for length in 0..40 {
            let mut other = vec![b'a'; 40];
            other[length] = b'b';
            assert_eq!(common(&[b'a'; 40], &other), length);
            assert_eq!(common(&vec![b'a'; length], &[b'a'; 40]), length);
        }
    }
}
