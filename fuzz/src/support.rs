// SPDX-License-Identifier: Apache-2.0
//! What the tests of the library know.
#![allow(dead_code, unused_imports, reason = "each target uses a part")]

#[path = "../../tests/support/agree.rs"]
pub(crate) mod agree;
#[path = "../../tests/support/callbacks.rs"]
pub(crate) mod callbacks;
#[path = "../../tests/support/corpus.rs"]
pub(crate) mod corpus;
#[path = "../../tests/support/handle.rs"]
pub(crate) mod handle;
#[path = "../../tests/support/index_model.rs"]
pub(crate) mod index_model;
#[path = "../../tests/support/made.rs"]
pub(crate) mod made;
#[path = "../../tests/support/model.rs"]
pub(crate) mod model;
#[path = "../../tests/support/records.rs"]
pub(crate) mod records;
#[path = "../../tests/support/reference.rs"]
pub(crate) mod reference;
#[path = "../../tests/support/slice_model.rs"]
pub(crate) mod slice_model;
#[path = "../../tests/support/validation.rs"]
pub(crate) mod validation;
