// SPDX-License-Identifier: Apache-2.0
//! Any items of any file, loaded on several threads through a reader that
//! keeps a list: each byte of each result is written, once, and none beside;
//! each byte that is read lies in a tensor, and what is read over is what the
//! plan says and small gaps allow.

use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr;

use safetensors::convert::{convert, supported};
use safetensors::ffi::*;
use safetensors::record::st_range;
use safetensors::Dtype;

use crate::script::Script;
use crate::slices::{range, DTYPES};
use crate::support::callbacks::{Manner, Reader};
use crate::support::handle::{init_options, open_io, ErrorSlot};
use crate::support::made::{file, pattern};
use crate::support::slice_model::{naive, Naive};

/// Gaps up to this width may be read over.
const WIDEST_GAP: u64 = 64 << 10;
/// Bytes on both sides of a destination that stay as they are.
const GUARD: usize = 32;
const UNTOUCHED: u8 = 0xEE;

struct Tensor {
    dtype: Dtype,
    shape: Vec<i64>,
    begin: usize,
    size: usize,
}

/// One item, and what has to come of it.
struct Wanted {
    tensor: usize,
    ranges: Vec<st_range>,
    dtype: i32,
    strides: Option<Vec<i64>>,
    /// The dense result, or the statuses that may refuse it.
    dense: Result<Vec<u8>, Vec<st_status>>,
    shape: Vec<i64>,
    /// The destination with its guards; as it is to be, where that is known.
    room: Vec<u8>,
    expected: Vec<u8>,
}

/// See the module.
pub fn load(data: &[u8]) {
    let mut script = Script(data);
    let tensors = tensors(&mut script);
    let size = tensors.last().map_or(0, |tensor| tensor.begin + tensor.size);
    let entries = tensors.iter().enumerate().map(|(number, Tensor { dtype, shape, begin, size })| {
        format!(
            r#""{number}":{{"dtype":"{}","shape":{shape:?},"data_offsets":[{begin},{}]}}"#,
            dtype.name(),
            begin + size
        )
    });
    let entries = entries.collect::<Vec<_>>().join(",");
    let bytes = file(format!("{{{entries}}}"), &pattern(size));
    let held = bytes.len() - size;
    let with_sink = script.byte() & 1 != 0;
    let mut items: Vec<_> = (0..script.below(if tensors.is_empty() { 1 } else { 9 }))
        .map(|_| item(&mut script, &tensors, &bytes[held..], with_sink))
        .collect();

    let manner = match script.below(3) {
        // Short, but not so short that one load takes seconds.
        0 => Manner::Short((1 + usize::from(script.byte())).max(size / 256)),
        _ => Manner::Whole,
    };
    let reader = Reader { max_parallel: script.below(3), ..Reader::new(bytes.clone()).manner(manner) };
    let handle = open_io(&reader.io(), &init_options()).unwrap();
    reader.counts.requests.lock().unwrap().clear();
    let records: Vec<_> =
        (0..tensors.len()).map(|number| ptr::from_ref(handle.get(number.to_string()).unwrap())).collect();
    reader.counts.requests.lock().unwrap().clear();

    let given: Vec<_> = items.iter_mut().map(|item| given(item, records[item.tensor], with_sink)).collect();
    // SAFETY: numbers and null pointers.
    let (mut options, mut plan): (st_load_options, st_plan) = unsafe { (zeroed(), zeroed()) };
    options.struct_size = size_of::<st_load_options>();
    options.threads = script.below(5) as u32;
    options.staging_bytes = script.choose(&[0, 65536, 1 << 20]);
    let mut sink = Sink::new(&mut script, &items);
    let described = sink.described();
    if with_sink {
        options.sink = &described;
    }
    let refused: Vec<_> = items.iter().filter_map(|item| item.dense.as_ref().err()).flatten().collect();
    let (mut planned, mut loaded) = (ErrorSlot::default(), ErrorSlot::default());
    // SAFETY: as the header demands.
    let statuses = unsafe {
        [
            st_load_plan(handle.0, given.as_ptr(), given.len(), &options, &mut plan, planned.as_mut()),
            st_load(handle.0, given.as_ptr(), given.len(), &options, loaded.as_mut()),
        ]
    };
    if !refused.is_empty() {
        assert!(statuses.iter().all(|status| refused.contains(&status)), "{statuses:?}, {refused:?}");
        assert!(
            items.iter().all(|item| item.room.iter().all(|byte| *byte == UNTOUCHED)),
            "nothing before all is checked"
        );
        return;
    }
    assert_eq!(statuses, [ST_OK; 2], "{:?}", (!loaded.untouched()).then(|| loaded.failure()));
    for (number, item) in items.iter().enumerate() {
        let dense = item.dense.as_ref().unwrap();
        match with_sink {
            true => assert_eq!(&sink.results[number], dense, "item {number}"),
            false => assert_eq!(item.room, item.expected, "item {number}"),
        }
    }
    assert!(!with_sink || sink.seen.iter().all(|seen| seen.iter().all(|times| *times == 1)), "each byte once");
    reads(&reader, &plan, &items, &tensors, held as u64, matches!(manner, Manner::Whole));
}

