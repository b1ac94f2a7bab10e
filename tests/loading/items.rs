// SPDX-License-Identifier: Apache-2.0
//! Loads of random items from random checkpoints from every kind of source,
//! against index arithmetic over a full copy and conversion through exact values:
//! each byte of a destination is what it should be, and no other is touched.

use std::collections::BTreeSet;
use std::fs;

use crate::support::callbacks::{Files, Manner, Reader};
use crate::support::changes::config;
use crate::support::handle::{self, init_options, Handle};
use crate::support::load::{init_load, item_of, load, plan, Device, Progress, Wrong, NOWHERE};
use crate::support::oracle::{bits_at, converted, is_nan, set_bits};
use crate::support::{file, index_of};
use proptest::prelude::*;
use proptest::sample::Index;
use safetensors::convert::supported;
use safetensors::ffi::*;
use safetensors::record::{st_range, st_tensor};
use safetensors::{Dtype, Range};

const INDEX: &str = "model.safetensors.index.json";

/// A tensor of the checkpoint to be made.
#[derive(Clone, Debug)]
struct Made {
    dtype: Dtype,
    shape: Vec<i64>,
    shard: usize,
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    /// As without strides.
    Dense,
    /// The dimensions in another order, with room between.
    Strided,
    /// The same, in two items that interleave.
    Halves,
}

/// One item to be, in numbers that are made to fit the tensor.
#[derive(Clone, Debug)]
struct Wish {
    tensor: Index,
    /// Start, stop, step, and whether from the end, for the first dimensions.
    ranges: Vec<(Index, Index, i64, bool)>,
    convert: Option<Index>,
    layout: Layout,
    /// Where each dimension goes in order, and what is left free after it.
    order: Vec<(u8, u8)>,
    gap: usize,
    slack: usize,
}

#[derive(Clone, Debug)]
enum Origin {
    Mapped,
    Read,
    Memory,
    Callback { most: usize, preferred_read: usize, max_parallel: usize },
}

#[derive(Clone, Debug)]
struct Case {
    tensors: Vec<Made>,
    wishes: Vec<Wish>,
    origin: Origin,
    options: (u32, i32, u64, bool),
    /// Sizes of a sink's buffers; empty: plain destinations.
    sink: Vec<usize>,
}

