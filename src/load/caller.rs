// SPDX-License-Identifier: Apache-2.0
//! What the caller of a load hears, says and takes.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicI32;

use super::destination::Memory;
use crate::error::Result;
use crate::record::st_piece;

/// Told how many bytes of how many are done; `false` ends the load.
pub type LoadProgress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Told that an item's result is whole.
pub type ItemDone<'a> = &'a mut dyn FnMut(usize);

/// What the caller of a load hears and says while it goes on.
#[derive(Default)]
pub struct Caller<'a, 'h> {
    /// Hears of bytes.
    pub progress: Option<LoadProgress<'h>>,
    /// Hears of items; not with a sink.
    pub item_done: Option<ItemDone<'h>>,
    /// Takes the results.
    pub sink: Option<SinkBuffers<'a, 'h>>,
    /// Not 0: the load ends.
    pub cancel: Option<&'a AtomicI32>,
}

/// Takes results in pieces, in buffers of its own. Called on the thread that loads.
pub trait Sink {
    /// A buffer holds `size` bytes of an item's result, from its byte `offset` on.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn chunk(&mut self, buffer: usize, item: usize, offset: u64, size: usize) -> Result<()>;

    /// A buffer holds these pieces of items' results.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn pieces(&mut self, buffer: usize, pieces: &[st_piece]) -> Result<()>;

    /// Returns when the buffer may be filled again.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn wait(&mut self, buffer: usize) -> Result<()>;
}

/// The buffers of a sink, and how they are filled.
#[derive(Clone, Copy)]
pub struct Buffers<'a> {
    /// Apart from one another.
    pub memory: &'a [Memory<'a>],
    /// Many items in one.
    pub pieces: bool,
}

/// A sink and the buffers it is given results in.
pub struct SinkBuffers<'a, 's> {
    /// The sink.
    pub sink: &'s mut dyn Sink,
    /// Its buffers.
    pub buffers: Buffers<'a>,
}
