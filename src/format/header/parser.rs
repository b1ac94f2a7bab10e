// SPDX-License-Identifier: Apache-2.0
//! The state of a pass over a header's text, and how it keeps what breaks a rule.
#![forbid(unsafe_code)]

use super::rule::{Listener, RuleRank};
use crate::base::extent::TextExtent;
use crate::base::json::Cursor;
use crate::base::memory::{self, Filler};
use crate::error::{Error, ErrorKind, Result};
use crate::format::finding::Finding;
use crate::format::lookup::Hasher;
use crate::format::shapes::ShapeArena;
use crate::options::{Limits, Tolerate};
use crate::record::{Metadata, Tensor};

/// `"":{"dtype":0,"shape":0,"data_offsets":0},` is the least that makes a
/// record, be it one that is then refused.
const SHORTEST_ENTRY: usize = 41;
/// Levels open around a field of a tensor: the header and the entry.
pub(super) const FIELD_DEPTH: u32 = 2;
/// Levels open around an entry of the header.
pub(super) const ENTRY_DEPTH: u32 = 1;

/// What the parser has to know besides the text.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) shard: u32,
    pub(super) data_offset: u64,
    /// The file's bytes, where they can be addressed.
    pub(super) mapped: Option<&'a [u8]>,
    pub(super) limits: &'a Limits,
    pub(super) tolerate: Tolerate,
    pub(super) hasher: &'a Hasher,
}

/// What a text, or a half of one, says. Rules that concern all records
/// together have not been checked yet.
pub(super) struct Parsed {
    /// Of the tensors' names, in their order.
    pub(super) hashes: Vec<u32>,
    pub(super) shapes: ShapeArena,
    pub(super) metadata: Option<Vec<Metadata>>,
    pub(super) seen_metadata: bool,
    /// Where the first tensor begins and the last one ends, and whether each
    /// of the others begins where the one before it ends.
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) in_order: bool,
    pub(super) pending: Option<(RuleRank, Error)>,
}

/// How many tensors a text can describe at most.
pub(super) fn most_tensors(text: &[u8]) -> usize {
    (text.len() / SHORTEST_ENTRY).saturating_add(1)
}

/// One pass, or half of one.
pub(super) struct HeaderParser<'a, 'b, 'c> {
    pub(super) cursor: Cursor<'a>,
    /// Names are addressed from here. It stays right when the text's owner moves.
    pub(super) origin: *const u8,
    pub(super) context: Context<'a>,
    pub(super) tensors: &'a mut Filler<'b, Tensor>,
    /// The text is a first half; whether its end has been met as one.
    pub(super) continued: bool,
    pub(super) ended_in_comma: bool,
    pub(super) listener: Option<&'c mut (dyn Listener + 'c)>,
    pub(super) found: Parsed,
}

impl<'a, 'b> HeaderParser<'a, 'b, '_> {
    pub(super) fn new(text: &'a mut [u8], tensors: &'a mut Filler<'b, Tensor>, context: Context<'a>) -> Result<Self> {
        let found = Parsed {
            hashes: memory::vec_with_capacity(most_tensors(text), "hashes")?,
            shapes: ShapeArena::default(),
            metadata: None,
            seen_metadata: false,
            begin: 0,
            end: 0,
            in_order: true,
            pending: None,
        };
        let origin = text.as_mut_ptr().cast_const();
        let cursor = Cursor::new(text);
        Ok(Self { cursor, origin, context, tensors, continued: false, ended_in_comma: false, listener: None, found })
    }

    /// Keeps the error, whose place is `at`, unless one that ranks no later is
    /// kept already.
    #[cold]
    pub(super) fn pend(&mut self, rank: RuleRank, kind: ErrorKind, at: usize, text: impl FnOnce(&Self) -> String) {
        if self.wants(rank) {
            let text = text(self);
            self.keep(rank, kind, at, None, text);
        }
    }

    #[cold]
    pub(super) fn pend_tensor(
        &mut self,
        rank: RuleRank,
        kind: ErrorKind,
        name: TextExtent,
        text: impl FnOnce(&Self) -> String,
    ) {
        if self.wants(rank) {
            let text = text(self);
            self.keep(rank, kind, name.start.saturating_sub(1), Some(name), text);
        }
    }

    pub(super) fn wants(&mut self, rank: RuleRank) -> bool {
        match &mut self.listener {
            Some(listener) => listener.wants(rank),
            None => self.found.pending.as_ref().is_none_or(|(kept, _)| rank < *kept),
        }
    }

    #[inline(never)]
    pub(super) fn keep(&mut self, rank: RuleRank, kind: ErrorKind, at: usize, name: Option<TextExtent>, text: String) {
        let name = name.map(|name| self.cursor.get(name));
        let error = match name {
            Some(name) => Error::tensor(kind, name, text),
            None => Error::new(kind, text),
        };
        match &mut self.listener {
            Some(listener) => listener.tell(Finding {
                tolerable: rank == RuleRank::UnknownDtype,
                ..Finding::new(error, super::in_file(at), name)
            }),
            None => self.found.pending = Some((rank, error)),
        }
    }

    pub(super) fn pointer(&self, extent: TextExtent) -> *const u8 {
        self.origin.wrapping_add(extent.start)
    }
}
