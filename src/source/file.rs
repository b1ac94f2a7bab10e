// SPDX-License-Identifier: Apache-2.0
//! Regular files, mapped or read.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use super::{ended, filesystem};
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Access;

/// Refuses what is no regular file, before anything is opened: opening a FIFO
/// waits, and opening a device can do anything.
pub(crate) fn check_regular(path: &Path) -> Result<()> {
    require_regular(&fs::metadata(path).map_err(|error| Error::os("opening", &error))?)
}

/// The same for a file that has been looked at already.
pub(crate) fn require_regular(found: &fs::Metadata) -> Result<()> {
    match found.is_file() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Io, "is not a regular file")),
    }
}

/// Opens a file that has passed the check. Something else that took
/// its place in between can't block, and is refused.
fn open_regular(path: &Path) -> Result<(File, fs::Metadata)> {
    let failed = |error: io::Error| Error::os("opening", &error);
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    require_regular(&metadata)?;
    Ok((file, metadata))
}

/// How many descriptors one checkpoint may hold: a quarter of the process's limit.
pub(crate) fn descriptors_to_spare() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the struct it is given.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let soft = if result == 0 { limit.rlim_cur } else { 256 };
    usize::try_from(soft).unwrap_or(usize::MAX) / 4
}

/// A regular file, and its mapping where it has one.
pub(super) struct MappableFile {
    /// To open it anew, if it is not kept open.
    path: Option<PathBuf>,
    /// Device, inode.
    identity: (u64, u64),
    size: u64,
    /// `None`: opened anew for each read, as there are too many shards.
    file: Option<File>,
    map: Option<Mmap>,
}

impl MappableFile {
    /// Opens the file and says why it is accessed the way it is.
    pub(super) fn open(path: &Path, access: Access, keep_open: bool) -> Result<(Self, Cow<'static, str>)> {
        let (file, metadata) = open_regular(path)?;
        let size = metadata.len();
        let (map, reason) = match access {
            Access::Read => (None, "as asked for".into()),
            Access::Map => match map(&file, size) {
                Ok(map) => (Some(map), "as asked for".into()),
                Err(error) => return Err(Error::os("mapping", &error)),
            },
            Access::Auto => match filesystem::is_local(&file) {
                Err(reason) => (None, reason),
                Ok(name) => match map(&file, size) {
                    Ok(map) => (Some(map), format!("the file system ({name}) is local").into()),
                    Err(error) => (None, format!("mapping was refused ({error})").into()),
                },
            },
        };
        let file = Self {
            path: if keep_open { None } else { Some(copy(path)?) },
            identity: (metadata.dev(), metadata.ino()),
            size,
            file: keep_open.then_some(file),
            map,
        };
        Ok((file, reason))
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn mapped(&self) -> Option<&[u8]> {
        self.map.as_deref()
    }

    pub(super) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.file()?;
        read_exact(&file, offset, buffer)
    }

    /// The open file, or the same one opened again.
    pub(super) fn file(&self) -> Result<FileRef<'_>> {
        if let Some(file) = &self.file {
            return Ok(FileRef::Kept(file));
        }
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        check_regular(path)?;
        let (file, metadata) = open_regular(path)?;
        if (metadata.dev(), metadata.ino()) != self.identity {
            return Err(Error::new(ErrorKind::Io, "another file has taken its place since it was opened"));
        }
        Ok(FileRef::Reopened(file))
    }

    pub(super) fn is_kept_open(&self) -> bool {
        self.file.is_some()
    }

    /// Asks the system to read these bytes ahead; a hint.
    pub(super) fn advise(&self, offset: u64, len: u64) {
        if let Ok(file) = self.file() {
            read_ahead(&file, offset, len);
        }
    }

    /// Reads these bytes into the page cache and maps them, where there is a
    /// mapping; what the system does not know how to do is left undone.
    pub(super) fn populate(&self, offset: u64, len: u64) -> Result<()> {
        // In large reads: populating alone reads as little ahead as a page fault.
        self.advise(offset, len);
        #[cfg(target_os = "linux")]
        if let Some(map) = &self.map {
            let (Ok(start), Ok(size)) = (usize::try_from(offset), usize::try_from(len)) else { return Ok(()) };
            // Larger folios, and fewer entries in page tables, where the file system has them.
            drop(map.advise_range(memmap2::Advice::HugePage, start, size));
            if let Err(error) = map.advise_range(memmap2::Advice::PopulateRead, start, size) {
                // Linux before 5.14 knows no populating; out of memory it goes without.
                let known = [libc::EFAULT, libc::EHWPOISON, libc::EIO];
                if error.raw_os_error().is_some_and(|errno| known.contains(&errno)) {
                    return Err(Error::os(format!("populating {len} bytes at {offset}"), &error));
                }
            }
        }
        Ok(())
    }
}

/// Fills `buffer` from `offset` on.
pub(crate) fn read_exact(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => {
                // Not behind the first byte that is not there.
                let end = file.metadata().map_or(offset, |metadata| metadata.len().min(offset));
                return Err(ended(offset, buffer.len(), end));
            }
            Ok(done) => {
                offset = offset.saturating_add(done as u64);
                buffer = buffer.get_mut(done..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let what = format!("reading {} bytes at {offset}", buffer.len());
                return Err(Error::os(what, &error));
            }
        }
    }
    Ok(())
}

/// A file that is open already, or was opened for this use.
pub(crate) enum FileRef<'a> {
    Kept(&'a File),
    Reopened(File),
}

impl std::ops::Deref for FileRef<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Kept(file) => file,
            Self::Reopened(file) => file,
        }
    }
}

fn copy(path: &Path) -> Result<PathBuf> {
    let bytes = memory::concat(&[path.as_os_str().as_bytes()], "paths")?;
    Ok(OsString::from_vec(bytes).into())
}

fn map(file: &File, size: u64) -> io::Result<Mmap> {
    let len = usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    // SAFETY: the bytes are only ever read, as plain bytes, so another process
    // that writes the file can change what is read and nothing else. One that
    // truncates it raises SIGBUS: the documented hazard of mapping, which
    // `Access::Read` avoids.
    unsafe { MmapOptions::new().len(len).map(file) }
}

fn read_ahead(file: &File, offset: u64, len: u64) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        if let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) {
            // SAFETY: advice on a descriptor that is open for the call.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_WILLNEED) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, len);
}