fn tensors(script: &mut Script<'_>) -> Vec<Tensor> {
    let mut begin = 0;
    let each = (0..script.below(5)).filter_map(|_| {
        let (dtype, bits) = script.choose(DTYPES);
        let mut elements = 1;
        let shape: Vec<i64> = (0..script.below(4))
            .map(|_| {
                let size = script.below(if elements > 3000 { 3 } else { 40 });
                elements *= size;
                size as i64
            })
            .collect();
        let tensor = Tensor { dtype: Dtype::from_name(dtype.as_bytes())?, shape, begin, size: elements * bits / 8 };
        begin += if elements * bits % 8 == 0 { tensor.size } else { 0 };
        (elements * bits % 8 == 0).then_some(tensor)
    });
    each.collect()
}

fn item(script: &mut Script<'_>, tensors: &[Tensor], data: &[u8], with_sink: bool) -> Wanted {
    let number = script.below(tensors.len());
    let Tensor { dtype: from, shape, begin, size } = &tensors[number];
    let ranges: Vec<_> =
        (0..script.below(shape.len() + 1)).map(|dimension| range(script, shape.get(dimension))).collect();
    let to = script.choose(&[None, None, Some(Dtype::F32), Some(Dtype::Bf16), Some(Dtype::F16), Some(Dtype::I64)]);
    let target = to.unwrap_or(*from);
    let bits = from.bits() as usize;
    let mut result_shape = Vec::new();
    let dense = match naive(&data[*begin..begin + size], bits, shape, &ranges) {
        Naive::Invalid if !supported(*from, target) => Err(vec![ST_ERROR_INVALID_ARGUMENT, ST_ERROR_UNSUPPORTED]),
        Naive::SubByte if !supported(*from, target) => Err(vec![ST_ERROR_SUB_BYTE, ST_ERROR_UNSUPPORTED]),
        Naive::Invalid => Err(vec![ST_ERROR_INVALID_ARGUMENT]),
        Naive::SubByte => Err(vec![ST_ERROR_SUB_BYTE]),
        Naive::Picked { .. } if !supported(*from, target) => Err(vec![ST_ERROR_UNSUPPORTED]),
        Naive::Picked { shape, bytes } => {
            result_shape = shape;
            let elements = result_shape.iter().product::<i64>() as usize;
            let mut dense = vec![0; elements * target.bits() as usize / 8];
            convert(*from, &bytes, target, &mut dense).unwrap();
            Ok(dense)
        }
    };
    let element = target.bits() as usize / 8;
    let strides = (!with_sink && element != 0 && dense.is_ok() && script.byte() & 3 == 0)
        .then(|| strides(script, &result_shape, element));
    let (mut room, mut expected) = (Vec::new(), Vec::new());
    if let Ok(dense) = &dense {
        let place = |index: &[i64]| match &strides {
            Some(strides) => index.iter().zip(strides).map(|(at, stride)| at * stride).sum::<i64>() as usize,
            None => 0,
        };
        let last: Vec<_> = result_shape.iter().map(|size| (size - 1).max(0)).collect();
        let extent = if strides.is_some() && !dense.is_empty() { place(&last) + element } else { dense.len() };
        room = vec![UNTOUCHED; extent + 2 * GUARD];
        expected = room.clone();
        match &strides {
            None => expected[GUARD..GUARD + dense.len()].copy_from_slice(dense),
            Some(_) => {
                for (number, value) in dense.chunks_exact(element).enumerate() {
                    let at = GUARD + place(&index_of(number, &result_shape));
                    expected[at..at + element].copy_from_slice(value);
                }
            }
        }
    }
    let dtype = to.map_or(0, |to| to as i32);
    Wanted { tensor: number, ranges, dtype, strides, dense, shape: result_shape, room, expected }
}

/// Any order of dimensions, with room between them or not.
fn strides(script: &mut Script<'_>, shape: &[i64], element: usize) -> Vec<i64> {
    let mut order: Vec<usize> = (0..shape.len()).collect();
    for at in 1..order.len() {
        order.swap(at, script.below(at + 1));
    }
    let mut strides = vec![0; shape.len()];
    let mut next = element as i64;
    for dimension in order {
        next += i64::from(script.byte() % 3) * i64::from(script.byte() & 1);
        strides[dimension] = next;
        next *= shape[dimension].max(1);
    }
    strides
}

