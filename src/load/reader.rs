// SPDX-License-Identifier: Apache-2.0
//! One thread's way to the bytes of the files: through the page cache, past
//! it, from memory, or from a callback.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fs::File;

use super::budget::{MemoryBudget, STRAIGHT, STRAIGHT_TO_SINK};
use super::destination::scratch_for;
use super::errors::{fault, stopped};
use super::options::Io;
use super::shared::LoadState;
use crate::base::extent::Extent;
use crate::base::memory::Aligned;
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::error::Result;
use crate::source::scatter::{self, Run};
use crate::source::{self, FileRef, Probe, Source, BLOCK};

/// Through the page cache: read so much, and work on it while it is in the
/// processor's. A multiple of 24, as all cuts.
const CACHED_STEP: u64 = 384 << 10;
/// Of a direct read, two blocks may be wanted in part only.
pub(super) const TWO_BLOCKS: u64 = 8192;
const FILE_BLOCK: u64 = BLOCK as u64;
/// Reads below this size are not worth going past the page cache.
const DIRECT_FROM: u64 = 64 << 10;

pub(super) struct Reader<'a, 's> {
    checkpoint: &'a Checkpoint,
    io: Io,
    drop_cache: bool,
    open: Option<Open<'a, 's>>,
    /// What is read into where bytes do not go straight to their place.
    pub(super) stage: Option<Aligned>,
    window: usize,
    /// The load that it reads for, which may end at any time.
    shared: Option<&'s LoadState<'a>>,
}

/// The shard at hand.
struct Open<'a, 's> {
    shard: usize,
    source: &'a Source,
    file: Option<FileRef<'a>>,
    /// Each opened once it is wanted, where it can be.
    direct: OnceCell<Option<File>>,
    probe: OnceCell<Option<Probe>>,
    shared: Option<&'s LoadState<'a>>,
}

/// How the bytes of a request are read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ReadWay {
    Cached,
    Direct,
    /// By a callback of the caller's: few and large.
    Called,
    /// Out of the mapping.
    Mapped,
}

impl ReadWay {
    /// Where it does not depend on the file.
    pub(super) fn of(source: &Source) -> Self {
        match source.preferred_request() {
            Some(_) => Self::Called,
            None => Self::Cached,
        }
    }

    /// Most bytes of a read straight to where they go.
    pub(super) fn straight(self, budget: &MemoryBudget) -> u64 {
        match self {
            Self::Cached if budget.chunk != 0 => budget.straight.min(STRAIGHT_TO_SINK),
            _ => budget.straight,
        }
    }
}

