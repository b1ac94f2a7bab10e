// SPDX-License-Identifier: Apache-2.0
//! The handle of a checkpoint's groups, which plans take too.

use std::sync::Arc;

use super::arguments::st_checkpoint;
use crate::model::groups::Listing;

/// The quantised groups of a checkpoint. Opaque; made by st_groups_open.
pub struct st_groups {
    pub(super) listing: Listing,
    /// Keeps alive, and in its place, what the listing points into.
    pub(super) checkpoint: Arc<st_checkpoint>,
}
