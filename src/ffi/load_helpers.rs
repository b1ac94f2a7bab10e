// SPDX-License-Identifier: Apache-2.0
//! What goes before a load and after it: sizes, places, requirements, eviction.

use std::ffi::{c_char, c_void};

use super::arguments::{array_at, check_shape, no_such, null, records, required, required_text, st_checkpoint};
use super::boundary::guard;
use super::dtype::{st_dtype, ST_DTYPE_AS_STORED};
use super::given_load::{in_item, st_load_item, GivenItem};
use super::status::{st_error, st_status, ST_OK};
use crate::base::memory;
use crate::convert;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::load::{self, Alignment};
use crate::record::st_tensor;

/// How many bytes an item's result has, once converted and transformed. Its
/// destination is not looked at.
///
/// item: borrowed for the call. size: receives the bytes, on success only.
///
/// Returns ST_OK, or what st_load says of such an item. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_load_size(item: *const st_load_item, size: *mut u64, error: *mut st_error) -> st_status {
    let find = || {
        // SAFETY: arguments are as the header's rules say.
        let given = unsafe { read_item(required(item, "item")?)? };
        if size.is_null() {
            return Err(null("size"));
        }
        let found = load::size_of(&given.as_item())?;
        // SAFETY: not null, and writable by the header's rules.
        unsafe { size.write(found) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || find().map(|()| ST_OK)) }
}

/// Places the results of items one after the other in one block of memory: sets
/// dst and dst_size of each.
///
/// items: item_count of them; only dst and dst_size are written, and on success
/// only. base: the block, of base_size bytes; NULL: nothing is placed, and total
/// receives the bytes that a block needs whose address is a multiple of the
/// alignment (of 64 where that is 0). alignment: a power of two of which each
/// address is a multiple; 0: each address equals the place in the file modulo 64,
/// which the kernel copies fastest. total: receives the end of the last result,
/// in bytes from base; may be NULL.
///
/// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_BUFFER_SIZE where the
/// results do not fit into base_size, or what st_load says of such items. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_arrange(
    items: *mut st_load_item,
    count: usize,
    base: *mut c_void,
    base_size: usize,
    alignment: usize,
    total: *mut u64,
    error: *mut st_error,
) -> st_status {
    let arrange = || {
        // SAFETY: arguments are as the header's rules say.
        let given = unsafe { array_at(items.cast_const(), count, "items")? };
        let alignment = match alignment {
            0 => Alignment::AsInFile,
            power if power.is_power_of_two() => Alignment::To(power as u64),
            other => {
                let text = format!("alignment is {other}; expected a power of two, or 0");
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
        };
        let mut read = memory::vec_with_capacity(given.len(), "items")?;
        for (number, item) in given.iter().enumerate() {
            // SAFETY: as above.
            read.push(unsafe { read_item(item) }.map_err(|error| in_item(number, &error))?);
        }
        let all = memory::collect(read.iter().map(|item| Ok(item.as_item())), read.len(), "items")?;
        let found = load::arrange(&all, base.addr() as u64, alignment)?;
        if !base.is_null() {
            if found.total > base_size as u64 {
                let text = format!("the results take {} bytes, and base_size is {base_size}", found.total);
                return Err(Error::new(ErrorKind::BufferSize, text));
            }
            for (number, (place, size)) in found.places.iter().enumerate() {
                // Both fit, as they lie within base_size.
                let (place, size) = (usize::try_from(*place).unwrap_or(0), usize::try_from(*size).unwrap_or(0));
                // SAFETY: there are count items, which the caller gave to be written;
                // what was read of them above is not used any more.
                unsafe {
                    let item = items.add(number);
                    (&raw mut (*item).dst).write(base.cast::<u8>().wrapping_add(place).cast());
                    (&raw mut (*item).dst_size).write(size);
                }
            }
        }
        if !total.is_null() {
            // SAFETY: not null, and writable by the header's rules.
            unsafe { total.write(found.total) };
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || arrange().map(|()| ST_OK)) }
}

/// Whether elements of one dtype can be converted to another, by st_convert and
/// on the way of a load. Every dtype but ST_DTYPE_UNKNOWN to itself can.
///
/// Returns 1 or 0; 0 for numbers that are not dtypes. Since 0.2.
#[no_mangle]
pub extern "C" fn st_can_convert(from: st_dtype, to: st_dtype) -> i32 {
    let both = Dtype::from_number(from).zip(Dtype::from_number(to));
    i32::from(both.is_some_and(|(from, to)| convert::supported(from, to)))
}

/// Finds a tensor that must have a dtype and a shape, and says what differs if it
/// has not. No I/O.
///
/// name: NUL-terminated UTF-8, borrowed for the call. dtype: ST_DTYPE_AS_STORED
/// accepts any. shape: rank sizes, borrowed for the call; -1 accepts any size. rank:
/// SIZE_MAX accepts any shape.
///
/// Returns a record owned by the checkpoint, valid until st_free, or NULL:
/// ST_ERROR_NOT_FOUND, ST_ERROR_DTYPE, ST_ERROR_SHAPE or
/// ST_ERROR_INVALID_ARGUMENT. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_require(
    checkpoint: *const st_checkpoint,
    name: *const c_char,
    dtype: st_dtype,
    shape: *const i64,
    rank: usize,
    error: *mut st_error,
) -> *const st_tensor {
    let find = || {
        // SAFETY: arguments are as the header's rules say.
        let (checkpoint, name) = unsafe { (required(checkpoint, "checkpoint")?, required_text(name, "name")?) };
        let dtype = match dtype {
            ST_DTYPE_AS_STORED => None,
            number => {
                let known = Dtype::from_number(number);
                Some(known.ok_or_else(|| no_such("dtype", number, "an ST_DTYPE_ constant, or 0 for any"))?)
            }
        };
        // SAFETY: as above.
        let shape = if rank == usize::MAX { None } else { Some(unsafe { array_at(shape, rank, "shape")? }) };
        if let Some(size) = shape.unwrap_or_default().iter().find(|size| **size < -1) {
            let text = format!("shape has the size {size}; expected 0 or more, or -1 for any");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let (_, tensor) = checkpoint.0.require(name)?;
        require(tensor, dtype, shape).map_err(|error| checkpoint.0.in_shard(tensor.shard(), error))?;
        Ok(std::ptr::from_ref(tensor))
    };
    // SAFETY: as above.
    unsafe { guard(error, |_| std::ptr::null(), find) }
}

/// The other half of st_prefetch: pages of the mapping are let go, and the page cache
/// learns that these tensors are not needed. Whoever touches them reads them again. It
/// is a hint: what the system declines is not an error.
///
/// tensors: count pointers to records of this checkpoint or copies, borrowed
/// for the call; NULL with a count of 0: everything.
///
/// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT or ST_ERROR_OUT_OF_MEMORY. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_evict(
    checkpoint: *const st_checkpoint,
    tensors: *const *const st_tensor,
    count: usize,
    error: *mut st_error,
) -> st_status {
    let evict = || {
        // SAFETY: arguments are as the header's rules say.
        let checkpoint = unsafe { required(checkpoint, "checkpoint")? };
        // SAFETY: as above.
        let tensors = unsafe { records(tensors, count)? };
        load::evict(&checkpoint.0, tensors.as_deref())
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || evict().map(|()| ST_OK)) }
}

