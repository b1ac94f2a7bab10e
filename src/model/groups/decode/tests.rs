// SPDX-License-Identifier: Apache-2.0
//! Every level says what the plain one says; what that says is judged by recorded
//! answers in tests/model.

use super::kernel::{Level, CHUNK};
use super::op::{GroupSpan, Op, Packed, Room, Runs, Tail, Values};
use super::tables::Tables;
use super::FP4;
use crate::dtype::Dtype;

/// Bytes that are those of NaNs, zeros and negative numbers often.
fn bytes(len: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len)
        .map(|_| match next() {
            0..=9 => 0,
            10..=19 => 0xff,
            20..=29 => 0x7f,
            30..=39 => 0x80,
            _ => next(),
        })
        .collect()
}

/// Scales of every size, and some that are none.
fn floats(len: usize, seed: usize) -> Vec<f32> {
    let all = bytes(4 * len, seed);
    let float = |(number, bytes): (usize, &[u8])| match number % 11 {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2 => f32::from_bits(u32::from(bytes[0])),
        3 => f32::from_bits(u32::from(bytes[0]) << 23),
        _ => (f32::from(bytes[0]) - 128.0) * f32::from_bits(0x3b00_0000 | u32::from(bytes[1]) << 8),
    };
    all.chunks(4).enumerate().map(float).collect()
}

