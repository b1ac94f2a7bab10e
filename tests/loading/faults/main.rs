// SPDX-License-Identifier: Apache-2.0
//! What becomes of a load when the system fails? A binary of its own, which
//! runs under the shim.

#[path = "../../support/mod.rs"]
mod support;

mod failures;
mod file_systems;
mod files;
mod system;
