// SPDX-License-Identifier: Apache-2.0
//! Conversion and the caller's last step on the way, beside doing them afterwards.

use std::ffi::c_void;
use std::fs;
use std::path::Path;
use std::ptr::null_mut;

use safetensors::ffi::{st_convert, st_error, st_status, st_transform};
use safetensors::ffi::{ST_ACCESS_READ, ST_DTYPE_AS_STORED, ST_DTYPE_BF16, ST_DTYPE_F32, ST_IO_AUTO, ST_OK};

use crate::files::{ready, write};
use crate::handle::{arrange, options, Handle};
use crate::table::{compare, timed};

const TENSOR: usize = 16 << 20;

pub(crate) fn measure(folder: &Path, size: usize, rounds: usize) {
    let model = write(folder, "bench-steps.safetensors", size / TENSOR, &[TENSOR / 8192, 4096]);
    fused(&model, rounds.min(5));
    fs::remove_file(&model).unwrap();
    let model = write(folder, "bench-steps.safetensors", (size / 4 / TENSOR).max(1), &[TENSOR / 8192, 4096]);
    blocks(&model, rounds.min(5));
    fs::remove_file(&model).unwrap();
}

fn fused(path: &Path, rounds: usize) {
    let handle = Handle::open(path, ST_ACCESS_READ);
    let size = handle.tensors().len() * TENSOR;
    let (mut memory, mut wide) = (ready(size), ready(size * 2));
    for threads in [1, 2] {
        let convert_all = |from: &[u8], to: &mut [u8]| {
            let share = size / 2 / threads as usize;
            std::thread::scope(|scope| {
                for (from, to) in from.chunks(share * 2).zip(to.chunks_mut(share * 4)) {
                    scope.spawn(move || {
                        let count = from.len().min(to.len() / 2) / 2;
                        let (from, to) = (from.as_ptr().cast(), to.as_mut_ptr().cast());
                        // SAFETY: as the header says.
                        unsafe { st_convert(ST_DTYPE_BF16, from, ST_DTYPE_F32, to, count, null_mut()) };
                    });
                }
            });
        };
        compare(
            &format!("BF16 to F32, {threads} threads, warm (GB/s count the results)"),
            (rounds, 2, size * 2),
            &mut wide,
            &mut [
                ("load, then st_convert", &mut |to| {
                    timed(|| {
                        handle.load(&mut memory, ST_DTYPE_AS_STORED, threads, ST_IO_AUTO);
                        convert_all(&memory, to);
                    })
                }),
                ("load as stored", &mut |to| {
                    timed(|| handle.load(&mut to[..size], ST_DTYPE_AS_STORED, threads, ST_IO_AUTO))
                }),
                ("load, converted on the way", &mut |to| timed(|| handle.load(to, ST_DTYPE_F32, threads, ST_IO_AUTO))),
            ],
        );
    }
}

/// 32 weights become 8 bits each, with a scale.
const BLOCK: usize = 32;
const BLOCK_SIZE: usize = BLOCK + 4;

fn quantise(weights: &[f32], out: &mut [u8]) {
    for (weights, out) in weights.chunks_exact(BLOCK).zip(out.chunks_exact_mut(BLOCK_SIZE)) {
        let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        out[..4].copy_from_slice(&(largest / 127.0).to_le_bytes());
        for (out, weight) in out[4..].iter_mut().zip(weights) {
            // To nearest, without a call for each.
            *out = (weight * inverse + 12_582_912.0).to_bits() as u8;
        }
    }
}

unsafe extern "C" fn run(
    _: *mut c_void,
    _: usize,
    _: u64,
    count: usize,
    src: *const c_void,
    dst: *mut c_void,
    _: *mut st_error,
) -> st_status {
    // SAFETY: as the header says; src is aligned to 64 bytes.
    unsafe {
        let weights = std::slice::from_raw_parts(src.cast::<f32>(), count);
        quantise(weights, std::slice::from_raw_parts_mut(dst.cast(), count / BLOCK * BLOCK_SIZE));
    }
    ST_OK
}

fn blocks(path: &Path, rounds: usize) {
    let handle = Handle::open(path, ST_ACCESS_READ);
    let elements = handle.tensors().len() * TENSOR / 2;
    let mut wide = ready(elements * 4);
    let mut result = ready(elements / BLOCK * BLOCK_SIZE + handle.tensors().len() * 64);
    let transform = st_transform {
        struct_size: size_of::<st_transform>(),
        unit: BLOCK as u64,
        unit_size: BLOCK_SIZE as u64,
        run: Some(run),
        user_data: null_mut(),
    };
    let on_the_way = |to: &mut [u8], threads| {
        let mut items = handle.items(ST_DTYPE_F32);
        items.iter_mut().for_each(|item| item.transform = &transform);
        arrange(&mut items, to, 64);
        timed(|| handle.run(&items, &options(threads, ST_IO_AUTO)))
    };
    for threads in [1, 2] {
        compare(
            &format!("BF16 to blocks of 8 bits, {threads} threads, warm (GB/s count bytes of the file)"),
            (rounds, 1, elements * 2),
            &mut result,
            &mut [
                ("load as F32, then quantise", &mut |to| {
                    timed(|| {
                        handle.load(&mut wide, ST_DTYPE_F32, threads, ST_IO_AUTO);
                        let share = elements / threads as usize;
                        std::thread::scope(|scope| {
                            for (from, to) in wide.chunks(share * 4).zip(to.chunks_mut(share / BLOCK * BLOCK_SIZE)) {
                                // SAFETY: whole floats, aligned as pages are.
                                let from = unsafe { std::slice::from_raw_parts(from.as_ptr().cast(), from.len() / 4) };
                                scope.spawn(move || quantise(from, to));
                            }
                        });
                    })
                }),
                ("load with a transform", &mut |to| on_the_way(to, threads)),
            ],
        );
    }
}
