// SPDX-License-Identifier: Apache-2.0
//! Saving beside the reference crate and beside the best bare loop.
//!
//!     write FOLDER [GiB] [rounds]
//!
//! Rounds are interleaved, so that a disk's moods fall on all alike; medians
//! are shown, and how often ours fits into the crate's time and into that of
//! the best bare loop. FOLDER should be on the disk that is meant.
//!
//! The bare loops are the least that writes a file whole or not at all: make a
//! file beside the target, set its room aside, write, sync if asked to, rename.
//! So where a file is replaced they all wait, like the crate and like ours,
//! until the system has released the old one's blocks.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{ptr, thread};

use libsafetensors_benches::{medians, peak_memory, show};
use reference::tensor::{serialize, serialize_to_file, Dtype as TheirDtype, TensorView};
use safetensors::ffi::{st_buffer, st_buffer_free, st_serialize};
use safetensors::writer::{self, Durability, SaveOptions};
use safetensors::{Checkpoint, Dtype, NewTensor, OpenOptions as Open};

#[path = "../../../tests/support/records.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod records;
use records::Record;

const TENSOR: usize = 16 << 20;
/// One write of the bare loops, through the page cache and past it.
const STEP: usize = 32 << 20;
const DIRECT_STEP: usize = 4 << 20;
/// Of what is read and written, so that it stays in the processor's cache.
const COPY_STEP: usize = 256 << 10;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let folder = Path::new(arguments.get(1).map_or(".", String::as_str));
    let size = (arguments.get(2).map_or(2.0, |given| given.parse::<f64>().unwrap()) * (1u64 << 30) as f64) as usize;
    let rounds = arguments.get(3).map_or(5, |given| given.parse().unwrap());
    headers();
    if size >= TENSOR {
        files(folder, size / TENSOR * TENSOR, rounds);
    }
}

/// What a way of writing is compared with.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Crate,
    Bare,
    Ours,
}

type Way<'a> = (&'a str, Kind, Box<dyn Fn() + 'a>);

