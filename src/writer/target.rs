// SPDX-License-Identifier: Apache-2.0
//! The file that is to be: where it really is, and what is there already.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::system;
use super::Overwrite;
use crate::error::{escaped, Error, ErrorKind, Result};

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;
/// What the system takes as a path, less the longest name that a save puts into the folder.
const LONGEST_FOLDER: usize = 4096 - 258;

/// Where a path leads to, wherever the program goes afterwards.
#[derive(Clone)]
pub(super) struct Base {
    /// Absolute.
    pub(super) path: PathBuf,
    /// The folder, held open where its own path is longer than the system
    /// takes, and the path by which it is reached then.
    held: Option<Arc<(File, PathBuf)>>,
    /// The folder as the caller spells it.
    given: PathBuf,
}

impl Base {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let given = path.parent().unwrap_or(Path::new("")).to_owned();
        let absolute = std::path::absolute(path);
        let too_long = |path: &PathBuf| path.as_os_str().len() > LONGEST_FOLDER;
        if let (Some(name), false) = (path.file_name(), path.is_absolute()) {
            if !absolute.as_ref().is_ok_and(|path| !too_long(path)) {
                return Self::through_descriptor(given, name.to_owned());
            }
        }
        let path = absolute.map_err(|error| Error::os("resolving the path", &error))?;
        Ok(Self { path, held: None, given })
    }

    fn through_descriptor(given: PathBuf, name: OsString) -> Result<Self> {
        let folder = if given.as_os_str().is_empty() { Path::new(".") } else { &given };
        #[cfg(target_os = "linux")]
        let flags = libc::O_DIRECTORY | libc::O_PATH;
        #[cfg(not(target_os = "linux"))]
        let flags = libc::O_DIRECTORY;
        let held = File::options().read(true).custom_flags(flags).open(folder);
        let held = held.map_err(|error| Error::os("opening its folder", &error))?;
        let through = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        match through.is_dir() {
            true => Ok(Self { path: through.join(name), held: Some(Arc::new((held, through))), given }),
            // Good for as long as the program stays where it is.
            false => Ok(Self { path: folder.join(name), held: None, given }),
        }
    }

    /// The same place for another name in the folder.
    pub(super) fn with_name(&self, name: &str) -> Self {
        Self { path: self.path.with_file_name(name), held: self.held.clone(), given: self.given.clone() }
    }

    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// A path in this folder for a message.
    pub(super) fn label(&self, path: &Path) -> String {
        let through = self.held.as_ref().and_then(|held| path.strip_prefix(&held.1).ok());
        match through {
            Some(inside) => escaped(self.given.join(inside).as_os_str().as_bytes()),
            None => escaped(path.as_os_str().as_bytes()),
        }
    }
}

/// A file's final place.
pub(super) struct Target {
    /// With symbolic links at its end followed.
    pub(super) path: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) existing: Option<Metadata>,
    base: Base,
}

impl Target {
    /// Follows `base` to the file that a write would reach; `asked` is how the
    /// caller spells it.
    pub(super) fn resolve(base: &Base, asked: &Path, overwrite: Overwrite) -> Result<Self> {
        let (mut path, mut asked) = (base.path.clone(), asked.to_owned());
        for _ in 0..MOST_LINKS {
            let bytes = asked.as_os_str().as_bytes();
            // These ask for a folder, and std drops them from names.
            if bytes.ends_with(b"/") || bytes.ends_with(b"/.") || path.file_name().is_none() {
                return Err(is_folder());
            }
            let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
            let existing = match fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() => {
                    let link = follow(&path, &folder, &found)
                        .map_err(|error| Error::os("following the symbolic link", &error))?;
                    path = folder.join(&link);
                    asked = link;
                    continue;
                }
                Ok(found) => Some(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(Error::os("looking for an existing file", &error)),
            };
            match &existing {
                Some(found) if found.is_dir() => return Err(is_folder()),
                Some(found) if !found.is_file() => {
                    let text = "is not a regular file, and is not replaced by one";
                    return Err(Error::new(ErrorKind::Io, text).with_errno(libc::EINVAL));
                }
                Some(_) if overwrite == Overwrite::Refuse => return Err(exists()),
                _ => {}
            }
            return Ok(Self { path, folder, existing, base: base.clone() });
        }
        Err(Error::os("following symbolic links", &io::Error::from_raw_os_error(libc::ELOOP)))
    }

    pub(super) fn name(&self) -> OsString {
        self.path.file_name().unwrap_or_default().to_owned()
    }

    /// For a message.
    pub(super) fn label(&self) -> String {
        self.base.label(&self.path)
    }
}

/// Where a link leads to. In a folder where everybody may put links and only
/// their owners take them away (/tmp), those of others are not followed, as the
/// kernel itself does not: who made them chooses which file is replaced.
fn follow(path: &Path, folder: &Path, link: &Metadata) -> io::Result<PathBuf> {
    let holder = fs::metadata(folder)?;
    let shared = holder.mode() & 0o1002 == 0o1002;
    if shared && link.uid() != system::user() && link.uid() != holder.uid() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    fs::read_link(path)
}

fn is_folder() -> Error {
    Error::os("opening for writing", &io::Error::from_raw_os_error(libc::EISDIR))
}

/// The refusal to replace what is there.
pub(super) fn exists() -> Error {
    let text = "the file exists, and replacing it was not allowed";
    Error::new(ErrorKind::Io, text).with_errno(libc::EEXIST)
}
