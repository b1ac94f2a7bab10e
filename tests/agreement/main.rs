// SPDX-License-Identifier: Apache-2.0
//! Do others say the same: the reference crate, numpy, the rules written down again?

#[path = "../support/mod.rs"]
mod support;

mod convert;
mod corpus;
mod headers;
mod indexes;
