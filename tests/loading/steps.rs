// SPDX-License-Identifier: Apache-2.0
//! Parts, transforms, sinks of many items, items that are done: each against what
//! the tensor's indices say, in every combination with sources and destinations.

use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::{from_ref, null};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::callbacks::{say, Reader};
use crate::support::handle::{init_options, open_io, open_memory, open_read, open_with, Handle};
use crate::support::load::{init_load, init_sink, item_of, load, Progress};
use crate::support::{file, promptly};
use safetensors::ffi::*;
use safetensors::part::{st_interval, st_part};
use safetensors::record::{st_piece, st_range, st_tensor};

/// A sequence of numbers that looks random and is the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// Two-byte elements of which no two are equal for long, none of them NaN.
fn elements(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| ((i * 7919 % 0x7f00) as u16).to_le_bytes()).collect()
}

/// A file of BF16 tensors of these shapes, and where each one's data begins.
fn made(shapes: &[Vec<i64>]) -> (Vec<u8>, Vec<usize>) {
    let (mut entries, mut at, mut starts) = (Vec::new(), 0, Vec::new());
    for (number, shape) in shapes.iter().enumerate() {
        let size = 2 * shape.iter().product::<i64>() as usize;
        entries
            .push(format!(r#""t{number}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{at},{}]}}"#, at + size));
        starts.push(at);
        at += size;
    }
    let data = elements(at / 2);
    let bytes = file(format!("{{{}}}", entries.join(",")), &data);
    let begins = bytes.len() - data.len();
    (bytes, starts.iter().map(|start| begins + start).collect())
}

/// What an item takes: for each dimension its pieces; none: all of it.
type Lists = Vec<Option<Vec<st_interval>>>;

fn some_lists(dice: &mut Dice, shape: &[i64]) -> Lists {
    let list = |size: i64, dice: &mut Dice| {
        (0..1 + dice.below(3))
            .map(|_| {
                let start = dice.below(size as usize + 1) as i64;
                let stop = start + dice.below((size - start) as usize + 1) as i64;
                st_interval { start, stop, zeros: dice.below(4) as i64 * dice.below(2) as i64, skip: 3 }
            })
            .collect()
    };
    shape.iter().map(|size| (dice.below(3) != 0).then(|| list(*size, dice))).collect()
}

/// The local shape, and the elements' numbers in the tensor; none for zeros.
fn indices(shape: &[i64], lists: &Lists) -> (Vec<i64>, Vec<Option<usize>>) {
    let (mut local, mut found) = (Vec::new(), vec![Some(0)]);
    for (size, list) in shape.iter().zip(lists) {
        let whole = vec![st_interval { stop: *size, ..st_interval::default() }];
        let list = list.as_ref().unwrap_or(&whole);
        let indices: Vec<Option<usize>> = list
            .iter()
            .flat_map(|piece| (piece.start..piece.stop).map(|i| Some(i as usize)).chain((0..piece.zeros).map(|_| None)))
            .collect();
        local.push(indices.len() as i64);
        let with = |before: Option<usize>, index: &Option<usize>| Some(before? * *size as usize + (*index)?);
        found = found.iter().flat_map(|before| indices.iter().map(|index| with(*before, index))).collect();
    }
    (local, found)
}

/// A part as a rank plan would give it, with what it points to.
struct Part {
    _lists: Lists,
    _pointers: Vec<*const st_interval>,
    _counts: Vec<usize>,
    _shape: Vec<i64>,
    record: Box<st_part>,
}

impl Part {
    fn new(tensor: &st_tensor, lists: &Lists, shape: &[i64]) -> Self {
        let lists = lists.clone();
        let pointers: Vec<_> = lists.iter().map(|list| list.as_ref().map_or(null(), |list| list.as_ptr())).collect();
        let counts: Vec<_> = lists.iter().map(|list| list.as_ref().map_or(0, Vec::len)).collect();
        let shape = shape.to_vec();
        // SAFETY: null is a value of every field.
        let zero: st_part = unsafe { zeroed() };
        let record = Box::new(st_part {
            tensor,
            rank: shape.len(),
            shape: shape.as_ptr(),
            intervals: pointers.as_ptr(),
            interval_counts: counts.as_ptr(),
            ..zero
        });
        Self { _lists: lists, _pointers: pointers, _counts: counts, _shape: shape, record }
    }
}

/// A transform that folds each unit into a few bytes, and what it was called with.
struct Fold {
    unit: u64,
    unit_size: u64,
    element_size: usize,
    fail_at: Option<u64>,
    calls: Mutex<Vec<(usize, u64, usize)>>,
}

impl Fold {
    fn record(&self) -> st_transform {
        st_transform {
            struct_size: size_of::<st_transform>(),
            unit: self.unit,
            unit_size: self.unit_size,
            run: Some(fold),
            user_data: from_ref(self).cast_mut().cast(),
        }
    }

    fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let unit = self.unit as usize * self.element_size;
        bytes.chunks(unit).flat_map(|unit| folded(unit, self.unit_size as usize)).collect()
    }
}

fn folded(unit: &[u8], size: usize) -> Vec<u8> {
    (0..size).map(|turn| unit.iter().fold(turn as u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))).collect()
}