/// Results as numbers, in which all NaNs are the same.
fn results(bytes: &[u8], to: Dtype) -> Vec<u32> {
    let size = if to == Dtype::F32 { 4 } else { 2 };
    let (exponent, infinity) = match to {
        Dtype::F32 => (0x7fff_ffff, 0x7f80_0000),
        Dtype::F16 => (0x7fff, 0x7c00),
        _ => (0x7fff, 0x7f80),
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let same = |bits: u32| if bits & exponent > infinity { u32::MAX } else { bits };
    bytes.chunks(size).map(|bytes| same(number(bytes))).collect()
}

const TAILS: [Tail; 4] = [Tail::Scale, Tail::Times(0.3), Tail::Over(0.7), Tail::Offset];
const TO: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

fn values() -> Vec<Values> {
    let map = std::array::from_fn(|code| code as f32 / 7.0 - 1.0);
    let unsigned = (1..=8).map(|bits| Values::Unsigned { bits });
    let others = [Values::Table(FP4), Values::Table(map), Values::Signed, Values::E2M3, Values::E4M3, Values::E5M2];
    unsigned.chain(others).collect()
}

/// Codes that a byte may hold.
fn codes(values: Values, len: usize, seed: usize) -> Vec<u8> {
    let mask = match values {
        Values::Table(_) => 0xf,
        Values::Unsigned { bits } => u8::MAX >> (8 - bits),
        Values::E2M3 => 0x3f,
        _ => 0xff,
    };
    bytes(len, seed).into_iter().map(|byte| byte & mask).collect()
}

fn run(level: Level, op: &Op, runs: &Runs<'_>, codes: Packed<'_>, to: Dtype, count: usize) -> Vec<u8> {
    let mut out = vec![0xee; count * if to == Dtype::F32 { 4 } else { 2 } + 3];
    let room = out.len() - 3;
    level.run(op, runs, codes, to, Room { bytes: &mut out[..room], ahead: 64 }, &mut [0; CHUNK]);
    assert_eq!(out.split_off(room), [0xee; 3]);
    out
}

#[test]
fn levels_agree_on_every_value_length_and_group() {
    let mut seed = 0;
    for values in values() {
        for tail in TAILS {
            for (group, left) in [(128, 128), (16, 16), (16, 5), (32, 32), (24, 24), (7, 3), (usize::MAX, usize::MAX)] {
                for count in [0, 1, 15, 16, 31, 33, 64, 100, 250] {
                    seed += 1;
                    let (scales, all) = (floats(100, seed), floats(100, seed + 1));
                    let zeros: &[f32] = if seed % 2 == 0 { &all } else { &[] };
                    let runs = Runs { scales: &scales, zeros, span: GroupSpan { left, group } };
                    let op = Op { values, tail, zero: (seed % 3) as f32 };
                    let codes = codes(values, count, seed);
                    for to in TO {
                        let expected = run(Level::Plain, &op, &runs, Packed::Bytes(&codes), to, count);
                        for level in Level::all() {
                            let found = run(level, &op, &runs, Packed::Bytes(&codes), to, count);
                            assert_eq!(results(&found, to), results(&expected, to), "{group} {count} {to:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn nibbles_give_what_their_codes_give_one_a_byte() {
    for count in [1_usize, 2, 31, 32, 33, 64, 127, 2048, 5000] {
        for (group, left) in [(16, 16), (16, 6), (32, 32), (128, 128), (7, 5), (usize::MAX, usize::MAX)] {
            let packed = bytes(count.div_ceil(2), count);
            let low: Vec<u8> = packed.iter().flat_map(|byte| [byte & 0xf, byte >> 4]).take(count).collect();
            let high: Vec<u8> = packed.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).take(count).collect();
            let (scales, zeros) = (floats(1000, count), floats(1000, count + 1));
            let runs = Runs { scales: &scales, zeros: &zeros, span: GroupSpan { left, group } };
            let op = Op { values: Values::Unsigned { bits: 4 }, tail: Tail::Scale, zero: 0.0 };
            for to in TO {
                for level in Level::all() {
                    for (codes, expected) in
                        [(Packed::LowNibbles(&packed), &low), (Packed::HighNibbles(&packed), &high)]
                    {
                        let found = run(level, &op, &runs, codes, to, count);
                        let expected = run(Level::Plain, &op, &runs, Packed::Bytes(expected), to, count);
                        assert_eq!(results(&found, to), results(&expected, to), "{group} {left} {count} {to:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn results_by_scale_are_those_that_are_computed() {
    for dtype in [Dtype::F8E8M0, Dtype::F8E4M3] {
        for tail in [Tail::Scale, Tail::Times(0.3), Tail::Over(-0.7)] {
            let op = Op { values: Values::Table(FP4), tail, zero: 0.0 };
            for (group, left) in [(16, 16), (32, 32), (16, 4), (32, 16), (32, 31)] {
                for (count, to) in [(1, Dtype::F16), (48, Dtype::Bf16), (80, Dtype::Bf16), (4500, Dtype::Bf16)] {
                    let (packed, scales) = (bytes(count, count), bytes(300, count + group));
                    let floats = super::view::View { dtype, ranges: &[], bytes: &scales }.floats().unwrap();
                    let span = GroupSpan { left, group };
                    let runs = Runs { scales: &floats, zeros: &[], span };
                    for level in Level::all().into_iter().filter(|level| level.has_tables()) {
                        let mut desk = [0; CHUNK];
                        let Ok(Tables::ByScale(tables)) = Tables::by_scale(level, &op, dtype, to, &mut desk) else {
                            panic!("no tables");
                        };
                        for codes in [Packed::LowNibbles(&packed), Packed::HighNibbles(&packed)] {
                            let expected = run(Level::Plain, &op, &runs, codes, to, count);
                            let mut found = vec![0; 2 * count];
                            let room = Room { bytes: &mut found, ahead: 0 };
                            level.by_scale(&tables, &scales, span, codes, room, &mut desk);
                            assert_eq!(results(&found, to), results(&expected, to), "{group} {left} {count}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn results_by_magnitude_are_those_that_are_computed() {
    for values in [Values::E4M3, Values::E5M2] {
        for (group, left) in [(128, 128), (128, 3), (33, 33), (usize::MAX, usize::MAX)] {
            for (count, to) in [(1, Dtype::F16), (31, Dtype::Bf16), (300, Dtype::Bf16), (300, Dtype::F16)] {
                let (codes, scales) = (bytes(count, count + group % 7), floats(20, count));
                let op = Op { values, tail: Tail::Scale, zero: 0.0 };
                let span = GroupSpan { left, group };
                let expected = run(
                    Level::Plain,
                    &op,
                    &Runs { scales: &scales, zeros: &[], span },
                    Packed::Bytes(&codes),
                    to,
                    count,
                );
                let magnitudes: Vec<u8> = (0..128).collect();
                for level in Level::all().into_iter().filter(|level| level.has_wide_tables()) {
                    let whole = GroupSpan { left: usize::MAX, group: usize::MAX };
                    let table = |scale: &f32| {
                        let runs = Runs { scales: std::slice::from_ref(scale), zeros: &[], span: whole };
                        <[u8; 256]>::try_from(run(level, &op, &runs, Packed::Bytes(&magnitudes), to, 128)).unwrap()
                    };
                    let tables: Vec<_> = scales.iter().map(table).collect();
                    let mut found = vec![0; 2 * count];
                    level.by_magnitude(&tables, span, &codes, Room { bytes: &mut found, ahead: 0 });
                    assert_eq!(results(&found, to), results(&expected, to), "{group} {left} {count}");
                }
            }
        }
    }
}

#[test]
fn levels_unpack_and_turn_alike() {
    for level in Level::all() {
        for bits in 1..=8_u32 {
            for shift in (0..8).filter(|shift| bits < 8 || *shift == 0) {
                for count in [0, 1, 7, 8, 9, 40, 100] {
                    let packed = bytes((count * bits as usize + shift as usize).div_ceil(8), count);
                    let code = |number: usize| {
                        let bit = |bit: usize| packed[bit / 8] >> (bit % 8) & 1;
                        let first = shift as usize + number * bits as usize;
                        (0..bits as usize).fold(0, |code, place| code | bit(first + place) << place)
                    };
                    let mut found = vec![0; count];
                    level.stream(&packed, shift, bits, &mut found).unwrap();
                    assert_eq!(found, (0..count).map(code).collect::<Vec<_>>(), "{bits} {shift}");
                }
            }
        }
        for (across, words, lines) in [(16, 16, 16), (20, 16, 64), (19, 17, 9), (3, 3, 3), (8, 8, 7), (9, 1, 20)] {
            let stored = bytes(across * lines * 4, across);
            let stride = lines * 4 + 8;
            let mut turned = vec![0; stride * words];
            level.turn(&stored, across, words, lines, stride, &mut turned).unwrap();
            for word in 0..words {
                for line in 0..lines {
                    let (from, to) = ((line * across + word) * 4, word * stride + line * 4);
                    assert_eq!(turned[to..to + 4], stored[from..from + 4]);
                }
            }
            assert!(level
                .turn(&stored[..stored.len() - 4 * (across - words) - 1], across, words, lines, stride, &mut turned)
                .is_none());
        }
        for (count, shift) in [(0, 0), (31, 4), (32, 28), (70, 12)] {
            let words = bytes(count * 4, count);
            let mut found = vec![0; count];
            level.nibble_of_words(&words, shift, &mut found).unwrap();
            let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
            let expected: Vec<u8> = words.chunks(4).map(|bytes| (word(bytes) >> shift & 0xf) as u8).collect();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn levels_agree_on_columns_of_any_group() {
    for level in Level::all() {
        for (bits, count) in [(4, 100), (8, 37), (2, 8)] {
            let op = Op { values: Values::Unsigned { bits }, tail: Tail::Scale, zero: 8.0 };
            let codes = codes(op.values, count, count);
            let order: Vec<u32> = bytes(count, 5).into_iter().map(|byte| u32::from(byte) % 9).collect();
            let (scales, all) = (floats(9, 3), floats(9, 4));
            for zeros in [&[], all.as_slice()] {
                let span = GroupSpan { left: usize::MAX, group: usize::MAX };
                let runs = Runs { scales: &scales, zeros, span };
                let mut both = [vec![0; 4 * count], vec![0; 4 * count]];
                for (level, out) in [Level::Plain, level].into_iter().zip(&mut both) {
                    level.indexed(&op, &runs, &order, &codes, out);
                }
                assert_eq!(results(&both[0], Dtype::F32), results(&both[1], Dtype::F32));
            }
        }
    }
}

#[test]
fn a_span_is_left_where_columns_end() {
    for (left, group) in [(3, 5), (5, 5), (1, 7), (usize::MAX, usize::MAX)] {
        for count in 0..40 {
            let mut span = GroupSpan { left, group };
            let groups = span.advance(count);
            // One column after the other.
            let (mut one, mut expected) = (GroupSpan { left, group }, 0);
            for _ in 0..count {
                one.left -= 1;
                if one.left == 0 {
                    (one.left, expected) = (group, expected + 1);
                }
            }
            assert_eq!((groups, span.left), (expected, one.left), "{left} {group} {count}");
        }
    }
}
