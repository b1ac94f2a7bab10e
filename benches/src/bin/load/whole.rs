// SPDX-License-Identifier: Apache-2.0
//! Whole tensors: warm, into memory of their own, and from a cold disk.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use libsafetensors_benches::{peak_memory, show};
use memmap2::{Mmap, MmapMut};
use reference::SafeTensors;
use safetensors::ffi::{st_checkpoint, st_get_tensor_n};
use safetensors::ffi::{ST_ACCESS_MAP, ST_ACCESS_READ, ST_IO_AUTO, ST_IO_CACHED, ST_IO_DIRECT, ST_IO_MAPPED};

use crate::files::{drop_cache, ready, write};
use crate::handle::{options, Handle};
use crate::many::crate_copy;
use crate::table::{compare, timed};

const TENSOR: usize = 16 << 20;
/// What bare loops read at once, as the library does.
const STEP: usize = 6 << 20;

pub(crate) fn measure(folder: &Path, size: usize, rounds: usize) {
    let model = write(folder, "bench-load.safetensors", size / TENSOR, &[TENSOR / 2]);
    let rounds = rounds.min(5);
    warm(&model, rounds);
    own_memory(&model, rounds);
    cold(&model, rounds.min(3));
    fs::remove_file(&model).unwrap();
}

/// A bare loop of pread, the file divided among threads. `begin`: where in the file what
/// goes to the first byte lies.
fn bare(path: &Path, begin: usize, direct: bool, threads: usize, step: usize, to: &mut [u8]) {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let file = File::options().read(true).custom_flags(flags).open(path).unwrap();
    let share = (to.len() / threads).next_multiple_of(step);
    std::thread::scope(|scope| {
        for (number, part) in to.chunks_mut(share).enumerate() {
            let file = &file;
            scope.spawn(move || {
                for (turn, piece) in part.chunks_mut(step).enumerate() {
                    let read = file.read_at(piece, (begin + number * share + turn * step) as u64).unwrap();
                    assert!(read > 0);
                }
            });
        }
    });
}

fn warm(path: &Path, rounds: usize) {
    let handle = Handle::open(path, ST_ACCESS_MAP);
    let size = handle.tensors().len() * TENSOR;
    let begin = handle.tensors()[0].offset() as usize;
    let mut memory = ready(size + 64);
    let load = |to: &mut [u8], threads, io| timed(|| handle.load(to, 0, threads, io));
    // The same bytes to the same places as st_load; and to where addresses equal offsets modulo 64.
    let read = |to: &mut [u8], threads| timed(|| bare(path, begin, false, threads, STEP, &mut to[..size]));
    let equal = begin % 64;
    compare(
        "warm, into ready memory, each tensor at a multiple of 64 bytes but where said",
        (rounds, 3, size),
        &mut memory,
        &mut [
            ("crate's copy", &mut |to| timed(|| crate_copy(path, to))),
            ("pread, 1 thread", &mut |to| read(to, 1)),
            ("pread, 2 threads", &mut |to| read(to, 2)),
            ("st_load, 1 thread", &mut |to| load(to, 1, ST_IO_AUTO)),
            ("st_load, 2 threads", &mut |to| load(to, 2, ST_IO_AUTO)),
            ("st_load, its own choice", &mut |to| load(to, 0, ST_IO_AUTO)),
            ("st_load, ST_IO_MAPPED, 1 thread", &mut |to| load(to, 1, ST_IO_MAPPED)),
            ("st_load, ST_IO_MAPPED, 2 threads", &mut |to| load(to, 2, ST_IO_MAPPED)),
            ("where addresses equal offsets: pread, 1 thread", &mut |to| {
                timed(|| bare(path, begin, false, 1, STEP, &mut to[equal..equal + size]))
            }),
            ("where addresses equal offsets: st_load, 1", &mut |to| {
                timed(|| handle.run(&handle.items_in(to, 0, 0), &options(1, ST_IO_AUTO)))
            }),
        ],
    );
    let peak = peak_memory(|| handle.load(&mut memory, 0, 2, ST_IO_AUTO));
    println!("peak memory of st_load over its destinations: {} kB", peak / 1000);
}

/// What is loaded is given back outside of the time.
fn kept<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let result = black_box(work());
    let time = start.elapsed();
    drop(result);
    time
}

/// Every tensor by st_get_tensor, from that many threads of the caller's.
fn get_all(path: &Path, threads: usize) -> Handle {
    let handle = Handle::open(path, ST_ACCESS_READ);
    let address = handle.0.expose_provenance();
    let tensors = handle.tensors();
    std::thread::scope(|scope| {
        for share in tensors.chunks(tensors.len().div_ceil(threads)) {
            scope.spawn(move || {
                for tensor in share {
                    let name = tensor.name();
                    let handle = std::ptr::with_exposed_provenance::<st_checkpoint>(address);
                    // SAFETY: as the header says.
                    let got = unsafe { st_get_tensor_n(handle, name.as_ptr().cast(), name.len(), null_mut()) };
                    assert!(!got.is_null());
                }
            });
        }
    });
    handle
}

