// SPDX-License-Identifier: Apache-2.0
//! A file that has not got its name yet.
//!
//! It is written under a name of its own beside its target:
//!
//!     .NAME.RANDOM.safetensors-tmp
//!
//! Whoever writes it holds a lock (flock) on it, which the kernel drops when
//! that process ends, however it ends. So a temporary that can be locked is
//! stale, and the next save to the same path removes it; one that can't is
//! somebody's work. Between making the file and locking it another save may
//! take it for stale: the maker looks whether its file still has a name, and
//! makes another if not.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::system::{self, Lock};
use super::target::Target;
use super::{Durability, Overwrite};
use crate::error::{Error, Result};
use crate::source;

const SUFFIX: &[u8] = b".safetensors-tmp";
/// A name may have 255 bytes; two dots, 16 digits and the suffix are ours.
const LONGEST_TAG: usize = 255 - 2 - 16 - SUFFIX.len();
/// More than this many names taken is no accident.
const MOST_TRIES: usize = 100;

/// A file on its way. Dropped, it is gone.
pub(super) struct Staged {
    file: File,
    path: PathBuf,
    target: Target,
    published: bool,
}

impl Staged {
    /// Makes an empty file beside the target, with the mode that the target
    /// has or would get. `tag` is the name under which stale ones are found.
    pub(super) fn create(target: Target, tag: &OsStr) -> Result<Self> {
        // Until it has the mode of a file that exists, nobody else may read it.
        let mode = if target.existing.is_some() { 0o600 } else { 0o666 };
        for _ in 0..MOST_TRIES {
            let path = target.folder.join(temporary_name(tag));
            let made = File::options().read(true).write(true).create_new(true).mode(mode).open(&path);
            let file = match made {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed("creating a temporary file in its folder", &error, &target)),
            };
            if system::lock(&file) == Lock::Busy || file.metadata().is_ok_and(|found| found.nlink() == 0) {
                continue;
            }
            let staged = Self { file, path, target, published: false };
            staged.take_over_mode()?;
            return Ok(staged);
        }
        Err(failed("creating a temporary file in its folder", &io::Error::from_raw_os_error(libc::EEXIST), &target))
    }

    fn take_over_mode(&self) -> Result<()> {
        let Some(existing) = &self.target.existing else { return Ok(()) };
        let made = self.file.metadata().map_err(|error| self.failed("reading the temporary file's mode", &error))?;
        let (owner, group) = (existing.uid(), existing.gid());
        // Only the superuser may give files away; for others the writer owns
        // it, in the same group if the writer is in it.
        if (made.uid(), made.gid()) != (owner, group) {
            let given = std::os::unix::fs::fchown(&self.file, Some(owner), Some(group));
            drop(given.or_else(|_| std::os::unix::fs::fchown(&self.file, None, Some(group))));
        }
        let mode = Permissions::from_mode(existing.mode() & 0o777);
        self.file.set_permissions(mode).map_err(|error| self.failed("keeping the existing file's mode", &error))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
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
        system::allocate(&self.file, size).map_err(|error| self.failed(&format!("setting aside {size} bytes"), &error))
    }

    /// Writes at a place of the file.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let what = || format!("writing {} bytes at {offset}", bytes.len());
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed(&what(), &error))
    }

    /// Brings the contents to where `sync` wants them.
    pub(super) fn settle(&self, sync: Durability) -> Result<()> {
        match sync {
            Durability::Synced => {
                self.file.sync_all().map_err(|error| self.failed("bringing the data to the disk", &error))
            }
            Durability::Unsynced => system::flush(&self.file).map_err(|error| self.failed("writing the data", &error)),
        }
    }

    /// Gives the file its name.
    pub(super) fn publish(&mut self, overwrite: Overwrite) -> Result<()> {
        let renamed = match overwrite {
            Overwrite::Replace => system::rename(&self.path, &self.target.path),
            Overwrite::Refuse => system::rename_new(&self.path, &self.target.path),
        };
        renamed.map_err(|error| self.failed("giving the finished file its name", &error))?;
        self.published = true;
        Ok(())
    }

    /// Whether there was a file of that name.
    pub(super) fn replaces(&self) -> bool {
        self.target.existing.is_some()
    }

    /// Looks again for the file that this one replaces: another save may have
    /// made or removed it in the meantime.
    pub(super) fn look_again(&mut self) {
        self.target.existing = fs::symlink_metadata(&self.target.path).ok();
    }

    /// Puts the file that this one will replace under a temporary's name.
    /// `None`: it is gone already.
    pub(super) fn set_aside(&self, tag: &OsStr) -> Result<Option<SetAside>> {
        let (name, path) = (self.target.path.clone(), self.target.folder.join(temporary_name(tag)));
        // Locked, it is no stale temporary to another save.
        let held = File::open(&name).ok().filter(|file| system::lock(file) == Lock::Held);
        match system::rename(&name, &path) {
            Ok(()) => Ok(Some(SetAside { name: Some(name), path, _held: held })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("setting the older index aside", &error)),
        }
    }

    /// Takes the name away again from a file that replaced nothing.
    pub(super) fn withdraw(&mut self) {
        if self.published && self.target.existing.is_none() {
            drop(fs::remove_file(&self.target.path));
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.target.folder
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A file that has lost its name for a while. Dropped, it gets it back; where
/// the save is killed, it is a stale temporary like others.
pub(super) struct SetAside {
    /// `None`: it is not to get it back.
    name: Option<PathBuf>,
    path: PathBuf,
    _held: Option<File>,
}

impl SetAside {
    /// Its time is over. Where it can't be removed it is a stale temporary:
    /// under its name again it would lead to shards that are not its own.
    pub(super) fn remove(mut self) {
        self.name = None;
        drop(fs::remove_file(&self.path));
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            drop(system::rename(&self.path, name));
        }
    }
}

/// A save's turn to give several files their names, and to remove others: two
/// that did so at once would leave a mixture. It is a lock on a temporary whose
/// number is known, so that what a killed save leaves of it is cleared like
/// others. Dropped, the next one has it.
pub(super) struct Turn {
    file: File,
    path: PathBuf,
}

impl Turn {
    /// Waits for it. `None` on file systems of a network, which may have no
    /// locks or wait for another machine, and where the file is another user's,
    /// who could hold it for ever, or can't be made: then saves to one path at a
    /// time are the caller's care.
    pub(super) fn wait(folder: &Path, tag: &OsStr) -> Option<Self> {
        File::open(folder).ok().filter(source::is_local)?;
        let path = folder.join(numbered_name(tag, 0));
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        for _ in 0..MOST_TRIES {
            let mut options = File::options();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
            let file = options.open(&path).ok()?;
            if !file.metadata().is_ok_and(|found| found.is_file() && found.uid() == system::user()) {
                return None;
            }
            if !system::wait_for_lock(&file) {
                drop(fs::remove_file(&path));
                return None;
            }
            // The one before has removed the file to which it let others wait.
            if is_at(&file, &path) {
                return Some(Self { file, path });
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
        // Closing is not enough where the program has forked in the meantime.
        system::unlock(&self.file);
    }
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(there)) => identity(file) == identity(there),
        _ => false,
    }
}

fn failed(what: &str, error: &io::Error, target: &Target) -> Error {
    Error::os(what, error).in_file(&target.label())
}

/// Makes the names in a folder outlast a power failure.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    let what = "bringing the file's name to the disk (it is in place)";
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        // Not every file system syncs folders, and not every folder may be read.
        Err(error)
            if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EACCES | libc::EBADF | libc::ENOTSUP)) =>
        {
            Err(Error::os(what, &error).in_file(&crate::error::escaped(folder.as_os_str().as_bytes())))
        }
        _ => Ok(()),
    }
}