fn made() -> impl Strategy<Value = Made> {
    let known: Vec<Dtype> = Dtype::ALL.iter().copied().filter(|dtype| *dtype != Dtype::Unknown).collect();
    let size = prop_oneof![8 => 1..=9_i64, 3 => Just(8_i64), 1 => Just(0_i64)];
    let small = prop::collection::vec(size, 0..=5);
    let large = (2..=40_i64, 100..=3000_i64).prop_map(|(rows, columns)| vec![rows, columns]);
    let long = (10_000..=150_000_i64).prop_map(|size| vec![size]);
    let shape = prop_oneof![12 => small, 2 => large, 1 => long];
    (prop::sample::select(known), shape, 0..3_usize).prop_map(|(dtype, mut shape, shard)| {
        // The whole has to fill bytes.
        while dtype.bits() < 8 && shape.iter().product::<i64>() * i64::from(dtype.bits()) % 8 != 0 {
            match shape.last_mut() {
                Some(last) => *last += 1,
                None => shape.push(4),
            }
        }
        Made { dtype, shape, shard }
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    let range = (any::<Index>(), any::<Index>(), prop_oneof![4 => Just(1_i64), 1 => 2..=4_i64], any::<bool>());
    let layout = prop_oneof![3 => Just(Layout::Dense), 2 => Just(Layout::Strided), 2 => Just(Layout::Halves)];
    (
        any::<Index>(),
        prop::collection::vec(range, 0..=5),
        prop::option::of(any::<Index>()),
        layout,
        prop::collection::vec((any::<u8>(), prop_oneof![2 => Just(0_u8), 1 => 0..40_u8]), 5),
        prop_oneof![Just(0_usize), 0..100_usize],
        prop_oneof![Just(0_usize), 0..100_usize],
    )
        .prop_map(|(tensor, ranges, convert, layout, order, gap, slack)| Wish {
            tensor,
            ranges,
            convert,
            layout,
            order,
            gap,
            slack,
        })
}

fn case() -> impl Strategy<Value = Case> {
    let most = prop_oneof![2 => Just(usize::MAX), 1 => 500..20_000_usize];
    let preferred = prop_oneof![2 => Just(0_usize), 1 => 700..200_000_usize];
    let origin = prop_oneof![
        1 => Just(Origin::Mapped),
        2 => Just(Origin::Read),
        1 => Just(Origin::Memory),
        3 => (most, preferred, 0..4_usize).prop_map(|(most, preferred_read, max_parallel)| {
            Origin::Callback { most, preferred_read, max_parallel }
        }),
    ];
    let staging = prop_oneof![Just(0_u64), Just(65536), 65536..=600_000_u64];
    let sink = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(4096..20_000_usize, 1..6)];
    (
        prop::collection::vec(made(), 1..=10),
        prop::collection::vec(wish(), 1..=14),
        origin,
        (0..=8_u32, 0..=2_i32, staging, any::<bool>()),
        sink,
    )
        .prop_map(|(tensors, wishes, origin, options, sink)| Case { tensors, wishes, origin, options, sink })
}

/// The checkpoint's files, and each tensor's bytes.
struct Contents {
    shards: Vec<(String, Vec<u8>)>,
    bytes: Vec<Vec<u8>>,
    index: String,
}

fn files(tensors: &[Made], one: bool) -> Contents {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 40) as u8
    };
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|made| {
            let bits = made.shape.iter().product::<i64>() as usize * made.dtype.bits() as usize;
            let mask = if made.dtype == Dtype::Bool { 1 } else { 0xff };
            (0..bits / 8).map(|_| byte() & mask).collect()
        })
        .collect();
    let of = |made: &Made| if one { 0 } else { made.shard };
    let mut map = Vec::new();
    let shards = (0..3).filter(|shard| tensors.iter().any(|made| of(made) == *shard)).map(|shard| {
        let name = format!("s{shard}.safetensors");
        let (mut header, mut data) = (String::from("{"), Vec::new());
        for (i, made) in tensors.iter().enumerate().filter(|(_, made)| of(made) == shard) {
            let begin = data.len();
            data.extend(&bytes[i]);
            let comma = if begin == 0 && header.len() == 1 { "" } else { "," };
            header += &format!(
                "{comma}\"t{i}\":{{\"dtype\":{:?},\"shape\":{:?},\"data_offsets\":[{begin},{}]}}",
                made.dtype.name(),
                made.shape,
                data.len()
            );
            map.push((format!("t{i}"), name.clone()));
        }
        (name, file(header + "}", &data))
    });
    let shards = shards.collect();
    Contents { shards, bytes, index: index_of(map) }
}

/// An item as it is given, and what it asks for.
struct Asked<'a> {
    tensor: &'a st_tensor,
    number: usize,
    ranges: Vec<st_range>,
    to: Dtype,
    strides: Option<Vec<i64>>,
    /// Where in the arena, and how much of it is the item's to use.
    start: usize,
    room: usize,
    /// The picked indices of each dimension.
    indices: Vec<Vec<usize>>,
}

impl Asked<'_> {
    fn elements(&self) -> usize {
        self.indices.iter().map(Vec::len).product()
    }

    fn bits(&self) -> usize {
        self.to.bits() as usize
    }

    /// Each element of the result: its place in the tensor, and the bit that it
    /// begins with, from the item's destination on.
    fn each(&self, mut see: impl FnMut(usize, usize)) {
        let rank = self.indices.len();
        let mut at = vec![0; rank];
        for turn in 0..self.elements() {
            let (mut from, mut to) = (0, 0);
            for (d, i) in at.iter().enumerate() {
                from = from * self.tensor.shape()[d] as usize + self.indices[d][*i];
                if let Some(strides) = &self.strides {
                    let packed = self.bits() < 8 && d + 1 == rank;
                    to += i * if packed { self.bits() } else { strides[d] as usize * 8 };
                }
            }
            see(from, if self.strides.is_some() { to } else { turn * self.bits() });
            for d in (0..rank).rev() {
                at[d] += 1;
                if at[d] < self.indices[d].len() {
                    break;
                }
                at[d] = 0;
            }
        }
    }
}

