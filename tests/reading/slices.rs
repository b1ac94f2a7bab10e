// SPDX-License-Identifier: Apache-2.0
//! Slices against numpy, and against plain index arithmetic over a full copy,
//! from every kind of source; what they refuse; and how many reads they take.

use std::ffi::CStr;
use std::fs;
use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::callbacks::Reader;
use crate::support::records::Record;
use crate::support::slice_model::{naive, naive_indices, Naive};
use proptest::prelude::*;
use safetensors::ffi::*;
use safetensors::record::{st_range, st_tensor};
use safetensors::{Access, Checkpoint, Dtype, ErrorKind, OpenOptions, Range, ReadAt, Tolerate};

/// A file with one tensor, `x`, whose bytes all differ from their neighbours.
struct Made {
    file: Vec<u8>,
    data: Vec<u8>,
}

fn made(dtype: &str, bits: u64, shape: &[i64]) -> Made {
    let size = shape.iter().product::<i64>() as u64 * bits / 8;
    // Bytes before and after it, so that a read beside it would show.
    let header = format!(
        "{{\"a\":{{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]}},\
         \"x\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[5,{}]}},\
         \"z\":{{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[{},{}]}}}}",
        size + 5,
        size + 5,
        size + 8
    );
    let data: Vec<u8> = (0..size).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend([0xaa; 5]);
    file.extend(&data);
    file.extend([0xbb; 3]);
    Made { file, data }
}

fn range(start: i64, stop: i64, step: i64) -> Range {
    Range { start, stop, step }
}

/// Gives a few bytes at a time, and counts.
struct Short {
    file: Vec<u8>,
    most: usize,
    reads: Arc<AtomicUsize>,
    bytes: Arc<Mutex<Vec<(u64, usize)>>>,
}

impl ReadAt for Short {
    fn size(&self) -> u64 {
        self.file.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> safetensors::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.lock().unwrap().push((offset, buffer.len()));
        let len = buffer.len().min(self.most);
        buffer[..len].copy_from_slice(&self.file[offset as usize..][..len]);
        Ok(len)
    }
}

struct Counted {
    checkpoint: Checkpoint,
    reads: Arc<AtomicUsize>,
    bytes: Arc<Mutex<Vec<(u64, usize)>>>,
}

fn counted(file: Vec<u8>, most: usize) -> Counted {
    let (reads, bytes) = (Arc::default(), Arc::default());
    let io = Short { file, most, reads: Arc::clone(&reads), bytes: Arc::clone(&bytes) };
    let checkpoint = Checkpoint::open_reader(Box::new(io), &OpenOptions::default()).unwrap();
    reads.store(0, Ordering::Relaxed);
    bytes.lock().unwrap().clear();
    Counted { checkpoint, reads, bytes }
}

/// Opens the same bytes in every way, and calls with each.
fn with_each_source(file: &[u8], mut check: impl FnMut(&str, &Checkpoint)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    fs::write(&path, file).unwrap();
    for access in [Access::Map, Access::Read] {
        let options = OpenOptions { access, ..OpenOptions::default() };
        check(&format!("{access:?}"), &Checkpoint::open(&path, &options).unwrap());
    }
    let leaked: &'static mut [u8] = Box::leak(file.to_vec().into_boxed_slice());
    let at: *mut [u8] = leaked;
    // SAFETY: the box from above, shared while the checkpoint lives.
    check("memory", &Checkpoint::open_memory(unsafe { &*at }, &OpenOptions::default()).unwrap());
    // SAFETY: nobody has it any more.
    drop(unsafe { Box::from_raw(at) });
    check("callback", &counted(file.to_vec(), 7).checkpoint);
}

