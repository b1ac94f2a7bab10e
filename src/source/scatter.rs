// SPDX-License-Identifier: Apache-2.0
//! Runs of a file that lie apart, each read to a place of its own: what lies between
//! is skipped by a call for each run, or read over where that costs less.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use super::{ended, read_exact};
use crate::base::memory;
use crate::error::{Error, Result};

/// A run, and where it goes.
pub(crate) struct Run<'a> {
    pub(crate) offset: u64,
    pub(crate) place: &'a mut [u8],
}

impl Run<'_> {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.place.len() as u64)
    }
}

/// Most places of one call, as the system has it.
const MOST_PLACES: usize = 1024;
/// Nothing wider is read over at all.
const MOST_OVER: usize = 2 << 20;

/// What a call and a place in it cost on this machine, in bytes that are copied in that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallCosts {
    call: u64,
    place: u64,
}

impl CallCosts {
    /// Measured once in a process, in some 50 us, as they differ by more than tenfold: system
    /// calls take 0.2 to 5 us, by mitigations and sandboxes, and a byte 0.03 to 0.2 ns.
    pub(crate) fn of_this_machine() -> Self {
        static FOUND: OnceLock<CallCosts> = OnceLock::new();
        *FOUND.get_or_init(|| match measure() {
            Some(found) => found,
            // Where it can't be measured: a page, which a disk gives anyway.
            None => Self { call: 4 << 10, place: 1 << 10 },
        })
    }

    /// From times, in ns. What is measured is in the processor's own cache; pages of files are
    /// not, and there a call takes 1.4 times as long, a byte twice, a place three times
    /// (Sapphire Rapids: 0.18 us, 0.031 and 21 ns here, 0.25 us, 0.058 and 61 ns there).
    fn of_times(call: f64, byte: f64, place: f64) -> Option<Self> {
        if !(call > 0.0 && byte > 0.0 && place >= 0.0) {
            return None;
        }
        let bytes = |time: f64, least: u64, most: u64| {
            let nearest = (least..most).step_by(512).find(|bytes| time / byte < bytes.saturating_add(256) as f64);
            nearest.unwrap_or(most)
        };
        Some(Self { call: bytes(call * 0.7, 1 << 10, WIDEST), place: bytes(place * 1.5, 512, 4 << 10) })
    }

    /// The widest gap between runs of `run` bytes that is read over, rather than to have a call
    /// for each run. Reading over, small runs are read into memory that stays in the cache and
    /// copied on, which takes half as long as reading them; for large ones the gap takes a
    /// place in the call and the run another.
    pub(crate) fn widest_gap(self, run: u64) -> u64 {
        let on_top = (run / 2).min(self.place.saturating_mul(3) / 2);
        self.call.saturating_sub(on_top).max(512).saturating_sub(1)
    }

    /// Runs from this size on are read straight to their places, gaps and all: copying a
    /// smaller one on takes less time than two places do (the half of 4,096 bytes: 0.33 us a row
    /// by way of staging, 0.37 straight; three quarters: the same; 7,168 of 8,192: 1.2 and 0.7).
    pub(crate) fn places_from(self) -> u64 {
        self.place.saturating_mul(3)
    }
}

/// From this gap on nothing is read over unless that is asked for, whatever a call costs.
const WIDEST: u64 = 32 << 10;

/// The least times of some, from a file that is memory alone: of a call that reads next to
/// nothing, of a byte on top of that, and of a place.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn measure() -> Option<CallCosts> {
    use std::os::fd::FromRawFd;
    use std::time::Instant;
    const LEN: usize = 64 << 10;
    const PLACES: usize = 128;
    let mut room = memory::vec_with_capacity::<u8>(LEN, "a measurement").ok()?;
    room.resize(LEN, 1);
    // By number, as glibc before 2.27 has no function for it.
    // SAFETY: the name is a string, and what comes back is a descriptor of ours.
    let file = unsafe {
        let file = libc::syscall(libc::SYS_memfd_create, c"safetensors".as_ptr(), libc::MFD_CLOEXEC);
        File::from_raw_fd(libc::c_int::try_from(file).ok().filter(|file| *file >= 0)?)
    };
    std::os::unix::fs::FileExt::write_all_at(&file, &room, 0).ok()?;
    // By number as well: tests count the functions that a load calls.
    let least = |places: &[libc::iovec]| {
        let whole = places.iter().map(|place| place.iov_len).sum::<usize>();
        let time = |_| {
            let start = Instant::now();
            // SAFETY: each place is a part of `room`, which nobody else looks at meanwhile. The
            // offset's other half would be in a fifth argument where it needs two.
            let done =
                unsafe { libc::syscall(libc::SYS_preadv, file.as_raw_fd(), places.as_ptr(), places.len(), 0, 0) };
            (usize::try_from(done) == Ok(whole)).then(|| start.elapsed().as_nanos() as f64)
        };
        (0..8).filter_map(time).min_by(f64::total_cmp)
    };
    let place = |room: &mut [u8]| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let (one, all) = (place(room.get_mut(..1)?), place(&mut room));
    let mut many = memory::vec_with_capacity(PLACES, "a measurement").ok()?;
    many.extend(room.chunks_mut(LEN / PLACES).map(place));
    let (call, all, many) = (least(&[one])?, least(&[all])?, least(&many)?);
    CallCosts::of_times(call, (all - call) / LEN as f64, (many - all) / (PLACES - 1) as f64)
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn measure() -> Option<CallCosts> {
    None
}

