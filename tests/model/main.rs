// SPDX-License-Identifier: Apache-2.0
//! Is what a model is made of found: the parts of each rank, the groups?

#[path = "../support/mod.rs"]
mod support;

mod examples;
mod groups;
mod loading;
mod mutations;
mod rank_plan;
mod ways;
