// SPDX-License-Identifier: Apache-2.0
//! Converting, on one thread, beside the crate `half` and what the machine's
//! memory allows: results larger than the caches, results that fit L2, and a
//! source that fits L2 into a result larger than the caches, as loading does it.
//!
//! Pairs may be named on the command line, as `BF16-F32`; `huge` is for huge pages
//! instead of those of 4 KiB. Times are CPU time of the thread, so that a busy
//! machine disturbs them less.

use std::hint::black_box;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use std::{ptr, slice};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::convert::convert_to;
use safetensors::ffi::st_convert;
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

const LARGE: usize = 32 << 20;
const SMALL: usize = 64 << 10;

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "huge").collect();
    let huge = std::env::args().any(|argument| argument == "huge");
    let pairs: Vec<(Dtype, Dtype)> = PAIRS
        .iter()
        .copied()
        .filter(|(from, to)| named.is_empty() || named.contains(&format!("{}-{}", from.name(), to.name())))
        .collect();
    let (mut src, mut dst) = (Buffer::new(LARGE * 8, huge), Buffer::new(LARGE * 8, huge));
    fill(&mut src);
    dst.fill(1);

    println!("Medians; GB/s count what is read and what is written. Pages {}.", if huge { "huge" } else { "of 4 KiB" });
    for (elements, rounds) in [(LARGE, 9), (SMALL, 301)] {
        println!("\n{elements} elements\n");
        println!(
            "{:>12} {:>6} {:>9} {:>11} {:>9} {:>9} {:>9}",
            "from", "to", "GB/s", "ns/element", "x half", "x memcpy", "x limit"
        );
        for &(from, to) in &pairs {
            compare(from, to, elements, rounds, &mut src, &mut dst);
        }
    }
    println!("\n{LARGE} elements, of which {SMALL} are converted again and again, as if just read\n");
    println!("{:>12} {:>6} {:>9} {:>16}", "from", "to", "GB/s", "x through caches");
    for &(from, to) in &pairs {
        compare_pieces(from, to, &src, &mut dst);
    }
}

fn bytes(dtype: Dtype, elements: usize) -> usize {
    elements * dtype.bits() as usize / 8
}

/// `x memcpy`: how much longer a copy takes that reads and writes as many bytes.
/// `x limit`: the same of reading and writing them, each as fast as the machine does.
fn compare(from: Dtype, to: Dtype, elements: usize, rounds: usize, src: &mut [u8], dst: &mut [u8]) {
    let (src, dst_len) = (&src[..bytes(from, elements)], bytes(to, elements));
    let moved = src.len() + dst_len;
    let copy = moved / 2;
    let (result, spare) = dst.split_at_mut(dst_len);
    let (plain, spare) = spare.split_at_mut(copy.min(spare.len() / 2));
    let copied = &mut spare[..plain.len()];
    let copy_scale = copy as f64 / plain.len() as f64;
    let mut results = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=rounds {
        let times = [
            time(|| {
                // SAFETY: both hold as many elements.
                let status = unsafe {
                    st_convert(
                        from as i32,
                        src.as_ptr().cast(),
                        to as i32,
                        result.as_mut_ptr().cast(),
                        elements,
                        ptr::null_mut(),
                    )
                };
                assert_eq!(black_box(status), 0);
            }),
            time(|| half_has(from, to, src, result)),
            time(|| black_box(&mut *copied).copy_from_slice(black_box(plain))),
            // Would leave a small result out of the caches for those whose turn is next.
            if elements == LARGE { time(|| read_and_write(src, result)) } else { Duration::ZERO },
        ];
        if round > 0 {
            results.iter_mut().zip(times).for_each(|(all, time)| all.push(time.as_secs_f64()));
        }
    }
    let [ours, half, copied, limit] = results.map(median);
    let has_half = half * 1e9 > elements as f64 * 0.01;
    println!(
        "{:>12} {:>6} {:>9.2} {:>11.3} {:>9} {:>8.2}x {:>9}",
        from.name(),
        to.name(),
        moved as f64 / ours / 1e9,
        ours * 1e9 / elements as f64,
        if has_half { format!("{:.2}x", half / ours) } else { "-".to_owned() },
        copied * copy_scale / ours,
        if elements == LARGE { format!("{:.2}x", limit / ours) } else { "-".to_owned() },
    );
}

