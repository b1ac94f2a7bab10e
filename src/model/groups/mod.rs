// SPDX-License-Identifier: Apache-2.0
//! Quantised groups: what a model calls one weight and a file stores as codes,
//! scales and zero points.
//!
//! Tensors are walked through once; each that could be codes goes to the
//! recogniser of its name and dtype (`gptq`, `packed`, `float8`, `bytes`, `bnb`,
//! `mlx`, `blocks`), which looks for companions by name and makes a `Form` of
//! them, or says why not (`draft`). A form is a recipe (`recipe`) and its sizes;
//! `boxes` says what a slice needs, and `decode` makes values of that.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "from a caller's record")]
mod assembly;
mod blocks;
mod bnb;
mod boxes;
mod bytes;
mod decode;
mod draft;
mod findings;
mod float8;
mod gptq;
mod group;
mod index;
mod marker;
mod mlx;
mod packed;
mod pattern;
mod read;
mod recipe;
#[allow(unsafe_code, reason = "records with pointers into what stays")]
mod record;
mod search;
mod settings;
mod sizes;
mod wording;

pub(crate) use self::assembly::assembly;
pub use self::boxes::MemberPart;
#[doc(hidden)]
pub use self::decode::without_avx512;
pub(crate) use self::findings::findings;
pub use self::group::{Break, Flags, Group, Member, Role, Status};
pub use self::recipe::{Code, ColumnOrder, Global, Layout, Packing, Recipe, ScaleLayout, ScaleType, Zero};
pub(crate) use self::record::Listing;
pub use self::search::{Groups, GroupsOptions};
pub use self::settings::Override;
