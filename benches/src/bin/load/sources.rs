// SPDX-License-Identifier: Apache-2.0
//! A source whose every request takes 30 ms, by how many are under way, and what it
//! is asked for.

use std::ffi::c_void;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::from_ref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libsafetensors_benches::show;
use safetensors::ffi::{st_error, st_io, st_status};
use safetensors::ffi::{ST_DTYPE_AS_STORED, ST_DTYPE_F32, ST_ERROR_IO, ST_IO_AUTO, ST_OK};

use crate::files::{ready, write};
use crate::handle::{options, Handle};
use crate::table::timed;

struct Distant {
    file: File,
    latency: Duration,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

unsafe extern "C" fn read_at(
    user_data: *mut c_void,
    offset: u64,
    dst: *mut c_void,
    len: usize,
    done: *mut usize,
    _: *mut st_error,
) -> st_status {
    // SAFETY: as the header says.
    unsafe {
        let this = &*user_data.cast::<Distant>();
        this.requests.fetch_add(1, Ordering::Relaxed);
        this.bytes.fetch_add(len, Ordering::Relaxed);
        std::thread::sleep(this.latency);
        let to = std::slice::from_raw_parts_mut(dst.cast::<u8>(), len);
        match this.file.read_exact_at(to, offset) {
            Ok(()) => {
                done.write(len);
                ST_OK
            }
            Err(_) => ST_ERROR_IO,
        }
    }
}

pub(crate) fn measure(folder: &Path, _: usize, _: usize) {
    const MIB: usize = 1 << 20;
    for (what, count, shape) in [
        ("64 tensors of 1 MiB", 64, &[MIB / 2][..]),
        ("4,000 tensors of 16 kB", 4000, &[8000]),
        ("half of the columns of 4 tensors of 16 MiB", 4, &[2048, 4096]),
    ] {
        let path = write(folder, "bench-distant.safetensors", count, shape);
        println!("\n{what}, each request takes 30 ms and 4 MiB at most; once each");
        println!(
            "{:>12} {:>12} {:>10} {:>10} {:>12} {:>14}",
            "under way", "to", "time", "requests", "MB asked for", "least possible"
        );
        for dtype in [ST_DTYPE_AS_STORED, ST_DTYPE_F32] {
            for threads in [1, 4, 16] {
                one(&path, dtype, threads, shape.len() > 1);
            }
        }
        fs::remove_file(&path).unwrap();
    }
}

fn one(path: &Path, dtype: i32, threads: u32, halves: bool) {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let distant =
        Distant { file, latency: Duration::from_millis(30), requests: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };
    // SAFETY: null is a value of every field.
    let mut io: st_io = unsafe { std::mem::zeroed() };
    io.struct_size = size_of::<st_io>();
    io.size = size;
    io.read_at = Some(read_at);
    io.user_data = from_ref(&distant).cast_mut().cast();
    io.preferred_read = 4 << 20;
    let handle = Handle::of_io(&io);
    let total = handle.tensors().iter().map(|tensor| tensor.size() as usize).sum::<usize>();
    let growth = if dtype == ST_DTYPE_F32 { 2 } else { 1 };
    let mut memory = ready(total * growth + handle.tensors().len() * 64);
    let mut items = handle.items_in(&mut memory, dtype, 64);
    let all = safetensors::record::st_range { start: 0, stop: i64::MAX, step: 1 };
    let ranges = [all, safetensors::record::st_range { start: 0, stop: 2048, step: 1 }];
    if halves {
        items.iter_mut().for_each(|item| (item.ranges, item.range_count) = (ranges.as_ptr(), 2));
    }
    let mut options = options(threads, ST_IO_AUTO);
    // Room to convert as many requests at once.
    options.staging_bytes = u64::from(threads) * (6 << 20);
    distant.requests.store(0, Ordering::Relaxed);
    distant.bytes.store(0, Ordering::Relaxed);
    let time = timed(|| handle.run(&items, &options));
    let least = total.div_ceil(4 << 20);
    let rounds = least.div_ceil(threads as usize) as u32;
    println!(
        "{threads:>12} {:>12} {:>10} {:>10} {:>12.1} {:>14}",
        if growth == 2 { "F32" } else { "as stored" },
        show(time),
        distant.requests.load(Ordering::Relaxed),
        distant.bytes.load(Ordering::Relaxed) as f64 / 1e6,
        format!("{least}, {}", show(Duration::from_millis(30) * rounds)),
    );
}
