// SPDX-License-Identifier: Apache-2.0
//! Regular files, mapped or read.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use super::share::{Manner, Share};
use super::{drop_cached, ended, filesystem};
use crate::base::extent::Extent;
use crate::base::memory;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::options::Access;

/// Refuses what is no regular file, before anything is opened: opening a FIFO
/// waits, and opening a device can do anything.
pub(crate) fn check_regular(path: &Path) -> Result<()> {
    require_regular(&look_at(path)?)
}

/// What is at the path. A link to nothing is named with what it leads to.
pub(crate) fn look_at(path: &Path) -> Result<fs::Metadata> {
    fs::metadata(path).map_err(|error| match fs::read_link(path) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!("opening a link to {}, which is not there", quoted(target.as_os_str().as_bytes()));
            Error::os(what, &error)
        }
        _ => Error::os("opening", &error),
    })
}

/// The same for a file that has been looked at already.
pub(crate) fn require_regular(found: &fs::Metadata) -> Result<()> {
    match found.is_file() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Io, "is not a regular file")),
    }
}

/// The first bytes of a small file, `most` at most.
pub(crate) fn read_start(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    let read = file.take(most).read_to_end(&mut bytes);
    read.map_err(|error| Error::os("reading", &error)).map(|_| bytes)
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

/// Which file it is, and whether it is still as it was. Inode numbers are given
/// out again as soon as a file is gone, so they alone don't tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Of what is at the path now.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self::of(&found))
    }

    /// Whether it is the same file with the same bytes; it may have been linked or
    /// renamed meanwhile.
    pub(crate) fn same_contents(&self, other: &Self) -> bool {
        *self == Self { changed: self.changed, ..*other }
    }

    /// Device and inode.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// A regular file, or a part of one, and its mapping where it has one.
pub(super) struct MappableFile {
    /// To open it anew, if it is not kept open.
    path: Option<PathBuf>,
    stamp: Stamp,
    /// Where in the file the bytes begin, and how many they are.
    base: u64,
    size: u64,
    /// `None`: opened anew for each read, as there are too many.
    file: Option<(File, Share)>,
    map: Mapping,
}

/// Its mapping, if it has one.
type Mapping = Option<(Mmap, Share)>;

impl MappableFile {
    /// Opens the file and says why it is accessed the way it is.
    pub(super) fn open(path: &Path, manner: &Manner) -> Result<(Self, Cow<'static, str>)> {
        let (file, found) = open_regular(path)?;
        let stamp = Stamp::of(&found);
        let (map, reason) = choose_access(&file, 0, stamp.size, manner)?;
        let path = if manner.kept_open { None } else { Some(copy(path)?) };
        let file = manner.kept_open.then(|| (file, Share::of_descriptors()));
        Ok((Self { path, stamp, base: 0, size: stamp.size, file, map }, reason))
    }

