// SPDX-License-Identifier: Apache-2.0
//! A quantised group as an item: which boxes of it are decoded for which part
//! of the result.
#![forbid(unsafe_code)]

use super::assembly::{Assembly, Rows, Span};
use super::errors::fault;
use super::item::Origin;
use crate::base::memory;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::slice::{picks, pieces, IndexRun};
use crate::part::Interval;

pub(super) struct Boxes<'a> {
    pub(super) group: &'a dyn Assembly,
    pub(super) to: Dtype,
    /// Bytes of the result.
    pub(super) size: u64,
    /// Outermost first; at least one.
    dims: Vec<Dim>,
}

/// Decodes one box.
type Decode<'d> = &'d mut dyn FnMut(&[Span], &mut dyn Rows) -> Result<()>;

/// What is taken of one dimension.
struct Dim {
    pieces: Vec<IndexRun>,
    count: u64,
    block: u64,
}

/// Rows and columns of the result, all dimensions but the last taken as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) row: u64,
    pub(super) rows: u64,
    pub(super) column: u64,
    pub(super) columns: u64,
}

impl<'a> Boxes<'a> {
    pub(super) fn new(group: &'a dyn Assembly, of: &Origin<'a>, dtype: Option<Dtype>) -> Result<Self> {
        let refuse = |kind, text: String| Err(Error::tensor(kind, group.name(), text));
        let to = match dtype {
            Some(to @ (Dtype::F32 | Dtype::F16 | Dtype::Bf16)) => to,
            other => {
                let name = other.map_or("as stored", Dtype::name);
                let text = format!("a group is decoded to F32, F16 or BF16, not {name}");
                return refuse(ErrorKind::Unsupported, text);
            }
        };
        let shape = group.shape();
        let mut dims = memory::vec_with_capacity(shape.len().max(1), "a group's dimensions")?;
        let mut add = |dimension: usize, whole: i64, pieces: Vec<IndexRun>| {
            let step = group.step().get(dimension).and_then(|step| u64::try_from(*step).ok()).unwrap_or(1).max(1);
            let size = u64::try_from(whole).unwrap_or_default();
            for IndexRun { start, count, .. } in &pieces {
                let stop = start.saturating_add(*count);
                let on = |cut: u64| cut.is_multiple_of(step) || cut == size;
                if !on(*start) || !on(stop) {
                    let text = format!(
                        "dimension {dimension} (size {size}): {start} to {stop} is not cut at multiples of its step {step}"
                    );
                    return Err(Error::tensor(ErrorKind::InvalidArgument, group.name(), text));
                }
            }
            let last = pieces.last().map_or(0, |last| last.at.saturating_add(last.count).saturating_add(last.zeros));
            let block = group.block().get(dimension).and_then(|block| u64::try_from(*block).ok()).unwrap_or(1).max(1);
            dims.push(Dim { pieces, count: last, block });
            Ok(())
        };
        match of {
            Origin::Group(_, ranges) => {
                for (dimension, pick) in picks(shape, group.name(), ranges)?.enumerate() {
                    let pick = pick?;
                    if pick.step != 1 && pick.count > 1 {
                        let text =
                            format!("dimension {dimension}: a group has no steps other than 1, not {}", pick.step);
                        return refuse(ErrorKind::InvalidArgument, text);
                    }
                    let whole = i64::try_from(pick.size).unwrap_or(i64::MAX);
                    add(dimension, whole, vec![IndexRun { start: pick.start, count: pick.count, zeros: 0, at: 0 }])?;
                }
            }
            Origin::GroupLists(_, lists) => {
                if lists.len() != shape.len() {
                    let text = format!("{} interval lists were given for its {} dimensions", lists.len(), shape.len());
                    return refuse(ErrorKind::InvalidArgument, text);
                }
                for (dimension, (size, list)) in shape.iter().zip(*lists).enumerate() {
                    let all = [Interval { stop: *size, ..Interval::default() }];
                    let found = pieces(list.unwrap_or(&all), u64::try_from(*size).unwrap_or_default());
                    let found = found.map_err(|fault| {
                        let text = format!("dimension {dimension} (size {size}): {fault}");
                        Error::tensor(ErrorKind::InvalidArgument, group.name(), text)
                    })?;
                    add(dimension, *size, found)?;
                }
            }
            Origin::Ranges(..) | Origin::Lists(..) => {}
        }
        if dims.is_empty() {
            dims.push(Dim { pieces: vec![IndexRun { start: 0, count: 1, zeros: 0, at: 0 }], count: 1, block: 1 });
        }
        let mut size = u64::from(to.bits() / 8);
        for dim in &dims {
            let Some(grown) = size.checked_mul(dim.count) else {
                let error = Error::beyond_memory(&"its part");
                return refuse(error.kind(), error.message(usize::MAX));
            };
            size = grown;
        }
        Ok(Self { group, to, size, dims })
    }

