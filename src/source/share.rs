// SPDX-License-Identifier: Apache-2.0
//! What files take of the process: descriptors and mappings, counted over all
//! checkpoints, as the limits are the process's.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::options::Access;

/// How many mappings files may take without being asked for. Linux gives a process
/// 65,530 (vm.max_map_count), of which its heap and its threads need some.
const MAPPED_BY_CHOICE: usize = 4096;
/// The same where mapping is what was asked for.
const MAPPED_BY_ORDER: usize = 32_768;

/// Descriptors that files keep open.
static DESCRIPTORS: AtomicUsize = AtomicUsize::new(0);
/// Mappings of files.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// One of them, given back when dropped.
pub(super) struct Share(&'static AtomicUsize);

impl Share {
    pub(super) fn of_descriptors() -> Self {
        Self::taken(&DESCRIPTORS)
    }

    pub(super) fn of_mappings() -> Self {
        Self::taken(&MAPPINGS)
    }

    fn taken(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How all files of one checkpoint are opened.
pub(crate) struct Manner {
    pub(super) access: Access,
    /// Each keeps its descriptor; else it is opened anew for each read.
    pub(super) kept_open: bool,
    /// There are mappings left for them.
    pub(super) mappable: bool,
}

impl Manner {
    /// For that many files.
    ///
    /// # Errors
    /// They are to be mapped, and that would take most of what the process may have.
    pub(crate) fn of(access: Access, files: usize) -> Result<Self> {
        let room = |count: &AtomicUsize, most: usize| {
            count.load(Ordering::Relaxed).checked_add(files).is_some_and(|all| all <= most)
        };
        if access == Access::Map && !room(&MAPPINGS, MAPPED_BY_ORDER) {
            let text = format!(
                "mapping {files} files more would take too many of the process's mappings (at most {MAPPED_BY_ORDER} \
                 are used); ST_ACCESS_READ takes none"
            );
            return Err(Error::new(ErrorKind::OutOfMemory, text).with_errno(libc::ENOMEM));
        }
        // A set leaves three quarters of the descriptors to the program, a single file half.
        let most = if files == 1 { descriptors_to_spare().saturating_mul(2) } else { descriptors_to_spare() };
        let mappable = access != Access::Read && (access == Access::Map || room(&MAPPINGS, MAPPED_BY_CHOICE));
        Ok(Self { access, kept_open: room(&DESCRIPTORS, most), mappable })
    }

    /// For a file that is read once and closed.
    pub(crate) fn once() -> Self {
        Self { access: Access::Read, kept_open: true, mappable: false }
    }
}

/// How many descriptors a set may hold, or a piece of work use: a quarter of the process's limit.
pub(crate) fn descriptors_to_spare() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the struct it is given.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let soft = if result == 0 { limit.rlim_cur } else { 256 };
    usize::try_from(soft).unwrap_or(usize::MAX) / 4
}
