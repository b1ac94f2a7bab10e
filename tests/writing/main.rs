// SPDX-License-Identifier: Apache-2.0
//! Is what was saved right, and is the older file or the new one whole, whatever happens?

#[path = "../support/shim.rs"]
mod shim;

mod crash;
mod files;
mod places;
mod sets;
