// SPDX-License-Identifier: Apache-2.0
//! What rank plans and groups are both given: the handle of groups, and texts.

use std::ffi::c_char;
use std::sync::Arc;

use super::arguments::{memory_at, st_checkpoint};
use crate::error::Result;
use crate::model::groups::Listing;

/// The quantised groups of a checkpoint. Opaque; made by st_groups_open.
pub struct st_groups {
    pub(super) listing: Listing,
    /// Keeps alive, and in its place, what the listing points into.
    pub(super) checkpoint: Arc<st_checkpoint>,
}

/// A text with its length. A record that you fill.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_text {
    /// UTF-8; need not end in NUL.
    pub data: *const c_char,
    /// Bytes at data.
    pub size: usize,
}

/// The bytes of a text.
///
/// # Safety
/// The text is as the header's rules say.
pub(super) unsafe fn text_bytes<'a>(text: &st_text, what: &str) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { memory_at(text.data.cast(), text.size, what) }
}
