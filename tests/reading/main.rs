// SPDX-License-Identifier: Apache-2.0
//! What comes of any file, folder or source that somebody opens and reads?

#[path = "../support/mod.rs"]
mod support;

mod callbacks;
mod hostile;
mod large_headers;
mod limits;
mod opening;
mod sets;
mod slices;
mod validate;
