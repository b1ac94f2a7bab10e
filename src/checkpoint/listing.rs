// SPDX-License-Identifier: Apache-2.0
//! What lies in a folder.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::name::{self, FileNames};
use crate::base::memory;
use crate::error::{Error, Result};

/// A folder's entries, as far as they matter, in any order.
pub(crate) struct FolderListing {
    pub(super) files: Vec<Vec<u8>>,
    pub(super) folders: Vec<Vec<u8>>,
}

/// The most folders, and files of other kinds, that are kept: they only serve to
/// say what a folder holds that has no tensors.
const MOST_OTHERS: usize = 1000;

impl FolderListing {
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let failed = |error| Error::os("listing the folder", &error);
        let (mut this, mut others) = (Self { files: Vec::new(), folders: Vec::new() }, 0_usize);
        for (number, entry) in fs::read_dir(folder).map_err(failed)?.enumerate() {
            // As many names of 255 bytes fit into it.
            if number.is_multiple_of(100) {
                memory::headroom()?;
            }
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_vec();
            if name.starts_with(b".") {
                continue;
            }
            let is_dir = |found: &fs::Metadata| found.is_dir();
            // A link to a folder is one, unless its name says that it is a model's file.
            let folder = entry.file_type().is_ok_and(|found| {
                found.is_dir()
                    || found.is_symlink()
                        && !name::counts(&name)
                        && fs::metadata(entry.path()).as_ref().is_ok_and(is_dir)
            });
            if folder || !name::counts(&name) {
                others = others.saturating_add(1);
                if others > MOST_OTHERS {
                    continue;
                }
            }
            let list = if folder { &mut this.folders } else { &mut this.files };
            memory::reserve(list, 1, "files")?;
            list.push(name);
        }
        Ok(this)
    }

    pub(super) fn names(&self) -> Result<FileNames<'_>> {
        FileNames::read(self.files.iter().map(Vec::as_slice))
    }

    /// The names of tensor files and indexes.
    pub(super) fn counting(&self) -> Result<Vec<&[u8]>> {
        let names = self.files.iter().map(Vec::as_slice).filter(|file| name::counts(file));
        memory::collect(names.map(Ok), self.files.len(), "files")
    }

    /// How many of them are tensor files.
    pub(super) fn tensor_files(&self) -> usize {
        self.files.iter().filter(|file| name::counts(file) && !name::is_index(file)).count()
    }
}
