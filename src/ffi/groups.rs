// SPDX-License-Identifier: Apache-2.0
//! Quantised groups.

/// The quantised groups of a checkpoint. Opaque.
pub struct st_groups {
    _private: [u8; 0],
}