    /// A part of a file that somebody has opened; all up to its end where `size` is 0.
    pub(super) fn part(fd: BorrowedFd<'_>, base: u64, size: u64, access: Access) -> Result<(Self, Cow<'static, str>)> {
        let failed = |error: io::Error| Error::os("duplicating the descriptor", &error);
        let file = File::from(fd.try_clone_to_owned().map_err(failed)?);
        let found = file.metadata().map_err(|error| Error::os("looking at the descriptor", &error))?;
        require_regular(&found)?;
        let stamp = Stamp::of(&found);
        let rest = stamp.size.checked_sub(base);
        let size = match rest.map(|rest| if size == 0 { rest } else { size }).filter(|size| Some(*size) <= rest) {
            Some(size) => size,
            None => {
                let text = format!("offset {base} and size {size} are no part of the file's {} bytes", stamp.size);
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
        };
        let manner = Manner { kept_open: true, ..Manner::of(access, 1)? };
        let (map, reason) = choose_access(&file, base, size, &manner)?;
        Ok((Self { path: None, stamp, base, size, file: Some((file, Share::of_descriptors())), map }, reason))
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn mapped(&self) -> Option<&[u8]> {
        self.map.as_ref().map(|(map, _)| &**map)
    }

    pub(super) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.file()?;
        let Some(at) = self.base.checked_add(offset) else { return Err(ended(offset, buffer.len(), self.size)) };
        read_exact(&file, at, buffer)
    }

    /// The open file, or the same one opened again.
    pub(super) fn file(&self) -> Result<FileRef<'_>> {
        if let Some((file, _)) = &self.file {
            return Ok(FileRef::Kept(file));
        }
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        check_regular(path)?;
        let (file, metadata) = open_regular(path)?;
        let now = Stamp::of(&metadata);
        if now.identity() != self.stamp.identity() {
            return Err(Error::new(ErrorKind::Io, "another file has taken its place since it was opened"));
        }
        if !now.same_contents(&self.stamp) {
            let cut = match now.size < self.stamp.size {
                true => format!(": the file ends at {}, and ended at {}", now.size, self.stamp.size),
                false => String::new(),
            };
            return Err(Error::new(ErrorKind::Io, format!("has been written to since it was opened{cut}")));
        }
        Ok(FileRef::Reopened(file))
    }

    pub(super) fn is_kept_open(&self) -> bool {
        self.file.is_some()
    }

    /// Asks the system to read these bytes ahead; a hint.
    pub(super) fn advise(&self, bytes: Extent) {
        if let Ok(file) = self.file() {
            read_ahead(&file, self.base.saturating_add(bytes.start), bytes.len);
        }
    }

    /// Lets go of the mapping's pages, then of the page cache's, which keeps those
    /// that anybody has mapped.
    pub(super) fn evict(&self, bytes: Extent) {
        let Extent { start, len } = bytes;
        #[cfg(target_os = "linux")]
        if let (Some((map, _)), Ok(start), Ok(size)) = (&self.map, usize::try_from(start), usize::try_from(len)) {
            // SAFETY: the mapping is of a file and only read: what is touched again
            // comes from there again.
            drop(unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, size) });
        }
        if let Ok(file) = self.file() {
            drop_cached(&file, self.base.saturating_add(start), len);
        }
    }

    /// Reads these bytes into the page cache and maps them, where there is a
    /// mapping; what the system does not know how to do is left undone.
    pub(super) fn populate(&self, bytes: Extent) -> Result<()> {
        // In large reads: populating alone reads as little ahead as a page fault.
        self.advise(bytes);
        #[cfg(target_os = "linux")]
        if let Some((map, _)) = &self.map {
            let Extent { start: offset, len } = bytes;
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
                // Not after the first byte that is not there.
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

/// Maps it, where that is wanted and goes; says why.
fn choose_access(file: &File, base: u64, size: u64, manner: &Manner) -> Result<(Mapping, Cow<'static, str>)> {
    let mapped = || map(file, base, size).map(|map| Some((map, Share::of_mappings())));
    Ok(match manner.access {
        Access::Read => (None, "as asked for".into()),
        Access::Map => match mapped() {
            Ok(map) => (map, "as asked for".into()),
            Err(error) => return Err(Error::os("mapping", &error)),
        },
        Access::Auto if !manner.mappable => (None, "the process has mapped thousands of files already".into()),
        Access::Auto => match filesystem::is_local(file) {
            Err(reason) => (None, reason),
            Ok(name) => match mapped() {
                Ok(map) => (map, format!("the file system ({name}) is local").into()),
                Err(error) => (None, format!("mapping was refused ({error})").into()),
            },
        },
    })
}

fn map(file: &File, base: u64, size: u64) -> io::Result<Mmap> {
    let len = usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    // SAFETY: the bytes are only ever read, as plain bytes, so another process
    // that writes the file can change what is read and nothing else. One that
    // truncates it raises SIGBUS: the documented hazard of mapping, which
    // `Access::Read` avoids.
    unsafe { MmapOptions::new().offset(base).len(len).map(file) }
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
