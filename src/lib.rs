// SPDX-License-Identifier: Apache-2.0
//! The core of libsafetensors: opens safetensors checkpoints and hands out
//! their tensors, strictly checked and without copies.
//!
//! The product is the C library, whose manual is `include/safetensors.h`. This
//! Rust face is what the C functions, the tests and the benches stand on; it
//! may change in any release.
//!
//! Bytes flow one way, and the modules stand in that order: `source` → `header`
//! → `index` → `checkpoint` (reading through `slice`) → `convert` → `ffi`; and for
//! writing tensors → layout → file within `writer`.

pub mod convert;
pub mod dtype;
pub mod error;
pub mod ffi;
pub mod options;
pub mod record;

mod checkpoint;
mod finding;
mod header;
mod index;
mod json;
pub mod load;
mod lookup;
mod memory;
mod open;
mod parallel;
mod slice;
mod sort;
mod source;
mod validate;
pub mod writer;

pub use checkpoint::Checkpoint;
pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Result};
pub use open::Resolver;
pub use options::{Access, Limits, OpenOptions, Prefetch, Tolerate};
pub use record::{Metadata, Range, Tensor};
pub use source::{Chosen, ReadAt};
pub use validate::{validate, Problem};
pub use writer::{NewTensor, SaveOptions, Writer};
