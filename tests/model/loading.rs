// SPDX-License-Identifier: Apache-2.0
//! Groups as items of a load: whole and in slices, on threads, in little memory,
//! through a sink, and with nothing read but what is needed.

use std::ffi::{c_void, CString};
use std::mem::zeroed;
use std::ptr::null;

use safetensors::ffi::*;
use safetensors::group::st_group;
use safetensors::model::groups::{Groups, GroupsOptions, Role};
use safetensors::record::st_range;
use safetensors::{Checkpoint, Dtype, Range};
use serde_json::Value;

use crate::groups::{cases, hash, open, text, Case};
use crate::mutations::File;
use crate::support::handle::{self, ErrorSlot, Handle};
use crate::support::load::{init_load, init_sink, load};

/// A checkpoint with its groups.
pub(crate) struct Opened {
    pub(crate) handle: Handle,
    pub(crate) groups: *mut st_groups,
}

impl Opened {
    pub(crate) fn new(case: &Case) -> Self {
        let path = case.folder.join(text(&case.expected["open"]));
        let handle = handle::open(path).unwrap();
        let mut error = ErrorSlot::default();
        // SAFETY: a live handle.
        let groups = unsafe { st_groups_open(handle.0, null(), error.as_mut()) };
        assert!(!groups.is_null());
        Self { handle, groups }
    }

    pub(crate) fn find(&self, name: &str) -> &st_group {
        let name = CString::new(name).unwrap();
        // SAFETY: as above.
        unsafe { st_find_group(self.groups, name.as_ptr()).as_ref() }.unwrap()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: released once.
        unsafe { st_groups_free(self.groups) };
    }
}

pub(crate) fn item(group: &st_group, ranges: &[st_range], dtype: i32, dst: &mut [u8]) -> st_load_item {
    // SAFETY: zero is a value of every field.
    let zero: st_load_item = unsafe { zeroed() };
    let (dst, dst_size) = (dst.as_mut_ptr().cast(), dst.len());
    st_load_item { group, ranges: ranges.as_ptr(), range_count: ranges.len(), dtype, dst, dst_size, ..zero }
}

fn elements(group: &st_group, ranges: &[st_range]) -> usize {
    // SAFETY: rank sizes.
    let shape = unsafe { std::slice::from_raw_parts(group.shape, group.rank) };
    let counts = shape.iter().enumerate().map(|(dimension, size)| match ranges.get(dimension) {
        Some(range) => range.stop - range.start,
        None => *size,
    });
    usize::try_from(counts.product::<i64>()).unwrap()
}

/// The ways in which each result must be the same.
fn ways() -> Vec<st_load_options> {
    let mut ways = Vec::new();
    for threads in [1, 2] {
        for staging_bytes in [0, 65536] {
            for io in [ST_IO_AUTO, ST_IO_MAPPED] {
                ways.push(st_load_options { threads, staging_bytes, io, ..init_load() });
            }
        }
    }
    ways
}

/// Copies what a sink is given to a result.
struct Device {
    buffer: Vec<u8>,
    result: Vec<u8>,
}

unsafe extern "C" fn chunk(
    device: *mut c_void,
    _buffer: usize,
    _item: usize,
    offset: u64,
    size: usize,
    _error: *mut st_error,
) -> st_status {
    // SAFETY: the load's own device, one call at a time.
    let device = unsafe { &mut *device.cast::<Device>() };
    let at = usize::try_from(offset).unwrap();
    device.result[at..at + size].copy_from_slice(&device.buffer[..size]);
    ST_OK
}

fn ranges_of(slice: &Value) -> Vec<st_range> {
    let pairs = slice["ranges"].as_array().unwrap().iter();
    pairs.map(|pair| Range { start: pair[0].as_i64().unwrap(), stop: pair[1].as_i64().unwrap(), step: 1 }).collect()
}

