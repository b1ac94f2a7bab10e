// SPDX-License-Identifier: Apache-2.0
//! Checkpoints that are measured, and memory to load them into.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;

/// A BF16 checkpoint, on the disk and in the page cache from being read. Its data begin
/// as files' do: at a multiple of 8 and of nothing more.
pub(crate) fn write(folder: &Path, name: &str, count: usize, shape: &[usize]) -> PathBuf {
    let path = folder.join(name);
    let size = shape.iter().product::<usize>() * 2;
    let entry = |i| {
        let (start, end) = (i * size, (i + 1) * size);
        format!(
            "\"model.layers.{i}.weight\":{{\"dtype\":\"BF16\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        )
    };
    let mut header = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    while header.len() % 64 != 32 {
        header.push(' ');
    }
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

pub(crate) fn drop_cache(path: &Path) {
    let file = File::open(path).unwrap();
    // SAFETY: advice on an open descriptor.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Memory that is there: on huge pages, touched.
pub(crate) fn ready(size: usize) -> MmapMut {
    let mut memory = MmapMut::map_anon(size).unwrap();
    let _ = memory.advise(memmap2::Advice::HugePage);
    memory.fill(1);
    memory
}
