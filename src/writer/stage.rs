// SPDX-License-Identifier: Apache-2.0
//! A file that has not got its name yet: written beside its target under a name
//! of its own (see `temporary`), or straight into its name where the caller
//! wants that.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::permissions;
use super::system::{self, Lock};
use super::target::Target;
use super::temporary;
use super::{Durability, Overwrite};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{self, FileRef};

/// More than this many names taken is not an accident.
const MOST_TRIES: usize = 100;

/// A file on its way. Dropped, it is gone.
pub(super) struct Staged {
    /// `None`: closed, until it is needed again.
    file: Option<File>,
    path: PathBuf,
    target: Target,
    way: Way,
    /// Closed whenever nothing is being written to it.
    is_frugal: bool,
    is_settled: bool,
    is_published: bool,
}

/// How it gets its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a rename. A lock keeps it from being taken for stale.
    Renamed,
    /// By a rename, on a file system where nobody looks at locks.
    RenamedClosed,
    /// It has it from its first byte on.
    Direct,
}

/// The first temporary of a save, which holds the lock for all.
pub(super) struct Lead {
    folder: PathBuf,
    tag: OsString,
    random: u64,
}

impl Staged {
    /// Makes an empty file beside the target. `tag` is the name under which
    /// stale ones are found.
    pub(super) fn create(target: Target, tag: &OsStr) -> Result<Self> {
        Ok(Self::lead(target, tag)?.0)
    }

    /// The same for the first of several files.
    pub(super) fn lead(target: Target, tag: &OsStr) -> Result<(Self, Lead)> {
        for _ in 0..MOST_TRIES {
            let random = temporary::random();
            let path = target.folder.join(temporary::name(tag, random));
            let Some(file) = make(&path, &target)? else { continue };
            if system::lock(&file) == Lock::Busy || file.metadata().is_ok_and(|found| found.nlink() == 0) {
                continue;
            }
            let lead = Lead { folder: target.folder.clone(), tag: tag.to_owned(), random };
            return Ok((Self::new(Some(file), path, target), lead));
        }
        Err(names_taken(&target))
    }

    /// Makes another file of the same save. `is_frugal`: it is open only while
    /// it is written to.
    pub(super) fn member(target: Target, lead: &Lead, number: usize, is_frugal: bool) -> Result<Self> {
        if target.folder != lead.folder {
            return Self::create(target, &lead.tag);
        }
        let path = target.folder.join(temporary::member(&lead.tag, lead.random, number));
        let file = make(&path, &target)?.ok_or_else(|| names_taken(&target))?;
        let mut this = Self::new(Some(file), path, target);
        this.is_frugal = is_frugal;
        Ok(this)
    }

    /// A file that will be written straight into its name, from
    /// [`begin`](Self::begin) on.
    pub(super) fn direct(target: Target) -> Self {
        let mut this = Self::new(None, target.path.clone(), target);
        this.way = Way::Direct;
        this
    }

    fn new(file: Option<File>, path: PathBuf, target: Target) -> Self {
        let is_local = file.as_ref().is_some_and(source::is_local);
        let way = if is_local { Way::Renamed } else { Way::RenamedClosed };
        Self { file, path, target, way, is_frugal: false, is_settled: false, is_published: false }
    }

    /// Opens it, where it is not open.
    pub(super) fn begin(&mut self) -> Result<()> {
        if self.file.is_none() {
            let file = match self.way {
                Way::Direct => open_direct(&self.path),
                _ => self.open_again(),
            };
            self.file = Some(file.map_err(|error| self.failed("opening for writing", &error))?);
        }
        Ok(())
    }

