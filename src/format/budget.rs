// SPDX-License-Identifier: Apache-2.0
//! How much text all files of a checkpoint may bring together: each file by
//! itself is within its limits, and ten thousand of them are too many.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::options::Limits;

/// For several files, unless the caller says otherwise.
const DEFAULT: u64 = 1_000_000_000;

/// What is left of it.
pub(crate) struct HeaderBudget {
    most: u64,
    used: AtomicU64,
    /// What a message names: no single file has too much.
    whole: String,
}

impl HeaderBudget {
    /// For one file, whose header has a limit already.
    pub(crate) fn of_one(limits: &Limits) -> Self {
        Self { most: limits.set_bytes.unwrap_or(u64::MAX), used: AtomicU64::new(0), whole: String::new() }
    }

    /// For the files of a set and its index.
    pub(crate) fn of_set(limits: &Limits, whole: &str) -> Self {
        Self { most: limits.set_bytes.unwrap_or(DEFAULT), used: AtomicU64::new(0), whole: whole.to_owned() }
    }

    /// Takes this much for a header or an index.
    ///
    /// # Errors
    /// `HeaderTooLarge` where that is more than there is left.
    pub(crate) fn take(&self, bytes: u64) -> Result<()> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used <= self.most {
            return Ok(());
        }
        // Later takers would otherwise find room where the sum has gone round.
        self.used.store(u64::MAX / 2, Ordering::Relaxed);
        let text =
            format!("the headers and the index of all files take {used} bytes, more than the {} allowed", self.most);
        Err(Error::new(ErrorKind::HeaderTooLarge, text).in_file(&self.whole))
    }
}
