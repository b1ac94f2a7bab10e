// SPDX-License-Identifier: Apache-2.0
//! How much work one question about a plan may be.
#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};

/// Pieces that are made or looked at for one rank: a vocabulary of a million
/// rows dealt in turn to two ranks is half a million, and a plan that asks for
/// 2^62 segments of a tensor without bytes is stopped.
const MOST: u64 = 1 << 24;

pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn new() -> Self {
        Self(MOST)
    }

    pub(super) fn spend(&mut self, steps: u64) -> Result<()> {
        let too_many =
            || Error::new(ErrorKind::Unsupported, format!("the plan cuts tensors into more than {MOST} pieces"));
        self.0 = self.0.checked_sub(steps).ok_or_else(too_many)?;
        Ok(())
    }
}
