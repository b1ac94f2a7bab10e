// SPDX-License-Identifier: Apache-2.0
//! The core of libsafetensors: opens safetensors checkpoints and hands out
//! their tensors, strictly checked and without copies.
//!
//! The product is the C library, whose manual is `include/safetensors.h`. This
//! Rust face is what the C functions, the tests and the benches stand on; it
//! may change in any release.
//!
//! Bytes flow one way through the modules; CONTRIBUTING.md draws it, and
//! `tests/house.rs` holds it.

pub mod dtype;
pub mod error;
pub mod group;
pub mod options;
pub mod part;
pub mod record;

mod base;

mod checkpoint;
pub mod convert;
mod format;
pub mod load;
pub mod model;
mod source;
pub mod writer;

pub mod ffi;

pub use checkpoint::resolved::Resolver;
pub use checkpoint::validate::{validate, Fatal, Problem};
pub use checkpoint::Checkpoint;
pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Result};
pub use options::{Access, Limits, OpenOptions, Prefetch, Tolerate, Variant};
pub use record::{Metadata, Range, Tensor};
pub use source::{Chosen, ReadAt};
pub use writer::{NewTensor, SaveOptions, Writer};