fn files(folder: &Path, size: usize, rounds: usize) {
    let bytes: Vec<u8> =
        (0..size as u64 / 8).flat_map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    let names: Vec<_> = (0..size / TENSOR).map(|i| format!("model.layers.{i}.weight")).collect();
    let shape = [TENSOR as i64 / 2];
    let parts = || names.iter().zip(bytes.chunks(TENSOR));
    let ours: Vec<_> = parts()
        .map(|(name, bytes)| NewTensor::new(name, Dtype::Bf16, &shape).unwrap().with_data(bytes).unwrap())
        .collect();
    let (path, source_path) = (folder.join("bench.safetensors"), folder.join("bench-source.safetensors"));
    writer::save(&source_path, &ours, None, &SaveOptions::default(), None, None).unwrap();
    let source = Checkpoint::open(&source_path, &Open::default()).unwrap();
    let copied: Vec<_> = source
        .tensors()
        .iter()
        .map(|record| {
            let name = std::str::from_utf8(record.name()).unwrap();
            NewTensor::new(name, record.dtype(), record.shape()).unwrap().with_source(&source, record).unwrap()
        })
        .collect();
    let crate_save = || {
        let views =
            parts().map(|(name, bytes)| (name, TensorView::new(TheirDtype::BF16, vec![TENSOR / 2], bytes).unwrap()));
        serialize_to_file(views, None, &path).unwrap();
    };
    let synced_crate_save = || {
        crate_save();
        File::open(&path).unwrap().sync_all().unwrap();
        sync_folder(folder);
    };
    let save = |tensors: &[NewTensor<'_>], sync| {
        writer::save(&path, tensors, None, &SaveOptions { sync, ..SaveOptions::default() }, Some(&source), None)
            .unwrap();
    };
    let (unsynced, synced) = (Durability::Unsynced, Durability::Synced);
    let bare = Bare { folder, path: &path, bytes: &bytes };
    let file = File::open(&source_path).unwrap();
    let copy = Copy { bare: &bare, from: &file };
    let groups: [(&str, Vec<Way<'_>>); 4] = [
        (
            "not synced",
            vec![
                ("crate", Kind::Crate, Box::new(crate_save)),
                ("bare loop, page cache", Kind::Bare, Box::new(|| bare.buffered(false))),
                ("ours", Kind::Ours, Box::new(|| save(&ours, unsynced))),
            ],
        ),
        (
            "copied from a checkpoint, not synced",
            vec![
                ("bare loop, read and write", Kind::Bare, Box::new(|| copy.through_memory())),
                ("bare loop, copy_file_range", Kind::Bare, Box::new(|| copy.in_the_kernel())),
                ("ours", Kind::Ours, Box::new(|| save(&copied, unsynced))),
            ],
        ),
        (
            "synced",
            vec![
                ("crate, fsync", Kind::Crate, Box::new(synced_crate_save)),
                ("bare loop, page cache, paced", Kind::Bare, Box::new(|| bare.buffered(true))),
                ("bare loop, direct, 2 threads", Kind::Bare, Box::new(|| bare.direct(2))),
                ("bare loop, direct, 4 threads", Kind::Bare, Box::new(|| bare.direct(4))),
                ("ours", Kind::Ours, Box::new(|| save(&ours, synced))),
            ],
        ),
        (
            "copied from a checkpoint, synced",
            vec![
                ("bare loop, direct, 2 threads", Kind::Bare, Box::new(|| copy.direct(2))),
                ("bare loop, direct, 4 threads", Kind::Bare, Box::new(|| copy.direct(4))),
                ("ours", Kind::Ours, Box::new(|| save(&copied, synced))),
            ],
        ),
    ];
    for existing in [false, true] {
        for (title, ways) in &groups {
            println!("\n{} MiB, {}, {title}", size >> 20, if existing { "replacing a file" } else { "a new file" });
            compare(ways, rounds, size, || {
                if !existing {
                    fs::remove_file(&path).ok();
                }
                // SAFETY: no arguments. What others left is not ours to wait for.
                unsafe { libc::sync() };
            });
        }
    }
    println!("\nmemory while saving, over the tensors' own");
    for (title, tensors, sync) in [
        ("not synced", &ours, unsynced),
        ("not synced, from a checkpoint", &copied, unsynced),
        ("synced", &ours, synced),
        ("synced, from a checkpoint", &copied, synced),
    ] {
        // SAFETY: a number. What earlier saves had is not to be used again unseen.
        unsafe { libc::malloc_trim(0) };
        let peak = peak_memory(|| save(tensors, sync));
        println!("  {title:31} {:6.1} MiB", peak as f64 / f64::from(1 << 20));
    }
    for name in ["bench.safetensors", "bench-source.safetensors"] {
        fs::remove_file(folder.join(name)).ok();
    }
}

/// Times the ways in turn and prints their medians and ours beside the others.
fn compare(ways: &[Way<'_>], rounds: usize, size: usize, prepare: impl Fn()) {
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for ((_, _, way), times) in ways.iter().zip(&mut times) {
            prepare();
            let start = Instant::now();
            way();
            times.push(start.elapsed().as_secs_f64());
        }
    }
    let medians: Vec<_> = times
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect();
    let best = |kind| {
        let of_kind = ways.iter().zip(&medians).filter(|((_, of, _), _)| *of == kind);
        of_kind.map(|(_, median)| *median).fold(f64::INFINITY, f64::min)
    };
    for ((name, kind, _), median) in ways.iter().zip(&medians) {
        print!("  {name:31} {median:6.3} s {:6.0} MB/s", size as f64 / median / 1e6);
        if *kind == Kind::Ours {
            let (crates, bares) = (best(Kind::Crate) / median, best(Kind::Bare) / median * 100.0);
            if crates.is_finite() {
                print!("   {crates:.2} x the crate,");
            }
            print!("   {bares:.0} % of the best bare loop");
        }
        println!();
    }
}

struct Bare<'a> {
    folder: &'a Path,
    path: &'a Path,
    bytes: &'a [u8],
}

impl Bare<'_> {
    fn create(&self, flags: i32) -> (File, PathBuf) {
        let path = self.folder.join("bench.bare");
        let file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(&path).unwrap();
        // SAFETY: the descriptor is open.
        unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, self.bytes.len() as i64) };
        (file, path)
    }

    fn finish(&self, file: File, path: PathBuf, sync: bool) {
        if sync {
            file.sync_all().unwrap();
        }
        drop(file);
        fs::rename(path, self.path).unwrap();
        if sync {
            sync_folder(self.folder);
        }
    }

    /// With `sync`, the disk is set to work while the rest is being written.
    fn buffered(&self, sync: bool) {
        let (file, path) = self.create(0);
        for (number, chunk) in self.bytes.chunks(STEP).enumerate() {
            file.write_all_at(chunk, (number * STEP) as u64).unwrap();
            if sync {
                // SAFETY: the descriptor is open.
                unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
            }
        }
        self.finish(file, path, sync);
    }

    /// By way of aligned buffers, as callers' memory is aligned to nothing.
    fn direct(&self, threads: usize) {
        self.directly(threads, |start, buffer| buffer.copy_from_slice(&self.bytes[start..][..buffer.len()]));
    }

    fn directly(&self, threads: usize, fill: impl Fn(usize, &mut [u8]) + Sync) {
        let (file, path) = self.create(libc::O_DIRECT);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut buffer = vec![0_u8; DIRECT_STEP + 4096];
            let skip = buffer.as_ptr().align_offset(4096);
            let buffer = &mut buffer[skip..][..DIRECT_STEP];
            loop {
                let start = next.fetch_add(DIRECT_STEP, Ordering::Relaxed);
                let len = self.bytes.len().saturating_sub(start).min(DIRECT_STEP);
                if len == 0 {
                    return;
                }
                fill(start, &mut buffer[..len]);
                file.write_all_at(&buffer[..len], start as u64).unwrap();
            }
        };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        self.finish(file, path, true);
    }
}

