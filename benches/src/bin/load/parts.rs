// SPDX-License-Identifier: Apache-2.0
//! Parts of tensors: of each of many rows a piece, beside the bare ways to read them.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::null_mut;

use memmap2::Mmap;
use reference::slice::IndexOp;
use reference::SafeTensors;
use safetensors::ffi::{st_load_item, st_load_plan, st_plan, st_read_slice};
use safetensors::ffi::{ST_ACCESS_MAP, ST_ACCESS_READ, ST_IO_AUTO, ST_IO_MAPPED};
use safetensors::record::st_range;

use crate::files::{ready, write};
use crate::handle::{options, Handle};
use crate::table::{compare, median, timed};

const ROWS: usize = 4096;
/// Those of the usual models, and some that none has.
const ROWS_AND_PARTS: [(usize, usize); 13] = [
    (8192, 4096),
    (16384, 8192),
    (28672, 3584),
    (8192, 1024),
    (2048, 512),
    (8192, 7168),
    (4096, 2048),
    (4096, 3072),
    (6144, 3000),
    (4608, 512),
    (1000, 900),
    (1024, 256),
    (57344, 128),
];

pub(crate) fn measure(folder: &Path, _: usize, rounds: usize) {
    table(folder, rounds * 5);
    columns(folder, rounds * 5);
    ranks(folder, rounds * 3);
}

/// Ranges that take bytes `from` to `to` of each row.
fn bytes_of_rows(from: usize, to: usize) -> [st_range; 2] {
    let all = st_range { start: 0, stop: i64::MAX, step: 1 };
    [all, st_range { start: from as i64 / 2, stop: to as i64 / 2, step: 1 }]
}

/// The bare ways, each from where the tensor's bytes begin.
struct Bare {
    file: File,
    map: Mmap,
    begin: usize,
    row: usize,
    part: usize,
    stage: memmap2::MmapMut,
}

impl Bare {
    /// Rows into staging, then copied.
    fn staged(&mut self, to: &mut [u8]) {
        let step = (256 << 10) / self.row;
        for (turn, to) in to.chunks_mut(step * self.part).enumerate() {
            let count = to.len() / self.part;
            let stage = &mut self.stage[..(count - 1) * self.row + self.part];
            self.file.read_exact_at(stage, (self.begin + turn * step * self.row) as u64).unwrap();
            for (to, from) in to.chunks_mut(self.part).zip(stage.chunks(self.row)) {
                to.copy_from_slice(&from[..self.part]);
            }
        }
    }

    fn each_run(&mut self, to: &mut [u8]) {
        for (number, to) in to.chunks_mut(self.part).enumerate() {
            self.file.read_exact_at(to, (self.begin + number * self.row) as u64).unwrap();
        }
    }

    /// preadv, gaps into staging.
    fn vectors(&mut self, to: &mut [u8]) {
        let gap = self.stage.as_mut_ptr();
        for (turn, to) in to.chunks_mut(512 * self.part).enumerate() {
            let place = |start: *mut u8, len| libc::iovec { iov_base: start.cast(), iov_len: len };
            let mut list: Vec<_> = to
                .chunks_mut(self.part)
                .flat_map(|to| [place(to.as_mut_ptr(), to.len()), place(gap, self.row - self.part)])
                .collect();
            list.pop();
            let (bytes, at) =
                (list.iter().map(|place| place.iov_len).sum::<usize>(), self.begin + turn * 512 * self.row);
            // SAFETY: every place is memory of ours.
            let done = unsafe { libc::preadv(self.file.as_raw_fd(), list.as_ptr(), list.len() as i32, at as i64) };
            assert_eq!(done as usize, bytes);
        }
    }

    fn mapped(&mut self, to: &mut [u8]) {
        let rows = self.map[self.begin..].chunks(self.row);
        to.chunks_mut(self.part).zip(rows).for_each(|(to, row)| to.copy_from_slice(&row[..self.part]));
    }
}

fn table(folder: &Path, rounds: usize) {
    println!("\npart of each of {ROWS} rows, one thread, warm; medians of {rounds}, in ms; last: ours beside the best bare way");
    println!(
        "{:>14} {:>8} {:>9} {:>8} {:>8} | {:>8} {:>8} {:>7} | {:>9} {:>9}",
        "row, part", "staging", "each run", "preadv", "mapping", "st_load", "_MAPPED", "reads", "read", "mapped"
    );
    for (row, part) in ROWS_AND_PARTS {
        let path = write(folder, "bench-rows.safetensors", 1, &[ROWS, row / 2]);
        let mut to = ready(ROWS * part);
        let handle = Handle::open(&path, ST_ACCESS_MAP);
        let begin = handle.tensors()[0].offset() as usize;
        let file = File::open(&path).unwrap();
        // SAFETY: nobody changes the file.
        let map = unsafe { Mmap::map(&file).unwrap() };
        let mut bare = Bare { file, map, begin, row, part, stage: ready(256 << 10) };
        let ranges = bytes_of_rows(0, part);
        let mut item = handle.items(0)[0];
        (item.ranges, item.range_count) = (ranges.as_ptr(), 2);
        (item.dst, item.dst_size) = (to.as_mut_ptr().cast(), to.len());
        let mut times = vec![Vec::new(); 6];
        for _ in 0..rounds {
            let mut one = |number: usize, work: &mut dyn FnMut()| {
                work();
                times[number].push(timed(work).as_secs_f64());
            };
            one(0, &mut || bare.staged(&mut to));
            one(1, &mut || bare.each_run(&mut to));
            one(2, &mut || bare.vectors(&mut to));
            one(3, &mut || bare.mapped(&mut to));
            one(4, &mut || handle.run(&[item], &options(1, ST_IO_AUTO)));
            one(5, &mut || handle.run(&[item], &options(1, ST_IO_MAPPED)));
        }
        let medians: Vec<_> = times.into_iter().map(|times| median(times) * 1e3).collect();
        let best = medians[..3].iter().copied().fold(f64::MAX, f64::min);
        println!(
            "{:>14} {:>8.2} {:>9.2} {:>8.2} {:>8.2} | {:>8.2} {:>8.2} {:>7} | {:>7.0} % {:>7.0} %",
            format!("{row}, {part}"),
            medians[0],
            medians[1],
            medians[2],
            medians[3],
            medians[4],
            medians[5],
            requests(&handle, &[item]),
            best / medians[4] * 100.0,
            medians[3] / medians[5] * 100.0
        );
        fs::remove_file(&path).unwrap();
    }
}

