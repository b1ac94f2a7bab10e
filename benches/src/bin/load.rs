// SPDX-License-Identifier: Apache-2.0
//! Loading beside the crate `safetensors`, beside the bare loops that are this
//! machine's limits, and (from a cold disk) beside what Python programs use.
//!
//!     load FOLDER [GiB] [rounds]
//!
//! FOLDER should be on the disk that is meant. Each file is written, synced,
//! dropped from the page cache and read once before anything is timed: a file
//! that is cached from having been written is slower to map.

use std::ffi::CString;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use libsafetensors_benches::{peak_memory, show};
use memmap2::{Mmap, MmapMut};
use reference::slice::IndexOp;
use reference::SafeTensors;
use safetensors::ffi::st_convert;
use safetensors::ffi::st_get_tensor_n;
use safetensors::ffi::st_read_slice;
use safetensors::ffi::st_tensors;
use safetensors::ffi::{st_checkpoint, st_free, st_open_options, st_open_with, ST_ACCESS_MAP, ST_ACCESS_READ};
use safetensors::ffi::{st_load, st_load_item, st_load_options, ST_IO_AUTO, ST_IO_CACHED, ST_IO_DIRECT};
use safetensors::ffi::{ST_DTYPE_AS_STORED, ST_DTYPE_BF16, ST_DTYPE_F32};
use safetensors::record::{st_range, st_tensor};

const TENSOR: usize = 16 << 20;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let folder = Path::new(arguments.get(1).map_or(".", String::as_str));
    let size = (arguments.get(2).map_or(2.0, |given| given.parse::<f64>().unwrap()) * (1u64 << 30) as f64) as usize;
    let rounds = arguments.get(3).map_or(5, |given| given.parse().unwrap());
    let model = write(folder, "bench-load.safetensors", size / TENSOR, &[TENSOR / 2]);
    warm(&model, rounds);
    own_memory(&model, rounds);
    cold(&model, rounds);
    fused(&model, rounds);
    fs::remove_file(&model).unwrap();
    let square = write(folder, "bench-square.safetensors", 1, &[4096, 4096]);
    columns(&square, rounds * 3);
    fs::remove_file(&square).unwrap();
    let tiny = write(folder, "bench-tiny.safetensors", 100_000, &[16, 16]);
    many(&tiny, rounds);
    fs::remove_file(&tiny).unwrap();
}

