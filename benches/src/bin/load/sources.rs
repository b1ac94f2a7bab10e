// SPDX-License-Identifier: Apache-2.0
//! A source whose every request takes 30 ms, by how many are under way, and what it
//! is asked for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use libsafetensors_benches::show;
use safetensors::ffi::{ST_DTYPE_AS_STORED, ST_DTYPE_F32, ST_IO_AUTO};

use crate::callbacks::Reader;
use crate::files::{ready, write};
use crate::handle::{options, Handle};
use crate::table::timed;

const LATENCY: Duration = Duration::from_millis(30);

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
    let distant = Reader { delay: LATENCY, preferred_read: 4 << 20, ..Reader::new(fs::read(path).unwrap()) };
    let handle = Handle::of_io(&distant.io());
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
    distant.counts.requests.lock().unwrap().clear();
    let time = timed(|| handle.run(&items, &options));
    let requests = distant.counts.requests.lock().unwrap();
    let least = total.div_ceil(4 << 20);
    let rounds = least.div_ceil(threads as usize) as u32;
    println!(
        "{threads:>12} {:>12} {:>10} {:>10} {:>12.1} {:>14}",
        if growth == 2 { "F32" } else { "as stored" },
        show(time),
        requests.len(),
        requests.iter().map(|(_, len)| len).sum::<usize>() as f64 / 1e6,
        format!("{least}, {}", show(LATENCY * rounds)),
    );
}