    fn open_again(&self) -> io::Result<File> {
        File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&self.path)
    }

    pub(super) fn file(&self) -> Result<FileRef<'_>> {
        match &self.file {
            Some(file) => Ok(FileRef::Kept(file)),
            None if self.way == Way::Direct => Err(Error::new(ErrorKind::Internal, "a file is not open")),
            None => match self.open_again() {
                Ok(file) => Ok(FileRef::Reopened(file)),
                Err(error) => Err(self.failed("opening its temporary file", &error)),
            },
        }
    }

    /// Closes it, where there are too many to keep them open.
    pub(super) fn rest(&mut self) {
        if self.is_frugal {
            self.file = None;
        }
    }

    pub(super) fn is_frugal(&self) -> bool {
        self.is_frugal
    }

    pub(super) fn is_direct(&self) -> bool {
        self.way == Way::Direct
    }

    /// What this file will be, for a message.
    pub(super) fn label(&self) -> String {
        self.target.label()
    }

    /// An error of the system's while this file was written.
    pub(super) fn failed(&self, what: &str, error: &io::Error) -> Error {
        failed(what, error, &self.target)
    }

    /// Sets room for `size` bytes aside.
    pub(super) fn allocate(&self, size: u64) -> Result<()> {
        let allocated = system::allocate(&*self.file()?, size);
        allocated.map_err(|error| self.failed(&format!("setting aside {size} bytes"), &error))
    }

    /// Writes at a place of the file.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let what = || format!("writing {} bytes at {offset}", bytes.len());
        self.file()?.write_all_at(bytes, offset).map_err(|error| self.failed(&what(), &error))
    }

    /// Nothing more will be written: brings the contents to where `sync` wants
    /// them, and lets those read them who could read the older file.
    pub(super) fn settle(&mut self, sync: Durability) -> Result<()> {
        if std::mem::replace(&mut self.is_settled, true) {
            return Ok(());
        }
        let file = self.file()?;
        if let (Some(existing), true) = (&self.target.existing, self.way != Way::Direct) {
            permissions::take_over(&file, &self.target.path, existing);
        }
        match sync {
            Durability::Synced => {
                system::sync(&file).map_err(|error| self.failed("bringing the data to the disk", &error))?;
            }
            Durability::Unsynced => system::flush(&file).map_err(|error| self.failed("writing the data", &error))?,
        }
        drop(file);
        match self.way {
            Way::Renamed if !self.is_frugal => Ok(()),
            // What stores upload at the close is nowhere before.
            _ => self.close(),
        }
    }

    fn close(&mut self) -> Result<()> {
        let closed = self.file.take().map_or(Ok(()), system::close);
        closed.map_err(|error| self.failed("closing the file", &error))
    }

    /// Gives the file its name.
    pub(super) fn publish(&mut self, overwrite: Overwrite) -> Result<()> {
        let renamed = match overwrite {
            _ if self.way == Way::Direct => Ok(()),
            Overwrite::Refuse => system::rename_new(&self.path, &self.target.path),
            _ => system::rename(&self.path, &self.target.path),
        };
        renamed.map_err(|error| advised(self.failed("giving the finished file its name", &error)))?;
        self.is_published = true;
        self.file = None;
        Ok(())
    }

    pub(super) fn is_published(&self) -> bool {
        self.is_published
    }

    /// Where its bytes are until it is published.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Looks again for the file that this one replaces: another save may have
    /// made or removed it in the meantime.
    pub(super) fn look_again(&mut self) -> Result<()> {
        self.target.existing = match fs::symlink_metadata(&self.target.path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.failed("looking for an existing file", &error)),
        };
        Ok(())
    }

    /// Takes the name away again from a file that replaced nothing.
    pub(super) fn withdraw(&self) {
        if self.is_published && self.target.existing.is_none() {
            drop(fs::remove_file(&self.target.path));
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.target.folder
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let begun = self.way != Way::Direct || self.file.is_some() || self.is_settled;
        if begun && !self.is_published {
            // Open files can't be removed from every mount.
            self.file = None;
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Creates a file that is not there yet; `None` where it is.
fn make(path: &Path, target: &Target) -> Result<Option<File>> {
    let mode = permissions::mode_to_create(&target.path, target.existing.as_ref());
    match File::options().read(true).write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => {
            let failed = failed(CREATING, &error, target);
            Err(if target.existing.is_some() { advised(failed) } else { failed })
        }
    }
}

const CREATING: &str = "creating a temporary file in its folder";

fn names_taken(target: &Target) -> Error {
    failed(CREATING, &io::Error::from_raw_os_error(libc::EEXIST), target)
}

/// A copy of a file under another name, which the same people may read. Where
/// the file system shares blocks it costs nothing.
pub(super) fn copy(from: &Target, to: &Path, sync: Durability) -> Result<()> {
    let failed = |error: io::Error| failed("copying the older file, as it can't have a second name", &error, from);
    let source = File::open(&from.path).map_err(failed)?;
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    io::copy(&mut &source, &mut copy).map_err(failed)?;
    if let Some(existing) = &from.existing {
        permissions::take_over(&copy, &from.path, existing);
    }
    match sync {
        Durability::Synced => system::sync(&copy).map_err(failed),
        Durability::Unsynced => system::close(copy).map_err(failed),
    }
}

/// Empties a file that can't be removed.
pub(super) fn empty(path: &Path) -> io::Result<()> {
    File::options().write(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path).map(drop)
}

/// Opens a file by its name, and empties it.
fn open_direct(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW);
    match options.open(path) {
        // Some mounts make files and remove them, and know nothing else.
        Err(error) if system::declined(&error) || error.raw_os_error() == Some(libc::EPERM) => {
            fs::remove_file(path).map_err(|_| error)?;
            options.open(path)
        }
        opened => opened,
    }
}

/// The way out for places where files can be written but not renamed or made.
fn advised(error: Error) -> Error {
    let known = [libc::ENOSYS, libc::EOPNOTSUPP, libc::EINVAL, libc::EPERM, libc::EACCES, libc::EBUSY, libc::EXDEV];
    if !known.contains(&error.os_errno()) {
        return error;
    }
    error.with_text("; with ST_OVERWRITE_DIRECT it is written straight into its name")
}

fn failed(what: &str, error: &io::Error, target: &Target) -> Error {
    Error::os(what, error).in_file(&target.label())
}

/// Makes the names in a folder outlast a power failure. `named`: a file that
/// has its name already, where an error would say so.
pub(super) fn sync_folder(folder: &Path, named: Option<&str>) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        // Not every file system syncs folders, and not every folder may be read.
        Err(error)
            if !system::declined(&error) && !matches!(error.raw_os_error(), Some(libc::EACCES | libc::EBADF)) =>
        {
            Err(match named {
                Some(file) => Error::os("is in place, but bringing its name to the disk failed", &error).in_file(file),
                None => Error::os("bringing names to the disk", &error).in_path(folder),
            })
        }
        _ => Ok(()),
    }
}