fn own_memory(path: &Path, rounds: usize) {
    let size = fs::metadata(path).unwrap().len() as usize;
    let crate_vecs = || {
        let file = File::open(path).unwrap();
        // SAFETY: nobody changes the file.
        let map = unsafe { Mmap::map(&file).unwrap() };
        let model = SafeTensors::deserialize(&map).unwrap();
        model.iter().map(|(_, tensor)| tensor.data().to_vec()).collect::<Vec<_>>()
    };
    let fresh = |threads| {
        let handle = Handle::open(path, ST_ACCESS_READ);
        let mut memory = MmapMut::map_anon(size).unwrap();
        let _ = memory.advise(memmap2::Advice::HugePage);
        handle.load(&mut memory, 0, threads, ST_IO_CACHED);
        memory
    };
    // Nothing is written to it: each contender brings its own.
    let mut unused = MmapMut::map_anon(size).unwrap();
    compare(
        "warm, into memory that is allocated first",
        (rounds, 1, size),
        &mut unused,
        &mut [
            ("crate's data().to_vec()", &mut |_| kept(crate_vecs)),
            ("st_get_tensor of each, from 1 thread", &mut |_| kept(|| get_all(path, 1))),
            ("st_get_tensor of each, from 2 threads", &mut |_| kept(|| get_all(path, 2))),
            ("st_load into fresh huge pages, 1 thread", &mut |_| kept(|| fresh(1))),
            ("st_load into fresh huge pages, 2 threads", &mut |_| kept(|| fresh(2))),
        ],
    );
}

fn cold(path: &Path, rounds: usize) {
    let size = fs::metadata(path).unwrap().len() as usize;
    let mut memory = ready(size);
    let handle = Handle::open(path, ST_ACCESS_READ);
    let cold = |work: &mut dyn FnMut()| {
        drop_cache(path);
        timed(work)
    };
    // Direct reads want whole blocks, and the file's last one has an end.
    let direct =
        |to: &mut [u8], threads, step| cold(&mut || bare(path, 0, true, threads, step, &mut to[..size / 4096 * 4096]));
    let load = |to: &mut [u8], threads, io| cold(&mut || handle.load(to, 0, threads, io));
    let mut best = (f64::MAX, 1, 0);
    for threads in [1, 2, 4] {
        for step in [1 << 20, 2 << 20, 8 << 20] {
            let times = (0..2).map(|_| direct(&mut memory, threads, step).as_secs_f64());
            let time = times.fold(f64::MAX, f64::min);
            if time < best.0 {
                best = (time, threads, step);
            }
        }
    }
    let (_, threads, step) = best;
    let name = format!("O_DIRECT, {threads} threads, {} MiB", step >> 20);
    compare(
        "cold, into ready memory",
        (rounds, 1, size),
        &mut memory,
        &mut [
            (&name, &mut |to| direct(to, threads, step)),
            ("crate's copy", &mut |to| cold(&mut || crate_copy(path, to))),
            ("st_load", &mut |to| load(to, 0, ST_IO_AUTO)),
            ("st_load, 2 threads", &mut |to| load(to, 2, ST_IO_AUTO)),
            ("st_load, ST_IO_DIRECT", &mut |to| load(to, 0, ST_IO_DIRECT)),
            ("st_load, ST_IO_CACHED", &mut |to| load(to, 0, ST_IO_CACHED)),
        ],
    );
    peers(path, rounds.min(3), size, &mut || load(&mut memory, 0, ST_IO_AUTO));
    // Warm again for what follows.
    fs::read(path).unwrap();
}

/// Python's loaders and ours in turn; BENCH_PYTHON says which python has them.
fn peers(path: &Path, rounds: usize, size: usize, ours: &mut dyn FnMut() -> Duration) {
    let python = std::env::var("BENCH_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("load_peers.py");
    println!("\ncold, beside Python's loaders (of {python}); medians of {rounds}");
    let mut times: Vec<(String, Vec<f64>)> = vec![("st_load".to_owned(), Vec::new())];
    for _ in 0..rounds {
        times[0].1.push(ours().as_secs_f64());
        let Ok(output) = Command::new(&python).arg(&script).arg(path).output() else { break };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((name, time)) = line.split_once('\t') else { continue };
            let time: f64 = time.parse().unwrap();
            match times.iter_mut().find(|(known, _)| known == name) {
                Some((_, times)) => times.push(time),
                None => times.push((name.to_owned(), vec![time])),
            }
        }
    }
    let mut first = None;
    for (name, mut times) in times {
        times.sort_by(f64::total_cmp);
        let time = times[times.len() / 2];
        let ratio = time / *first.get_or_insert(time);
        let shown = show(Duration::from_secs_f64(time));
        println!("{name:44} {shown:>10} {:>7.2}  takes {ratio:.2} x as long", size as f64 / time / 1e9);
    }
}
