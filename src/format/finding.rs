// SPDX-License-Identifier: Apache-2.0
//! A rule that a file breaks, and where. The checks tell a sink of it: opening
//! stops with the first, validation hears of all.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// One broken rule.
pub(crate) struct Finding<'a> {
    /// What opening says about it.
    pub(crate) error: Error,
    /// The byte in the file where it shows.
    pub(crate) position: u64,
    pub(crate) tensor: Option<&'a [u8]>,
    /// There is an option with which opening lets it pass.
    pub(crate) tolerable: bool,
}

/// Receives findings. An error ends the checks.
pub(crate) type FindingSink<'a> = dyn FnMut(Finding<'_>) -> Result<()> + 'a;

impl<'a> Finding<'a> {
    /// One that no option makes good.
    pub(crate) fn new(error: Error, position: usize, tensor: Option<&'a [u8]>) -> Self {
        Self { error, position: position as u64, tensor, tolerable: false }
    }
}

/// The sink of opening.
pub(crate) fn stop(finding: Finding<'_>) -> Result<()> {
    Err(finding.error)
}
