// SPDX-License-Identifier: Apache-2.0
//! Does every function do what the header promises, and refuse what it forbids?

#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod c;
mod saving;
mod wrappers;