    /// Sizes of the result's dimensions.
    pub(super) fn shape(&self) -> Result<Vec<i64>> {
        let sizes = self.dims.iter().map(|dim| Ok(i64::try_from(dim.count).unwrap_or(i64::MAX)));
        let rank = self.group.shape().len();
        memory::collect(sizes.take(rank), rank, "a shape")
    }

    pub(super) fn columns(&self) -> u64 {
        self.dims.last().map_or(1, |dim| dim.count)
    }

    pub(super) fn rows(&self) -> u64 {
        let leading = self.dims.split_last().map_or(&[][..], |(_, leading)| leading);
        leading.iter().map(|dim| dim.count).fold(1, u64::saturating_mul)
    }

    fn element(&self) -> u64 {
        u64::from(self.to.bits() / 8).max(1)
    }

    /// The next rectangle after those before `row` and, in its rows, `column`; of
    /// about `room` bytes. `free`: any rectangle will do, not only whole rows or part of one.
    pub(super) fn rect(&self, row: u64, column: u64, room: u64, free: bool) -> Rect {
        let (columns, element) = (self.columns(), self.element());
        let elements = room.checked_div(element).unwrap_or(1).max(1);
        // The rows of one matrix.
        let height = self.dims.iter().rev().nth(1).map_or(1, |dim| dim.count).max(1);
        let block = |nth: usize| self.dims.iter().rev().nth(nth).map_or(1, |dim| dim.block);
        let whole_blocks = |count: u64, block: u64| match count.checked_rem(block) {
            Some(rest) if count > rest => count.saturating_sub(rest),
            _ => count.max(1),
        };
        let rest = height.saturating_sub(row.checked_rem(height).unwrap_or(0));
        if free && self.group.by_columns() {
            let (rows, wide) = self.strip(rest, room);
            let wide = whole_blocks(wide, block(0)).min(columns.saturating_sub(column));
            return Rect { row, rows, column, columns: wide };
        }
        let rows = elements.checked_div(columns).unwrap_or(1);
        if rows == 0 || column != 0 {
            let wide = whole_blocks(elements, block(0)).min(columns.saturating_sub(column));
            return Rect { row, rows: 1, column, columns: wide };
        }
        Rect { row, rows: whole_blocks(rows, block(1)).min(rest), column: 0, columns }
    }

    /// Rows and columns of a rectangle where codes of all rows lie in one run: of all of
    /// them, if some hundred columns of that fit into twice the room.
    fn strip(&self, rows: u64, room: u64) -> (u64, u64) {
        /// A KiB of BF16, below which writing a row's columns takes longer than decoding them.
        const LEAST: u64 = 512;
        let bits = self.group.anchor().size().saturating_mul(8);
        let elements = self.group.shape().iter().filter_map(|size| u64::try_from(*size).ok()).product::<u64>();
        let bits = bits.checked_div(elements).unwrap_or(1).max(1);
        let fit = room.saturating_mul(16).checked_div(bits).unwrap_or(1);
        match fit.checked_div(rows) {
            Some(wide) if wide >= LEAST => (rows, wide),
            // Rows whose words are whole cache lines of the store.
            _ => (fit.checked_div(LEAST).unwrap_or(1).next_multiple_of(128).min(rows), LEAST),
        }
    }

    /// Where the rectangle after this one begins; `None` after the last.
    pub(super) fn after(&self, rect: Rect) -> Option<(u64, u64)> {
        let column = rect.column.saturating_add(rect.columns);
        if column < self.columns() {
            return Some((rect.row, column));
        }
        let row = rect.row.saturating_add(rect.rows);
        (row < self.rows()).then_some((row, 0))
    }