unsafe extern "C" fn fold(
    user_data: *mut c_void,
    item: usize,
    element: u64,
    count: usize,
    src: *const c_void,
    dst: *mut c_void,
    error: *mut st_error,
) -> st_status {
    // SAFETY: as the header says.
    unsafe {
        let this = &*user_data.cast::<Fold>();
        assert!(src.addr().is_multiple_of(64) && count != 0 && (count as u64).is_multiple_of(this.unit));
        if this.fail_at.is_some_and(|fail| (element..element + count as u64).contains(&fail)) {
            say(error, c"the codebook is gone");
            return ST_ERROR_UNSUPPORTED;
        }
        let bytes = std::slice::from_raw_parts(src.cast::<u8>(), count * this.element_size);
        let result = this.of(bytes);
        dst.cast::<u8>().copy_from_nonoverlapping(result.as_ptr(), result.len());
        this.calls.lock().unwrap().push((item, element, count));
    }
    ST_OK
}

/// A sink of one of both kinds that keeps what it gets.
struct Keeper {
    memory: Vec<Vec<u8>>,
    buffers: Vec<st_buffer>,
    results: Vec<Vec<u8>>,
    seen: Vec<Vec<bool>>,
    flying: Vec<bool>,
    calls: usize,
    most_pieces: usize,
}

impl Keeper {
    fn new(buffers: &[usize], results: &[usize]) -> Box<Self> {
        // Where engines have them: at the beginning of a cache line.
        let mut memory: Vec<Vec<u8>> = buffers.iter().map(|size| vec![0; *size + 64]).collect();
        let aligned = |memory: &mut Vec<u8>| {
            let skip = memory.as_ptr().align_offset(64);
            memory[skip..].as_mut_ptr().cast()
        };
        let buffers = memory.iter_mut().zip(buffers);
        let buffers = buffers.map(|(memory, size)| st_buffer { data: aligned(memory), size: *size }).collect();
        let results: Vec<Vec<u8>> = results.iter().map(|size| vec![0xaa; *size]).collect();
        let seen = results.iter().map(|result| vec![false; result.len()]).collect();
        let flying = vec![false; memory.len()];
        Box::new(Self { memory, buffers, results, seen, flying, calls: 0, most_pieces: 0 })
    }

    fn sink(&mut self, pieces: bool) -> st_sink {
        st_sink {
            buffers: self.buffers.as_ptr(),
            buffer_count: self.buffers.len(),
            chunk: if pieces { None } else { Some(keep_chunk) },
            pieces: if pieces { Some(keep_pieces) } else { None },
            wait: Some(keep_wait),
            user_data: (&raw mut *self).cast(),
            ..init_sink()
        }
    }

    fn keep(&mut self, buffer: usize, at: usize, item: usize, offset: usize, size: usize) {
        assert!(size != 0);
        let memory = &self.memory[buffer];
        let memory = &memory[memory.as_ptr().align_offset(64)..];
        self.results[item][offset..][..size].copy_from_slice(&memory[at..][..size]);
        for seen in &mut self.seen[item][offset..][..size] {
            assert!(!std::mem::replace(seen, true), "twice");
        }
    }

    fn hand(&mut self, buffer: usize) {
        assert!(!std::mem::replace(&mut self.flying[buffer], true), "not waited for");
        self.calls += 1;
    }
}

unsafe extern "C" fn keep_chunk(
    user_data: *mut c_void,
    buffer: usize,
    item: usize,
    offset: u64,
    size: usize,
    _: *mut st_error,
) -> st_status {
    // SAFETY: as the header says.
    let this = unsafe { &mut *user_data.cast::<Keeper>() };
    this.hand(buffer);
    this.keep(buffer, 0, item, offset as usize, size);
    ST_OK
}