#[test]
fn groups_load_the_same_in_every_way() {
    let mut loads = 0;
    for case in cases().iter().filter(|case| !case.folder.ends_with("x-config-not-json")) {
        let opened = Opened::new(case);
        let checkpoint = open(case);
        let groups = Groups::open(&checkpoint, &GroupsOptions::default()).unwrap();
        for record in case.expected["groups"].as_array().unwrap().iter().filter(|record| record["status"] == "ok") {
            let name = text(&record["name"]);
            let (group, expected) = (opened.find(name), groups.find(name.as_bytes()).unwrap());
            let slices = record["slices"].as_array().into_iter().flatten();
            let slices = slices.filter(|slice| slice["error"].is_null()).map(ranges_of);
            for ranges in std::iter::once(Vec::new()).chain(slices) {
                for (number, dtype) in [(ST_DTYPE_F32, Dtype::F32), (ST_DTYPE_BF16, Dtype::Bf16)] {
                    let expected = expected.read(&checkpoint, &ranges, dtype).unwrap();
                    for options in ways() {
                        let mut found = vec![0xee; elements(group, &ranges) * (dtype.bits() as usize / 8)];
                        load(&opened.handle, &[item(group, &ranges, number, &mut found)], &options).unwrap();
                        assert!(found == expected, "{name} {ranges:?}");
                        loads += 1;
                    }
                    let mut device = Device { buffer: vec![0; 4096], result: vec![0xee; expected.len()] };
                    let buffer = st_buffer { data: device.buffer.as_mut_ptr().cast(), size: 4096 };
                    let user_data = (&raw mut device).cast();
                    let sink =
                        st_sink { buffers: &buffer, buffer_count: 1, chunk: Some(chunk), user_data, ..init_sink() };
                    let options = st_load_options { sink: &sink, staging_bytes: 65536, ..init_load() };
                    load(&opened.handle, &[item(group, &ranges, number, &mut [])], &options).unwrap();
                    assert!(device.result == expected, "{name} {ranges:?} through a sink");
                }
            }
        }
    }
    assert!(loads > 1000, "{loads}");
}

#[test]
fn groups_that_can_not_be_decoded_give_their_status_and_no_data() {
    for case in cases().iter().filter(|case| !case.folder.ends_with("x-config-not-json")) {
        let opened = Opened::new(case);
        for record in case.expected["groups"].as_array().unwrap().iter().filter(|record| record["status"] != "ok") {
            let group = opened.find(text(&record["name"]));
            let expected = if record["status"] == "broken" { ST_ERROR_GROUP } else { ST_ERROR_UNSUPPORTED };
            assert_eq!(group.status, expected);
            let mut room = vec![0xee; 1 << 16];
            let failure =
                load(&opened.handle, &[item(group, &[], ST_DTYPE_BF16, &mut room)], &init_load()).unwrap_err();
            assert_eq!(failure.code, expected);
            assert!(failure.message.contains(text(&record["name"])), "{}", failure.message);
            assert!(room.iter().all(|byte| *byte == 0xee));
        }
    }
}

#[test]
fn a_group_is_loaded_as_floats_from_its_own_checkpoint_and_by_its_steps() {
    let all = cases();
    let case = all.iter().find(|case| case.folder.ends_with("gptq-4-v1")).unwrap();
    let (opened, other) = (Opened::new(case), Opened::new(case));
    let group = opened.find("model.layers.0.mlp.up_proj.weight");
    let mut room = vec![0; 1 << 16];
    let all = Range::ALL;
    for (ranges, dtype, code) in [
        (vec![], 0, ST_ERROR_UNSUPPORTED),
        (vec![], ST_DTYPE_F64, ST_ERROR_UNSUPPORTED),
        (vec![st_range { start: 0, stop: 24, step: 2 }], ST_DTYPE_BF16, ST_ERROR_INVALID_ARGUMENT),
        (vec![st_range { start: 4, stop: 24, step: 1 }], ST_DTYPE_BF16, ST_ERROR_INVALID_ARGUMENT),
        (vec![all, st_range { start: 0, stop: 40, step: 1 }], ST_DTYPE_BF16, ST_ERROR_INVALID_ARGUMENT),
        (vec![all, all, all], ST_DTYPE_BF16, ST_ERROR_INVALID_ARGUMENT),
    ] {
        let failure = load(&opened.handle, &[item(group, &ranges, dtype, &mut room)], &init_load()).unwrap_err();
        assert_eq!(failure.code, code, "{}", failure.message);
    }
    let stranger = load(&other.handle, &[item(group, &[], ST_DTYPE_BF16, &mut room)], &init_load()).unwrap_err();
    assert_eq!(stranger.code, ST_ERROR_INVALID_ARGUMENT);
    let forged = st_group { reserved: [8, 9, 0, 0], ..*group_copy(group) };
    let failure = load(&opened.handle, &[item(&forged, &[], ST_DTYPE_BF16, &mut room)], &init_load()).unwrap_err();
    assert_eq!(failure.code, ST_ERROR_INVALID_ARGUMENT);
    load(&opened.handle, &[item(&group_copy(group), &[], ST_DTYPE_BF16, &mut room)], &init_load()).unwrap();
}

