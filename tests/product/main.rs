// SPDX-License-Identifier: Apache-2.0
//! Does the released library install, link and withstand faults?

#[path = "../support/released.rs"]
mod released;
#[path = "../support/shim.rs"]
mod shim;

mod faults;
mod install;
mod targets;
