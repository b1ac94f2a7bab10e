// SPDX-License-Identifier: Apache-2.0
//! Sinks that play a device: copies that end some time later, few buffers for
//! many threads, and a device that fails.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::time::Duration;

use crate::support::callbacks::{Manner, Reader};
use crate::support::handle::{init_options, open_io, open_memory, open_read, Failure, Handle};
use crate::support::load::{init_load, init_sink, item_of, load, plan, Device, Progress, State, Wrong};
use crate::support::{file, file_of, pattern, promptly};
use safetensors::ffi::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("t{i}")).collect()
}

/// Loads each tensor whole into a device with these buffers.
fn into_device(
    from: &Handle,
    threads: u32,
    buffers: &[usize],
    slowness: u32,
    wrong: Wrong,
) -> (Result<(), Failure>, State, Progress) {
    let items: Vec<_> = from.tensors().iter().map(item_of).collect();
    let sizes: Vec<_> = from.tensors().iter().map(|tensor| tensor.size() as usize).collect();
    let device = Device::new(buffers, &sizes, slowness, wrong);
    let sink = device.sink();
    let mut progress = Progress::default();
    let mut options = st_load_options { threads, sink: &raw const sink, staging_bytes: 65536 * 8, ..init_load() };
    progress.listen(&mut options);
    let result = load(from, &items, &options);
    progress.check(sizes.iter().sum::<usize>() as u64, result.is_ok());
    (result, device.finish(), progress)
}

fn check_results(from: &Handle, bytes: &[u8], state: &State) {
    state.check_covered();
    for (tensor, result) in from.tensors().iter().zip(&state.results) {
        assert!(result == &bytes[tensor.offset() as usize..][..result.len()], "other bytes");
    }
}

#[test]
fn a_slow_device_gets_all_whatever_its_buffers() {
    promptly(|| {
        let bytes = file_of(&names(9), 70_000);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let reader = Reader { preferred_read: 50_000, ..Reader::new(bytes.clone()) };
        let sources = [
            open_read(&path).unwrap(),
            open_memory(&bytes, &init_options()).unwrap(),
            open_io(&reader.io(), &init_options()).unwrap(),
        ];
        for from in &sources {
            for threads in [1, 3, 8] {
                for buffers in [&[4096][..], &[100_000], &[8191, 4099], &[30_000; 4], &[5000; 16]] {
                    let (result, state, progress) = into_device(from, threads, buffers, 20, Wrong::default());
                    result.unwrap();
                    check_results(from, &bytes, &state);
                    assert!(progress.calls.iter().any(|(done, total)| *done != 0 && done < total), "told on the way");
                    let least = buffers.iter().min().unwrap();
                    assert!(state.chunks.iter().all(|(_, _, size)| size <= least));
                }
            }
        }
    });
}

#[test]
fn one_buffer_and_eight_threads_and_thousands_of_tiny_tensors() {
    promptly(|| {
        let bytes = file_of(&names(4000), 5);
        let from = open_memory(&bytes, &init_options()).unwrap();
        let reader = Reader::new(bytes.clone());
        let distant = open_io(&reader.io(), &init_options()).unwrap();
        for (from, threads) in [(&from, 8), (&distant, 8), (&distant, 1)] {
            for buffers in [&[4096][..], &[4096; 2]] {
                let (result, state, _) = into_device(from, threads, buffers, 0, Wrong::default());
                result.unwrap();
                check_results(from, &bytes, &state);
                assert_eq!(state.chunks.len(), 4000);
            }
        }
    });
}

/// With a delay in each read, threads wait for one another in every order.
#[test]
fn threads_that_starve_for_buffers_are_served() {
    promptly(|| {
        let bytes = file_of(&names(60), 30_000);
        for microseconds in [0, 50, 300] {
            let delay = Duration::from_micros(microseconds);
            let reader = Reader { delay, preferred_read: 10_000, ..Reader::new(bytes.clone()) };
            let from = open_io(&reader.io(), &init_options()).unwrap();
            for buffers in [1, 2, 7, 9] {
                let (result, state, _) = into_device(&from, 8, &vec![6000; buffers], 3, Wrong::default());
                result.unwrap();
                check_results(&from, &bytes, &state);
            }
        }
    });
}