unsafe extern "C" fn keep_pieces(
    user_data: *mut c_void,
    buffer: usize,
    pieces: *const st_piece,
    count: usize,
    _: *mut st_error,
) -> st_status {
    // SAFETY: as the header says.
    let (this, pieces) = unsafe { (&mut *user_data.cast::<Keeper>(), std::slice::from_raw_parts(pieces, count)) };
    this.hand(buffer);
    this.most_pieces = this.most_pieces.max(count);
    let mut end = 0;
    for piece in pieces {
        assert!(piece.buffer_offset.is_multiple_of(16) && piece.buffer_offset == end, "one after the other");
        end = (piece.buffer_offset + piece.size).next_multiple_of(16);
        this.keep(buffer, piece.buffer_offset, piece.item, piece.item_offset as usize, piece.size);
    }
    ST_OK
}

unsafe extern "C" fn keep_wait(user_data: *mut c_void, buffer: usize, _: *mut st_error) -> st_status {
    // SAFETY: as the header says.
    let this = unsafe { &mut *user_data.cast::<Keeper>() };
    assert!(std::mem::replace(&mut this.flying[buffer], false));
    this.memory[buffer].fill(0xee);
    ST_OK
}

unsafe extern "C" fn note_done(user_data: *mut c_void, item: usize) {
    // SAFETY: set by the tests to such a list.
    unsafe { &mut *user_data.cast::<Vec<usize>>() }.push(item);
}

/// All the ways in which bytes come.
fn sources(bytes: &[u8], path: &std::path::Path) -> (Vec<(Handle, i32)>, Box<Reader>) {
    std::fs::write(path, bytes).unwrap();
    let reader = Box::new(Reader { preferred_read: 3000, ..Reader::new(bytes.to_vec()) });
    let mapped = open_with(path, &st_open_options { access: ST_ACCESS_MAP, ..init_options() }).unwrap();
    let all = vec![
        (open_read(path).unwrap(), ST_IO_AUTO),
        (open_read(path).unwrap(), ST_IO_DIRECT),
        (mapped, ST_IO_MAPPED),
        (open_memory(bytes, &init_options()).unwrap(), ST_IO_AUTO),
        (open_io(&reader.io(), &init_options()).unwrap(), ST_IO_MAPPED),
    ];
    (all, reader)
}