fn shape_of(tensor: &st_tensor, ranges: &[Range]) -> Result<(Vec<i64>, u64), (st_status, String)> {
    let (mut shape, mut size) = (vec![-1; tensor.shape().len()], u64::MAX);
    // SAFETY: st_error is plain memory.
    let mut error: st_error = unsafe { zeroed() };
    // SAFETY: shape has rank places.
    let status = unsafe {
        st_slice_shape(tensor, ranges.as_ptr(), ranges.len(), shape.as_mut_ptr(), &raw mut size, &raw mut error)
    };
    match status {
        ST_OK => Ok((shape, size)),
        _ => {
            assert_eq!((error.code, size), (status, u64::MAX));
            assert!(shape.iter().all(|size| *size == -1), "written in spite of an error");
            Err((status, text(&error)))
        }
    }
}

fn text(error: &st_error) -> String {
    // SAFETY: NUL-terminated by the library.
    unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap().to_owned()
}

fn check(dtype: Dtype, shape: &[i64], ranges: &[Range]) {
    let bits = dtype.bits() as usize;
    let Made { file, data } = made(dtype.name(), bits as u64, shape);
    let expected = naive(&data, bits, shape, ranges);
    with_each_source(&file, |source, checkpoint| {
        let what = format!("{source}: {dtype:?} {shape:?} {ranges:?}");
        let tensor = checkpoint.find(b"x").unwrap();
        let mut buffer = vec![0xcc; data.len() + 9];
        let result = checkpoint.read_slice(tensor, ranges, &mut buffer);
        let found = shape_of(tensor, ranges);
        match &expected {
            Naive::Picked { shape, bytes } => {
                assert!(result.is_ok(), "{what}: {result:?}");
                assert_eq!(found, Ok((shape.clone(), bytes.len() as u64)), "{what}");
                assert_eq!(&buffer[..bytes.len()], bytes, "{what}");
                assert!(buffer[bytes.len()..].iter().all(|byte| *byte == 0xcc), "{what}: wrote after the slice");
                checkpoint.read_slice(tensor, ranges, &mut buffer[..bytes.len()]).unwrap();
                if let Some(less) = bytes.len().checked_sub(1) {
                    let error = checkpoint.read_slice(tensor, ranges, &mut buffer[..less]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::BufferSize, "{what}");
                }
            }
            Naive::Invalid | Naive::SubByte => {
                let kind =
                    if matches!(expected, Naive::Invalid) { ErrorKind::InvalidArgument } else { ErrorKind::SubByte };
                assert_eq!(result.unwrap_err().kind(), kind, "{what}");
                assert_eq!(found.unwrap_err().0, kind as st_status, "{what}");
                assert!(buffer.iter().all(|byte| *byte == 0xcc), "{what}: wrote in spite of an error");
            }
        }
    });
}

/// A range within a dimension of this size.
fn valid_range(size: i64) -> impl Strategy<Value = Range> {
    let bounds = (0..=size, 0..=size, prop_oneof![6 => 1..=3_i64, 1 => 1..=size + 2, 1 => Just(i64::MAX)]);
    (bounds, any::<[bool; 3]>()).prop_map(move |((a, b, step), [start_back, stop_back, to_end])| {
        let (start, stop) = (a.min(b), a.max(b));
        let back = |bound: i64, back: bool| if back && bound < size { bound - size } else { bound };
        let stop = if to_end { i64::MAX } else { back(stop, stop_back) };
        range(back(start, start_back), stop, step)
    })
}

fn any_range(size: i64) -> impl Strategy<Value = Range> {
    let near = -size - 2..=size + 2;
    let extreme = prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(i64::MAX - 1), Just(0)];
    let bound = prop_oneof![12 => near, 1 => extreme];
    prop_oneof![
        12 => valid_range(size),
        3 => Just(Range::ALL),
        1 => (bound.clone(), bound, -1..=3_i64).prop_map(|(start, stop, step)| range(start, stop, step)),
    ]
}

