// SPDX-License-Identifier: Apache-2.0
//! What the other rooms are built with: memory that may be refused, threads,
//! sorting, ranges of bytes, JSON text. Nothing here knows of tensors.

pub(crate) mod extent;
pub(crate) mod json;
pub(crate) mod lock;
pub(crate) mod memory;
pub(crate) mod numbering;
pub(crate) mod parallel;
pub(crate) mod sort;