#[test]
fn parts_transforms_and_sinks_yield_what_indices_say() {
    promptly(|| {
        let mut dice = Dice(3);
        let folder = tempfile::tempdir().unwrap();
        for round in 0..24 {
            let shapes: Vec<Vec<i64>> = (0..5)
                .map(|number| match number {
                    0 => vec![300 + dice.below(200) as i64, 64],
                    1 => vec![40_000],
                    _ => (0..dice.below(4)).map(|_| 1 + dice.below(40) as i64).collect(),
                })
                .collect();
            let (bytes, starts) = made(&shapes);
            let (sources, _reader) = sources(&bytes, &folder.path().join("m.safetensors"));
            let lists: Vec<Lists> = shapes.iter().map(|shape| some_lists(&mut dice, shape)).collect();
            let to_f32 = dice.below(2) == 1;
            let folds = dice.below(3) == 0;
            // Every item of the second half is taken twice, by the same part.
            let chosen: Vec<usize> = (0..shapes.len()).chain(3..shapes.len()).collect();
            let mut expected = Vec::new();
            let mut fold_of: Vec<Option<Box<Fold>>> = Vec::new();
            let mut strided: Vec<Option<Vec<i64>>> = Vec::new();
            for number in &chosen {
                let (local, found) = indices(&shapes[*number], &lists[*number]);
                let element = |at: &Option<usize>| match at {
                    Some(at) => [bytes[starts[*number] + 2 * at], bytes[starts[*number] + 2 * at + 1]],
                    None => [0, 0],
                };
                let stored: Vec<[u8; 2]> = found.iter().map(element).collect();
                let converted: Vec<u8> = match to_f32 {
                    true => stored.iter().flat_map(|element| [0, 0, element[0], element[1]]).collect(),
                    false => stored.concat(),
                };
                let size = if to_f32 { 4 } else { 2 };
                let unit = [1, 2, 3, 5].into_iter().rev().find(|unit| stored.len().is_multiple_of(*unit)).unwrap();
                let fold = folds.then(|| {
                    let (unit, unit_size) = (unit as u64, dice.below(4) as u64);
                    Box::new(Fold { unit, unit_size, element_size: size, fail_at: None, calls: Mutex::default() })
                });
                // Transposed, with room between.
                let transposed = (!folds && dice.below(2) == 0 && !found.is_empty()).then(|| {
                    let mut stride = size as i64 + 1;
                    let mut strides = Vec::new();
                    for count in &local {
                        strides.push(stride);
                        stride = stride * count + 1;
                    }
                    strides
                });
                expected.push((local, fold.as_ref().map_or(converted.clone(), |fold| fold.of(&converted))));
                fold_of.push(fold);
                strided.push(transposed);
            }
            for (from, io) in &sources {
                let tensors = from.tensors();
                let parts: Vec<Part> = chosen
                    .iter()
                    .zip(&expected)
                    .map(|(n, (local, _))| Part::new(&tensors[*n], &lists[*n], local))
                    .collect();
                let steps: Vec<Option<st_transform>> =
                    fold_of.iter().map(|fold| fold.as_ref().map(|fold| fold.record())).collect();
                let mut items: Vec<st_load_item> = Vec::new();
                for (part, step) in parts.iter().zip(&steps) {
                    items.push(st_load_item {
                        tensor: null(),
                        part: &raw const *part.record,
                        dtype: if to_f32 { ST_DTYPE_F32 } else { ST_DTYPE_AS_STORED },
                        transform: step.as_ref().map_or(null(), from_ref),
                        ..item_of(&tensors[0])
                    });
                }
                for threads in [1, 3] {
                    let staging_bytes = [65_536 * 3, 0][dice.below(2)];
                    let options = st_load_options { threads, io: *io, staging_bytes, ..init_load() };
                    // To places of their own.
                    let size = if to_f32 { 4 } else { 2 };
                    let mut places: Vec<Vec<u8>> = Vec::new();
                    for ((item, (local, result)), strides) in items.iter_mut().zip(&expected).zip(&strided) {
                        let far = |strides: &Vec<i64>| {
                            size + local.iter().zip(strides).map(|(count, stride)| (count - 1) * stride).sum::<i64>()
                                as usize
                        };
                        let mut place = vec![0x77; strides.as_ref().map_or(result.len(), far)];
                        (item.dst, item.dst_size) = (place.as_mut_ptr().cast(), place.len());
                        item.dst_strides = strides.as_ref().map_or(null(), |strides| strides.as_ptr());
                        places.push(place);
                    }
                    let mut done: Vec<usize> = Vec::new();
                    let heard =
                        st_load_options { item_done: Some(note_done), user_data: (&raw mut done).cast(), ..options };
                    load(from, &items, &heard).unwrap();
                    done.sort_unstable();
                    assert!(done.iter().copied().eq(0..items.len()), "{done:?}");
                    for ((place, (local, result)), strides) in places.iter().zip(&expected).zip(&strided) {
                        let Some(strides) = strides else {
                            assert!(place == result, "round {round}, {threads} threads, io {io}");
                            continue;
                        };
                        for (number, element) in result.chunks(size).enumerate() {
                            let mut rest = number as i64;
                            let mut at = 0;
                            for (count, stride) in local.iter().zip(strides).rev() {
                                at += rest % count * stride;
                                rest /= count;
                            }
                            assert_eq!(&place[at as usize..][..size], element);
                        }
                    }
                    // To sinks.
                    items.iter_mut().for_each(|item| item.dst_strides = null());
                    let sizes: Vec<usize> = expected.iter().map(|(_, result)| result.len()).collect();
                    for pieces in [false, true] {
                        for buffers in [&[4096][..], &[10_000, 5000, 4096]] {
                            let mut keeper = Keeper::new(buffers, &sizes);
                            let sink = keeper.sink(pieces);
                            load(from, &items, &st_load_options { sink: &raw const sink, ..options }).unwrap();
                            for (kept, (_, result)) in keeper.results.iter().zip(&expected) {
                                assert!(kept == result, "round {round}, pieces {pieces}, io {io}");
                            }
                            assert!(keeper.flying.iter().all(|flying| !flying));
                        }
                    }
                }
                for (number, fold) in fold_of.iter().enumerate().filter_map(|(n, fold)| Some((n, fold.as_ref()?))) {
                    let mut calls = std::mem::take(&mut *fold.calls.lock().unwrap());
                    calls.sort_unstable();
                    let elements = indices(&shapes[chosen[number]], &lists[chosen[number]]).1.len();
                    // Two numbers of threads, one place and four sinks.
                    let counts: usize = calls.iter().map(|(_, _, count)| count).sum();
                    assert_eq!(counts, elements * 10);
                    assert!(calls.iter().all(|(item, _, _)| *item == number));
                }
            }
        }
    });
}

