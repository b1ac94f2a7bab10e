// SPDX-License-Identifier: Apache-2.0
//! What a model is made of, where its files alone do not say it: quantised
//! groups, and parts for the ranks of a parallel job.

pub(crate) mod config;
pub mod groups;
pub(crate) mod json;
pub(crate) mod rank_plan;
