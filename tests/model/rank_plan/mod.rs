// SPDX-License-Identifier: Apache-2.0
//! Which part of which tensor does each rank hold?

mod cases;
mod checkpoint;
mod errors;
mod language;
mod loads;
mod logical;
mod naive;
mod plan;
mod random;
mod reads;
mod sha256;