    /// The rectangles that bytes of the dense result are: the rest of a row, whole rows, and
    /// the beginning of one.
    pub(super) fn rects(&self, at: u64, len: u64) -> impl Iterator<Item = Rect> {
        let (columns, element) = (self.columns().max(1), self.element());
        let place = |byte: u64| {
            let number = byte.checked_div(element).unwrap_or(0);
            (number.checked_div(columns).unwrap_or(0), number.checked_rem(columns).unwrap_or(0))
        };
        let ((row, column), (end, last)) = (place(at), place(at.saturating_add(len)));
        let part = |row, column, stop: u64| Rect { row, rows: 1, column, columns: stop.saturating_sub(column) };
        let all = if row == end {
            [Some(part(row, column, last)), None, None]
        } else {
            let first = (column != 0).then(|| part(row, column, columns));
            let row = row.saturating_add(u64::from(column != 0));
            let whole = Rect { row, rows: end.saturating_sub(row), column: 0, columns };
            [first, Some(whole), Some(part(end, 0, last))]
        };
        all.into_iter().flatten().filter(|rect| rect.rows != 0 && rect.columns != 0)
    }

    pub(super) fn bytes(&self, rect: Rect) -> u64 {
        rect.rows.saturating_mul(rect.columns).saturating_mul(self.element())
    }

    /// Where a rectangle's row begins in the result.
    pub(super) fn place(&self, row: u64, column: u64) -> u64 {
        row.saturating_mul(self.columns()).saturating_add(column).saturating_mul(self.element())
    }

    /// Decodes a rectangle to `rows`, zeros included; `decode` does one box.
    pub(super) fn fill(&self, rect: Rect, rows: &mut dyn Rows, decode: Decode<'_>) -> Result<()> {
        let (last, leading) = self.dims.split_last().ok_or_else(fault)?;
        let mut spans: Vec<Span> = memory::vec_with_capacity(self.dims.len(), "a box")?;
        let mut row = rect.row;
        let end = rect.row.saturating_add(rect.rows);
        while row < end {
            spans.clear();
            // The index of each leading dimension, from the innermost on.
            let (mut rest, mut count, mut zeros) = (row, end.saturating_sub(row), false);
            for (depth, dim) in leading.iter().rev().enumerate() {
                let index = rest.checked_rem(dim.count).ok_or_else(fault)?;
                rest = rest.checked_div(dim.count).ok_or_else(fault)?;
                let (start, left) = dim.place(index).ok_or_else(fault)?;
                if depth == 0 {
                    count = count.min(left);
                }
                zeros |= start.is_none();
                let start = start.unwrap_or_default();
                let stop = start.saturating_add(if depth == 0 { count } else { 1 });
                spans.push(Span { start, stop });
            }
            if leading.is_empty() {
                count = 1;
            }
            spans.reverse();
            let mut column = rect.column;
            let stop = rect.column.saturating_add(rect.columns);
            while column < stop {
                let (start, left) = last.place(column).ok_or_else(fault)?;
                let columns = left.min(stop.saturating_sub(column));
                let element = self.element();
                let mut part = RowsPart {
                    rows: &mut *rows,
                    row: index(row.saturating_sub(rect.row))?,
                    from: index(column.saturating_sub(rect.column).saturating_mul(element))?,
                    len: index(columns.saturating_mul(element))?,
                };
                match start.filter(|_| !zeros) {
                    Some(start) => {
                        spans.push(Span { start, stop: start.saturating_add(columns) });
                        decode(spans.get(..self.group.shape().len()).unwrap_or_default(), &mut part)?;
                        spans.pop();
                    }
                    None => {
                        for row in 0..index(count)? {
                            part.row(row)?.fill(0);
                        }
                    }
                }
                column = column.saturating_add(columns);
            }
            row = row.saturating_add(count);
        }
        Ok(())
    }
}

impl Dim {
    /// The stored index, `None` where it is a zero, and how many follow it in the same way.
    fn place(&self, index: u64) -> Option<(Option<u64>, u64)> {
        let after = self.pieces.partition_point(|piece| piece.at <= index);
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        let turn = index.checked_sub(piece.at)?;
        match piece.count.checked_sub(turn).filter(|left| *left != 0) {
            Some(left) => Some((piece.start.checked_add(turn), left)),
            None => {
                let end = piece.count.checked_add(piece.zeros)?;
                Some((None, end.checked_sub(turn).filter(|left| *left != 0)?))
            }
        }
    }
}

/// RowsPart of each of some rows.
struct RowsPart<'r> {
    rows: &'r mut dyn Rows,
    row: usize,
    from: usize,
    len: usize,
}

impl Rows for RowsPart<'_> {
    fn row(&mut self, row: usize) -> Result<&mut [u8]> {
        let found = self.rows.row(self.row.checked_add(row).ok_or_else(fault)?)?;
        found.get_mut(self.from..).and_then(|found| found.get_mut(..self.len)).ok_or_else(fault)
    }
}

fn index(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| fault())
}
