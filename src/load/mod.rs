// SPDX-License-Identifier: Apache-2.0
//! Loading: an engine's own memory is filled with many tensors or parts of
//! them, converted on the way.
//!
//! Items (`item`) become tasks once they are checked (`task`, `overlap`), and a load (`checked`)
//! with its share of memory (`budget`). A `plan` makes requests of them in file order (`order`;
//! `stretch` where each read is a journey). Threads take requests (`work`), read (`reader`) and
//! deliver (`delivery`, `workspace`) to memory (`destination`, `strides`) or a sink's buffers
//! (`shared`); `callbacks` hears of it, and `run` puts it together. Runs of parts go straight to their
//! places (`runs`), what is put together in the result's order by `fetch`, a quantised group by
//! `boxes` and its `assembly`.
#![deny(unsafe_code)]

mod arrange;
mod assembly;
mod boxes;
mod budget;
mod callbacks;
mod caller;
mod checked;
mod delivery;
#[allow(unsafe_code, reason = "several threads fill one caller's memory")]
mod destination;
mod errors;
mod fetch;
mod item;
mod options;
mod order;
mod overlap;
mod plan;
mod prefetch;
mod read;
mod reader;
mod request;
mod run;
mod runs;
mod shared;
mod stretch;
mod strides;
mod summary;
mod task;
mod work;
mod workspace;

pub use self::arrange::{arrange, size_of, Alignment, Arrangement};
pub use self::assembly::{Assembly, MemberBox, Rows, Span};
pub use self::caller::{Buffers, Caller, ItemDone, LoadProgress, Sink, SinkBuffers};
pub use self::destination::Memory;
pub use self::item::{Item, Items, Origin, Transform, TransformStep};
pub use self::options::{Io, LoadOptions, Summary};
pub use self::prefetch::{evict, prefetch};
pub use self::run::load;
pub use self::summary::summary;
