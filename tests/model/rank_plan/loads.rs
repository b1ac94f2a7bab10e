// SPDX-License-Identifier: Apache-2.0
//! Parts loaded in every way that other items are: converted, by strides, through
//! a sink of one item or many in a buffer, with a last step of the caller's, with
//! progress; and no byte read but those of the part and the gaps within the cap.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{mem, ptr, slice};

use safetensors::ffi::*;
use safetensors::part::st_part;

use super::cases::{axes_of, Case};
use super::checkpoint::{one_file, Listed};
use super::plan::{load, Opened, Plan};
use crate::support::callbacks::Reader;
use crate::support::handle::ErrorSlot;
use crate::support::load::{init_load, init_sink};

/// What a load is asked to do with all parts of a rank; where their results went.
struct Results {
    buffer: Vec<u8>,
    results: Vec<Vec<u8>>,
    done: u64,
    elements: AtomicU64,
}

unsafe extern "C" fn chunk(
    at: *mut c_void,
    _: usize,
    item: usize,
    offset: u64,
    size: usize,
    _: *mut st_error,
) -> st_status {
    let at = unsafe { &mut *at.cast::<Results>() };
    at.results[item][offset as usize..][..size].copy_from_slice(&at.buffer[..size]);
    ST_OK
}

unsafe extern "C" fn pieces(
    at: *mut c_void,
    _: usize,
    found: *const st_piece,
    count: usize,
    _: *mut st_error,
) -> st_status {
    let at = unsafe { &mut *at.cast::<Results>() };
    for piece in unsafe { slice::from_raw_parts(found, count) } {
        let from = &at.buffer[piece.buffer_offset..][..piece.size];
        at.results[piece.item][piece.item_offset as usize..][..piece.size].copy_from_slice(from);
    }
    ST_OK
}

unsafe extern "C" fn progress(at: *mut c_void, done: u64, total: u64) -> i32 {
    let at = unsafe { &mut *at.cast::<Results>() };
    assert!(at.done <= done && done <= total);
    at.done = done;
    0
}

/// Every byte turned over.
unsafe extern "C" fn invert(
    at: *mut c_void,
    item: usize,
    _element: u64,
    count: usize,
    src: *const c_void,
    dst: *mut c_void,
    _error: *mut st_error,
) -> st_status {
    let at = unsafe { &*at.cast::<Results>() };
    at.elements.fetch_add(count as u64, SeqCst);
    let size = at.results[item][0] as usize * count;
    let (src, dst) =
        unsafe { (slice::from_raw_parts(src.cast::<u8>(), size), slice::from_raw_parts_mut(dst.cast::<u8>(), size)) };
    dst.iter_mut().zip(src).for_each(|(to, from)| *to = !from);
    ST_OK
}

fn run(opened: &Opened, items: &[st_load_item], options: &st_load_options) {
    let mut error = ErrorSlot::default();
    let status = unsafe { st_load(opened.0, items.as_ptr(), items.len(), options, error.as_mut()) };
    assert_eq!(status, ST_OK, "{:?}", error.failure());
}

fn item(part: &st_part) -> st_load_item {
    // SAFETY: zero is a value of every field.
    st_load_item { part, ..unsafe { mem::zeroed() } }
}

fn bits(part: &st_part) -> u64 {
    u64::from(unsafe { &*part.tensor }.dtype().bits())
}

