// SPDX-License-Identifier: Apache-2.0
//! The file that is to be: where it really is, and what is there already.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Overwrite;
use crate::error::{escaped, Error, ErrorKind, Result};

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;

/// A file's final place.
pub(super) struct Target {
    /// Absolute, as the program may change its folder in the meantime, and with
    /// symbolic links at its end followed.
    pub(super) path: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) existing: Option<Metadata>,
}

impl Target {
    /// Follows `path` to the file that a write would reach.
    pub(super) fn resolve(path: &Path, overwrite: Overwrite) -> Result<Self> {
        let mut asked = path.to_owned();
        let mut path = std::path::absolute(path).map_err(|error| Error::os("resolving the path", &error))?;
        for _ in 0..MOST_LINKS {
            let bytes = asked.as_os_str().as_bytes();
            // These ask for a folder, and std drops them from names.
            if bytes.ends_with(b"/") || bytes.ends_with(b"/.") || path.file_name().is_none() {
                return Err(is_folder());
            }
            let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
            let existing = match fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() => {
                    let link =
                        fs::read_link(&path).map_err(|error| Error::os("following the symbolic link", &error))?;
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
            return Ok(Self { path, folder, existing });
        }
        Err(Error::os("following symbolic links", &io::Error::from_raw_os_error(libc::ELOOP)))
    }

    pub(super) fn name(&self) -> OsString {
        self.path.file_name().unwrap_or_default().to_owned()
    }

    /// For a message.
    pub(super) fn label(&self) -> String {
        escaped(self.path.as_os_str().as_bytes())
    }
}

fn is_folder() -> Error {
    Error::os("opening for writing", &io::Error::from_raw_os_error(libc::EISDIR))
}

fn exists() -> Error {
    let text = "the file exists, and replacing it was not allowed";
    Error::new(ErrorKind::Io, text).with_errno(libc::EEXIST)
}
