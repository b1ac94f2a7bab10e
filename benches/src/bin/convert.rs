// SPDX-License-Identifier: Apache-2.0
//! Converting, on one thread, results larger than the caches and results that
//! fit L2, beside the crate `half` and a plain copy of as many bytes.

use std::hint::black_box;
use std::ptr;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use libsafetensors_benches::medians;
use safetensors::ffi::convert::st_convert;
use safetensors::Dtype;

const PAIRS: &[(Dtype, Dtype)] = &[
    (Dtype::Bf16, Dtype::F32),
    (Dtype::F16, Dtype::F32),
    (Dtype::F32, Dtype::Bf16),
    (Dtype::F32, Dtype::F16),
    (Dtype::F8E4M3, Dtype::F32),
    (Dtype::F8E5M2, Dtype::F32),
    (Dtype::F8E4M3, Dtype::Bf16),
    (Dtype::F6E2M3, Dtype::F32),
    (Dtype::F4, Dtype::F32),
    (Dtype::F4, Dtype::Bf16),
    (Dtype::F32, Dtype::F8E4M3),
    (Dtype::F32, Dtype::F8E5M2),
    (Dtype::F16, Dtype::Bf16),
    (Dtype::Bf16, Dtype::F16),
    (Dtype::U8, Dtype::F32),
    (Dtype::I16, Dtype::Bf16),
    (Dtype::I32, Dtype::F32),
    (Dtype::I64, Dtype::F32),
    (Dtype::I64, Dtype::Bf16),
    (Dtype::F64, Dtype::F32),
    (Dtype::F64, Dtype::Bf16),
];

fn main() {
    for (elements, rounds) in [(64 << 20, 7), (64 << 10, 301)] {
        println!("\n{elements} elements; medians; GB/s count what is read and what is written\n");
        println!("{:>12} {:>6} {:>9} {:>11} {:>9} {:>11}", "from", "to", "GB/s", "ns/element", "x half", "x memcpy");
        for &(from, to) in PAIRS {
            if !wanted(from, to) {
                continue;
            }
            run(from, to, elements, rounds);
        }
    }
}

/// Pairs may be named on the command line, as `BF16-F32`.
fn wanted(from: Dtype, to: Dtype) -> bool {
    let name = format!("{}-{}", from.name(), to.name());
    std::env::args().len() == 1 || std::env::args().any(|argument| argument == name)
}

/// `x memcpy`: how much longer a copy would take that reads and writes as many bytes.
fn run(from: Dtype, to: Dtype, elements: usize, rounds: usize) {
    let bytes = |dtype: Dtype| elements * dtype.bits() as usize / 8;
    let (src, mut dst) = (source(bytes(from)), vec![1_u8; bytes(to)]);
    let moved = bytes(from) + bytes(to);
    let (plain, mut copy) = (vec![1_u8; moved / 2], vec![2_u8; moved / 2]);
    let mut theirs = half_of(from, to, &src, elements);
    let times = medians(
        rounds,
        &mut [
            &mut || {
                // SAFETY: both hold as many elements.
                let status = unsafe {
                    st_convert(
                        from as i32,
                        src.as_ptr().cast(),
                        to as i32,
                        dst.as_mut_ptr().cast(),
                        elements,
                        ptr::null_mut(),
                    )
                };
                assert_eq!(black_box(status), 0);
            },
            &mut || black_box(&mut copy).copy_from_slice(black_box(&plain)),
            &mut || theirs(),
        ],
    );
    let [ours, copied, half] = [0, 1, 2].map(|at| times[at].as_secs_f64());
    let ratio = if half * 1e9 < elements as f64 * 0.01 { "-".to_owned() } else { format!("{:.2}x", half / ours) };
    println!(
        "{:>12} {:>6} {:>9.2} {:>11.3} {:>9} {:>10.2}x",
        from.name(),
        to.name(),
        moved as f64 / ours / 1e9,
        ours * 1e9 / elements as f64,
        ratio,
        copied / ours,
    );
}

/// The same by `half`, into memory of its own; nothing for pairs it lacks.
fn half_of(from: Dtype, to: Dtype, src: &[u8], elements: usize) -> Box<dyn FnMut()> {
    let halves: Vec<u16> = match from {
        Dtype::F16 | Dtype::Bf16 => src.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect(),
        _ => Vec::new(),
    };
    let floats: Vec<f32> = match from {
        Dtype::F32 => src.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        _ => vec![1.0; elements],
    };
    match (from, to) {
        (Dtype::Bf16, Dtype::F32) => {
            let (src, mut dst) = (halves.into_iter().map(bf16::from_bits).collect::<Vec<_>>(), floats);
            Box::new(move || black_box(&src).convert_to_f32_slice(black_box(&mut dst)))
        }
        (Dtype::F16, Dtype::F32) => {
            let (src, mut dst) = (halves.into_iter().map(f16::from_bits).collect::<Vec<_>>(), floats);
            Box::new(move || black_box(&src).convert_to_f32_slice(black_box(&mut dst)))
        }
        (Dtype::F32, Dtype::Bf16) => {
            let mut dst = vec![bf16::ONE; elements];
            Box::new(move || black_box(&mut dst).convert_from_f32_slice(black_box(&floats)))
        }
        (Dtype::F32, Dtype::F16) => {
            let mut dst = vec![f16::ONE; elements];
            Box::new(move || black_box(&mut dst).convert_from_f32_slice(black_box(&floats)))
        }
        _ => Box::new(|| ()),
    }
}

/// Bytes that make ordinary values in most dtypes.
fn source(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next() & 0xbf).collect()
}