impl<'a, 's> Reader<'a, 's> {
    /// `window`: bytes of the staging buffer; for files whole blocks.
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        io: Io,
        drop_cache: bool,
        window: usize,
        shared: Option<&'s LoadState<'a>>,
    ) -> Self {
        Self { checkpoint, io, drop_cache, open: None, stage: None, window, shared }
    }

    fn open(&mut self, shard: usize) -> Result<&mut Open<'a, 's>> {
        let open = match self.open.take().filter(|open| open.shard == shard) {
            Some(open) => open,
            None => {
                let source = self.checkpoint.source(shard)?;
                let shared = self.shared;
                Open { shard, source, file: source.as_file()?, direct: OnceCell::new(), probe: OnceCell::new(), shared }
            }
        };
        Ok(self.open.insert(open))
    }

    /// How these bytes are best read.
    pub(super) fn way(&mut self, shard: usize, bytes: Extent) -> Result<ReadWay> {
        let io = self.io;
        let open = self.open(shard)?;
        if io == Io::Mapped && open.source.mapped().is_some() {
            return Ok(ReadWay::Mapped);
        }
        let Some(file) = open.file.as_deref() else { return Ok(ReadWay::of(open.source)) };
        let wanted = match io {
            Io::Cached => false,
            Io::Direct => true,
            // Two bytes tell of the rest: the cache is filled in long stretches.
            Io::Auto | Io::Mapped if bytes.len >= DIRECT_FROM => {
                let local = || source::is_local(file).then(|| Probe::new(file)).flatten();
                let finds = |probe: &Probe| probe.finds(bytes.start) && probe.finds(bytes.after(bytes.len / 2).start);
                open.probe.get_or_init(local).as_ref().is_some_and(|probe| !finds(probe))
            }
            Io::Auto | Io::Mapped => false,
        };
        if wanted && open.direct.get_or_init(|| source::open_direct(file)).is_some() {
            return Ok(ReadWay::Direct);
        }
        Ok(ReadWay::Cached)
    }

    /// Most bytes that `window` gives at once.
    pub(super) fn step(&self, way: ReadWay) -> u64 {
        let room = (self.window as u64).saturating_sub(TWO_BLOCKS);
        match way {
            ReadWay::Cached | ReadWay::Mapped => room.min(CACHED_STEP),
            ReadWay::Direct => room,
            ReadWay::Called => self.window as u64,
        }
    }

    /// Fills `out` from `offset` on.
    pub(super) fn read(&mut self, shard: usize, offset: u64, out: &mut [u8], way: ReadWay) -> Result<()> {
        match way {
            ReadWay::Cached | ReadWay::Called => return self.open(shard)?.read(offset, out),
            ReadWay::Mapped => {
                let bytes = Extent::new(offset, out.len() as u64);
                return convert::copy_far(self.window(shard, bytes, way)?, out);
            }
            ReadWay::Direct => {}
        }
        // Where file and memory happen to agree, blocks go straight to their place.
        let agree = offset.is_multiple_of(FILE_BLOCK) && out.as_ptr().align_offset(BLOCK) == 0;
        let whole = if agree { out.len().saturating_sub(out.len() % BLOCK) } else { 0 };
        let (blocks, mut rest) = out.split_at_mut_checked(whole).ok_or_else(fault)?;
        if whole != 0 {
            self.open(shard)?.read_direct(offset, blocks, whole)?;
        }
        let mut at = offset.saturating_add(whole as u64);
        while !rest.is_empty() {
            // Up to the end of a block, so that none is read twice.
            let into = usize::try_from(at % FILE_BLOCK).unwrap_or_default();
            let len = self.window.saturating_sub(into).min(rest.len());
            let (now, later) = rest.split_at_mut_checked(len).ok_or_else(fault)?;
            now.copy_from_slice(self.window(shard, Extent::new(at, len as u64), way)?);
            at = at.saturating_add(len as u64);
            rest = later;
        }
        Ok(())
    }

    /// Bytes of the file, in the staging buffer or where they are already.
    pub(super) fn window(&mut self, shard: usize, bytes: Extent, way: ReadWay) -> Result<&[u8]> {
        let (offset, len) = (bytes.start, usize::try_from(bytes.len).map_err(|_| fault())?);
        let room = self.window;
        self.open(shard)?;
        let Some(open) = &self.open else { return Err(fault()) };
        let memory = if way == ReadWay::Mapped { open.source.mapped() } else { open.source.callers_memory() };
        if let Some(memory) = memory {
            return found_in(memory, bytes);
        }
        let needed = if way == ReadWay::Direct { len.saturating_add(2 * BLOCK) } else { len };
        let stage = scratch_for(&mut self.stage, needed, room)?;
        match way {
            ReadWay::Cached | ReadWay::Called | ReadWay::Mapped => {
                let stage = stage.get_mut(..len).ok_or_else(fault)?;
                open.read(offset, stage)?;
                Ok(stage)
            }
            ReadWay::Direct => {
                let into = usize::try_from(offset % FILE_BLOCK).unwrap_or_default();
                let end = into.saturating_add(len);
                let blocks = stage.get_mut(..end.next_multiple_of(BLOCK)).ok_or_else(fault)?;
                open.read_direct(offset.saturating_sub(into as u64), blocks, end)?;
                blocks.get(into..end).ok_or_else(fault)
            }
        }
    }

    /// Bytes where they lie in memory, if they do and may be touched there.
    pub(super) fn lying(&mut self, shard: usize, bytes: Extent) -> Result<Option<&'a [u8]>> {
        let io = self.io;
        let source = self.open(shard)?.source;
        let memory = if io == Io::Mapped { source.mapped() } else { source.callers_memory() };
        memory.map(|memory| found_in(memory, bytes)).transpose()
    }

    /// Reads runs to their places, in the order of their offsets.
    pub(super) fn scatter(
        &mut self,
        shard: usize,
        runs: &mut [Run<'_>],
        widest_gap: u64,
        goes_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let file = self.open(shard)?.file.as_deref().ok_or_else(fault)?;
        scatter::read(file, runs, widest_gap, goes_on)
    }

    /// The widest gap between runs of `run` bytes that is read over, where 0 or `max_gap` was
    /// asked for.
    pub(super) fn widest_gap(&mut self, shard: usize, max_gap: u64, run: u64) -> Result<u64> {
        let io = self.io;
        let source = self.open(shard)?.source;
        Ok(match max_gap {
            _ if io == Io::Mapped && source.mapped().is_some() => u64::MAX,
            0 => source.widest_gap(run),
            given => given,
        })
    }

    /// The most that a request has.
    pub(super) fn most(&mut self, shard: usize) -> Result<u64> {
        Ok(self.open(shard)?.source.preferred_request().unwrap_or(u64::MAX))
    }

    /// How much of `len` bytes is read at once where nothing but their place matters.
    pub(super) fn largest(&mut self, shard: usize, len: usize) -> Result<usize> {
        let most = self.most(shard)?;
        let share = (len as u64).div_ceil((len as u64).div_ceil(most.min(STRAIGHT)).max(1));
        usize::try_from(share).map_err(|_| fault())
    }

    /// These bytes of the file are dealt with.
    pub(super) fn done(&mut self, shard: usize, bytes: Extent) {
        let open = self.open.as_ref().filter(|open| self.drop_cache && open.shard == shard);
        if let Some(file) = open.and_then(|open| open.file.as_deref()) {
            source::drop_cached(file, bytes.start, bytes.len);
        }
    }
}

/// These bytes of all that there are.
fn found_in(memory: &[u8], bytes: Extent) -> Result<&[u8]> {
    let start = usize::try_from(bytes.start).ok().and_then(|start| memory.get(start..));
    start.and_then(|there| there.get(..usize::try_from(bytes.len).ok()?)).ok_or_else(fault)
}

impl Open<'_, '_> {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match &self.file {
            Some(file) => source::read_exact(file, offset, out),
            None => self.source.read_while(offset, out, &|| match self.shared {
                Some(shared) if shared.stopped() => Err(stopped()),
                _ => Ok(()),
            }),
        }
    }

    /// Whole blocks, of which the first `needed` bytes have to be there.
    fn read_direct(&self, offset: u64, blocks: &mut [u8], needed: usize) -> Result<()> {
        if let Some(Some(direct)) = self.direct.get() {
            if source::read_blocks(direct, offset, blocks, needed)? {
                return Ok(());
            }
        }
        self.read(offset, blocks.get_mut(..needed).ok_or_else(fault)?)
    }
}
