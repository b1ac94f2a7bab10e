// SPDX-License-Identifier: Apache-2.0
//! What a model is made of: parts for the ranks of a parallel job.
#![forbid(unsafe_code)]

pub(crate) mod rank_plan;
