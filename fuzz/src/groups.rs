// SPDX-License-Identifier: Apache-2.0
//! Any file with any configuration: groups are found or refused, what is found
//! decodes, and a slice of it is that part of the whole.
//!
//! An input is a configuration's length in four bytes, the configuration, and a file.

use safetensors::model::groups::{Group, Groups, GroupsOptions};
use safetensors::{Checkpoint, Dtype, OpenOptions, Range};

/// What is decoded at most: shapes of strangers are larger than their files.
const MOST_ELEMENTS: i64 = 1 << 16;

/// See the module.
pub fn groups(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let length = (u32::from_le_bytes(*length) as usize).min(rest.len());
    let (config, file) = rest.split_at(length);
    // The checkpoint borrows for ever: given back below.
    let file: &'static mut [u8] = Box::leak(file.to_vec().into_boxed_slice());
    let place: *mut [u8] = file;
    {
        // SAFETY: leaked above, and taken back after the last use.
        let bytes: &'static [u8] = unsafe { &*place };
        if let Ok(checkpoint) = Checkpoint::open_memory(bytes, &OpenOptions::default()) {
            let options = GroupsOptions { config: Some(config), ignore_config: config.is_empty(), overrides: &[] };
            if let Ok(groups) = Groups::open(&checkpoint, &options) {
                groups.list().iter().for_each(|group| check(&checkpoint, group));
                let members = groups.list().iter().flat_map(Group::members).map(|member| member.tensor);
                let mut all: Vec<usize> = members.chain(groups.plain().iter().copied()).collect();
                all.sort_unstable();
                all.dedup();
                assert_eq!(all.len(), checkpoint.tensors().len(), "a tensor is a member, or plain");
            }
        }
    }
    // SAFETY: made by Box::leak, and nothing borrows it any more.
    drop(unsafe { Box::from_raw(place) });
}

fn check(checkpoint: &Checkpoint, group: &Group) {
    if group.usable().is_err() {
        assert!(group.read(checkpoint, &[], Dtype::Bf16).is_err(), "no data of a group that is not ok");
        return;
    }
    let shape = group.shape();
    let elements = shape.iter().try_fold(1_i64, |product, size| product.checked_mul(*size));
    if elements.is_none_or(|elements| elements > MOST_ELEMENTS) {
        return;
    }
    let whole = group.read(checkpoint, &[], Dtype::F32).expect("an ok group decodes");
    assert_eq!(whole.len(), 4 * usize::try_from(elements.unwrap()).unwrap());
    // From the second step on, in each dimension.
    let starts: Vec<i64> =
        shape.iter().zip(group.step()).map(|(size, step)| if step < size { *step } else { 0 }).collect();
    let ranges: Vec<Range> = starts.iter().map(|start| Range { start: *start, ..Range::ALL }).collect();
    let slice = group.read(checkpoint, &ranges, Dtype::F32).expect("a slice of an ok group decodes");
    let mut places = vec![0_i64];
    for (size, start) in shape.iter().zip(&starts) {
        places = places.iter().flat_map(|at| (*start..*size).map(move |index| at * size + index)).collect();
    }
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let expected = places.iter().map(|at| value(&whole[4 * usize::try_from(*at).unwrap()..][..4]));
    // Of a NaN neither sign nor payload is promised.
    let same = |(a, b): (f32, f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    assert_eq!(slice.len(), 4 * places.len());
    assert!(slice.chunks(4).map(value).zip(expected).all(same), "a slice is that part of the whole");
}