fn indices(size: i64, range: &st_range) -> Vec<usize> {
    let front = |bound: i64| if bound < 0 { size + bound } else { bound };
    let stop = if range.stop == i64::MAX { size } else { front(range.stop) };
    (front(range.start)..stop).step_by(range.step as usize).map(|i| i as usize).collect()
}

/// Adds what a wish comes to; `arena` grows by its destination.
fn ask<'a>(wish: &Wish, tensors: &'a [st_tensor], dense: bool, arena: &mut usize, all: &mut Vec<Asked<'a>>) {
    let tensor = wish.tensor.get(tensors);
    let number = std::str::from_utf8(&tensor.name()[1..]).unwrap().parse().unwrap();
    let (dtype, shape) = (tensor.dtype(), tensor.shape());
    let mut ranges: Vec<st_range> = wish
        .ranges
        .iter()
        .zip(shape)
        .map(|((a, b, step, back), size)| {
            let (a, b) = (a.index(*size as usize + 1) as i64, b.index(*size as usize + 1) as i64);
            let start = a.min(b);
            let start = if *back && start < *size { start - size } else { start };
            Range { start, stop: if *back && a.max(b) == *size { i64::MAX } else { a.max(b) }, step: *step }
        })
        .collect();
    let targets: Vec<Dtype> = Dtype::ALL.iter().copied().filter(|to| supported(dtype, *to)).collect();
    let to = wish.convert.map_or(dtype, |to| *to.get(&targets));
    // Ranges that do not cut at bytes are refused, which is tested elsewhere.
    let rows_fill_bytes = shape.last().is_none_or(|last| last * i64::from(dtype.bits()) % 8 == 0);
    if dtype.bits() < 8 {
        let leading = shape.len().saturating_sub(1);
        ranges.truncate(if rows_fill_bytes { leading } else { 0 });
    }
    let picked = |ranges: &[st_range]| -> Vec<Vec<usize>> {
        shape.iter().enumerate().map(|(d, size)| indices(*size, ranges.get(d).unwrap_or(&Range::ALL))).collect()
    };
    let whole = picked(&ranges);
    let element = to.bits() as usize / 8;
    let layout =
        if dense || (to.bits() < 8 && (shape.is_empty() || !rows_fill_bytes)) { Layout::Dense } else { wish.layout };
    // Strides from the smallest on; packed elements are innermost.
    let mut strides = vec![0_i64; shape.len()];
    let mut extent = element.max(1);
    let mut order: Vec<usize> = (0..shape.len()).collect();
    if to.bits() < 8 {
        if let Some(row) = order.pop().map(|last| whole[last].len() * to.bits() as usize / 8) {
            extent = row;
        }
    }
    order.sort_by_key(|d| wish.order[*d].0);
    for d in order {
        strides[d] = (extent + usize::from(wish.order[d].1)) as i64;
        extent += strides[d] as usize * whole[d].len().saturating_sub(1);
    }
    let empty = whole.iter().any(Vec::is_empty);
    let size = whole.iter().map(Vec::len).product::<usize>() * to.bits() as usize / 8;
    let extent = match layout {
        _ if empty => 0,
        Layout::Dense => size,
        _ => extent,
    };
    *arena += wish.gap;
    let (start, room) = (*arena, extent + wish.slack);
    *arena += room;
    let strides = (!matches!(layout, Layout::Dense)).then_some(strides);
    let item = |ranges: Vec<st_range>, start, room, strides| {
        let indices = picked(&ranges);
        Asked { tensor, number, ranges, to, strides, start, room, indices }
    };
    let cut = (0..shape.len())
        .find(|d| whole[*d].len() > 1 && (dtype.bits() >= 8 || (rows_fill_bytes && d + 1 < shape.len())));
    match (layout, cut, strides) {
        (Layout::Halves, Some(d), Some(strides)) if !empty => {
            ranges.resize(ranges.len().max(d + 1), Range::ALL);
            let (first, second) = whole[d].split_at(whole[d].len() / 2);
            let mut halves = [ranges.clone(), ranges];
            (halves[0][d].start, halves[0][d].stop) = (first[0] as i64, second[0] as i64);
            halves[1][d].start = second[0] as i64;
            let far = first.len() * strides[d] as usize;
            let [one, other] = halves;
            all.push(item(one, start, room, Some(strides.clone())));
            all.push(item(other, start + far, room - far, Some(strides)));
        }
        (_, _, strides) => all.push(item(ranges, start, room, strides)),
    }
}

