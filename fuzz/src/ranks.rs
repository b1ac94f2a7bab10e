// SPDX-License-Identifier: Apache-2.0
//! Any plan on any names and sizes: a line with the ranks of two axes, a line for
//! each tensor, an empty line, the plan. Either every rank fails, with one
//! message, or every rank has parts whose pieces are within their tensors and
//! make up their local shapes.

use std::ffi::CStr;
use std::{mem, ptr, slice};

use safetensors::ffi::*;

use crate::support::made::file;

const CONFIG: &[u8] = br#"{"heads": 4, "layers": 2, "text": "a", "none": null, "more": {"heads": 8}}"#;

/// See the module.
pub fn ranks(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (listing, plan) = text.split_once("\n\n").unwrap_or(("", text));
    let mut lines = listing.lines();
    let mut sizes = lines.next().unwrap_or("").split(' ').map(|size| size.parse::<i64>().unwrap_or(1).clamp(1, 5));
    let (tp, ep) = (sizes.next().unwrap_or(1), sizes.next().unwrap_or(1));
    let bytes = checkpoint(lines.take(16));
    // SAFETY: memory that outlives the checkpoint.
    let opened = unsafe { st_open_memory(bytes.as_ptr().cast(), bytes.len(), ptr::null(), ptr::null_mut()) };
    if opened.is_null() {
        return;
    }
    let plans = [st_text { data: plan.as_ptr().cast(), size: plan.len() }];
    // SAFETY: zero is a value of every field.
    let zero: st_rank_plan_options = unsafe { mem::zeroed() };
    let options = st_rank_plan_options {
        struct_size: size_of::<st_rank_plan_options>(),
        plans: plans.as_ptr(),
        plan_count: 1,
        config: st_text { data: CONFIG.as_ptr().cast(), size: CONFIG.len() },
        ..zero
    };
    // SAFETY: arguments as the header wants them; the plan keeps the checkpoint.
    unsafe {
        let plan = st_rank_plan_open(opened, &raw const options, ptr::null_mut());
        st_free(opened);
        if !plan.is_null() {
            let verdicts: Vec<_> = (0..tp * ep).map(|rank| ask(plan, (rank / ep, tp), (rank % ep, ep))).collect();
            assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{verdicts:?}");
        }
        st_rank_plan_free(plan);
    }
}

/// A file of the tensors that lines describe: a name and sizes.
fn checkpoint<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut end = 0;
    let entries = lines.map(|line| {
        let mut words = line.split(' ');
        let name = serde_json::to_string(words.next().unwrap_or("")).unwrap();
        let shape: Vec<u64> = words.take(3).map(|size| size.parse::<u64>().unwrap_or(1) % 64).collect();
        let (dtype, bits) = [("BF16", 16), ("F4", 4), ("U8", 8)][name.len() % 3];
        let begin = end;
        end += shape.iter().product::<u64>() * bits / 8;
        format!(r#"{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    file(header, &vec![1; end as usize])
}

/// The message of a rank that has none, or nothing of one whose parts are sound.
///
/// # Safety
/// The plan is alive.
unsafe fn ask(plan: *mut st_rank_plan, tp: (i64, i64), ep: (i64, i64)) -> Option<String> {
    let axis = |name: &'static CStr, (rank, size)| st_axis { name: name.as_ptr(), rank, size, reserved: [0; 2] };
    let axes = [axis(c"tp", tp), axis(c"ep", ep)];
    let mut error = st_error { code: 0, os_errno: 0, message: [0; 504] };
    let mut count = 0;
    // SAFETY: as the header wants them.
    let parts = unsafe { st_rank_plan_parts(plan, axes.as_ptr(), 2, &raw mut count, &raw mut error) };
    if parts.is_null() {
        assert_ne!(error.code, ST_ERROR_INTERNAL);
        let message: Vec<u8> = error.message.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
        // What is wrong with a rank as such names it.
        return Some(String::from_utf8(message).unwrap().split("(rank ").next().unwrap().to_owned());
    }
    // SAFETY: as many parts as said, all of them as the header says.
    unsafe {
        for part in slice::from_raw_parts(parts, count) {
            let tensor = &*part.tensor;
            assert_eq!(part.rank, tensor.shape().len());
            let shape = slice::from_raw_parts(part.shape, part.rank);
            let (mut elements, mut read) = (1_i64, 1_i64);
            for (dim, local) in shape.iter().enumerate() {
                let stored = tensor.shape()[dim];
                let pieces = *part.intervals.add(dim);
                let (mut sum, mut zeros) = (stored, 0);
                if !pieces.is_null() {
                    let pieces = slice::from_raw_parts(pieces, *part.interval_counts.add(dim));
                    assert!(pieces
                        .iter()
                        .all(|p| 0 <= p.start && p.start <= p.stop && p.stop <= stored && p.zeros >= 0));
                    zeros = pieces.iter().map(|piece| piece.zeros).sum::<i64>();
                    sum = pieces.iter().map(|piece| piece.stop - piece.start).sum::<i64>() + zeros;
                }
                assert_eq!(*local, sum);
                elements *= sum;
                read *= sum - zeros;
            }
            let bits = i64::from(tensor.dtype().bits());
            assert_eq!([part.size, part.read_size], [elements, read].map(|count| (count * bits / 8) as u64));
        }
    }
    None
}
