// SPDX-License-Identifier: Apache-2.0
//! The C interface: one file per section of `include/safetensors.h`. Each
//! export checks what it was given, converts it, calls the core, converts back.
#![allow(non_camel_case_types, reason = "C names are C's")]
#![allow(clippy::missing_safety_doc, reason = "the header's rules are the contract, stated once")]

mod arguments;
mod boundary;
mod callbacks;
mod convert;
mod dtype;
mod given_load;
mod given_save;
mod groups;
mod helpers;
mod inspect;
mod load;
mod load_helpers;
mod model_arguments;
mod open;
mod open_options;
mod part_records;
mod plan_subject;
mod rank_plan;
mod read;
#[cfg(feature = "safer-ffi")]
mod safer;
mod save;
mod slice;
mod status;
mod validate;
mod version;

// By their names alone, as C has them.
pub use self::arguments::{st_buffer, st_checkpoint};
pub use self::callbacks::{st_io, st_resolver, st_sink, st_transform};
pub use self::convert::*;
pub use self::dtype::*;
pub use self::given_load::{st_load_item, st_load_options, ST_IO_AUTO, ST_IO_CACHED, ST_IO_DIRECT, ST_IO_MAPPED};
pub use self::given_save::*;
pub use self::groups::*;
pub use self::helpers::*;
pub use self::inspect::*;
pub use self::load::*;
pub use self::load_helpers::*;
pub use self::model_arguments::{st_groups, st_text};
pub use self::open::*;
pub use self::open_options::*;
pub use self::rank_plan::*;
pub use self::read::*;
pub use self::save::*;
pub use self::slice::*;
pub use self::status::*;
pub use self::validate::*;
pub use self::version::*;
pub use crate::record::st_piece;