fn index_of(mut number: usize, shape: &[i64]) -> Vec<i64> {
    let mut index = vec![0; shape.len()];
    for (at, size) in index.iter_mut().zip(shape).rev() {
        *at = (number % *size as usize) as i64;
        number /= *size as usize;
    }
    index
}

fn given(item: &mut Wanted, tensor: *const safetensors::Tensor, with_sink: bool) -> st_load_item {
    // SAFETY: numbers and null pointers.
    let zero: st_load_item = unsafe { zeroed() };
    let size = item.room.len().saturating_sub(2 * GUARD);
    st_load_item {
        tensor,
        ranges: item.ranges.as_ptr(),
        range_count: item.ranges.len(),
        dtype: item.dtype,
        dst: match with_sink {
            false if size != 0 => item.room[GUARD..].as_mut_ptr().cast(),
            _ => ptr::null_mut(),
        },
        dst_size: if with_sink { 0 } else { size },
        dst_strides: item.strides.as_ref().map_or(ptr::null(), |strides| strides.as_ptr()),
        ..zero
    }
}

/// Takes chunks, and sees that each byte comes once and none to a buffer that is in use.
struct Sink {
    buffers: Vec<Vec<u8>>,
    described: Vec<st_buffer>,
    flying: Vec<bool>,
    waits: bool,
    results: Vec<Vec<u8>>,
    seen: Vec<Vec<u8>>,
}

impl Sink {
    fn new(script: &mut Script<'_>, items: &[Wanted]) -> Self {
        let count = 1 + script.below(3);
        let mut buffers = vec![vec![0; 4096 + script.below(200)]; count];
        let described =
            buffers.iter_mut().map(|buffer| st_buffer { data: buffer.as_mut_ptr().cast(), size: buffer.len() });
        let described = described.collect();
        let blank: Vec<Vec<u8>> = items.iter().map(|item| vec![0; item.dense.as_ref().map_or(0, Vec::len)]).collect();
        Self {
            buffers,
            described,
            flying: vec![false; count],
            waits: script.byte() & 1 != 0,
            results: blank.clone(),
            seen: blank,
        }
    }

    fn described(&mut self) -> st_sink {
        st_sink {
            struct_size: size_of::<st_sink>(),
            buffers: self.described.as_ptr(),
            buffer_count: self.described.len(),
            chunk: Some(chunk),
            wait: if self.waits { Some(wait) } else { None },
            user_data: ptr::from_mut(self).cast(),
            pieces: None,
        }
    }
}

unsafe extern "C" fn chunk(
    user_data: *mut c_void,
    buffer: usize,
    item: usize,
    item_offset: u64,
    size: usize,
    _error: *mut st_error,
) -> st_status {
    // SAFETY: what described() gave.
    let sink = unsafe { &mut *user_data.cast::<Sink>() };
    assert!(!std::mem::replace(&mut sink.flying[buffer], sink.waits), "a buffer that is in use");
    let at = item_offset as usize;
    sink.results[item][at..at + size].copy_from_slice(&sink.buffers[buffer][..size]);
    sink.seen[item][at..at + size].iter_mut().for_each(|times| *times += 1);
    ST_OK
}

unsafe extern "C" fn wait(user_data: *mut c_void, buffer: usize, _error: *mut st_error) -> st_status {
    // SAFETY: what described() gave.
    let sink = unsafe { &mut *user_data.cast::<Sink>() };
    assert!(std::mem::replace(&mut sink.flying[buffer], false), "nothing to wait for");
    ST_OK
}

fn reads(reader: &Reader, plan: &st_plan, items: &[Wanted], tensors: &[Tensor], held: u64, whole: bool) {
    let results: usize = items.iter().map(|item| item.dense.as_ref().map_or(0, Vec::len)).sum();
    assert_eq!(plan.bytes, results as u64);
    let mut requests = reader.counts.requests.lock().unwrap().clone();
    requests.sort_unstable();
    let wanted: Vec<_> = items.iter().filter(|item| item.shape.iter().all(|size| *size != 0)).collect();
    let inside = |offset: u64, len: u64| {
        let first = wanted.iter().map(|item| tensors[item.tensor].begin).min().unwrap_or(0) as u64 + held;
        let last = wanted.iter().map(|item| tensors[item.tensor].begin + tensors[item.tensor].size).max().unwrap_or(0)
            as u64
            + held;
        offset >= first && offset + len <= last
    };
    assert!(requests.iter().all(|(offset, len)| inside(*offset, *len as u64)), "{requests:?}");
    if whole {
        let read: u64 = requests.iter().map(|(_, len)| *len as u64).sum();
        assert_eq!(read, plan.read_bytes);
        let made = requests.len() as u64;
        assert_eq!(made, plan.requests, "reads made, and planned");
        // What is read over lies between two pieces that are wanted.
        assert!(plan.over_read_bytes <= (plan.read_bytes - plan.over_read_bytes).saturating_mul(WIDEST_GAP));
    }
}