fn case() -> impl Strategy<Value = (Dtype, Vec<i64>, Vec<Range>)> {
    let known: Vec<Dtype> = Dtype::ALL.iter().copied().filter(|dtype| *dtype != Dtype::Unknown).collect();
    let sub_byte = vec![Dtype::F4, Dtype::F6E2M3, Dtype::F6E3M2];
    let dtype = prop_oneof![3 => prop::sample::select(known), 1 => prop::sample::select(sub_byte)];
    let size = prop_oneof![10 => 1..=6_i64, 2 => Just(1), 2 => Just(8_i64), 1 => Just(0_i64)];
    (dtype, prop::collection::vec(size, 0..=6)).prop_flat_map(|(dtype, mut shape)| {
        // The whole has to fill bytes.
        while dtype.bits() < 8 && shape.iter().product::<i64>() * i64::from(dtype.bits()) % 8 != 0 {
            match shape.last_mut() {
                Some(last) => *last += 1,
                None => shape.push(4),
            }
        }
        let ranges: Vec<_> = shape.iter().map(|size| any_range(*size).boxed()).collect();
        (Just(dtype), Just(shape), ranges, 0..=7_usize, prop::bool::weighted(0.02)).prop_map(
            |(dtype, shape, mut ranges, most, one_more)| {
                ranges.truncate(most);
                if one_more {
                    ranges.resize(shape.len() + 1, Range::ALL);
                }
                (dtype, shape, ranges)
            },
        )
    })
}

proptest! {
    #[test]
    fn slices_are_what_index_arithmetic_picks((dtype, shape, ranges) in case()) {
        check(dtype, &shape, &ranges);
    }
}

/// See tests/reading/slices/make_reference.py.
#[test]
fn slices_are_those_of_numpy() {
    let numbers = |text: &str| -> Vec<i64> {
        text.split(',').filter(|number| *number != "-").map(|number| number.parse().unwrap()).collect()
    };
    let spelled = |text: &str| {
        let bounds: Vec<&str> = text.split(':').collect();
        let stop = if bounds[1].is_empty() { i64::MAX } else { bounds[1].parse().unwrap() };
        range(bounds[0].parse().unwrap(), stop, bounds[2].parse().unwrap())
    };
    for line in include_str!("slices/reference.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [shape, ranges, picked, hash] = fields[..] else { panic!("{line}") };
        let shape = numbers(shape);
        let ranges: Vec<Range> = ranges.split(',').filter(|range| *range != "-").map(spelled).collect();
        let mut made = made("I64", 64, &shape);
        let at = made.file.len() - made.data.len() - 3;
        for (i, place) in made.file[at..].chunks_exact_mut(8).take(made.data.len() / 8).enumerate() {
            place.copy_from_slice(&(i as u64).to_le_bytes());
        }
        let checkpoint = counted(made.file, usize::MAX).checkpoint;
        let tensor = checkpoint.find(b"x").unwrap();
        let (found, size) = shape_of(tensor, &ranges).unwrap();
        assert_eq!(found, numbers(picked), "{line}");
        let mut result = vec![0; size as usize];
        checkpoint.read_slice(tensor, &ranges, &mut result).unwrap();
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        assert_eq!(format!("{:016x}", result.iter().fold(0xcbf2_9ce4_8422_2325, fnv)), hash, "{line}");
    }
}

#[test]
fn every_dtype_by_columns_and_by_steps() {
    for &dtype in Dtype::ALL.iter().filter(|dtype| **dtype != Dtype::Unknown) {
        for ranges in
            [vec![], vec![range(1, 3, 1)], vec![Range::ALL, range(4, 8, 1)], vec![Range::ALL, range(0, -1, 3)]]
        {
            check(dtype, &[4, 8], &ranges);
        }
    }
}

#[test]
fn ranks_above_eight_and_dimensions_of_one() {
    let halves = vec![range(0, 2, 2); 12];
    check(Dtype::U16, &[2; 12], &halves);
    check(Dtype::U16, &[2; 12], &vec![range(1, 2, 1); 12]);
    let mut shape = vec![1; 300];
    shape[150] = 5;
    shape[299] = 4;
    let mut ranges = vec![Range::ALL; 300];
    ranges[150] = range(1, 4, 2);
    ranges[299] = range(-3, -1, 1);
    check(Dtype::F32, &shape, &ranges);
}

