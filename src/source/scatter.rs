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
/// From this gap on nothing is read over unless that is asked for, whatever a call costs.
const WIDEST: usize = 32 << 10;
/// Nor from this one on at all.
const MOST_OVER: usize = 2 << 20;

/// Up to how many bytes are better read over than skipped by one more call, on this
/// machine: what is copied in the time of a call, as a power of two.
///
/// Measured once in a process, in some 50 us, as it differs by more than tenfold: system
/// calls take 0.2 to 5 us, by mitigations and sandboxes. (Calls and bytes of pages that are
/// in no cache take 2.5 and 4 times as long as those measured here, hence the two thirds.)
pub(crate) fn bytes_in_a_call() -> u64 {
    static FOUND: OnceLock<u64> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let found = measure().map(|(call, byte)| call * 2.0 / 3.0 / byte);
        // 4 KiB where it can't be measured: a page, which a disk gives anyway.
        match found.filter(|bytes| bytes.is_finite()) {
            None => 4 << 10,
            Some(bytes) => [1_u64 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10]
                .into_iter()
                .find(|size| bytes < *size as f64 * std::f64::consts::SQRT_2)
                .unwrap_or(WIDEST as u64),
        }
    })
}

/// Nanoseconds of a call that reads next to nothing, and of a byte on top of that:
/// the least of some, from a file that is memory alone.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn measure() -> Option<(f64, f64)> {
    use std::os::fd::FromRawFd;
    use std::time::Instant;
    let mut room = memory::vec_with_capacity::<u8>(64 << 10, "a measurement").ok()?;
    room.resize(64 << 10, 1);
    // By number, as glibc before 2.27 has no function for it.
    // SAFETY: the name is a string, and what comes back is a descriptor of ours.
    let file = unsafe {
        let file = libc::syscall(libc::SYS_memfd_create, c"safetensors".as_ptr(), libc::MFD_CLOEXEC);
        File::from_raw_fd(libc::c_int::try_from(file).ok().filter(|file| *file >= 0)?)
    };
    std::os::unix::fs::FileExt::write_all_at(&file, &room, 0).ok()?;
    let mut least = |len: usize| {
        let time = |_| {
            let start = Instant::now();
            // SAFETY: reads at most as many bytes as there is room for.
            let done = unsafe { libc::syscall(libc::SYS_pread64, file.as_raw_fd(), room.as_mut_ptr(), len, 0) };
            (usize::try_from(done) == Ok(len)).then(|| start.elapsed().as_nanos() as f64)
        };
        (0..8).filter_map(time).min_by(f64::total_cmp)
    };
    let (call, all) = (least(1)?, least(64 << 10)?);
    Some((call, (all - call) / f64::from(64 << 10))).filter(|(call, byte)| *call > 0.0 && *byte > 0.0)
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn measure() -> Option<(f64, f64)> {
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
    while !rest.is_empty() {
        places.list.clear();
        let (mut start, mut end) = (None, 0);
        let mut taken = 0_usize;
        for run in rest.iter_mut() {
            let gap = match start {
                None => 0,
                Some(_) => match run.offset.checked_sub(end).filter(|gap| joins(*gap, widest_gap, places.list.len())) {
                    Some(gap) => gap,
                    None => break,
                },
            };
            start.get_or_insert(run.offset);
            places.add(gap, run.place)?;
            end = run.end();
            taken = taken.saturating_add(1);
        }
        goes_on()?;
        let (now, later) = rest.split_at_mut(taken.max(1));
        match now {
            [run] => read_exact(file, run.offset, run.place)?,
            _ => places.fill(file, start.unwrap_or(0), end)?,
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

    /// Fills all of them from `offset` to `end`.
    fn fill(&mut self, file: &File, mut offset: u64, end: u64) -> Result<()> {
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
        let found = bytes_in_a_call();
        assert!(found.is_power_of_two() && (1 << 10..=WIDEST as u64).contains(&found), "{found}");
        assert_eq!(found, bytes_in_a_call());
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