/// An item of which the place is not looked at, and its record not compared with
/// a checkpoint's.
///
/// # Safety
/// The item's pointers are as the header's rules say, but for dst.
unsafe fn read_item(item: &st_load_item) -> Result<GivenItem<'_>> {
    // SAFETY: the caller's promise.
    unsafe {
        let tensor = item.tensor.as_ref();
        let tensor = tensor.or_else(|| item.part.as_ref().and_then(|part| part.tensor.as_ref()));
        if let Some(tensor) = tensor {
            check_shape(tensor)?;
        }
        GivenItem::read(item, true)
    }
}

fn require(tensor: &st_tensor, dtype: Option<Dtype>, shape: Option<&[i64]>) -> Result<()> {
    let fits = |shape: &[i64]| {
        let sizes = shape.iter().zip(tensor.shape());
        shape.len() == tensor.shape().len() && sizes.into_iter().all(|(wanted, size)| *wanted == -1 || wanted == size)
    };
    let kind = match (dtype, shape) {
        (Some(dtype), _) if dtype != tensor.dtype() => ErrorKind::Dtype,
        (_, Some(shape)) if !fits(shape) => ErrorKind::Shape,
        _ => return Ok(()),
    };
    let sizes = |shape: &[i64]| {
        let size = |size: &i64| if *size == -1 { "any".to_owned() } else { size.to_string() };
        // No message shows more.
        let shown: Vec<String> = shape.iter().take(64).map(size).collect();
        let more = if shape.len() > shown.len() { ", ..." } else { "" };
        format!("[{}{more}]", shown.join(", "))
    };
    let text = format!(
        "expected {} {}, found {} {}",
        dtype.map_or("any", Dtype::name),
        shape.map_or_else(|| "any".to_owned(), sizes),
        crate::error::escaped(tensor.dtype_name()),
        sizes(tensor.shape())
    );
    Err(Error::tensor(kind, tensor.name(), text))
}