/// How many calls [`read`] takes for runs of these offsets and sizes, in this order, and
/// how many bytes, if none comes back short.
pub(crate) fn calls(runs: impl Iterator<Item = (u64, u64)>, widest_gap: u64) -> (u64, u64) {
    let (mut calls, mut bytes, mut places, mut end) = (0_u64, 0_u64, 0_usize, None);
    for (offset, len) in runs {
        let gap = end.and_then(|end| offset.checked_sub(end)).filter(|gap| joins(*gap, widest_gap, places));
        (calls, places) = match gap {
            Some(gap) => (calls, places.saturating_add(1).saturating_add(usize::from(gap != 0))),
            None => (calls.saturating_add(1), 1),
        };
        bytes = bytes.saturating_add(gap.unwrap_or(0)).saturating_add(len);
        end = Some(offset.saturating_add(len));
    }
    (calls, bytes)
}

fn joins(gap: u64, widest_gap: u64, places: usize) -> bool {
    gap <= widest_gap.min(MOST_OVER as u64) && places.saturating_add(2) <= MOST_PLACES
}

/// Reads runs, in the order of their offsets, over gaps of up to `widest_gap` bytes.
/// `goes_on` is asked before each call.
///
/// # Errors
/// What the system or `goes_on` said.
pub(crate) fn read(
    file: &File,
    runs: &mut [Run<'_>],
    widest_gap: u64,
    goes_on: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let most = usize::try_from(widest_gap).unwrap_or(usize::MAX).min(MOST_OVER);
    let mut places = Places { list: Vec::new(), most, over: Vec::new() };
    let mut rest = runs;
    while let [first, others @ ..] = rest {
        let (mut end, mut taken, mut listed) = (first.end(), 1_usize, 1_usize);
        for run in &*others {
            let gap = run.offset.checked_sub(end).filter(|gap| joins(*gap, widest_gap, listed));
            let Some(gap) = gap else { break };
            (end, taken) = (run.end(), taken.saturating_add(1));
            listed = listed.saturating_add(1).saturating_add(usize::from(gap != 0));
        }
        goes_on()?;
        let (now, later) = rest.split_at_mut_checked(taken).unwrap_or_default();
        match now {
            [run] => read_exact(file, run.offset, run.place)?,
            _ => places.fill(file, now)?,
        }
        rest = later;
    }
    Ok(())
}

/// Places for one call, and what gaps are read into.
struct Places {
    list: Vec<libc::iovec>,
    /// Bytes of the widest gap.
    most: usize,
    /// Never moved, as the list points into it.
    over: Vec<u8>,
}

impl Places {
    /// Fills the places of all runs by one call, or by more where it comes back short.
    fn fill(&mut self, file: &File, runs: &mut [Run<'_>]) -> Result<()> {
        self.list.clear();
        let start = runs.first().map_or(0, |run| run.offset);
        let mut end = start;
        for run in runs {
            self.add(run.offset.saturating_sub(end), run.place)?;
            end = run.end();
        }
        self.read(file, start, end)
    }

    fn add(&mut self, gap: u64, place: &mut [u8]) -> Result<()> {
        memory::reserve(&mut self.list, 2, "places of a read")?;
        if gap != 0 {
            if self.over.is_empty() {
                memory::reserve(&mut self.over, self.most, "what is read over")?;
                self.over.resize(self.most, 0);
            }
            // Never more than that: `joins` says so.
            let len = usize::try_from(gap).unwrap_or(usize::MAX).min(self.over.len());
            self.list.push(libc::iovec { iov_base: self.over.as_mut_ptr().cast(), iov_len: len });
        }
        self.list.push(libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() });
        Ok(())
    }

    /// Reads from `offset` to `end`.
    fn read(&mut self, file: &File, mut offset: u64, end: u64) -> Result<()> {
        let mut first = 0_usize;
        while let Some(list) = self.list.get(first..).filter(|list| !list.is_empty()) {
            let at = libc::off_t::try_from(offset).map_err(|_| ended(offset, 0, end))?;
            let count = libc::c_int::try_from(list.len()).unwrap_or(libc::c_int::MAX);
            // SAFETY: each place is memory that `read` borrows mutably for as long, or
            // `over`, which nobody looks at.
            let done = unsafe { libc::preadv(file.as_raw_fd(), list.as_ptr(), count, at) };
            let left = end.saturating_sub(offset);
            let Ok(done) = usize::try_from(done) else {
                let error = std::io::Error::last_os_error();
                match error.kind() {
                    std::io::ErrorKind::Interrupted => continue,
                    _ => return Err(Error::os(format!("reading {left} bytes at {offset}"), &error)),
                }
            };
            if done == 0 {
                let size = file.metadata().map_or(offset, |metadata| metadata.len().min(offset));
                return Err(ended(offset, usize::try_from(left).unwrap_or(usize::MAX), size));
            }
            offset = offset.saturating_add(done as u64);
            first = first.saturating_add(self.advance(first, done));
        }
        Ok(())
    }

    /// Takes bytes that have come off the places from `first` on; how many of them are full.
    fn advance(&mut self, first: usize, mut done: usize) -> usize {
        let mut full = 0_usize;
        for place in self.list.get_mut(first..).unwrap_or_default() {
            let now = place.iov_len.min(done);
            place.iov_base = place.iov_base.wrapping_byte_add(now);
            place.iov_len = place.iov_len.saturating_sub(now);
            done = done.saturating_sub(now);
            if place.iov_len != 0 {
                break;
            }
            full = full.saturating_add(1);
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_call_is_worth_some_bytes_and_always_the_same() {
        let found = CallCosts::of_this_machine();
        assert!((1 << 10..=WIDEST).contains(&found.call), "{found:?}");
        assert!((512..=4 << 10).contains(&found.place), "{found:?}");
        assert_eq!(found, CallCosts::of_this_machine());
    }

    #[test]
    fn the_widest_gap_follows_from_what_is_measured() {
        // Sapphire Rapids: gaps of 4096 bytes are skipped, of 2048 read over, whatever the run.
        let fast = CallCosts::of_times(180.0, 0.031, 21.0).unwrap();
        assert_eq!(fast, CallCosts { call: 4096, place: 1024 });
        assert!([64, 512, 2048, 1 << 20].iter().all(|run| (2048..4096).contains(&fast.widest_gap(*run))));
        // Calls of 0.7 us: half of a row of 8 KiB is read over.
        let slow = CallCosts::of_times(700.0, 0.06, 25.0).unwrap();
        assert!(slow.widest_gap(4096) >= 4096 && slow.places_from() <= 4096, "{slow:?}");
        // A sandbox: up to the limit.
        let sandboxed = CallCosts::of_times(5000.0, 0.06, 25.0).unwrap();
        assert_eq!(sandboxed.call, WIDEST);
        // A clock that stands still, or runs backwards, measures nothing.
        assert_eq!(CallCosts::of_times(0.0, 0.0, 0.0), None);
        assert_eq!(CallCosts::of_times(180.0, -0.1, 21.0), None);
    }

    #[test]
    fn runs_come_to_their_places_whatever_lies_between() {
        let bytes: Vec<u8> = (0..400_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        for (stride, len, widest) in [(100, 60, 64), (100, 60, 10), (100, 100, 0), (5000, 9, 4096), (90_000, 80_000, 0)]
        {
            let starts: Vec<_> = (0..bytes.len() - len).step_by(stride).collect();
            let mut room = vec![0; starts.len() * len];
            let mut runs: Vec<_> =
                room.chunks_mut(len).zip(&starts).map(|(place, start)| Run { offset: *start as u64, place }).collect();
            let mut calls_made = 0;
            read(&file, &mut runs, widest, &mut || {
                calls_made += 1;
                Ok(())
            })
            .unwrap();
            let (expected, _) = calls(starts.iter().map(|start| (*start as u64, len as u64)), widest);
            assert_eq!(calls_made, expected, "{stride}, {len}");
            assert!(room.chunks(len).zip(&starts).all(|(place, start)| place == &bytes[*start..][..len]));
        }
        let mut place = [0; 10];
        let mut other = [0; 10];
        let mut runs = [Run { offset: 399_980, place: &mut place }, Run { offset: 399_995, place: &mut other }];
        let error = read(&file, &mut runs, 64, &mut || Ok(())).unwrap_err();
        assert!(error.to_string().contains("the file ends at 400000"), "{error}");
    }
}