#[test]
fn a_device_that_fails_ends_the_load_and_is_waited_for() {
    promptly(|| {
        let bytes = file_of(&names(30), 9000);
        let reader = Reader { preferred_read: 10_000, ..Reader::new(bytes.clone()) };
        let from = open_io(&reader.io(), &init_options()).unwrap();
        let fine = into_device(&from, 4, &[5000; 3], 5, Wrong::default()).1.chunks.len();
        for threads in [1, 2, 8] {
            for buffers in [1, 3, 12] {
                for at in [0, 1, 5, fine / 2, fine - 1] {
                    let wrong = Wrong { chunk: Some(at), wait: None };
                    let (result, state, _) = into_device(&from, threads, &vec![5000; buffers], 5, wrong);
                    let failure = result.unwrap_err();
                    assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", 71), "{}", failure.message);
                    assert_eq!(failure.message, "the device fell off the bus");
                    assert_eq!(state.chunks.len(), at + 1, "no chunk after the failure");

                    let wrong = Wrong { chunk: None, wait: Some(at) };
                    let (result, state, _) = into_device(&from, threads, &vec![5000; buffers], 5, wrong);
                    let failure = result.unwrap_err();
                    assert_eq!(failure.status(), "ST_ERROR_CANCELLED", "{}", failure.message);
                    assert_eq!(failure.message, "the copy went wrong");
                    assert_eq!(state.waits, state.chunks.len());
                }
            }
        }
    });
}

#[test]
fn what_is_in_flight_is_waited_for_when_reading_fails_or_the_load_is_cancelled() {
    promptly(|| {
        let bytes = file_of(&names(30), 9000);
        for first in [1, 4, 15] {
            let manner = Manner::Fails(first, 3, libc::EIO, c"gone");
            let reader = Reader { preferred_read: 10_000, ..Reader::new(bytes.clone()) }.manner(manner);
            let from = open_io(&reader.io(), &init_options()).unwrap();
            for threads in [1, 8] {
                let (result, ..) = into_device(&from, threads, &[4096; 4], 50, Wrong::default());
                let failure = result.unwrap_err();
                assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", libc::EIO), "{}", failure.message);
            }
        }
        // A wait that fails afterwards does not hide why the load ended. Some chunks
        // were given, and with so many buffers none is waited for before the end.
        let manner = Manner::Fails(15, 3, libc::EIO, c"gone");
        let reader = Reader { preferred_read: 10_000, ..Reader::new(file_of(&names(3), 90_000)) }.manner(manner);
        let from = open_io(&reader.io(), &init_options()).unwrap();
        let (result, state, _) = into_device(&from, 1, &[10_000; 40], 50, Wrong { chunk: None, wait: Some(0) });
        let failure = result.unwrap_err();
        assert!(state.waits > 0, "a wait has failed");
        assert_eq!((failure.status(), failure.errno), ("ST_ERROR_IO", libc::EIO), "{}", failure.message);
        let from = open_memory(&bytes, &init_options()).unwrap();
        for call in 0..6 {
            let items: Vec<_> = from.tensors().iter().map(item_of).collect();
            let device = Device::new(&[4096; 3], &[9000; 30], 30, Wrong::default());
            let sink = device.sink();
            let mut progress = Progress::cancels_at(call);
            let mut options = st_load_options { threads: 4, sink: &raw const sink, ..init_load() };
            progress.listen(&mut options);
            let result = load(&from, &items, &options);
            progress.check(30 * 9000, result.is_ok());
            assert_eq!(result.is_err(), progress.calls.len() > call);
            if let Err(failure) = result {
                assert_eq!(failure.status(), "ST_ERROR_CANCELLED");
                assert!(failure.message.starts_with("the load was stopped"), "{}", failure.message);
            }
            device.finish();
        }
    });
}

/// Copies at once: its buffers are free when it returns.
struct Plain {
    buffers: Vec<Vec<u8>>,
    results: Vec<Vec<u8>>,
}

unsafe extern "C" fn copy(
    user_data: *mut c_void,
    buffer: usize,
    item: usize,
    offset: u64,
    size: usize,
    _error: *mut st_error,
) -> st_status {
    // SAFETY: set below.
    let plain = unsafe { &mut *user_data.cast::<Plain>() };
    let bytes = &plain.buffers[buffer][..size];
    plain.results[item][offset as usize..][..size].copy_from_slice(bytes);
    ST_OK
}

