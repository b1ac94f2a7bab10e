// SPDX-License-Identifier: Apache-2.0
//! The fuzz targets: functions of bytes that panic where the library is wrong.
//!
//! Each reads its input as a script: what to make, what to call. What comes out
//! is held against something that is not the library: the reference
//! implementation, the rules written down once more in tests/support, plain
//! arithmetic, or the crate `half`. libFuzzer drives them (fuzz_targets/), and
//! so does a test without it (tests/runs.rs).

mod api;
mod convert;
mod groups;
mod load;
mod ranks;
mod roundtrip;
mod script;
mod slices;
mod support;
mod texts;

pub use api::api;
pub use convert::convert;
pub use groups::groups;
pub use load::load;
pub use ranks::ranks;
pub use roundtrip::roundtrip;
pub use slices::slices;
pub use texts::{header, index, validate};

/// A target's function.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("header", header),
    ("validate", validate),
    ("index", index),
    ("slices", slices),
    ("load", load),
    ("roundtrip", roundtrip),
    ("convert", convert),
    ("groups", groups),
    ("ranks", ranks),
    ("api", api),
];
