// SPDX-License-Identifier: Apache-2.0
//! What a source is asked for where each read is a journey, and sources that call
//! the library back.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::callbacks::Reader;
use crate::support::handle::{init_options, open_io};
use crate::support::load::{init_load, item_of, load, plan};
use crate::support::{file, pattern, promptly};
use safetensors::ffi::*;

/// A file of BF16 tensors of that many bytes each, one after the other.
fn made(sizes: &[usize]) -> Vec<u8> {
    let mut at = 0;
    let entry = |(number, size): (usize, &usize)| {
        at += size;
        let (shape, start) = (size / 2, at - size);
        format!(r#""t{number:04}":{{"dtype":"BF16","shape":[{shape}],"data_offsets":[{start},{at}]}}"#)
    };
    let entries: Vec<_> = sizes.iter().enumerate().map(entry).collect();
    file(format!("{{{}}}", entries.join(",")), &pattern(at))
}

/// Loads all tensors, as stored or to F32; the sizes of the reads.
fn asked(bytes: &[u8], preferred_read: usize, dtype: i32, options: &st_load_options) -> Vec<usize> {
    let reader = Reader { preferred_read, ..Reader::new(bytes.to_vec()) };
    let from = open_io(&reader.io(), &init_options()).unwrap();
    let growth = if dtype == ST_DTYPE_F32 { 2 } else { 1 };
    let mut places: Vec<Vec<u8>> =
        from.tensors().iter().map(|tensor| vec![0; tensor.size() as usize * growth]).collect();
    let items: Vec<_> = from
        .tensors()
        .iter()
        .zip(&mut places)
        .map(|(tensor, place)| st_load_item {
            dtype,
            dst: place.as_mut_ptr().cast(),
            dst_size: place.len(),
            ..item_of(tensor)
        })
        .collect();
    let before = reader.counts.requests.lock().unwrap().len();
    load(&from, &items, options).unwrap();
    for (tensor, place) in from.tensors().iter().zip(&places) {
        let stored = &bytes[tensor.offset() as usize..][..tensor.size() as usize];
        match growth {
            1 => assert!(place == stored),
            _ => assert!(place
                .chunks(4)
                .zip(stored.chunks(2))
                .all(|(wide, half)| wide[..2] == [0, 0] && wide[2..] == *half)),
        }
    }
    let mut requests = reader.counts.requests.lock().unwrap()[before..].to_vec();
    requests.sort_unstable();
    assert_eq!(plan(&from, &items, options).unwrap().requests, requests.len() as u64, "the plan's own count");
    requests.into_iter().map(|(_, size)| size).collect()
}

#[test]
fn bytes_come_in_as_few_requests_as_there_can_be_and_of_equal_size() {
    for (sizes, preferred) in [
        (vec![1 << 20], 1 << 20),
        (vec![(1 << 20) + 16], 1 << 20),
        (vec![10_000_000], 4 << 20),
        (vec![41 * 4096 + 34], 4096),
        (vec![100_000; 41], 700_000),
        (vec![6000; 500], 100_000),
        (vec![2, 2_000_000, 40, 40, 3_000_000, 6], 1 << 20),
        (vec![30 << 20], 0),
        (vec![2_000_000], 1_000_000),
    ] {
        let bytes = made(&sizes);
        let most = if preferred == 0 { 8 << 20 } else { preferred };
        let total: usize = sizes.iter().sum();
        for dtype in [ST_DTYPE_AS_STORED, ST_DTYPE_F32] {
            for threads in [0, 1] {
                let found = asked(&bytes, preferred, dtype, &st_load_options { threads, ..init_load() });
                assert_eq!(found.iter().sum::<usize>(), total);
                let what = format!("{} tensors of {total} by {preferred} to {dtype}: {found:?}", sizes.len());
                assert_eq!(found.len(), total.div_ceil(most), "{what}");
                let (least, largest) = (*found.iter().min().unwrap(), *found.iter().max().unwrap());
                assert!(largest <= most && largest - least <= 2048 + largest / 20, "{what}");
            }
        }
    }
}

#[test]
fn staging_bounds_what_is_converted_at_once() {
    let bytes = made(&[1_000_000]);
    let options = st_load_options { staging_bytes: 65_536, ..init_load() };
    let found = asked(&bytes, 1 << 20, ST_DTYPE_F32, &options);
    assert!(found.iter().all(|size| *size <= 65_536), "{found:?}");
    // What goes straight to its place needs none.
    assert_eq!(asked(&bytes, 1 << 20, ST_DTYPE_AS_STORED, &options), [1_000_000]);
}

/// A request that ends near the end of a tensor could reach into the next one.
#[test]
fn elements_stay_whole_where_tensors_of_other_elements_follow() {
    for bytes in 1601..2040 {
        let end = bytes + 8 * 200;
        let header = format!(
            r#"{{"a":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}},"b":{{"dtype":"F64","shape":[200],"data_offsets":[{bytes},{end}]}}}}"#
        );
        let mut data: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
        data.extend((0..200).flat_map(|i| f64::from(i).to_le_bytes()));
        let reader = Reader { preferred_read: 2100, ..Reader::new(file(header, &data)) };
        let from = open_io(&reader.io(), &init_options()).unwrap();
        let mut places = [vec![0_u8; bytes * 4], vec![0_u8; 800]];
        let items: Vec<_> = from
            .tensors()
            .iter()
            .zip(&mut places)
            .map(|(tensor, place)| st_load_item {
                dtype: ST_DTYPE_F32,
                dst: place.as_mut_ptr().cast(),
                dst_size: place.len(),
                ..item_of(tensor)
            })
            .collect();
        load(&from, &items, &init_load()).unwrap_or_else(|failure| panic!("{bytes}: {}", failure.message));
        let floats = |place: &[u8]| -> Vec<f32> {
            place.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
        };
        assert!(floats(&places[0]).iter().zip(0..).all(|(found, i)| *found == f32::from(i as u8)));
        assert!(floats(&places[1]).iter().zip(0_u16..).all(|(found, i)| *found == f32::from(i)));
    }
}

#[test]
fn elements_stay_whole_whatever_staging_and_request_sizes_are() {
    let count = 43_398_usize;
    let end = 1 + count * 4;
    let header = format!(
        r#"{{"a":{{"dtype":"BOOL","shape":[],"data_offsets":[0,1]}},"b":{{"dtype":"I32","shape":[{count}],"data_offsets":[1,{end}]}}}}"#
    );
    let mut data = vec![1_u8];
    data.extend((0..count as i32).flat_map(i32::to_le_bytes));
    let bytes = file(header, &data);
    for (staging_bytes, preferred_read) in [(123_585, 0), (65_537, 0), (70_001, 30_001), (0, 33), (0, 5)] {
        let reader = Reader { preferred_read, ..Reader::new(bytes.clone()) };
        let from = open_io(&reader.io(), &init_options()).unwrap();
        let tensor = from.tensors().iter().find(|tensor| tensor.name() == b"b").unwrap();
        // Beside other elements of the same tensor, so that it is not read by itself.
        let odd = [safetensors::Range { start: 1, stop: i64::MAX, step: 2 }];
        let (mut some, mut all) = (vec![0_u8; count / 2 * 4], vec![0_u8; count * 4]);
        let item = |dtype, place: &mut Vec<u8>| st_load_item {
            dtype,
            dst: place.as_mut_ptr().cast(),
            dst_size: place.len(),
            ..item_of(tensor)
        };
        let other = st_load_item { ranges: odd.as_ptr(), range_count: 1, ..item(ST_DTYPE_AS_STORED, &mut some) };
        let items = [other, item(ST_DTYPE_F32, &mut all)];
        let options = st_load_options { staging_bytes, ..init_load() };
        let what = format!("{staging_bytes} bytes of staging, requests of {preferred_read}");
        load(&from, &items, &options).unwrap_or_else(|failure| panic!("{what}: {}", failure.message));
        assert!(all.chunks(4).zip(0_u16..).all(|(found, i)| found == f32::from(i).to_le_bytes()), "{what}");
        assert!(some.chunks(4).zip(0_i32..).all(|(found, i)| found == (2 * i + 1).to_le_bytes()), "{what}");
    }
}

#[test]
fn a_load_that_converts_has_as_many_requests_under_way_as_staging_holds() {
    let bytes = made(&[800_000]);
    // By staging_bytes: nothing is taken for what this load does not need.
    for (staging_bytes, expected) in [(400_000, 4), (200_000, 2), (100_000, 1)] {
        let mut most = 0;
        // On a busy machine threads may happen to come one after another.
        for delay in [1, 10, 100].map(Duration::from_millis) {
            let reader = Reader { preferred_read: 100_000, delay, ..Reader::new(bytes.clone()) };
            let from = open_io(&reader.io(), &init_options()).unwrap();
            let mut place = vec![0_u8; 1_600_000];
            let item = st_load_item {
                dtype: ST_DTYPE_F32,
                dst: place.as_mut_ptr().cast(),
                dst_size: place.len(),
                ..item_of(&from.tensors()[0])
            };
            reader.counts.most_under_way.store(0, Ordering::SeqCst);
            load(&from, &[item], &st_load_options { threads: 8, staging_bytes, ..init_load() }).unwrap();
            most = reader.counts.most_under_way.load(Ordering::SeqCst);
            assert!(most <= expected, "{most} under way with {staging_bytes}");
            if most == expected {
                break;
            }
        }
        assert_eq!(most, expected, "with {staging_bytes}");
    }
}

fn gets(from: *mut st_checkpoint, name: &std::ffi::CStr) -> st_status {
    // SAFETY: zero is a value of it.
    let mut error: st_error = unsafe { std::mem::zeroed() };
    // SAFETY: a live handle.
    let found = unsafe { st_get_tensor(from, name.as_ptr(), &raw mut error) };
    if found.is_null() {
        error.code
    } else {
        ST_OK
    }
}

fn reads(from: *mut st_checkpoint) -> st_status {
    let mut room = [0_u8; 2000];
    // SAFETY: a live handle, and room for the tensor.
    unsafe {
        let tensor = st_find_tensor(from, c"t0001".as_ptr());
        st_read_tensor(from, tensor, room.as_mut_ptr().cast(), 2000, null_mut())
    }
}

fn loads(from: *mut st_checkpoint) -> st_status {
    let mut room = [0_u8; 2000];
    // SAFETY: as above.
    unsafe {
        let tensor = st_find_tensor(from, c"t0001".as_ptr());
        let item = st_load_item { dst: room.as_mut_ptr().cast(), dst_size: 2000, ..item_of(&*tensor) };
        st_load(from, &raw const item, 1, std::ptr::null(), null_mut())
    }
}

#[test]
fn a_source_that_calls_back_for_itself_is_told_so_and_waits_for_nobody() {
    promptly(|| {
        let bytes = made(&[2000, 2000]);
        let same: fn(*mut st_checkpoint) -> st_status = |from| gets(from, c"t0000");
        let other: fn(*mut st_checkpoint) -> st_status = |from| gets(from, c"t0001");
        for (max_parallel, how, expected) in [
            (0, same, ST_ERROR_INVALID_ARGUMENT),
            (0, other, ST_OK),
            (0, reads, ST_OK),
            (0, loads, ST_OK),
            (1, other, ST_ERROR_INVALID_ARGUMENT),
            (1, reads, ST_ERROR_INVALID_ARGUMENT),
            (1, loads, ST_ERROR_INVALID_ARGUMENT),
            (2, loads, ST_ERROR_INVALID_ARGUMENT),
        ] {
            // Once there is a checkpoint, the first read of it calls back.
            let (own, said) = (Arc::new(AtomicPtr::<st_checkpoint>::default()), Arc::new(Mutex::new(Vec::new())));
            let reader = Reader { max_parallel, ..Reader::new(bytes.clone()) };
            let reader = reader.within({
                let (own, said) = (Arc::clone(&own), Arc::clone(&said));
                move |_, len| {
                    let from = own.swap(null_mut(), Ordering::SeqCst);
                    if !from.is_null() {
                        let status = how(from);
                        said.lock().unwrap().push(status);
                    }
                    Ok(len)
                }
            });
            let from = open_io(&reader.io(), &init_options()).unwrap();
            own.store(from.0, Ordering::SeqCst);
            assert_eq!(gets(from.0, c"t0000"), ST_OK, "what was asked for first comes all the same");
            assert_eq!(*said.lock().unwrap(), [expected], "max_parallel {max_parallel}");
        }
    });
}