/// Reads of a load on one thread.
fn requests(handle: &Handle, items: &[st_load_item]) -> u64 {
    // SAFETY: numbers only.
    let mut plan: st_plan = unsafe { std::mem::zeroed() };
    let options = options(1, ST_IO_AUTO);
    // SAFETY: as the header says.
    let status = unsafe { st_load_plan(handle.0, items.as_ptr(), items.len(), &options, &mut plan, null_mut()) };
    assert_eq!(status, 0);
    plan.requests
}

/// Half of the columns of a square matrix, from opening on, as the crate's slices give them.
fn columns(folder: &Path, rounds: usize) {
    let path = write(folder, "bench-square.safetensors", 1, &[4096, 4096]);
    let size = 4096 * 2048 * 2;
    let mut memory = ready(size);
    let ranges = bytes_of_rows(0, 4096);
    let loaded = |to: &mut [u8], io| {
        timed(|| {
            let handle = Handle::open(&path, if io == ST_IO_MAPPED { ST_ACCESS_MAP } else { ST_ACCESS_READ });
            let mut item = handle.items(0)[0];
            (item.ranges, item.range_count) = (ranges.as_ptr(), 2);
            (item.dst, item.dst_size) = (to.as_mut_ptr().cast(), to.len());
            handle.run(&[item], &options(1, io));
        })
    };
    compare(
        "half of dimension 1 of a 4096 x 4096 BF16 tensor, opened, one thread, warm",
        (rounds, 1, size),
        &mut memory,
        &mut [
            ("crate: open, slice iterator", &mut |to| timed(|| crate_columns(&path, to))),
            ("st_open, st_read_slice", &mut |to| {
                timed(|| {
                    let handle = Handle::open(&path, ST_ACCESS_READ);
                    let (tensor, to) = (&handle.tensors()[0], to.as_mut_ptr().cast());
                    // SAFETY: as the header says.
                    let status = unsafe { st_read_slice(handle.0, tensor, ranges.as_ptr(), 2, to, size, null_mut()) };
                    assert_eq!(status, 0);
                })
            }),
            ("st_open, st_load", &mut |to| loaded(to, ST_IO_AUTO)),
            ("st_open, st_load, ST_IO_MAPPED", &mut |to| loaded(to, ST_IO_MAPPED)),
        ],
    );
    fs::remove_file(&path).unwrap();
}

fn crate_columns(path: &Path, to: &mut [u8]) {
    let file = File::open(path).unwrap();
    // SAFETY: nobody changes the file.
    let map = unsafe { Mmap::map(&file).unwrap() };
    let model = SafeTensors::deserialize(&map).unwrap();
    let tensor = model.tensor("model.layers.0.weight").unwrap();
    let mut at = 0;
    for run in tensor.slice((.., ..2048_usize)).unwrap() {
        to[at..at + run.len()].copy_from_slice(run);
        at += run.len();
    }
}

/// All ranks' columns in one call: each row is read once.
fn ranks(folder: &Path, rounds: usize) {
    let path = write(folder, "bench-ranks.safetensors", 4, &[4096, 4096]);
    let size = 4 * 4096 * 8192;
    let mut memory = ready(size);
    let handle = Handle::open(&path, ST_ACCESS_MAP);
    for ranks in [2, 8] {
        let part = 8192 / ranks;
        let ranges: Vec<_> = (0..ranks).map(|rank| bytes_of_rows(rank * part, (rank + 1) * part)).collect();
        let items = |to: &mut [u8]| -> Vec<_> {
            let of_each = handle.items(0);
            let each = of_each.iter().flat_map(|item| ranges.iter().map(move |ranges| (item, ranges)));
            each.zip(to.chunks_mut(4096 * part))
                .map(|((item, ranges), to)| st_load_item {
                    ranges: ranges.as_ptr(),
                    range_count: 2,
                    dst: to.as_mut_ptr().cast(),
                    dst_size: to.len(),
                    ..*item
                })
                .collect()
        };
        let load = |to: &mut [u8], threads, io| {
            let items = items(to);
            timed(|| handle.run(&items, &options(threads, io)))
        };
        compare(
            &format!("the columns of {ranks} ranks of four such tensors in one load, warm"),
            (rounds, 1, size),
            &mut memory,
            &mut [
                ("st_load of the tensors whole, 1 thread", &mut |to| timed(|| handle.load(to, 0, 1, ST_IO_AUTO))),
                ("st_load of the parts, 1 thread", &mut |to| load(to, 1, ST_IO_AUTO)),
                ("st_load of the parts, its own choice", &mut |to| load(to, 0, ST_IO_AUTO)),
                ("st_load of the parts, ST_IO_MAPPED, 1 thread", &mut |to| load(to, 1, ST_IO_MAPPED)),
            ],
        );
        println!("reads: {}", requests(&handle, &items(&mut memory)));
    }
    fs::remove_file(&path).unwrap();
}
