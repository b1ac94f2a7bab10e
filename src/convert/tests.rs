// SPDX-License-Identifier: Apache-2.0
//! Every level says what the plain one says; what the plain one says is judged
//! in tests/agreement/convert.rs.

use super::*;

/// Bytes that reach NaNs, infinities, subnormals and ties of every dtype often.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len)
        .map(|_| match next() {
            0..=39 => 0,
            40..=59 => 0xff,
            60..=79 => 0x7f,
            80..=99 => 0x80,
            _ => next(),
        })
        .collect()
}

fn pairs() -> impl Iterator<Item = (Dtype, Dtype, Steps)> {
    let all = Dtype::ALL.iter().flat_map(|from| Dtype::ALL.iter().map(move |to| (*from, *to)));
    all.filter_map(|(from, to)| match plan(from, to) {
        Some(Conversion::Steps(steps)) => Some((from, to, steps)),
        _ => None,
    })
}

/// The same by the plain level and by none of the block machinery.
fn plainly(steps: &Steps, src: &[u8], elements: usize) -> Vec<u8> {
    let plain = Instructions::all()[0];
    let mut values = src.to_vec();
    for (step, size) in [
        (steps.unpack, 1),
        (Some(steps.first), if steps.second.is_some() { 4 } else { steps.to }),
        (steps.second, steps.to),
    ] {
        if let Some(step) = step {
            let mut next = vec![0; elements * size];
            plain.run(step, &values, &mut next);
            values = next;
        }
    }
    values
}

#[test]
fn levels_agree_at_every_length_and_alignment() {
    for (from, to, steps) in pairs() {
        let group = if from.bits() < 8 { 4 } else { 1 };
        for elements in (0..=300).step_by(group) {
            let src_len = byte_size(from, elements).unwrap();
            let (src_skew, dst_skew) = (elements % 7, elements % 5);
            let src = bytes(src_skew + src_len, elements as u64);
            let src = &src[src_skew..];
            let expected = plainly(&steps, src, elements);
            for (level, far) in Instructions::all().into_iter().flat_map(|level| [(level, false), (level, true)]) {
                let mut dst = vec![0xa5; dst_skew + expected.len() + 3];
                steps.run(level, src, &mut dst[dst_skew..][..expected.len()], far);
                assert!(dst[dst_skew..][..expected.len()] == expected, "{from:?} to {to:?}, {elements} at {level:?}");
                assert!(
                    dst[dst_skew + expected.len()..] == [0xa5; 3] && dst[..dst_skew].iter().all(|byte| *byte == 0xa5)
                );
            }
        }
    }
}

#[test]
fn levels_agree_over_many_blocks_wherever_they_go() {
    for (from, to, steps) in pairs() {
        let elements = 5_004;
        let src = bytes(byte_size(from, elements).unwrap(), 7);
        let expected = plainly(&steps, &src, elements);
        // On a cache line, after one element or more, and where no element meets a line.
        for (level, skew) in
            Instructions::all().into_iter().flat_map(|level| [0, 1, 2, 8, 48, 62].map(|skew| (level, skew)))
        {
            for far in [false, true] {
                let mut memory = vec![0xa5; expected.len() + 192];
                let start = memory.as_ptr().align_offset(64) + skew;
                steps.run(level, &src, &mut memory[start..][..expected.len()], far);
                let (before, rest) = memory.split_at(start);
                let (dst, after) = rest.split_at(expected.len());
                assert!(dst == expected, "{from:?} to {to:?} at {level:?}, {skew} after a line, far: {far}");
                assert!(before.iter().chain(after).all(|byte| *byte == 0xa5), "{from:?} to {to:?} wrote beside");
            }
        }
    }
}

#[test]
fn levels_agree_on_every_sixteen_bits() {
    let low: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    // Upper halves with the lower ones that matter to rounding: none, one, half and its neighbours, all.
    let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x0fff, 0x1000, 0x1001];
    let high: Vec<u8> = (0..=u16::MAX)
        .flat_map(|high| lower.map(|low| (u32::from(high) << 16) | low))
        .flat_map(u32::to_le_bytes)
        .collect();
    for (from, to, steps) in pairs().filter(|(from, ..)| from.bits() >= 16) {
        let src = if from.bits() == 16 { &low } else { &high };
        let expected = plainly(&steps, src, src.len() * 8 / from.bits() as usize);
        for level in Instructions::all() {
            let mut dst = vec![0; expected.len()];
            steps.run(level, src, &mut dst, false);
            assert!(dst == expected, "{from:?} to {to:?} at {level:?}");
        }
    }
}

#[test]
fn sizes_are_checked() {
    let refused = |from, src: usize, to, dst: usize| {
        convert(from, &vec![0; src], to, &mut vec![0; dst]).map_err(|error| error.kind())
    };
    assert_eq!(refused(Dtype::F6E2M3, 6, Dtype::F32, 32), Ok(()));
    assert_eq!(refused(Dtype::F6E2M3, 4, Dtype::F32, 20), Err(ErrorKind::SizeMismatch));
    assert_eq!(refused(Dtype::Bf16, 3, Dtype::F32, 6), Err(ErrorKind::SizeMismatch));
    assert_eq!(refused(Dtype::Bf16, 4, Dtype::F32, 9), Err(ErrorKind::BufferSize));
    assert_eq!(refused(Dtype::F32, 4, Dtype::F64, 8), Err(ErrorKind::Unsupported));
    assert_eq!(refused(Dtype::Unknown, 4, Dtype::Unknown, 4), Err(ErrorKind::Unsupported));
    assert_eq!(byte_size(Dtype::F6E3M2, 3), None);
    assert_eq!(byte_size(Dtype::F64, usize::MAX), None);
}