/// Opens the case's files as it says.
struct Opened {
    handle: Handle,
    readers: Vec<Reader>,
    _folder: tempfile::TempDir,
}

fn open(files: &Contents, origin: &Origin) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let mut readers = Vec::new();
    let handle = match origin {
        Origin::Mapped | Origin::Read => {
            for (name, bytes) in &files.shards {
                fs::write(folder.path().join(name), bytes).unwrap();
            }
            fs::write(folder.path().join(INDEX), &files.index).unwrap();
            let open = if matches!(origin, Origin::Mapped) { handle::open_map } else { handle::open_read };
            open(folder.path())
        }
        Origin::Memory => handle::open_memory(&files.shards[0].1, &init_options()),
        Origin::Callback { most, preferred_read, max_parallel } => {
            let make = |bytes: &[u8]| Reader {
                preferred_read: *preferred_read,
                max_parallel: *max_parallel,
                ..Reader::new(bytes).manner(Manner::Short(*most))
            };
            readers = files.shards.iter().map(|(_, bytes)| make(bytes)).collect();
            let named = files.shards.iter().map(|(name, _)| name.clone()).zip(readers.iter().cloned());
            let index = (INDEX.to_owned(), Reader::new(files.index.as_bytes()));
            let resolver = Files::new(named.chain([index])).resolver();
            handle::open_resolved(&resolver, INDEX, &init_options())
        }
    };
    Opened { handle: handle.unwrap(), readers, _folder: folder }
}