fn group_copy(group: &st_group) -> Box<st_group> {
    // SAFETY: plain numbers and pointers, which copies may share.
    unsafe { Box::new(std::ptr::read(group)) }
}

/// The same checkpoint with other bytes wherever a slice does not need them.
fn spoilt(checkpoint: &Checkpoint, groups: &Groups, name: &str, ranges: &[Range]) -> Checkpoint {
    let group = groups.find(name.as_bytes()).unwrap();
    let mut file = File::of(checkpoint);
    let whole = file.data.clone();
    file.data.fill(0xa5);
    let place = |number: usize, file: &File| -> (usize, usize) {
        let name = std::str::from_utf8(checkpoint.tensors()[number].name()).unwrap();
        let offsets = &file.header[name]["data_offsets"];
        let bound = |at: usize| usize::try_from(offsets[at].as_u64().unwrap()).unwrap();
        (bound(0), bound(1))
    };
    let opening = [Role::Shape, Role::State, Role::Format, Role::Order];
    for member in groups.list().iter().flat_map(|group| group.members()).filter(|member| opening.contains(&member.role))
    {
        let (start, end) = place(member.tensor, &file);
        file.data[start..end].copy_from_slice(&whole[start..end]);
    }
    // Zero points tell GPTQ's versions apart.
    for part in group.parts(checkpoint, ranges).unwrap() {
        let tensor = &checkpoint.tensors()[part.tensor];
        let size = usize::try_from(tensor.dtype().bits() / 8).unwrap();
        let (start, _) = place(part.tensor, &file);
        let mut places = vec![0_usize];
        for (range, whole) in part.ranges.iter().zip(tensor.shape()) {
            let whole = usize::try_from(*whole).unwrap();
            let bounds = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            places = places.iter().flat_map(|at| bounds.clone().map(move |index| at * whole + index)).collect();
        }
        for at in places.into_iter().map(|at| start + at * size) {
            file.data[at..at + size].copy_from_slice(&whole[at..at + size]);
        }
    }
    file.open()
}

#[test]
fn a_slice_needs_nothing_outside_its_parts() {
    for case in cases().iter().filter(|case| !case.folder.ends_with("x-config-not-json")) {
        let checkpoint = open(case);
        // Without a configuration zero points are read at opening.
        let Ok(config) = std::fs::read(case.folder.join("config.json")) else { continue };
        let options = GroupsOptions { config: Some(&config), ..GroupsOptions::default() };
        let groups = Groups::open(&checkpoint, &options).unwrap();
        for record in case.expected["groups"].as_array().unwrap().iter().filter(|record| record["status"] == "ok") {
            for slice in record["slices"].as_array().into_iter().flatten().filter(|slice| slice["error"].is_null()) {
                let (name, ranges) = (text(&record["name"]), ranges_of(slice));
                let spoilt = spoilt(&checkpoint, &groups, name, &ranges);
                let found = Groups::open(&spoilt, &options).unwrap();
                let values = found.find(name.as_bytes()).unwrap().read(&spoilt, &ranges, Dtype::F32).unwrap();
                if record["tolerance"]["ulp"] == 0 && slice["f32_sha256"].is_string() {
                    assert_eq!(hash(&values), text(&slice["f32_sha256"]), "{name} {ranges:?}");
                }
            }
        }
    }
}
