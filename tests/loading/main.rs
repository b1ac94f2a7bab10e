// SPDX-License-Identifier: Apache-2.0
//! Do the right bytes reach the caller's memory or device, in the fewest reads?

#[path = "../support/mod.rs"]
mod support;

mod items;
mod journeys;
mod refusals;
mod sink;
mod steps;