/// A source within the caches to a result that is not, told so and not told so.
fn compare_pieces(from: Dtype, to: Dtype, src: &[u8], dst: &mut [u8]) {
    let src = &src[..bytes(from, SMALL)];
    let mut results = [Vec::new(), Vec::new()];
    for round in 0..=9 {
        for (far, all) in [true, false].into_iter().zip(&mut results) {
            let time = time(|| {
                for piece in dst[..bytes(to, LARGE)].chunks_exact_mut(bytes(to, SMALL)) {
                    convert_to(from, black_box(src), to, piece, far).unwrap();
                }
            });
            if round > 0 {
                all.push(time.as_secs_f64());
            }
        }
    }
    let [told, not_told] = results.map(median);
    let moved = bytes(from, LARGE) + bytes(to, LARGE);
    println!("{:>12} {:>6} {:>9.2} {:>15.2}x", from.name(), to.name(), moved as f64 / told / 1e9, not_told / told);
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

/// CPU time of this thread.
fn time(work: impl FnOnce()) -> Duration {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a place for the time.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = now();
    work();
    now() - start
}

/// The same by `half`; nothing for pairs it lacks.
fn half_has(from: Dtype, to: Dtype, src: &[u8], dst: &mut [u8]) {
    fn cast<T>(bytes: &[u8]) -> &[T] {
        assert!(bytes.as_ptr().cast::<T>().is_aligned());
        // SAFETY: aligned, and any bytes make these types.
        unsafe { slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
    }
    fn cast_mut<T>(bytes: &mut [u8]) -> &mut [T] {
        assert!(bytes.as_ptr().cast::<T>().is_aligned());
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) }
    }
    match (from, to) {
        (Dtype::Bf16, Dtype::F32) => cast::<bf16>(src).convert_to_f32_slice(cast_mut(dst)),
        (Dtype::F16, Dtype::F32) => cast::<f16>(src).convert_to_f32_slice(cast_mut(dst)),
        (Dtype::F32, Dtype::Bf16) => cast_mut::<bf16>(dst).convert_from_f32_slice(cast(src)),
        (Dtype::F32, Dtype::F16) => cast_mut::<f16>(dst).convert_from_f32_slice(cast(src)),
        _ => {}
    }
}

/// Reads one and writes the other side by side, past the caches, and does nothing else.
#[cfg(target_arch = "x86_64")]
fn read_and_write(src: &[u8], dst: &mut [u8]) {
    use std::arch::x86_64::*;

    // SAFETY: every x86-64 has it.
    let (mut read, mut seen) = (0, unsafe { _mm_setzero_si128() });
    let none = seen;
    let step = src.len() as f64 / dst.len() as f64 * 64.0;
    let mut due = 0.0;
    for line in dst.chunks_exact_mut(64) {
        due += step;
        while (read as f64) < due && read + 64 <= src.len() {
            // SAFETY: within `src`; a prefetch may be anywhere.
            unsafe {
                let from = src.as_ptr().add(read);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(2048).cast());
                for part in 0..4 {
                    seen = _mm_xor_si128(seen, _mm_loadu_si128(from.add(part * 16).cast()));
                }
            }
            read += 64;
        }
        for part in line.chunks_exact_mut(16) {
            // SAFETY: the buffer is aligned to pages.
            unsafe { _mm_stream_si128(part.as_mut_ptr().cast(), none) };
        }
    }
    // SAFETY: every x86-64 has it.
    unsafe { _mm_sfence() };
    black_box(seen);
}

#[cfg(not(target_arch = "x86_64"))]
fn read_and_write(src: &[u8], dst: &mut [u8]) {
    black_box(src.chunks_exact(8).fold(0_u64, |sum, eight| sum ^ u64::from_le_bytes(eight.try_into().unwrap())));
    black_box(dst).fill(0);
}

/// Memory of its own pages, huge or not.
struct Buffer(&'static mut [u8]);

impl Buffer {
    fn new(size: usize, huge: bool) -> Self {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, never unmapped.
        unsafe {
            let start = libc::mmap(ptr::null_mut(), size, access, kind, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            libc::madvise(start, size, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
            Self(slice::from_raw_parts_mut(start.cast(), size))
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0
    }
}

/// Bytes that make ordinary values in most dtypes.
fn fill(bytes: &mut [u8]) {
    let mut state = 1_u32;
    for byte in bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8 & 0xbf;
    }
}