#[test]
fn ranges_and_whole_tensors_are_transformed_too() {
    let (bytes, starts) = made(&[vec![1000, 96], vec![7, 32]]);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let fold = Fold { unit: 32, unit_size: 34, element_size: 2, fail_at: None, calls: Mutex::default() };
    let step = fold.record();
    let ranges = [st_range { start: 3, stop: 998, step: 2 }, st_range { start: 32, stop: 96, step: 1 }];
    let rows = (3..998).step_by(2).flat_map(|row| &bytes[starts[0] + row * 192 + 64..][..128]);
    let expected = [fold.of(&rows.copied().collect::<Vec<_>>()), fold.of(&bytes[starts[1]..])];
    let mut places = expected.each_ref().map(|result| vec![0; result.len()]);
    let mut items = [0, 1].map(|number| item_of(&from.tensors()[number]));
    (items[0].ranges, items[0].range_count) = (ranges.as_ptr(), 2);
    for (item, place) in items.iter_mut().zip(&mut places) {
        (item.dst, item.dst_size, item.transform) = (place.as_mut_ptr().cast(), place.len(), &raw const step);
    }
    load(&from, &items, &init_load()).unwrap();
    assert!(places == expected);
}

#[test]
fn a_transform_that_fails_names_item_and_element() {
    let (bytes, _) = made(&[vec![64], vec![5000, 32]]);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let fold = Fold { unit: 32, unit_size: 1, element_size: 2, fail_at: Some(100_003), calls: Mutex::default() };
    let step = fold.record();
    let mut place = vec![0; 5000];
    let mut items = [item_of(&from.tensors()[0]), item_of(&from.tensors()[1])];
    let mut first = vec![0; 128];
    (items[0].dst, items[0].dst_size) = (first.as_mut_ptr().cast(), 128);
    (items[1].dst, items[1].dst_size, items[1].transform) = (place.as_mut_ptr().cast(), 5000, &raw const step);
    let failure = load(&from, &items, &init_load()).unwrap_err();
    assert_eq!(failure.status(), "ST_ERROR_UNSUPPORTED");
    for word in ["item 1", "\"t1\"", "transform of ", " elements from ", "the codebook is gone"] {
        assert!(failure.message.contains(word), "{word}: {}", failure.message);
    }
}

#[test]
fn what_can_not_be_transformed_is_refused() {
    let (bytes, _) = made(&[vec![10, 96]]);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let mut place = vec![0_u8; 4000];
    let refused = |change: &dyn Fn(&mut st_transform, &mut st_load_item, &mut st_load_options)| {
        let fold = Fold { unit: 32, unit_size: 8, element_size: 2, fail_at: None, calls: Mutex::default() };
        let mut step = fold.record();
        let mut item = item_of(&from.tensors()[0]);
        (item.dst, item.dst_size) = (place.as_ptr().cast_mut().cast(), place.len());
        let mut options = init_load();
        change(&mut step, &mut item, &mut options);
        item.transform = &raw const step;
        let failure = load(&from, &[item], &options).unwrap_err();
        assert!(failure.message.contains("item 0") || failure.message.contains("unit"), "{}", failure.message);
        (failure.status(), failure.message)
    };
    let strides = [192, 2];
    let (status, text) = refused(&|step, _, _| step.unit = 7);
    assert!(
        status == "ST_ERROR_INVALID_ARGUMENT" && text.contains("its 960 elements are not whole units of 7"),
        "{text}"
    );
    let (status, text) = refused(&|step, _, _| step.unit = 0);
    assert!(status == "ST_ERROR_INVALID_ARGUMENT" && text.contains("transform.unit is 0"), "{text}");
    let (status, text) = refused(&|step, _, _| step.run = None);
    assert!(status == "ST_ERROR_INVALID_ARGUMENT" && text.contains("transform.run is NULL"), "{text}");
    let (status, text) = refused(&|step, _, _| step.struct_size = 0);
    assert!(status == "ST_ERROR_INVALID_ARGUMENT" && text.contains("st_transform.struct_size"), "{text}");
    let (status, text) = refused(&|_, item, _| item.dst_strides = strides.as_ptr());
    assert!(status == "ST_ERROR_INVALID_ARGUMENT" && text.contains("dst_strides"), "{text}");
    let (status, text) = refused(&|step, _, _| step.unit_size = u64::MAX);
    assert!(status == "ST_ERROR_INVALID_ARGUMENT" && text.contains("beyond any memory"), "{text}");
    let (status, text) = refused(&|_, item, _| item.dst_size = 239);
    assert!(status == "ST_ERROR_BUFFER_SIZE" && text.contains("240"), "{text}");
    place.fill(1);
}