#[test]
fn empty_slices_and_empty_dimensions() {
    for stop in 0..=3 {
        check(Dtype::F32, &[3, 4], &[range(stop, stop, 1), range(1, 2, 1)]);
    }
    check(Dtype::F32, &[3, 0], &[Range::ALL, range(0, 0, 1)]);
    check(Dtype::F32, &[0, 3], &[]);
    check(Dtype::F4, &[0, 3], &[Range::ALL, range(1, 2, 1)]);
    check(Dtype::F4, &[2, 4], &[range(1, 1, 1), range(1, 2, 1)]);
}

/// Gaps and pieces on both sides of every threshold of the reader.
#[test]
fn wide_gaps_and_large_pieces_come_out_right() {
    const K: i64 = 1 << 10;
    for (shape, ranges) in [
        ([40, 80 * K], [Range::ALL, range(0, 16 * K, 1)]),
        ([40, 81 * K], [Range::ALL, range(0, 16 * K, 1)]),
        ([300, 8 * K], [Range::ALL, range(0, 4 * K, 1)]),
        ([40, 32 * K], [Range::ALL, range(0, 16 * K, 1)]),
        ([40, 32 * K], [range(0, 40, 3), range(5, 30 * K, 1)]),
        ([3, 1100 * K], [Range::ALL, range(0, 1090 * K, 1)]),
        ([3, 1100 * K], [Range::ALL, range(0, 1100 * K, 1000)]),
        ([3, 1100 * K], [Range::ALL, range(0, 1100 * K, 20000)]),
        ([5, 600 * K], [Range::ALL, range(1, 600 * K, 1)]),
        ([2000, 1000], [Range::ALL, range(0, 1000, 999)]),
    ] {
        let Made { file, data } = made("U8", 8, &shape);
        let picked: [Vec<i64>; 2] = [0, 1].map(|d| naive_indices(shape[d], &ranges[d]).unwrap());
        let row = |i: &i64| &data[(i * shape[1]) as usize..][..shape[1] as usize];
        let expected: Vec<u8> =
            picked[0].iter().map(row).flat_map(|row| picked[1].iter().map(|i| row[*i as usize])).collect();
        with_each_source(&file, |source, checkpoint| {
            if source == "callback" {
                return; // seven bytes at a time
            }
            let mut buffer = vec![0; expected.len()];
            checkpoint.read_slice(checkpoint.find(b"x").unwrap(), &ranges, &mut buffer).unwrap();
            assert!(buffer == expected, "{source}: {shape:?} {ranges:?}");
        });
        let counted = counted(file, 300_000);
        let tensor = counted.checkpoint.find(b"x").unwrap();
        let mut buffer = vec![0; expected.len()];
        counted.checkpoint.read_slice(tensor, &ranges, &mut buffer).unwrap();
        assert!(buffer == expected, "short reads: {shape:?} {ranges:?}");
    }
}

/// How many reads, and how many bytes they ask for.
fn cost(dtype: Dtype, shape: &[i64], ranges: &[Range]) -> (usize, u64) {
    let counted = counted(made(dtype.name(), u64::from(dtype.bits()), shape).file, usize::MAX);
    let tensor = counted.checkpoint.find(b"x").unwrap();
    let mut buffer = vec![0; shape_of(tensor, ranges).unwrap().1 as usize];
    counted.checkpoint.read_slice(tensor, ranges, &mut buffer).unwrap();
    let asked = counted.bytes.lock().unwrap();
    let end = tensor.offset() + tensor.size();
    assert!(asked.iter().all(|(at, len)| *at >= tensor.offset() && at + *len as u64 <= end), "reads beside the tensor");
    (counted.reads.load(Ordering::Relaxed), asked.iter().map(|(_, len)| *len as u64).sum())
}

