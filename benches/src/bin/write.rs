// SPDX-License-Identifier: Apache-2.0
//! Saving beside the reference crate and beside the best bare loop.
//!
//!     write FOLDER [GiB] [rounds]
//!
//! Rounds are interleaved, so that a disk's moods fall on all alike; the best
//! and the median are shown. FOLDER should be on the disk that is meant.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use reference::tensor::{serialize, serialize_to_file, Dtype as TheirDtype, TensorView};
use safetensors::writer::{self, Durability, SaveOptions};
use safetensors::{Checkpoint, Dtype, NewTensor, OpenOptions};

const TENSOR: usize = 16 << 20;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let folder = Path::new(arguments.get(1).map_or(".", String::as_str));
    let size = (arguments.get(2).map_or(2.0, |given| given.parse::<f64>().unwrap()) * (1u64 << 30) as f64) as usize;
    let rounds = arguments.get(3).map_or(5, |given| given.parse().unwrap());
    files(folder, size, rounds);
    headers();
}

fn files(folder: &Path, size: usize, rounds: usize) {
    let bytes: Vec<u8> =
        (0..size as u64 / 8).flat_map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    let names: Vec<_> = (0..size / TENSOR).map(|i| format!("model.layers.{i}.weight")).collect();
    let shape = [TENSOR as i64 / 2];
    let parts = || names.iter().zip(bytes.chunks(TENSOR));
    let ours: Vec<_> = parts()
        .map(|(name, bytes)| NewTensor::new(name, Dtype::Bf16, &shape).unwrap().with_data(bytes).unwrap())
        .collect();
    let path = folder.join("bench.safetensors");
    let sync_folder = || File::open(folder).unwrap().sync_all().unwrap();
    let crate_save = || {
        let views =
            parts().map(|(name, bytes)| (name, TensorView::new(TheirDtype::BF16, vec![TENSOR / 2], bytes).unwrap()));
        serialize_to_file(views, None, &path).unwrap();
    };
    let save =
        |sync| writer::save(&path, &ours, None, &SaveOptions { sync, ..SaveOptions::default() }, None, None).unwrap();
    let source_path = folder.join("bench-source.safetensors");
    writer::save(&source_path, &ours, None, &SaveOptions::default(), None, None).unwrap();
    let source = Checkpoint::open(&source_path, &OpenOptions::default()).unwrap();
    let copied: Vec<_> = source
        .tensors()
        .iter()
        .map(|record| {
            let name = std::str::from_utf8(record.name()).unwrap();
            NewTensor::new(name, record.dtype(), record.shape()).unwrap().with_source(&source, record).unwrap()
        })
        .collect();
    let copy = |sync| {
        let options = SaveOptions { sync, ..SaveOptions::default() };
        writer::save(&path, &copied, None, &options, Some(&source), None).unwrap();
    };
    let bare = |pace: bool| {
        let file = File::create(folder.join("bench.bare")).unwrap();
        // SAFETY: the descriptor is open.
        unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes.len() as i64) };
        for (number, chunk) in bytes.chunks(32 << 20).enumerate() {
            file.write_all_at(chunk, (number * (32 << 20)) as u64).unwrap();
            if pace {
                // SAFETY: as above.
                unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
            }
        }
        if pace {
            file.sync_all().unwrap();
        }
    };
    let ways: &[(&str, &dyn Fn())] = &[
        ("not synced: crate", &crate_save),
        ("not synced: bare loop", &|| bare(false)),
        ("not synced: ours", &|| save(Durability::Unsynced)),
        ("not synced: ours, from a checkpoint", &|| copy(Durability::Unsynced)),
        ("synced: crate + fsync", &|| {
            crate_save();
            File::open(&path).unwrap().sync_all().unwrap();
            sync_folder();
        }),
        ("synced: bare loop, paced", &|| bare(true)),
        ("synced: ours", &|| save(Durability::Synced)),
        ("synced: ours, from a checkpoint", &|| copy(Durability::Synced)),
        ("fs::copy", &|| {
            fs::copy(&source_path, folder.join("bench.bare")).unwrap();
        }),
    ];
    for existing in [false, true] {
        let mut times = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for ((_, way), times) in ways.iter().zip(&mut times) {
                if !existing {
                    fs::remove_file(&path).ok();
                }
                fs::remove_file(folder.join("bench.bare")).ok();
                // SAFETY: no arguments. What earlier rounds left is not ours to wait for.
                unsafe { libc::sync() };
                let start = Instant::now();
                way();
                times.push(start.elapsed().as_secs_f64());
            }
        }
        println!("{} MiB, {}", size >> 20, if existing { "replacing a file" } else { "a new file" });
        for ((name, _), times) in ways.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            let (best, median) = (times[0], times[times.len() / 2]);
            println!("  {name:40} best {best:.3} s, median {median:.3} s, {:.0} MB/s", size as f64 / median / 1e6);
        }
    }
    for name in ["bench.safetensors", "bench-source.safetensors", "bench.bare"] {
        fs::remove_file(folder.join(name)).ok();
    }
}

fn headers() {
    let kinds = ["up_proj", "down_proj", "gate_proj"];
    let names: Vec<_> = (0..100_000)
        .map(|i| format!("model.layers.{}.mlp.experts.{}.{}.weight", i / 1536, (i / 3) % 512, kinds[i % 3]))
        .collect();
    let data = [0_u8; 8];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..9 {
        let views: Vec<_> =
            names.iter().map(|name| (name, TensorView::new(TheirDtype::BF16, vec![2, 2], &data).unwrap())).collect();
        let start = Instant::now();
        let theirs = serialize(views, None).unwrap();
        times[0].push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let tensors: Vec<_> = names
            .iter()
            .map(|name| NewTensor::new(name, Dtype::Bf16, &[2, 2]).unwrap().with_data(&data).unwrap())
            .collect();
        let ours = writer::serialize(&tensors, None, &SaveOptions::default(), None, None).unwrap();
        times[1].push(start.elapsed().as_secs_f64() * 1e3);
        assert!(ours == theirs);
    }
    for (name, times) in ["crate", "ours"].iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("header of 100,000 tensors, {name}: best {:.1} ms, median {:.1} ms", times[0], times[times.len() / 2]);
    }
}
