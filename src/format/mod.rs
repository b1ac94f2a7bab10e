// SPDX-License-Identifier: Apache-2.0
//! The format: headers and indexes read and checked, names looked up, slices
//! of a tensor found in its bytes.

pub(crate) mod budget;
pub(crate) mod finding;
pub(crate) mod foreign;
pub(crate) mod header;
pub(crate) mod index;
pub(crate) mod lookup;
mod shapes;
pub(crate) mod slice;