#[test]
fn reads_are_few_and_bounded() {
    let bf16 = Dtype::Bf16;
    // Contiguous: of just those bytes, in reads of 8 MiB at most.
    assert_eq!(cost(bf16, &[4096, 4096], &[]), (4, 32 << 20));
    assert_eq!(cost(bf16, &[4096, 4096], &[range(1000, 3000, 1)]), (2, 2000 * 8192));
    assert_eq!(cost(bf16, &[4, 1024, 4096], &[range(2, 3, 1), range(5, 9, 1)]), (1, 4 * 8192));
    assert_eq!(cost(bf16, &[4096, 1, 256], &[range(7, 9, 1), range(-1, i64::MAX, 5)]), (1, 2 * 512));
    // Columns: gaps are read over in windows of as much; never beyond the last run.
    assert_eq!(cost(bf16, &[4096, 4096], &[Range::ALL, range(0, 2048, 1)]), (4, 4096 * 8192 - 4 * 4096));
    let (reads, bytes) = cost(bf16, &[4096, 4096], &[Range::ALL, range(2048, 4096, 1)]);
    assert_eq!((reads, bytes), (4, 4096 * 8192 - 4 * 4096));
    // Gaps of 64 KiB are read, wider ones are not.
    assert_eq!(cost(Dtype::U8, &[16, 128 << 10], &[Range::ALL, range(0, 64 << 10, 1)]).0, 1);
    assert_eq!(cost(Dtype::U8, &[16, (128 << 10) + 1], &[Range::ALL, range(0, 64 << 10, 1)]), (16, 1 << 20));
    // Steps gather elements; those of one row touch those of the next.
    assert_eq!(cost(Dtype::F32, &[1024, 1024], &[Range::ALL, range(0, 1024, 2)]), (1, (4 << 20) - 4));
    assert_eq!(cost(Dtype::U8, &[3, 100_000], &[Range::ALL, range(0, 100_000, 99_999)]), (4, 6));
    // Nothing picked, nothing read.
    assert_eq!(cost(bf16, &[8, 8], &[range(3, 3, 1)]), (0, 0));
}

#[test]
fn messages_name_tensor_dimension_size_and_bound() {
    let made = made("F32", 32, &[3, 4]);
    let file: &'static [u8] = made.file.leak();
    let checkpoint = Checkpoint::open_memory(file, &OpenOptions::default()).unwrap();
    let tensor = checkpoint.find(b"x").unwrap();
    for (ranges, expected) in [
        (vec![Range::ALL, range(0, 5, 1)], "dimension 1 (size 4): stop 5 is out of range"),
        (vec![range(4, i64::MAX, 1)], "dimension 0 (size 3): start 4 is out of range"),
        (vec![range(-4, 2, 1)], "dimension 0 (size 3): start -4 is out of range"),
        (vec![range(0, i64::MIN, 1)], "dimension 0 (size 3): stop -9223372036854775808 is out of range"),
        (vec![range(i64::MAX, i64::MAX, 1)], "dimension 0 (size 3): start 9223372036854775807 is out of range"),
        (vec![range(2, 1, 1)], "dimension 0 (size 3): start 2 is after stop 1"),
        (vec![range(-1, -2, 1)], "dimension 0 (size 3): start -1 is after stop -2"),
        (vec![Range::ALL, range(0, 4, 0)], "dimension 1 (size 4): step 0 is below 1"),
        (vec![range(0, 0, -1)], "dimension 0 (size 3): step -1 is below 1"),
        (vec![Range::ALL; 3], "3 ranges were given for its 2 dimensions"),
    ] {
        let error = checkpoint.read_slice(tensor, &ranges, &mut [0; 48]).unwrap_err();
        assert_eq!(error.to_string(), format!("tensor \"x\": {expected}"));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(shape_of(tensor, &ranges), Err((ST_ERROR_INVALID_ARGUMENT, format!("tensor \"x\": {expected}"))));
    }
    let error = checkpoint.read_slice(tensor, &[range(0, 1, 1)], &mut [0; 15]).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"x\": its 16 bytes do not fit into a buffer of 15");
}

