// SPDX-License-Identifier: Apache-2.0
//! The arithmetic of `scalar` for many elements at a time. Who holds one of these
//! types has looked for the instructions.
#![allow(clippy::arithmetic_side_effects, reason = "places within the slices, as argued where they are used")]
#![allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "bits")]

mod avx2;
#[cfg(safetensors_avx512)]
mod avx512;
mod unpacking;

pub(super) use self::avx2::Avx2;
#[cfg(safetensors_avx512)]
pub(super) use self::avx512::Avx512;
