// SPDX-License-Identifier: Apache-2.0
//! What work within a load ends with.
#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind};

/// What a thread's own work ends with once another's has failed; nobody hears of it.
pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "the load has ended")
}

#[cold]
pub(super) fn fault() -> Error {
    Error::new(ErrorKind::Internal, "a request lies outside its item")
}