#[test]
fn sub_byte_runs_fill_bytes_or_are_refused() {
    for (dtype, shape, ranges, fits) in [
        (Dtype::F4, [3, 4], vec![range(1, 2, 1)], true),
        (Dtype::F4, [3, 4], vec![Range::ALL, range(2, 4, 1)], true),
        (Dtype::F4, [3, 4], vec![Range::ALL, range(1, 3, 1)], false),
        (Dtype::F4, [3, 4], vec![Range::ALL, range(0, 4, 2)], false),
        (Dtype::F4, [2, 3], vec![range(0, 1, 1)], false),
        (Dtype::F4, [2, 3], vec![Range::ALL, range(0, 2, 1)], false),
        (Dtype::F4, [4, 3], vec![range(0, 4, 2)], false),
        (Dtype::F4, [4, 3], vec![range(2, 4, 1)], true),
        (Dtype::F6E2M3, [2, 8], vec![Range::ALL, range(4, 8, 1)], true),
        (Dtype::F6E3M2, [2, 8], vec![Range::ALL, range(2, 6, 1)], false),
        (Dtype::F6E3M2, [4, 2], vec![range(2, 4, 1)], true),
        (Dtype::F6E3M2, [4, 2], vec![range(1, 3, 1)], false),
        (Dtype::F6E3M2, [4, 2], vec![range(3, 3, 1)], true),
    ] {
        let made = made(dtype.name(), u64::from(dtype.bits()), &shape);
        let picked = matches!(naive(&made.data, dtype.bits() as usize, &shape, &ranges), Naive::Picked { .. });
        assert_eq!(picked, fits, "the test's own: {dtype:?} {shape:?} {ranges:?}");
        check(dtype, &shape, &ranges);
    }
}

