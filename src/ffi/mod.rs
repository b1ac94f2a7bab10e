// SPDX-License-Identifier: Apache-2.0
//! The C interface: one file per section of `include/safetensors.h`. Each
//! export checks what it was given, converts it, calls the core, converts back.
#![allow(non_camel_case_types, reason = "C names are C's")]
#![allow(clippy::missing_safety_doc, reason = "the header's rules are the contract, stated once")]

mod boundary;
pub mod convert;
pub mod dtype;
mod given;
pub mod groups;
pub mod helpers;
pub mod inspect;
pub mod load;
pub mod open;
pub mod rank_plan;
pub mod read;
#[cfg(feature = "safer-ffi")]
mod safer;
pub mod save;
pub mod slice;
pub mod status;
pub mod validate;
pub mod version;