#[test]
fn units_that_fit_nowhere_are_refused() {
    let (bytes, _) = made(&[vec![100_000]]);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let mut place = vec![0_u8; 100_000];
    let with = |unit: u64, unit_size: u64, options: &st_load_options| {
        let fold = Fold { unit, unit_size, element_size: 2, fail_at: None, calls: Mutex::default() };
        let step = fold.record();
        let mut item = item_of(&from.tensors()[0]);
        (item.dst, item.dst_size, item.transform) = (place.as_ptr().cast_mut().cast(), place.len(), &raw const step);
        load(&from, &[item], options).map_err(|failure| (failure.status(), failure.message))
    };
    let small = st_load_options { staging_bytes: 65_536, ..init_load() };
    let (status, text) = with(100_000, 1, &small).unwrap_err();
    assert!(status == "ST_ERROR_BUFFER_SIZE" && text.contains("200000 bytes") && text.contains("65536"), "{text}");
    with(100_000, 1, &init_load()).unwrap();
    let mut keeper = Keeper::new(&[4096, 5000], &[100_000]);
    for pieces in [false, true] {
        let sink = keeper.sink(pieces);
        let options = st_load_options { sink: &raw const sink, ..init_load() };
        let (status, text) = with(10_000, 4097, &options).unwrap_err();
        assert!(status == "ST_ERROR_BUFFER_SIZE" && text.contains("4097") && text.contains("4096"), "{text}");
    }
    place.fill(1);
}

#[test]
fn many_items_share_a_buffer_and_few_calls_bring_them() {
    let shapes: Vec<Vec<i64>> = (0..5000).map(|_| vec![256]).collect();
    let (bytes, starts) = made(&shapes);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let items: Vec<_> = from.tensors().iter().map(item_of).collect();
    for threads in [0, 1, 4] {
        let mut keeper = Keeper::new(&[100_000; 3], &vec![512; items.len()]);
        let sink = keeper.sink(true);
        load(&from, &items, &st_load_options { sink: &raw const sink, threads, ..init_load() }).unwrap();
        for (kept, tensor) in keeper.results.iter().zip(from.tensors()) {
            assert!(kept == &bytes[tensor.offset() as usize..][..512]);
        }
        let least = (5000 * 512_usize).div_ceil(100_000);
        assert!(keeper.calls <= least + 4, "{} calls of {least}", keeper.calls);
        assert!(keeper.most_pieces >= 195, "{}", keeper.most_pieces);
    }
    assert_eq!(starts.len(), 5000);
}

#[test]
fn neighbours_in_a_file_are_neighbours_in_a_buffer() {
    // Runs of whole lines, of an odd length in between, of one that is converted, and of one that is left out.
    let shapes: Vec<Vec<i64>> = (0..3000).map(|number| vec![if number % 700 == 699 { 77 } else { 256 }]).collect();
    let (bytes, _) = made(&shapes);
    let folder = tempfile::tempdir().unwrap();
    let (sources, _reader) = sources(&bytes, &folder.path().join("model.safetensors"));
    for (from, io) in &sources {
        let mut items: Vec<_> = from.tensors().iter().map(item_of).collect();
        items[1000].dtype = ST_DTYPE_F32;
        items.remove(2000);
        let mut plain: Vec<Vec<u8>> = from
            .tensors()
            .iter()
            .map(|tensor| bytes[tensor.offset() as usize..][..tensor.size() as usize].to_vec())
            .collect();
        // A BF16 is the upper half of its F32.
        plain[1000] = plain[1000].chunks(2).flat_map(|half| [0, 0, half[0], half[1]]).collect();
        plain.remove(2000);
        for (threads, buffers) in [(1, vec![100_001]), (0, vec![300_000, 70_007, 100_032]), (4, vec![4096, 1 << 20])] {
            let mut keeper = Keeper::new(&buffers, &plain.iter().map(Vec::len).collect::<Vec<_>>());
            let sink = keeper.sink(true);
            load(from, &items, &st_load_options { sink: &raw const sink, threads, io: *io, ..init_load() }).unwrap();
            assert!(keeper.results == plain, "{threads} threads, io {io}");
            assert!(keeper.seen.iter().flatten().all(|seen| *seen));
        }
    }
}

