// SPDX-License-Identifier: Apache-2.0
//! What a slice is, by plain index arithmetic over a full copy.

use safetensors::Range;

/// What one range picks by the rules, one index after another.
pub(crate) fn naive_indices(size: i64, range: &Range) -> Option<Vec<i64>> {
    let from_front = |bound: i64| if bound < 0 { size.checked_add(bound).unwrap() } else { bound };
    let start = from_front(range.start);
    let stop = if range.stop == i64::MAX { size } else { from_front(range.stop) };
    let valid = range.step >= 1 && (0..=size).contains(&start) && (0..=size).contains(&stop) && start <= stop;
    let step = usize::try_from(range.step).unwrap_or(1);
    valid.then(|| (start..stop).step_by(step.max(1)).collect())
}

pub(crate) enum Naive {
    Picked { shape: Vec<i64>, bytes: Vec<u8> },
    Invalid,
    SubByte,
}

pub(crate) fn naive(data: &[u8], bits: usize, shape: &[i64], ranges: &[Range]) -> Naive {
    if ranges.len() > shape.len() {
        return Naive::Invalid;
    }
    let mut indices = Vec::new();
    for (dimension, size) in shape.iter().enumerate() {
        match naive_indices(*size, ranges.get(dimension).unwrap_or(&Range::ALL)) {
            Some(picked) => indices.push(picked),
            None => return Naive::Invalid,
        }
    }
    let mut flat = vec![0_usize];
    for (picked, size) in indices.iter().zip(shape) {
        flat = flat.iter().flat_map(|base| picked.iter().map(move |i| base * *size as usize + *i as usize)).collect();
    }
    // Runs of adjacent elements, each to begin and end on a byte.
    for (i, element) in flat.iter().enumerate() {
        let begins = i == 0 || flat[i - 1] + 1 != *element;
        let ends = i + 1 == flat.len() || flat[i + 1] != element + 1;
        if (begins && element * bits % 8 != 0) || (ends && (element + 1) * bits % 8 != 0) {
            return Naive::SubByte;
        }
    }
    // One bit after another, from the low end.
    let mut bytes = vec![0_u8; flat.len() * bits / 8];
    for (to, from) in flat.iter().flat_map(|element| element * bits..(element + 1) * bits).enumerate() {
        bytes[to / 8] |= (data[from / 8] >> (from % 8) & 1) << (to % 8);
    }
    Naive::Picked { shape: indices.iter().map(|picked| picked.len() as i64).collect(), bytes }
}