/// All ways, each against a plain load.
fn check(opened: &Opened, parts: &[st_part]) {
    let plain = load(opened, parts).unwrap();
    let total: u64 = parts.iter().map(|part| part.size).sum();
    let empty = || Results { buffer: vec![0; 4096], results: Vec::new(), done: 0, elements: AtomicU64::new(0) };

    for many in [false, true] {
        let results = plain.iter().map(|result| vec![0xAA; result.len()]).collect();
        let mut at = Results { results, ..empty() };
        let buffers = [st_buffer { data: at.buffer.as_mut_ptr().cast(), size: at.buffer.len() }];
        let user_data = (&raw mut at).cast();
        let sink = st_sink { buffers: buffers.as_ptr(), buffer_count: 1, user_data, ..init_sink() };
        let sink = match many {
            true => st_sink { pieces: Some(pieces), ..sink },
            false => st_sink { chunk: Some(chunk), ..sink },
        };
        let items: Vec<_> = parts.iter().map(item).collect();
        run(opened, &items, &st_load_options { sink: &sink, progress: Some(progress), user_data, ..init_load() });
        assert!(at.results == plain && at.done == total, "many {many}: {} of {total}", at.done);
    }

    // The caller's last step. Its elements are of whole bytes here.
    let whole: Vec<_> = parts.iter().zip(&plain).filter(|(part, _)| bits(part) % 8 == 0).collect();
    let mut at = Results { results: whole.iter().map(|(part, _)| vec![(bits(part) / 8) as u8]).collect(), ..empty() };
    let user_data = (&raw mut at).cast();
    let step = |part: &st_part| st_transform {
        struct_size: size_of::<st_transform>(),
        unit: 1,
        unit_size: bits(part) / 8,
        run: Some(invert),
        user_data,
    };
    let steps: Vec<_> = whole.iter().map(|(part, _)| step(part)).collect();
    let mut results: Vec<_> = whole.iter().map(|(_, plain)| vec![0xAA; plain.len()]).collect();
    let items = whole.iter().zip(&steps).zip(&mut results).map(|(((part, _), step), result)| st_load_item {
        transform: step,
        dst: result.as_mut_ptr().cast(),
        dst_size: result.len(),
        ..item(part)
    });
    let items: Vec<_> = items.collect();
    run(opened, &items, &st_load_options { threads: 2, ..init_load() });
    let inverted = whole.iter().map(|(_, plain)| plain.iter().map(|byte| !byte).collect::<Vec<u8>>());
    assert!(results.iter().cloned().eq(inverted));
    let elements: u64 = whole.iter().map(|(part, _)| part.size * 8 / bits(part)).sum();
    assert_eq!(at.elements.load(SeqCst), elements);

    // Matrices into rows with room between them, and transposed; BF16 as F32.
    for ((part, plain), is_turned) in whole.iter().flat_map(|one| [(one, false), (one, true)]) {
        if part.rank != 2 || part.size == 0 {
            continue;
        }
        let shape = unsafe { slice::from_raw_parts(part.shape, 2) };
        let (rows, columns) = (shape[0] as usize, shape[1] as usize);
        let size = (bits(part) / 8) as usize;
        let widens = unsafe { &*part.tensor }.dtype() == safetensors::Dtype::Bf16;
        let (dtype, wide) = if widens { (ST_DTYPE_F32, 4) } else { (ST_DTYPE_AS_STORED, size) };
        let strides = if is_turned { [wide, rows * wide] } else { [columns * wide + 24, wide] };
        let strides = strides.map(|stride| stride as i64);
        let mut dst = vec![0xAA_u8; rows * columns * wide + 24 * rows];
        let one = st_load_item {
            dtype,
            dst: dst.as_mut_ptr().cast(),
            dst_size: dst.len(),
            dst_strides: strides.as_ptr(),
            ..item(part)
        };
        run(opened, &[one], &init_load());
        let mut wanted = vec![0xAA_u8; dst.len()];
        for (at, element) in plain.chunks(size).enumerate() {
            let place = (at / columns) * strides[0] as usize + (at % columns) * strides[1] as usize;
            let element = match widens {
                true => [&[0, 0], element].concat(),
                false => element.to_vec(),
            };
            wanted[place..][..wide].copy_from_slice(&element);
        }
        assert!(dst == wanted, "turned {is_turned}");
    }
}

#[test]
fn parts_load_the_same_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut ranks = 0;
    for case in Case::all().iter().step_by(3) {
        let opened = Opened::new(&one_file(folder.path(), &case.tensors));
        let Ok(plan) = Plan::new(&opened, &case.given) else { continue };
        for run in case.runs().iter().step_by(4) {
            let Ok(parts) = plan.records(&axes_of(run)) else { continue };
            check(&opened, parts);
            ranks += 1;
        }
    }
    assert!(ranks > 60, "{ranks}");
}

/// Columns of one matrix and rows of another, with gaps that are wider and narrower than the cap.
#[test]
fn reads_are_those_of_the_part_and_gaps_within_the_cap() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = [Listed::new("a", "BF16", &[300, 2000]), Listed::new("b", "F32", &[4000, 16])];
    let bytes = std::fs::read(one_file(folder.path(), &tensors)).unwrap();
    let rules = r#"{"match": "a", "axis": "tp", "cut": 1}, {"match": "b", "axis": "tp", "cut": 0, "split": "robin", "unit": 40}"#;
    let given = super::plan::Given::plan(&format!(r#"{{"format": 1, "rules": [{rules}]}}"#));
    for ranks in [1, 2, 4, 8_i64] {
        for cap in [1_u64, 2000, 3100, 1 << 16] {
            let reader = Reader::new(bytes.clone());
            let opened = Opened::reader(&reader);
            let plan = Plan::new(&opened, &given).unwrap();
            let parts = plan.records(&[("tp", ranks - 1, ranks)]).unwrap();
            let before = reader.counts.requests.lock().unwrap().len();
            let mut results: Vec<_> = parts.iter().map(|part| vec![0; part.size as usize]).collect();
            let items: Vec<_> = parts
                .iter()
                .zip(&mut results)
                .map(|(part, result)| st_load_item {
                    dst: result.as_mut_ptr().cast(),
                    dst_size: result.len(),
                    ..item(part)
                })
                .collect();
            let options = st_load_options { max_gap: cap, ..init_load() };
            let mut planned: st_plan = unsafe { mem::zeroed() };
            let status = unsafe {
                st_load_plan(opened.0, items.as_ptr(), items.len(), &options, &raw mut planned, ptr::null_mut())
            };
            assert_eq!(status, ST_OK);
            run(&opened, &items, &options);
            let requests = reader.counts.requests.lock().unwrap()[before..].to_vec();
            let read: u64 = requests.iter().map(|(_, len)| *len as u64).sum();
            let wanted: u64 = parts.iter().map(|part| part.read_size).sum();
            let mut runs = 1 + if ranks == 1 { 0 } else { 300 + 4000 / 40 / ranks as u64 };
            runs = runs.max(requests.len() as u64);
            assert!(wanted <= read && read <= wanted + runs * cap, "{ranks} ranks, {cap}: {read} for {wanted}");
            assert_eq!((planned.read_bytes, planned.over_read_bytes), (read, read - wanted), "{ranks} ranks, {cap}");
            // What lies between two columns of the last rank, where that is wider than the cap, is not read.
            let gap = 4000 - 4000 / ranks as u64;
            if ranks > 1 && cap < gap && cap < 2560 * (ranks as u64 - 1) {
                assert_eq!(read, wanted, "{ranks} ranks, {cap}");
            }
        }
    }
}
