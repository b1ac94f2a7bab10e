// SPDX-License-Identifier: Apache-2.0
//! Many small tensors, and sinks that take many of them in a buffer, beside plain
//! destinations.

use std::ffi::c_void;
use std::fs::{self, File};
use std::path::Path;
use std::ptr::copy_nonoverlapping;

use memmap2::{Mmap, MmapMut};
use reference::SafeTensors;
use safetensors::ffi::{st_buffer, st_error, st_load_item, st_sink, st_status};
use safetensors::ffi::{ST_ACCESS_MAP, ST_ACCESS_READ, ST_IO_AUTO, ST_OK};
use safetensors::record::st_piece;

use crate::files::{ready, write};
use crate::handle::{options, Handle};
use crate::table::{compare, timed};

pub(crate) fn measure(folder: &Path, size: usize, rounds: usize) {
    let tiny = write(folder, "bench-tiny.safetensors", 100_000, &[16, 16]);
    small(&tiny, rounds);
    sinks(&tiny, "100,000 tensors of 512 bytes", rounds);
    fs::remove_file(&tiny).unwrap();
    let model = write(folder, "bench-model.safetensors", 291, &[size / 291 / 8192, 4096]);
    sinks(&model, &format!("291 tensors of {} MiB", size >> 20), rounds.min(5));
    fs::remove_file(&model).unwrap();
}

/// The crate's way: map, and copy each tensor out of the mapping.
pub(crate) fn crate_copy(path: &Path, to: &mut [u8]) {
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

fn small(path: &Path, rounds: usize) {
    let mut memory = ready(100_000 * 512);
    let handle = Handle::open(path, ST_ACCESS_MAP);
    let size = memory.len();
    compare(
        "100,000 tensors of 512 bytes, warm",
        (rounds, 1, size),
        &mut memory,
        &mut [
            ("crate's copy", &mut |to| timed(|| crate_copy(path, to))),
            ("st_load, opened already, 1 thread", &mut |to| timed(|| handle.load(to, 0, 1, ST_IO_AUTO))),
            ("st_load, opened already, its own choice", &mut |to| timed(|| handle.load(to, 0, 0, ST_IO_AUTO))),
            ("st_open, st_load, st_free", &mut |to| {
                timed(|| Handle::open(path, ST_ACCESS_READ).load(to, 0, 0, ST_IO_AUTO))
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

/// Takes results, and copies them to where the items go, or leaves that to others, as
/// hardware does.
struct Device<'a> {
    copies: bool,
    items: &'a [st_load_item],
    buffers: &'a [st_buffer],
    calls: usize,
}

impl Device<'_> {
    /// # Safety
    /// As the header says of a sink's pieces.
    unsafe fn copy(&self, buffer: usize, item: usize, from: usize, to: u64, size: usize) {
        if !self.copies {
            return;
        }
        let from = self.buffers[buffer].data.cast::<u8>().wrapping_add(from);
        // SAFETY: the caller's promise.
        unsafe { copy_nonoverlapping(from, self.items[item].user_data.cast::<u8>().wrapping_add(to as usize), size) };
    }
}

unsafe extern "C" fn chunk(
    user_data: *mut c_void,
    buffer: usize,
    item: usize,
    offset: u64,
    size: usize,
    _: *mut st_error,
) -> st_status {
    // SAFETY: as the header says.
    unsafe {
        let device = &mut *user_data.cast::<Device<'_>>();
        device.calls += 1;
        device.copy(buffer, item, 0, offset, size);
    }
    ST_OK
}

unsafe extern "C" fn pieces(
    user_data: *mut c_void,
    buffer: usize,
    pieces: *const st_piece,
    count: usize,
    _: *mut st_error,
) -> st_status {
    // SAFETY: as the header says.
    unsafe {
        let device = &mut *user_data.cast::<Device<'_>>();
        device.calls += 1;
        for piece in std::slice::from_raw_parts(pieces, count) {
            device.copy(buffer, piece.item, piece.buffer_offset, piece.item_offset, piece.size);
        }
    }
    ST_OK
}

fn sinks(path: &Path, what: &str, rounds: usize) {
    let handle = Handle::open(path, ST_ACCESS_MAP);
    let size = handle.tensors().iter().map(|tensor| tensor.size() as usize).sum::<usize>();
    let mut memory = ready(size + handle.tensors().len() * 64);
    let mut items = handle.items_in(&mut memory, 0, 64);
    items.iter_mut().for_each(|item| item.user_data = item.dst);
    let mut staging: Vec<MmapMut> = (0..3).map(|_| ready(4 << 20)).collect();
    let buffers: Vec<_> =
        staging.iter_mut().map(|memory| st_buffer { data: memory.as_mut_ptr().cast(), size: memory.len() }).collect();
    let mut calls = Vec::new();
    let mut sunk = |by_pieces: bool, threads, copies| {
        let mut device = Device { copies, items: &items, buffers: &buffers, calls: 0 };
        // SAFETY: null is a value of every field.
        let mut sink: st_sink = unsafe { std::mem::zeroed() };
        sink.struct_size = size_of::<st_sink>();
        (sink.buffers, sink.buffer_count) = (buffers.as_ptr(), buffers.len());
        sink.user_data = (&raw mut device).cast();
        match by_pieces {
            true => sink.pieces = Some(pieces),
            false => sink.chunk = Some(chunk),
        }
        let mut options = options(threads, ST_IO_AUTO);
        options.sink = &sink;
        let time = timed(|| handle.run(&items, &options));
        calls.push((by_pieces, threads, device.calls));
        time
    };
    let sunk = std::cell::RefCell::new(&mut sunk);
    let plain = |threads| timed(|| handle.run(&items, &options(threads, ST_IO_AUTO)));
    let mut unused = [0; 1];
    compare(
        &format!("{what}, warm: plain destinations, and a sink of three buffers of 4 MiB that copies on or has hardware do it"),
        (rounds, 1, size),
        &mut unused,
        &mut [
            ("plain destinations, its own choice", &mut |_| plain(0)),
            ("plain destinations, 1 thread", &mut |_| plain(1)),
            ("pieces, its own choice", &mut |_| sunk.borrow_mut()(true, 0, true)),
            ("pieces, 1 thread", &mut |_| sunk.borrow_mut()(true, 1, true)),
            ("chunk, its own choice", &mut |_| sunk.borrow_mut()(false, 0, true)),
            ("chunk, 1 thread", &mut |_| sunk.borrow_mut()(false, 1, true)),
            ("pieces that hardware copies, its own choice", &mut |_| sunk.borrow_mut()(true, 0, false)),
            ("pieces that hardware copies, 1 thread", &mut |_| sunk.borrow_mut()(true, 1, false)),
        ],
    );
    for (by_pieces, threads) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let found = calls.iter().find(|(by, of, _)| (*by, *of) == (by_pieces, threads));
        let name = if by_pieces { "pieces" } else { "chunk" };
        println!("calls of {name}, threads {threads}: {}", found.map_or(0, |(_, _, calls)| *calls));
    }
}