/// Nobody can know the next one: keyed by the system's random numbers.
fn temporary_name(tag: &OsStr) -> OsString {
    numbered_name(tag, RandomState::new().build_hasher().finish())
}

fn numbered_name(tag: &OsStr, number: u64) -> OsString {
    let name = [&prefix(tag), format!("{number:016x}").as_bytes(), SUFFIX].concat();
    OsString::from_vec(name)
}

fn prefix(tag: &OsStr) -> Vec<u8> {
    let tag = tag.as_bytes();
    [b".", tag.get(..LONGEST_TAG).unwrap_or(tag), b"."].concat()
}

fn is_temporary(name: &[u8], prefix: &[u8]) -> bool {
    let random = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
    random.is_some_and(|random| random.len() == 16 && random.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// Removes what killed saves to this path left behind. Where that can't be
/// known or done, it stays.
pub(super) fn clear_stale(folder: &Path, tag: &OsStr) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let prefix = prefix(tag);
    for entry in entries.flatten() {
        if is_temporary(entry.file_name().as_bytes(), &prefix) {
            clear_if_stale(&entry.path());
        }
    }
}

fn clear_if_stale(path: &Path) {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let Ok(file) = File::options().read(true).custom_flags(flags).open(path) else { return };
    let Ok(found) = file.metadata() else { return };
    // On a network file system another machine's lock may not be seen here.
    if !found.is_file() || !source::is_local(&file) || system::lock(&file) != Lock::Held {
        return;
    }
    // Still the one that was locked, and not one that took its name.
    if is_at(&file, path) {
        drop(fs::remove_file(path));
    }
}
