// SPDX-License-Identifier: Apache-2.0
//! From a selection to reads, in file order: what touches is one read, and small
//! gaps are read over.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::selection::{IndexRun, ReadReach, Selection};

/// The reads that fetch a selection. Each yields one piece of the result, with
/// the zeros before and after it.
pub(crate) struct Reads {
    selection: Arc<Selection>,
    widest_gap: u64,
    window: u64,
    /// Where the outer levels stand; what is inside the last of them is fetched together.
    outer: Vec<LevelPosition>,
    over: bool,
    /// What was found with the last read: the run it is of and the zeros after that.
    later: [Option<SliceRead>; 2],
}

/// Where one level stands: a place in its order of pieces, and an index in that piece.
#[derive(Clone, Copy, Default)]
struct LevelPosition {
    piece: usize,
    index: u64,
}

/// One read.
#[derive(Clone, Copy)]
pub(crate) struct SliceRead {
    /// Where it begins, in bytes from the tensor's first.
    pub(crate) start: u64,
    /// Bytes to read; 0 where the result is zeros alone.
    pub(crate) size: u64,
    /// Which bytes of the result it yields.
    pub(crate) at: u64,
    pub(crate) picked: u64,
    /// Whether they are just the bytes that are read.
    pub(crate) dense: bool,
}

impl Reads {
    pub(super) fn new(selection: Arc<Selection>, widest_gap: u64, window: u64) -> Self {
        let fits = |reach: &ReadReach| reach.gap <= widest_gap && reach.bytes.len <= window;
        let depth = match fits(&selection.reach) || selection.read_size() == 0 {
            true => 0,
            false => {
                let inner = selection.levels.iter().position(|level| fits(&level.inside));
                inner.map_or(selection.levels.len(), |inner| inner.saturating_add(1))
            }
        };
        let over = selection.size() == 0;
        Self { selection, widest_gap, window, outer: vec![LevelPosition::default(); depth], over, later: [None, None] }
    }

    /// All of it in one read.
    fn whole(&mut self) -> SliceRead {
        self.over = true;
        let selection = &self.selection;
        let size = if selection.read_size() == 0 { 0 } else { selection.span() };
        SliceRead { start: selection.first(), size, at: 0, picked: selection.size(), dense: selection.is_one_piece() }
    }

    /// The piece at which each outer level stands, and whether others of its come
    /// before and after it in the result.
    fn piece(&self, level: usize) -> Option<(IndexRun, u64)> {
        let turn = self.outer.get(level)?;
        let level = self.selection.levels.get(level)?;
        Some((*level.pieces.get(*level.order.get(turn.piece)?)?, turn.index))
    }

    /// Bytes of zeros that come before this place in the result, with nothing between.
    fn zeros_before(&self) -> u64 {
        let mut zeros = 0_u64;
        for (number, level) in self.selection.levels.iter().enumerate().take(self.outer.len()).rev() {
            let Some((piece, index)) = self.piece(number) else { break };
            let first = level.pieces.first().map_or(0, |first| if first.count == 0 { first.zeros } else { 0 });
            if index != 0 || piece.at != first {
                break;
            }
            zeros = zeros.saturating_add(level.bytes(first));
        }
        zeros
    }

    /// Bytes of zeros that come after the index `last` of the innermost outer level.
    fn zeros_after(&self, last: u64) -> u64 {
        let mut zeros = 0_u64;
        let innermost = self.outer.len().saturating_sub(1);
        for (number, level) in self.selection.levels.iter().enumerate().take(self.outer.len()).rev() {
            let Some((piece, index)) = self.piece(number) else { break };
            let index = if number == innermost { last } else { index };
            if index.saturating_add(1) < piece.count {
                break;
            }
            zeros = zeros.saturating_add(level.bytes(piece.zeros));
            if level.pieces.last().is_some_and(|end| end.at != piece.at) {
                break;
            }
        }
        zeros
    }

    /// Goes on by `count` indices of the innermost outer level.
    fn advance(&mut self, count: u64) {
        let mut count = count;
        let levels = self.selection.levels.iter().take(self.outer.len());
        for (turn, level) in self.outer.iter_mut().zip(levels).rev() {
            turn.index = turn.index.saturating_add(count);
            let piece = level.order.get(turn.piece).and_then(|piece| level.pieces.get(*piece));
            if piece.is_some_and(|piece| turn.index < piece.count) {
                return;
            }
            (turn.piece, turn.index) = (turn.piece.saturating_add(1), 0);
            if turn.piece < level.order.len() {
                return;
            }
            *turn = LevelPosition::default();
            count = 1;
        }
        self.over = true;
    }
}

impl Iterator for Reads {
    type Item = SliceRead;

    fn next(&mut self) -> Option<SliceRead> {
        let later = self.later.iter_mut().find_map(Option::take);
        if later.is_some() || self.over {
            return later;
        }
        if self.outer.is_empty() {
            return Some(self.whole());
        }
        let (mut start, mut at) = (self.selection.base, 0_u64);
        for (number, level) in self.selection.levels.iter().enumerate().take(self.outer.len()) {
            let (piece, index) = self.piece(number)?;
            start = start.saturating_add(level.offset(piece.start.saturating_add(index)));
            at = at.saturating_add(level.bytes(piece.at.saturating_add(index)));
        }
        let innermost = self.outer.len().checked_sub(1)?;
        let level = self.selection.levels.get(innermost)?;
        let (piece, index) = self.piece(innermost)?;
        let inside = level.inside;
        // Indices that touch are one read of any size; with gaps between them it
        // is bounded, as it has to go through other memory.
        let touches = level.gap() == 0 && inside.gap == 0 && self.outer.len() == self.selection.levels.len();
        let most = if touches { u64::MAX } else { level.together(self.widest_gap, self.window) };
        let count = piece.count.saturating_sub(index).min(most);
        let last = index.saturating_add(count).saturating_sub(1);
        let (before, after) = (self.zeros_before(), self.zeros_after(last));
        let run = self.outer.len() == self.selection.levels.len() && (touches || count == 1);
        let read = SliceRead {
            start: start.saturating_add(inside.bytes.start),
            size: level.span(count),
            at: at.saturating_sub(before),
            picked: level.bytes(count).saturating_add(before).saturating_add(after),
            dense: before == 0 && after == 0 && run,
        };
        self.advance(count);
        if read.dense || !run || read.size <= self.window.min(LARGE) {
            return Some(read);
        }
        // The run goes straight to its place, and the zeros apart from it.
        let zeros = |at: u64, picked: u64| SliceRead { size: 0, at, picked, dense: false, ..read };
        let last = (after != 0).then(|| zeros(read.at.saturating_add(read.picked).saturating_sub(after), after));
        let run = SliceRead { at, picked: read.size, dense: true, ..read };
        if before == 0 {
            self.later = [last, None];
            return Some(run);
        }
        self.later = [Some(run), last];
        Some(zeros(read.at, before))
    }
}

/// Runs from this size on are not read together with others.
const LARGE: u64 = 64 << 10;