/// The bare loops that take the same bytes from a file, whose header they skip.
struct Copy<'a> {
    bare: &'a Bare<'a>,
    from: &'a File,
}

impl Copy<'_> {
    fn header(&self) -> u64 {
        self.from.metadata().unwrap().len() - self.bare.bytes.len() as u64
    }

    fn through_memory(&self) {
        let (file, path) = self.bare.create(0);
        let mut buffer = vec![0_u8; COPY_STEP];
        for start in (0..self.bare.bytes.len() as u64).step_by(COPY_STEP) {
            self.from.read_exact_at(&mut buffer, self.header() + start).unwrap();
            file.write_all_at(&buffer, start).unwrap();
        }
        self.bare.finish(file, path, false);
    }

    fn in_the_kernel(&self) {
        let (file, path) = self.bare.create(0);
        let (mut from, mut to, size) = (self.header() as i64, 0_i64, self.bare.bytes.len() as i64);
        while to < size {
            let step = STEP.min((size - to) as usize);
            // SAFETY: two open descriptors, two numbers that are there.
            let copied = unsafe {
                libc::copy_file_range(self.from.as_raw_fd(), &raw mut from, file.as_raw_fd(), &raw mut to, step, 0)
            };
            assert!(copied > 0);
        }
        self.bare.finish(file, path, false);
    }

    fn direct(&self, threads: usize) {
        self.bare.directly(threads, |start, buffer| {
            self.from.read_exact_at(buffer, self.header() + start as u64).unwrap();
        });
    }
}

fn sync_folder(folder: &Path) {
    File::open(folder).unwrap().sync_all().unwrap();
}

/// Checkpoints of experts: little data, many names. The C function against the
/// crate's, each from records that are made before.
fn headers() {
    let kinds = ["up_proj", "down_proj", "gate_proj"];
    let mut names: Vec<_> = (0..100_000)
        .map(|i| format!("model.layers.{}.mlp.experts.{}.{}.weight", i / 1536, (i / 3) % 512, kinds[i % 3]))
        .collect();
    let (data, shape) = ([0_u8; 8], [2_i64, 2]);
    println!("header of 100,000 tensors");
    for order in ["as a model has them", "sorted", "shuffled"] {
        match order {
            "sorted" => names.sort(),
            "shuffled" => names.sort_by_key(|name| {
                name.bytes().fold(0_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
            }),
            _ => {}
        }
        let views = || names.iter().map(|name| (name, TensorView::new(TheirDtype::BF16, vec![2, 2], &data).unwrap()));
        let records = |name: &String| Record {
            name: name.as_ptr().cast(),
            name_len: name.len(),
            dtype: Dtype::Bf16 as i32,
            rank: 2,
            shape: shape.as_ptr(),
            data: data.as_ptr().cast(),
            ..Record::EMPTY
        };
        let records: Vec<_> = names.iter().map(records).collect();
        let views: Vec<_> = views().collect();
        let theirs = || serialize(views.iter().map(|(name, view)| (*name, view)), None).unwrap();
        let expected = theirs();
        let ours = |check: bool| {
            let mut out = st_buffer { data: ptr::null_mut(), size: 0 };
            // SAFETY: the records are as the header demands.
            unsafe {
                let tensors = records.as_ptr().cast();
                let status =
                    st_serialize(tensors, records.len(), ptr::null(), 0, ptr::null(), &raw mut out, ptr::null_mut());
                assert_eq!(status, 0);
                if check {
                    assert!(std::slice::from_raw_parts(out.data.cast::<u8>(), out.size) == expected);
                }
                st_buffer_free(&raw mut out);
            }
        };
        ours(true);
        let times = medians(15, &mut [&mut || drop(theirs()), &mut || ours(false)]);
        let ratio = times[0].as_secs_f64() / times[1].as_secs_f64();
        println!("  {order:31} crate {}, ours {}: {ratio:.1} x", show(times[0]), show(times[1]));
    }
}