#[test]
fn progress_hears_of_each_request() {
    // 12 MiB of small items, halves of rows, and 12 MiB in one piece.
    let mut shapes = vec![vec![256]; 24_576];
    shapes.extend([vec![1024, 4096], vec![6 << 20]]);
    let (bytes, _) = made(&shapes);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let mut items: Vec<_> = from.tensors().iter().map(item_of).collect();
    let halves = [(0, 1024), (0, 2048)].map(|(start, stop)| st_range { start, stop, step: 1 });
    (items[24_576].ranges, items[24_576].range_count) = (halves.as_ptr(), 2);
    let mut memory = vec![0_u8; 28 << 20];
    let mut rest = memory.as_mut_slice();
    for (number, item) in items.iter_mut().enumerate() {
        let size = [512, 4 << 20, 12 << 20][number.saturating_sub(24_575)];
        let (place, later) = rest.split_at_mut(size);
        (item.dst, item.dst_size) = (place.as_mut_ptr().cast(), size);
        rest = later;
    }
    let mut options = st_load_options { threads: 1, ..init_load() };
    let mut progress = Progress::default();
    progress.listen(&mut options);
    load(&from, &items, &options).unwrap();
    progress.check(28 << 20, true);
    let steps = progress.calls.windows(2).map(|calls| calls[1].0 - calls[0].0);
    let first = progress.calls[0].0;
    assert!(first <= 6 << 20 && steps.clone().all(|step| step <= 6 << 20), "{:?}", progress.calls);
    assert!(steps.filter(|step| *step != 0).count() >= 5, "{:?}", progress.calls);
}

#[test]
fn a_buffer_may_end_anywhere() {
    // The first item fills the buffer up to its last byte, which is no place for a piece; others are far away.
    let (bytes, _) = made(&[vec![2053], vec![1 << 20], vec![256], vec![256]]);
    let folder = tempfile::tempdir().unwrap();
    let (sources, _reader) = sources(&bytes, &folder.path().join("model.safetensors"));
    for (from, io) in &sources {
        let items: Vec<_> = [0, 2, 3].iter().map(|number| item_of(&from.tensors()[*number])).collect();
        let mut keeper = Keeper::new(&[4106], &[4106, 512, 512]);
        let sink = keeper.sink(true);
        load(from, &items, &st_load_options { sink: &raw const sink, threads: 1, io: *io, ..init_load() }).unwrap();
        for (kept, number) in keeper.results.iter().zip([0, 2, 3]) {
            assert!(kept == &bytes[from.tensors()[number].offset() as usize..][..kept.len()], "item {number}, io {io}");
        }
    }
}

#[test]
fn a_sink_has_one_of_both_functions() {
    let (bytes, _) = made(&[vec![10]]);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let mut keeper = Keeper::new(&[4096], &[20]);
    for (chunk, pieces, word) in
        [(true, true, "st_sink.pieces are both set"), (false, false, "st_sink.pieces are both NULL")]
    {
        let mut sink = keeper.sink(false);
        sink.chunk = sink.chunk.filter(|_| chunk);
        sink.pieces = if pieces { Some(keep_pieces) } else { None };
        let options = st_load_options { sink: &raw const sink, ..init_load() };
        let failure = load(&from, &[item_of(&from.tensors()[0])], &options).unwrap_err();
        assert_eq!(failure.status(), "ST_ERROR_INVALID_ARGUMENT");
        assert!(failure.message.contains(word), "{}", failure.message);
    }
}

/// Which reads of a source have begun, and which of them after a load was cancelled.
#[derive(Default)]
struct Begun {
    cancelled: AtomicI32,
    all: AtomicUsize,
    after: AtomicUsize,
}

unsafe extern "C" fn give_up(user_data: *mut c_void, _: u64, _: u64) -> i32 {
    // SAFETY: the tests set it to this.
    let (this, start) = unsafe { &*user_data.cast::<(*const Begun, Instant)>() };
    let gives_up = start.elapsed() >= Duration::from_millis(50);
    if gives_up {
        // SAFETY: it outlives the load.
        unsafe { &**this }.cancelled.store(1, Ordering::SeqCst);
    }
    i32::from(gives_up)
}

#[test]
fn no_read_begins_once_a_load_is_cancelled() {
    let shapes: Vec<Vec<i64>> = (0..40).map(|_| vec![5000]).collect();
    let (bytes, _) = made(&shapes);
    for (threads, by_progress) in [(8, true), (8, false), (1, false), (1, true)] {
        let begun = Arc::new(Begun::default());
        let reader = Reader { preferred_read: 10_000, ..Reader::new(bytes.clone()) };
        let reader = reader.within({
            let begun = Arc::clone(&begun);
            move |offset, len| {
                // What opening reads is over at once.
                if offset > 1000 {
                    begun.all.fetch_add(1, Ordering::SeqCst);
                    begun.after.fetch_add(usize::from(begun.cancelled.load(Ordering::SeqCst) != 0), Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(300));
                }
                Ok(len)
            }
        });
        let from = open_io(&reader.io(), &init_options()).unwrap();
        let mut places = vec![vec![0_u8; 10_000]; 40];
        let items: Vec<_> = from
            .tensors()
            .iter()
            .zip(&mut places)
            .map(|(tensor, place)| st_load_item { dst: place.as_mut_ptr().cast(), dst_size: 10_000, ..item_of(tensor) })
            .collect();
        let start = Instant::now();
        let heard = (Arc::as_ptr(&begun), start);
        let mut options = st_load_options { threads, ..init_load() };
        if by_progress {
            options.progress = Some(give_up);
            options.user_data = from_ref(&heard).cast_mut().cast();
        } else {
            options.cancel = begun.cancelled.as_ptr();
        }
        let failure = thread::scope(|scope| {
            if !by_progress {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(50));
                    begun.cancelled.store(1, Ordering::SeqCst);
                });
            }
            load(&from, &items, &options).unwrap_err()
        });
        assert_eq!(failure.status(), "ST_ERROR_CANCELLED", "{}", failure.message);
        let word = if by_progress { "progress callback" } else { "st_load_options.cancel" };
        assert!(failure.message.contains(word), "{}", failure.message);
        assert_eq!(begun.after.load(Ordering::SeqCst), 0, "{threads} threads");
        assert!(begun.all.load(Ordering::SeqCst) <= threads as usize);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}

