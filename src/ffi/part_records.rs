// SPDX-License-Identifier: Apache-2.0
//! The parts of ranks as C sees them.

use std::ptr;

use super::plan_subject::SubjectTensors;
use crate::base::memory;
use crate::base::numbering::Numbering;
use crate::error::Result;
use crate::model::rank_plan::RankParts;
use crate::part::{st_interval, st_part};

/// The parts that have been asked for, by places on axes. What they point to stays where it is.
#[derive(Default)]
pub(super) struct PartCache {
    pub(super) places: Numbering,
    pub(super) records: Vec<PartRecords>,
}

/// One rank's parts, as C sees them.
pub(super) struct PartRecords {
    parts: Vec<st_part>,
    /// What the parts point into.
    _layouts: RankParts,
    _pointers: Vec<Pointers>,
}

/// Of a layout, what C wants in arrays of its own.
struct Pointers {
    intervals: Vec<*const st_interval>,
    counts: Vec<usize>,
}

// SAFETY: all pointers lead to memory that it owns or that is the checkpoint's,
// which nobody writes.
unsafe impl Send for PartRecords {}
// SAFETY: as above.
unsafe impl Sync for PartRecords {}

/// What arrays of nothing begin at.
static NOTHING: st_interval = st_interval { start: 0, stop: 0, zeros: 0, skip: 0 };

impl PartRecords {
    pub(super) fn new(parts: RankParts, view: &SubjectTensors<'_>) -> Result<Self> {
        let mut pointers = memory::vec_with_capacity(parts.layouts.len(), "parts")?;
        for layout in &parts.layouts {
            let pieces = || layout.pieces.iter().map(Option::as_deref);
            let first = |pieces: Option<&[st_interval]>| match pieces {
                None => ptr::null(),
                Some([]) => &raw const NOTHING,
                Some(pieces) => pieces.as_ptr(),
            };
            let mut intervals = memory::vec_with_capacity(layout.pieces.len(), "parts")?;
            intervals.extend(pieces().map(first));
            let mut counts = memory::vec_with_capacity(layout.pieces.len(), "parts")?;
            counts.extend(pieces().map(|pieces| pieces.map_or(0, <[_]>::len)));
            pointers.push(Pointers { intervals, counts });
        }
        let mut records = memory::vec_with_capacity(parts.parts.len(), "parts")?;
        for (tensor, layout) in &parts.parts {
            let found = (view.of(*tensor), parts.layouts.get(*layout), pointers.get(*layout));
            let (Some((tensor, group)), Some(layout), Some(Pointers { intervals, counts })) = found else { continue };
            records.push(st_part {
                tensor,
                group,
                rank: layout.shape.len(),
                shape: layout.shape.as_ptr(),
                intervals: intervals.as_ptr(),
                interval_counts: counts.as_ptr(),
                size: layout.size,
                read_size: layout.read_size,
                reserved: [0; 4],
            });
        }
        Ok(Self { parts: records, _layouts: parts, _pointers: pointers })
    }

    pub(super) fn array(&self) -> (*const st_part, usize) {
        match self.parts.as_slice() {
            [] => ((&raw const NOTHING).cast(), 0),
            parts => (parts.as_ptr(), parts.len()),
        }
    }
}