#[test]
fn without_wait_a_buffer_is_free_when_chunk_returns() {
    let bytes = file_of(&names(20), 20_000);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let items: Vec<_> = from.tensors().iter().map(item_of).collect();
    for (threads, count) in [(1, 1), (8, 1), (8, 3)] {
        let mut plain = Plain { buffers: vec![vec![0; 4100]; count], results: vec![vec![0; 20_000]; 20] };
        let buffers: Vec<_> = plain
            .buffers
            .iter_mut()
            .map(|buffer| st_buffer { data: buffer.as_mut_ptr().cast(), size: buffer.len() })
            .collect();
        let sink = st_sink {
            buffers: buffers.as_ptr(),
            buffer_count: count,
            chunk: Some(copy),
            user_data: (&raw mut plain).cast(),
            ..init_sink()
        };
        load(&from, &items, &st_load_options { threads, sink: &raw const sink, ..init_load() }).unwrap();
        assert!(plain.results.concat() == pattern(20 * 20_000));
    }
}

#[test]
fn destinations_are_not_looked_at_and_chunks_are_whole_elements() {
    let data = pattern(2 * 30_001);
    let header = r#"{"x":{"dtype":"BF16","shape":[30001],"data_offsets":[0,60002]}}"#;
    let bytes = file(header, &data);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let tensor = &from.tensors()[0];
    assert_eq!(tensor.dtype() as i32, ST_DTYPE_BF16);
    let item = st_load_item {
        dtype: ST_DTYPE_F32,
        dst: std::ptr::without_provenance_mut(usize::MAX - 5),
        dst_size: usize::MAX,
        ..item_of(tensor)
    };
    // An item that wants nothing is no chunk.
    let none = [safetensors::Range { start: 5, stop: 5, step: 1 }];
    let nothing = st_load_item { ranges: none.as_ptr(), range_count: 1, dst: null_mut(), ..item_of(tensor) };
    let device = Device::new(&[4099, 5001], &[30_001 * 4, 0], 3, Wrong::default());
    let sink = device.sink();
    let options = st_load_options { sink: &raw const sink, ..init_load() };
    assert_eq!(plan(&from, &[item, nothing], &options).unwrap().bytes, 30_001 * 4);
    load(&from, &[item, nothing], &options).unwrap();
    let state = device.finish();
    state.check_covered();
    assert!(state.chunks.iter().all(|(_, offset, size)| offset % 4 == 0 && size % 4 == 0));
    let expected: Vec<u8> = data.chunks(2).flat_map(|pair| [0, 0, pair[0], pair[1]]).collect();
    assert!(state.results[0] == expected);
}

#[test]
fn buffers_are_apart_from_what_items_say_they_are_for() {
    let bytes = file_of(&names(3), 5000);
    let from = open_memory(&bytes, &init_options()).unwrap();
    let device = Device::new(&[8192, 8192], &[5000; 3], 0, Wrong::default());
    let sink = device.sink();
    // SAFETY: the sink's own list.
    let buffers = unsafe { std::slice::from_raw_parts(sink.buffers, sink.buffer_count) };
    let options = st_load_options { sink: &raw const sink, ..init_load() };
    let mut items: Vec<_> = from.tensors().iter().map(item_of).collect();
    for (number, buffer) in buffers.iter().enumerate() {
        for (before, size, meets) in [
            (0, 5000, true),
            (5000, 5001, true),
            (-8191, 5000, true),
            (5000, 5000, false),
            (-8192, 5000, false),
            (0, 0, false),
        ] {
            let place = buffer.data.cast::<u8>().wrapping_offset(-before);
            (items[1].dst, items[1].dst_size) = (place.cast(), size);
            // Beside the one buffer may be the other.
            let meets_other = buffers.iter().enumerate().any(|(other, buffer)| {
                let (start, end) = (place.addr(), place.addr() + size);
                other != number && start < end && start < buffer.data.addr() + buffer.size && buffer.data.addr() < end
            });
            let planned = plan(&from, &items, &options);
            match planned {
                Ok(_) => assert!(!meets && !meets_other, "{before}, {size}"),
                Err(failure) => {
                    assert!(meets || meets_other, "{before}, {size}: {}", failure.message);
                    assert_eq!(failure.status(), "ST_ERROR_INVALID_ARGUMENT");
                    for word in ["item 1: dst", "st_sink.buffers["] {
                        assert!(failure.message.contains(word), "{}", failure.message);
                    }
                }
            }
        }
    }
}