#[test]
fn a_load_that_is_cancelled_beforehand_reads_nothing() {
    let (bytes, _) = made(&[vec![5000]]);
    let reader = Reader::new(bytes.clone());
    let from = open_io(&reader.io(), &init_options()).unwrap();
    let mut place = vec![7_u8; 10_000];
    let item = st_load_item { dst: place.as_mut_ptr().cast(), dst_size: 10_000, ..item_of(&from.tensors()[0]) };
    let cancel = 1_i32;
    let mut done: Vec<usize> = Vec::new();
    let options = st_load_options {
        cancel: &raw const cancel,
        item_done: Some(note_done),
        user_data: (&raw mut done).cast(),
        ..init_load()
    };
    assert_eq!(load(&from, &[item], &options).unwrap_err().status(), "ST_ERROR_CANCELLED");
    assert!(place.iter().all(|byte| *byte == 7) && done.is_empty());
}

/// A step that cancels its own load after some calls, by the word or by its status.
struct Quits {
    cancel: AtomicI32,
    calls: AtomicUsize,
    after: usize,
    elements: AtomicUsize,
    by_status: bool,
}

unsafe extern "C" fn quits(
    user_data: *mut c_void,
    _: usize,
    _: u64,
    count: usize,
    _: *const c_void,
    _: *mut c_void,
    error: *mut st_error,
) -> st_status {
    // SAFETY: the test sets it to this.
    let this = unsafe { &*user_data.cast::<Quits>() };
    let call = this.calls.fetch_add(1, Ordering::SeqCst);
    if this.cancel.load(Ordering::SeqCst) != 0 {
        this.elements.fetch_add(count, Ordering::SeqCst);
    }
    if call >= this.after {
        this.cancel.store(1, Ordering::SeqCst);
        if this.by_status {
            // SAFETY: as the header says.
            unsafe { say(error, c"enough") };
            return ST_ERROR_CANCELLED;
        }
    }
    ST_OK
}

#[test]
fn a_load_ends_soon_that_is_cancelled_within_a_transform() {
    let (bytes, _) = made(&[vec![4096, 4096]]);
    let reader = Reader { preferred_read: 1 << 20, ..Reader::new(bytes.clone()) };
    for from in [open_memory(&bytes, &init_options()).unwrap(), open_io(&reader.io(), &init_options()).unwrap()] {
        for (threads, by_status) in [(1, false), (3, false), (1, true), (3, true)] {
            let quits_after = Quits {
                cancel: AtomicI32::new(0),
                calls: AtomicUsize::new(0),
                after: 2,
                elements: AtomicUsize::new(0),
                by_status,
            };
            let step = st_transform {
                struct_size: size_of::<st_transform>(),
                unit: 32,
                unit_size: 0,
                run: Some(quits),
                user_data: from_ref(&quits_after).cast_mut().cast(),
            };
            let item = st_load_item { transform: &raw const step, ..item_of(&from.tensors()[0]) };
            let mut options = st_load_options { threads, ..init_load() };
            if !by_status {
                options.cancel = quits_after.cancel.as_ptr();
            }
            let failure = load(&from, &[item], &options).unwrap_err();
            assert_eq!(failure.status(), "ST_ERROR_CANCELLED", "{}", failure.message);
            let word = if by_status { "item 0, tensor \"t0\": transform of " } else { "st_load_options.cancel" };
            assert!(failure.message.contains(word), "{}", failure.message);
            // What had been read is worked on, and nothing more is.
            let after = quits_after.elements.load(Ordering::SeqCst);
            assert!(after * 2 <= (threads as usize + 1) << 20, "{after} elements after the end, {threads} threads");
        }
    }
}