#[test]
fn unknown_dtypes_have_no_slices() {
    let header = r#"{"x":{"dtype":"Q4_0","shape":[4],"data_offsets":[0,9]}}"#;
    let file: Vec<u8> = (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain([1; 9]).collect();
    let tolerate = Tolerate { unknown_dtype: true, ..Tolerate::default() };
    let options = OpenOptions { tolerate, ..OpenOptions::default() };
    let checkpoint = Checkpoint::open_memory(file.leak(), &options).unwrap();
    let tensor = checkpoint.find(b"x").unwrap();
    for ranges in [vec![], vec![Range::ALL]] {
        let error = checkpoint.read_slice(tensor, &ranges, &mut [0; 9]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("Q4_0"), "{error}");
        assert_eq!(shape_of(tensor, &ranges).unwrap_err().0, ST_ERROR_UNSUPPORTED);
    }
}

#[test]
fn a_file_cut_short_is_an_error() {
    let Made { file, data } = made("U8", 8, &[64, 1024]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    for access in [Access::Map, Access::Read] {
        fs::write(&path, &file).unwrap();
        let checkpoint = Checkpoint::open(&path, &OpenOptions { access, ..OpenOptions::default() }).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len((file.len() - data.len() / 2) as u64).unwrap();
        let tensor = checkpoint.find(b"x").unwrap();
        let mut buffer = vec![0; data.len()];
        for ranges in [vec![], vec![Range::ALL, range(0, 512, 1)], vec![range(0, 64, 63)]] {
            let error = checkpoint.read_slice(tensor, &ranges, &mut buffer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(
                error.to_string().contains("tensor \"x\"") && error.to_string().contains("x.safetensors"),
                "{error}"
            );
        }
        checkpoint.read_slice(tensor, &[range(0, 8, 1)], &mut buffer).unwrap();
        assert_eq!(buffer[..8 << 10], data[..8 << 10]);
    }
}

/// Calls st_read_slice; its status and message.
fn read_c(
    checkpoint: *const st_checkpoint,
    record: *const Record,
    (ranges, count): (*const st_range, usize),
    (dst, dst_size): (*mut u8, usize),
) -> (st_status, String) {
    // SAFETY: st_error is plain memory.
    let mut error: st_error = unsafe { zeroed() };
    // SAFETY: what the tests pass.
    let status =
        unsafe { st_read_slice(checkpoint, record.cast(), ranges, count, dst.cast(), dst_size, &raw mut error) };
    assert_eq!(error.code, status);
    (status, text(&error))
}

#[test]
fn nulls_and_changed_records_are_refused_over_c() {
    let Made { file, data } = made("U8", 8, &[4, 4]);
    // SAFETY: file outlives the handle.
    let handle = unsafe { st_open_memory(file.as_ptr().cast(), file.len(), ptr::null(), ptr::null_mut()) };
    let own = Checkpoint::open_memory(file.clone().leak(), &OpenOptions::default()).unwrap();
    let good = Record { data: ptr::null(), name: ptr::null(), ..own.find(b"x").unwrap().into() };
    let columns = [Range::ALL, range(1, 3, 1)];
    let (all, none) = ((columns.as_ptr(), 2), (ptr::null(), 0));
    let mut buffer = [0_u8; 16];
    let (to, nowhere) = ((buffer.as_mut_ptr(), 16), (ptr::null_mut(), 16));

    let invalid = |found: (st_status, String), what: &str| {
        assert_eq!(found.0, ST_ERROR_INVALID_ARGUMENT, "{found:?}");
        assert!(found.1.contains(what), "{found:?} without {what}");
    };
    invalid(read_c(ptr::null(), &raw const good, all, to), "checkpoint is NULL");
    invalid(read_c(handle, ptr::null(), all, to), "tensor is NULL");
    invalid(read_c(handle, &raw const good, (ptr::null(), 2), to), "ranges is NULL");
    invalid(read_c(handle, &raw const good, (columns.as_ptr(), usize::MAX), to), "ranges");
    invalid(read_c(handle, &raw const good, all, nowhere), "dst is NULL");
    assert_eq!(buffer, [0; 16]);

    // SAFETY: dst has 16 bytes; no error wanted.
    let status = unsafe {
        st_read_slice(handle, (&raw const good).cast(), columns.as_ptr(), 2, to.0.cast(), 16, ptr::null_mut())
    };
    assert_eq!(status, ST_OK);
    assert_eq!(buffer[..4], [data[1], data[2], data[5], data[6]]);
    assert_eq!(read_c(handle, &raw const good, none, to).0, ST_OK);
    assert_eq!(buffer[..], data);
    let nothing = [range(2, 2, 1)];
    assert_eq!(read_c(handle, &raw const good, (nothing.as_ptr(), 1), (ptr::null_mut(), 0)).0, ST_OK);
    assert_eq!(read_c(handle, &raw const good, all, (to.0, 7)).0, ST_ERROR_BUFFER_SIZE);

    // Shard, offset and size say which it is; what else a copy says is not believed.
    let lies = [i64::MAX, i64::MAX];
    let dressed = Record { dtype: 20, rank: 2, shape: lies.as_ptr(), element_count: 1 << 60, ..good };
    assert_eq!(read_c(handle, &raw const dressed, all, to).0, ST_OK);
    assert_eq!(buffer[..4], [data[1], data[2], data[5], data[6]]);
    for changed in [
        Record { shard: 1, ..good },
        Record { offset: good.offset + 1, ..good },
        Record { offset: u64::MAX, ..good },
        Record { size: good.size + 1, ..good },
        Record { size: u64::MAX, ..good },
    ] {
        invalid(read_c(handle, &raw const changed, none, to), "is not one of this checkpoint's");
    }
    // SAFETY: opened above.
    unsafe { st_free(handle) };
}

#[test]
fn shapes_of_records_that_came_from_nowhere() {
    let made_up = |dtype: Dtype, rank: usize, shape: *const i64| Record {
        dtype: dtype as i32,
        rank,
        shape,
        // SAFETY: numbers and null pointers.
        ..unsafe { zeroed() }
    };
    let find = |record: &Record, ranges: &[Range]| {
        let mut size = 0;
        // SAFETY: st_error is plain memory.
        let mut error: st_error = unsafe { zeroed() };
        let record: *const st_tensor = ptr::from_ref(record).cast();
        // SAFETY: shape is not wanted.
        let status = unsafe {
            st_slice_shape(record, ranges.as_ptr(), ranges.len(), ptr::null_mut(), &raw mut size, &raw mut error)
        };
        (status, size)
    };
    let (fine, negative, huge) = ([3_i64, 4], [3_i64, -4], [i64::MAX, i64::MAX]);
    assert_eq!(find(&made_up(Dtype::F32, 2, fine.as_ptr()), &[range(0, 2, 1)]), (ST_OK, 32));
    assert_eq!(find(&made_up(Dtype::F32, 0, ptr::null()), &[]), (ST_OK, 4));
    assert_eq!(find(&made_up(Dtype::F32, 2, huge.as_ptr()), &[range(0, 0, 1)]), (ST_OK, 0));
    for (record, status) in [
        (made_up(Dtype::F32, 2, ptr::null()), ST_ERROR_INVALID_ARGUMENT),
        (made_up(Dtype::F32, usize::MAX, fine.as_ptr()), ST_ERROR_INVALID_ARGUMENT),
        (made_up(Dtype::F32, 2, negative.as_ptr()), ST_ERROR_INVALID_ARGUMENT),
        (made_up(Dtype::F32, 2, huge.as_ptr()), ST_ERROR_INVALID_ARGUMENT),
        (made_up(Dtype::F64, 1, huge.as_ptr()), ST_ERROR_INVALID_ARGUMENT),
        (made_up(Dtype::Unknown, 2, fine.as_ptr()), ST_ERROR_UNSUPPORTED),
    ] {
        assert_eq!(find(&record, &[]).0, status, "{}", record.rank);
    }
    // SAFETY: nothing is wanted of no tensor.
    let status =
        unsafe { st_slice_shape(ptr::null(), ptr::null(), 0, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()) };
    assert_eq!(status, ST_ERROR_INVALID_ARGUMENT);
}

/// Of empty tensors at one place, each keeps its own shape.
#[test]
fn empty_tensors_that_share_a_place_are_told_apart() {
    let header = r#"{"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[7,0],"data_offsets":[0,0]},"c":{"dtype":"F4","shape":[2,0,5],"data_offsets":[0,0]}}"#;
    let file: Vec<u8> = (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).collect();
    let checkpoint = Checkpoint::open_memory(file.leak(), &OpenOptions::default()).unwrap();
    for (name, ranges) in [("a", [range(5, 7, 1)]), ("b", [range(0, 0, 1)]), ("c", [range(1, 2, 1)])] {
        checkpoint.read_slice(checkpoint.find(name.as_bytes()).unwrap(), &ranges, &mut []).unwrap();
    }
    let b = checkpoint.find(b"b").unwrap();
    assert!(checkpoint.read_slice(b, &[range(1, 2, 1)], &mut []).unwrap_err().to_string().contains("tensor \"b\""));
}

#[test]
fn what_a_callback_says_is_passed_on() {
    let Made { file, data } = made("U8", 8, &[64, 1024]);
    let reader = Reader { preferred_read: 4096, max_parallel: 1, ..Reader::new(file.clone()) };
    let reader = reader.within(|offset, len| match offset > 40_000 {
        true => Err((ST_ERROR_CANCELLED, 5, c"")),
        false => Ok(len.min(5000)),
    });
    let io = reader.io();
    // SAFETY: a filled struct.
    let handle = unsafe { st_open_io(&raw const io, ptr::null(), ptr::null_mut()) };
    let own = Checkpoint::open_memory(file.leak(), &OpenOptions::default()).unwrap();
    let record = Record::from(own.find(b"x").unwrap());
    let mut buffer = vec![0; 1 << 16];
    let to = (buffer.as_mut_ptr(), buffer.len());
    let columns = [range(0, 32, 1), range(0, 512, 1)];
    assert_eq!(read_c(handle, &raw const record, (columns.as_ptr(), 2), to).0, ST_OK);
    let expected: Vec<u8> = data.chunks(1024).take(32).flat_map(|row| &row[..512]).copied().collect();
    assert!(buffer[..expected.len()] == expected);
    let columns = [Range::ALL, range(0, 512, 1)];
    let (status, message) =
        read_c(handle, &raw const record, (columns.as_ptr(), 2), (buffer.as_mut_ptr(), buffer.len()));
    assert_eq!(status, ST_ERROR_CANCELLED, "{message}");
    // SAFETY: opened above.
    unsafe { st_free(handle) };
}