/// A BF16 checkpoint, on the disk and in the page cache from being read.
fn write(folder: &Path, name: &str, count: usize, shape: &[usize]) -> PathBuf {
    let path = folder.join(name);
    let size = shape.iter().product::<usize>() * 2;
    let entry = |i| {
        let (start, end) = (i * size, (i + 1) * size);
        format!(
            "\"model.layers.{i}.weight\":{{\"dtype\":\"BF16\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        )
    };
    let header = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    let mut file = std::io::BufWriter::new(File::create(&path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    // Values as weights have them, and no block like another.
    let values = |from: u64| (from..).map(|i| (0x3c00 | (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54)) as u16);
    for number in 0..count as u64 {
        let bytes: Vec<u8> = values(number << 32).take(size / 2).flat_map(u16::to_le_bytes).collect();
        file.write_all(&bytes).unwrap();
    }
    let file = file.into_inner().unwrap();
    file.sync_all().unwrap();
    drop_cache(&path);
    fs::read(&path).unwrap();
    path
}

fn drop_cache(path: &Path) {
    let file = File::open(path).unwrap();
    // SAFETY: advice on an open descriptor.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Memory that is there: on huge pages, touched.
fn ready(size: usize) -> MmapMut {
    let mut memory = MmapMut::map_anon(size).unwrap();
    let _ = memory.advise(memmap2::Advice::HugePage);
    memory.fill(1);
    memory
}

struct Handle(*mut st_checkpoint);

impl Handle {
    fn open(path: &Path, access: i32) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: numbers only.
        let mut options: st_open_options = unsafe { std::mem::zeroed() };
        (options.struct_size, options.access) = (size_of::<st_open_options>(), access);
        // SAFETY: as the header says.
        let handle = unsafe { st_open_with(path.as_ptr(), &options, null_mut()) };
        assert!(!handle.is_null());
        Self(handle)
    }

    fn tensors(&self) -> &[st_tensor] {
        let mut count = 0;
        // SAFETY: as the header says.
        unsafe { std::slice::from_raw_parts(st_tensors(self.0, &raw mut count), count) }
    }

    /// Loads everything, dense, one after the other.
    fn load(&self, to: &mut [u8], dtype: i32, threads: u32, io: i32) {
        let mut at = 0;
        let growth = if dtype == 0 { 1 } else { 2 };
        let items: Vec<st_load_item> = self
            .tensors()
            .iter()
            .map(|tensor| {
                let size = tensor.size() as usize * growth;
                let dst = to[at..at + size].as_mut_ptr().cast();
                at += size;
                st_load_item {
                    tensor,
                    ranges: null(),
                    range_count: 0,
                    dtype,
                    reserved0: 0,
                    dst,
                    dst_size: size,
                    dst_strides: null(),
                    user_data: null_mut(),
                    part: std::ptr::null(),
                    group: std::ptr::null(),
                    transform: std::ptr::null(),
                    reserved: [0; 3],
                }
            })
            .collect();
        // SAFETY: null is a value of every field.
        let mut options: st_load_options = unsafe { std::mem::zeroed() };
        options.struct_size = size_of::<st_load_options>();
        (options.threads, options.io) = (threads, io);
        // SAFETY: as the header says.
        assert_eq!(unsafe { st_load(self.0, items.as_ptr(), items.len(), &options, null_mut()) }, 0);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once.
        unsafe { st_free(self.0) }
    }
}

/// What is timed: it fills the memory it is given.
type Contender<'a> = (&'a str, &'a mut dyn FnMut(&mut [u8]) -> Duration);

/// Runs contenders in turn, and prints medians with ratios to the ones named first.
fn compare(title: &str, rounds: usize, baselines: usize, to: &mut [u8], contenders: &mut [Contender<'_>]) {
    let bytes = to.len();
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for ((_, contender), times) in contenders.iter_mut().zip(&mut times) {
            // Once untimed, so that none pays for what another left of caches and
            // free pages, or for pages that a virtual machine's host gives anew.
            // (What is to be cold makes itself so.)
            contender(to);
            times.push(contender(to));
        }
    }
    let medians: Vec<_> = times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64()
        })
        .collect();
    println!("\n{title}; medians of {rounds}");
    print!("{:44} {:>10} {:>7}", "", "time", "GB/s");
    for (name, _) in &contenders[..baselines] {
        print!("  {:>22}", format!("x {name}"));
    }
    println!();
    for ((name, _), time) in contenders.iter().zip(&medians) {
        print!("{name:44} {:>10} {:>7.2}", show(Duration::from_secs_f64(*time)), bytes as f64 / time / 1e9);
        for baseline in &medians[..baselines] {
            print!("  {:>22.2}", baseline / time);
        }
        println!();
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The crate's way: map, and copy each tensor out of the mapping.
fn crate_copy(path: &Path, to: &mut [u8]) {
    let file = File::open(path).unwrap();
    // SAFETY: nobody changes the file.
    let map = unsafe { Mmap::map(&file).unwrap() };
    let model = SafeTensors::deserialize(&map).unwrap();
    let mut at = 0;
    for (_, tensor) in model.iter() {
        to[at..at + tensor.data().len()].copy_from_slice(tensor.data());
        at += tensor.data().len();
    }
}

/// A bare loop of pread, the file divided among threads.
fn bare(path: &Path, direct: bool, threads: usize, step: usize, to: &mut [u8]) {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let file = File::options().read(true).custom_flags(flags).open(path).unwrap();
    let share = (to.len() / threads).next_multiple_of(step);
    std::thread::scope(|scope| {
        for (number, part) in to.chunks_mut(share).enumerate() {
            let file = &file;
            scope.spawn(move || {
                for (turn, piece) in part.chunks_mut(step).enumerate() {
                    let read = file.read_at(piece, (number * share + turn * step) as u64).unwrap();
                    assert!(read > 0);
                }
            });
        }
    });
}

fn warm(path: &Path, rounds: usize) {
    let size = fs::metadata(path).unwrap().len() as usize;
    let mut memory = ready(size);
    let handle = Handle::open(path, ST_ACCESS_READ);
    let step = 8 << 20;
    let load = |to: &mut [u8], threads| timed(|| handle.load(to, 0, threads, ST_IO_AUTO));
    compare(
        "warm, into ready memory",
        rounds,
        3,
        &mut memory,
        &mut [
            ("crate's copy", &mut |to| timed(|| crate_copy(path, to))),
            ("pread, 1 thread", &mut |to| timed(|| bare(path, false, 1, step, to))),
            ("pread, 2 threads", &mut |to| timed(|| bare(path, false, 2, step, to))),
            ("st_load, 1 thread", &mut |to| load(to, 1)),
            ("st_load, 2 threads", &mut |to| load(to, 2)),
            ("st_load, its own choice", &mut |to| load(to, 0)),
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
        rounds,
        1,
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
        |to: &mut [u8], threads, step| cold(&mut || bare(path, true, threads, step, &mut to[..size / 4096 * 4096]));
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
        rounds,
        1,
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

fn fused(path: &Path, rounds: usize) {
    let size = fs::metadata(path).unwrap().len() as usize;
    let (mut memory, mut wide) = (ready(size), ready(size * 2));
    let handle = Handle::open(path, ST_ACCESS_READ);
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
            rounds,
            2,
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

fn columns(path: &Path, rounds: usize) {
    let size = 4096 * 2048 * 2;
    let (mut memory, mut rows) = (ready(size), ready(2 * size));
    let all = st_range { start: 0, stop: i64::MAX, step: 1 };
    let ranges = [all, st_range { start: 0, stop: 2048, step: 1 }];
    compare(
        "half of dimension 1 of a 4096 x 4096 BF16 tensor, warm",
        rounds,
        1,
        &mut memory,
        &mut [
            ("crate: open, slice iterator", &mut |to| {
                timed(|| {
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
                })
            }),
            ("pread of all rows: the limit", &mut |_| timed(|| bare(path, false, 1, 1 << 20, &mut rows))),
            ("st_open, st_read_slice", &mut |to| {
                timed(|| {
                    let handle = Handle::open(path, ST_ACCESS_READ);
                    let (tensor, to) = (&handle.tensors()[0], to.as_mut_ptr().cast());
                    // SAFETY: as the header says.
                    let status = unsafe { st_read_slice(handle.0, tensor, ranges.as_ptr(), 2, to, size, null_mut()) };
                    assert_eq!(status, 0);
                })
            }),
        ],
    );
}

fn many(path: &Path, rounds: usize) {
    let mut memory = ready(100_000 * 512);
    let handle = Handle::open(path, ST_ACCESS_MAP);
    compare(
        "100,000 tensors of 512 bytes, warm",
        rounds,
        1,
        &mut memory,
        &mut [
            ("crate's copy", &mut |to| timed(|| crate_copy(path, to))),
            ("st_load, opened already", &mut |to| timed(|| handle.load(to, 0, 2, ST_IO_AUTO))),
            ("st_open, st_load, st_free", &mut |to| {
                timed(|| Handle::open(path, ST_ACCESS_READ).load(to, 0, 2, ST_IO_AUTO))
            }),
        ],
    );
    let reads = |file: &str| -> u64 {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("syscr")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    let before = reads("/proc/self/io");
    handle.load(&mut memory, 0, 2, ST_IO_AUTO);
    println!("system calls that read: {}", reads("/proc/self/io") - before - 1);
}