fn check(case: &Case) {
    let files = files(&case.tensors, matches!(case.origin, Origin::Memory));
    let opened = open(&files, &case.origin);
    let handle = &opened.handle;
    let (mut size, mut asked) = (0, Vec::new());
    for wish in &case.wishes {
        ask(wish, handle.tensors(), !case.sink.is_empty(), &mut size, &mut asked);
    }
    let mut arena: Vec<u8> = (0..size + 100).map(|i| (i * 37 >> 3) as u8 | 1).collect();
    let mut expected = arena.clone();
    let results: Vec<usize> = asked.iter().map(|item| item.elements() * item.bits() / 8).collect();
    let total = results.iter().sum::<usize>() as u64;
    let items: Vec<st_load_item> = asked
        .iter()
        .map(|item| st_load_item {
            ranges: item.ranges.as_ptr(),
            range_count: item.ranges.len(),
            dtype: if item.to == item.tensor.dtype() { 0 } else { item.to as i32 },
            dst: if case.sink.is_empty() { arena[item.start..].as_mut_ptr().cast() } else { NOWHERE },
            dst_size: item.room,
            dst_strides: item.strides.as_ref().map_or(std::ptr::null(), |strides| strides.as_ptr()),
            ..item_of(item.tensor)
        })
        .collect();
    let (threads, io, staging_bytes, drop_cache) = case.options;
    let mut options = st_load_options { threads, io, staging_bytes, drop_cache: u32::from(drop_cache), ..init_load() };
    let mut progress = Progress::default();
    progress.listen(&mut options);
    let device = Device::new(&case.sink, &results, 1, Wrong::default());
    let sink = device.sink();
    if !case.sink.is_empty() {
        options.sink = &raw const sink;
    }
    let planned = plan(handle, &items, &options).unwrap();
    for reader in &opened.readers {
        reader.counts.requests.lock().unwrap().clear();
    }
    load(handle, &items, &options).unwrap();
    progress.check(total, true);
    let found = device.finish();
    if !case.sink.is_empty() {
        found.check_covered();
        for (item, result) in asked.iter().zip(&found.results) {
            arena[item.start..][..result.len()].copy_from_slice(result);
        }
    }
    for item in &asked {
        let from = item.tensor.dtype();
        item.each(|source, at| {
            let bits = bits_at(&files.bytes[item.number], source * from.bits() as usize, from.bits() as usize);
            let at = item.start * 8 + at;
            let value = converted(from, bits, item.to).unwrap_or_else(|| {
                let there = bits_at(&arena, at, item.bits());
                assert!(is_nan(item.to, there), "{from:?} {bits:x} as {:?}: {there:x}", item.to);
                there
            });
            set_bits(&mut expected, at, item.bits(), value);
        });
    }
    if let Some(at) = (0..arena.len()).find(|at| arena[*at] != expected[*at]) {
        let item = asked.iter().rposition(|item| item.start <= at);
        panic!("byte {at}, near item {item:?}: {:x} in place of {:x}", arena[at], expected[at]);
    }
    assert_eq!(planned.bytes, total);
    assert!(planned.staging_bytes <= staging_bytes.max(if staging_bytes == 0 { 16 << 20 } else { 0 }));
    assert!(planned.threads >= 1 && (threads == 0 || planned.threads <= threads));
    let used: BTreeSet<usize> =
        asked.iter().filter(|item| item.elements() != 0).map(|item| item.tensor.shard()).collect();
    assert_eq!(planned.shards as usize, used.len());
    if let Origin::Callback { most, .. } = case.origin {
        check_requests(&opened, &asked, &planned, most);
    }
}

/// What was asked of the readers: no more than the plan said, and beside the
/// items nothing but narrow gaps.
fn check_requests(opened: &Opened, asked: &[Asked<'_>], planned: &st_plan, most: usize) {
    let (mut count, mut bytes, mut beside) = (0, 0, 0);
    for (shard, reader) in opened.readers.iter().enumerate() {
        let mut wanted = vec![false; reader.bytes.len()];
        for item in asked.iter().filter(|item| item.tensor.shard() == shard) {
            let bits = item.tensor.dtype().bits() as usize;
            item.each(|source, _| {
                let start = item.tensor.offset() as usize * 8 + source * bits;
                wanted[start / 8..(start + bits).div_ceil(8)].fill(true);
            });
        }
        let mut read = vec![false; wanted.len()];
        for (offset, len) in reader.counts.requests.lock().unwrap().iter() {
            (count, bytes) = (count + 1, bytes + *len as u64);
            read[*offset as usize..][..*len].fill(true);
        }
        assert!(wanted.iter().zip(&read).all(|(wanted, read)| *read || !wanted), "something was not read");
        let mut gap = 0;
        for (wanted, read) in wanted.iter().zip(&read) {
            gap = if *read && !wanted { gap + 1 } else { 0 };
            assert!(gap <= 64 << 10, "a gap is over the cap");
            beside += u64::from(gap != 0);
        }
    }
    assert!(beside <= planned.read_bytes);
    if most == usize::MAX {
        assert_eq!((bytes, count), (planned.read_bytes, planned.requests), "bytes and requests");
    }
}

proptest! {
    #![proptest_config(config(120))]
    #[test]
    fn loads_are_what_index_arithmetic_and_exact_conversion_say(case in case()) {
        check(&case);
    }
}
