// SPDX-License-Identifier: Apache-2.0
//! The page cache: reading past it, asking what is in it, emptying it.
//!
//! All of these are favours that a system may decline; then the cache is used.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};

/// What every disk reads in whole. Offset, length and memory are multiples.
pub(crate) const BLOCK: usize = 4096;

/// The same file, opened once more to be read past the page cache. `None`
/// where the file system declines.
pub(crate) fn open_direct(file: &File) -> Option<File> {
    #[cfg(target_os = "linux")]
    return open_again(file, libc::O_DIRECT);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}

/// Not by its path, where something else may be by now. (And what differs can't
/// be set on the descriptor at hand, which others read through.)
#[cfg(target_os = "linux")]
fn open_again(file: &File, flags: libc::c_int) -> Option<File> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).custom_flags(flags | libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()
}

/// Looks into the page cache.
///
/// A read that must not wait tells whether a byte is there. Where it is not, the
/// kernel begins to read ahead all the same; on a descriptor for random access that
/// is one page. (mincore and cachestat disturb nothing, but tell only the
/// file's owner.)
pub(crate) struct Probe(#[cfg(all(target_os = "linux", target_pointer_width = "64"))] File);

impl Probe {
    /// `None` where the cache can't be looked into.
    pub(crate) fn new(file: &File) -> Option<Self> {
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        {
            use std::os::fd::AsRawFd;
            let probe = open_again(file, 0)?;
            // SAFETY: advice on an open descriptor.
            unsafe { libc::posix_fadvise(probe.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
            Some(Self(probe))
        }
        #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
        {
            let _ = file;
            None
        }
    }

    /// Whether the byte at `offset` is there; yes where nobody knows.
    pub(crate) fn finds(&self, offset: u64) -> bool {
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        {
            use std::os::fd::AsRawFd;
            let Ok(offset) = libc::off_t::try_from(offset) else { return true };
            let mut byte = 0_u8;
            let place = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
            // By number, as C libraries older than glibc 2.26 and musl 1.2.5 have no function for
            // it. The offset's other half would be in a fifth argument where it needs two.
            // SAFETY: one byte into a place of one byte.
            let done = unsafe {
                libc::syscall(libc::SYS_preadv2, self.0.as_raw_fd(), &raw const place, 1, offset, 0, libc::RWF_NOWAIT)
            };
            done >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN)
        }
        #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
        {
            let _ = offset;
            true
        }
    }
}

/// Takes these bytes out of the page cache.
pub(crate) fn drop_cached(file: &File, offset: u64, len: u64) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        if let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) {
            // SAFETY: advice on a descriptor that is open for the call.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, len);
}

/// Reads blocks past the page cache until the first `needed` bytes of `buffer`
/// are there; the buffer is whole blocks, and the file may end after those bytes.
/// `false`: it did not work out, and the page cache may do better.
pub(crate) fn read_blocks(direct: &File, offset: u64, buffer: &mut [u8], needed: usize) -> Result<bool> {
    let mut done = 0_usize;
    while done < needed {
        let rest = buffer.get_mut(done..).unwrap_or_default();
        let at = offset.saturating_add(done as u64);
        let len = rest.len();
        match direct.read_at(rest, at) {
            Ok(read) if done.saturating_add(read) >= needed => return Ok(true),
            // The end of the file, or a read cut short: the next has to begin on a block.
            Ok(read) => match read.saturating_sub(read % BLOCK) {
                0 => return Ok(false),
                blocks => done = done.saturating_add(blocks),
            },
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL | libc::EOPNOTSUPP) => return Ok(false),
                _ => return Err(Error::os(format!("reading {len} bytes at {at} past the page cache"), &error)),
            },
        }
    }
    Ok(true)
}
