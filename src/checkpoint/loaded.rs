// SPDX-License-Identifier: Apache-2.0
//! Tensors that were read on request, and stay for the checkpoint's life.

use std::sync::{Mutex, OnceLock, TryLockError};

use crate::base::lock::lock;
use crate::base::memory::{self, Aligned};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Tensor;

/// A tensor that was read on request.
pub(crate) struct Loaded {
    record: Tensor,
    _bytes: Aligned,
}

impl Loaded {
    /// The tensor, with its bytes.
    pub(crate) fn new(tensor: &Tensor, bytes: Aligned) -> Self {
        let data = bytes.as_ptr().cast();
        Self { record: Tensor { data, source: 0, reserved: [0; 1], ..*tensor }, _bytes: bytes }
    }
}

/// What has been read so far: a slot for each record, from the first one that
/// is asked for on. Boxed, as callers hold the records' addresses; one lock for
/// each, so that two threads read two tensors at once and one tensor only once.
#[derive(Default)]
pub(super) struct LoadedTensors(OnceLock<Vec<LoadedSlot>>);

type LoadedSlot = Mutex<Option<Box<Loaded>>>;

impl LoadedTensors {
    /// The record of number `index` of `count`.
    ///
    /// `inside`: the thread is within a read of the record's own source, which may
    /// be what the record's lock is held for.
    pub(super) fn get(
        &self,
        index: usize,
        count: usize,
        inside: bool,
        load: impl FnOnce() -> Result<Loaded>,
    ) -> Result<&Tensor> {
        let slots = match self.0.get() {
            Some(slots) => slots,
            None => {
                let mut slots = memory::vec_with_capacity(count, "a list of what has been read")?;
                slots.resize_with(count, LoadedSlot::default);
                self.0.get_or_init(|| slots)
            }
        };
        let slot = slots.get(index).ok_or_else(|| Error::new(ErrorKind::Internal, "a record has no slot"))?;
        let mut slot = match slot.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::WouldBlock) if inside => {
                let text = "read_at called the library for a tensor that is being read";
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
            Err(_) => lock(slot),
        };
        let loaded = match &mut *slot {
            Some(loaded) => loaded,
            none => none.insert(Box::new(load()?)),
        };
        let record: *const Tensor = &raw const loaded.record;
        // SAFETY: a slot once filled is neither emptied nor replaced before
        // self is dropped, and its box keeps the record where it is.
        Ok(unsafe { &*record })
    }
}
