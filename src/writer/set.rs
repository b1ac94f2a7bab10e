// SPDX-License-Identifier: Apache-2.0
//! The files that one path with a shard size stands for: NAME.safetensors, or
//! shards and their index, as the hub names them. A save replaces what an older
//! one made of that path, so that a loader never finds parts of both.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::stage::{self, Turn};
use super::Durability;
use crate::error::{escaped, Error, ErrorKind, Result};

const SUFFIX: &str = ".safetensors";
const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// What the files are called.
pub(super) struct Names<'a> {
    folder: &'a Path,
    stem: &'a str,
}

impl<'a> Names<'a> {
    pub(super) fn of(path: &'a Path) -> Result<Self> {
        let name = path.file_name().and_then(OsStr::to_str);
        let Some(stem) = name.and_then(|name| name.strip_suffix(SUFFIX)) else {
            let text = "with max_shard_size the path must end in a name like model.safetensors, in UTF-8";
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        };
        Ok(Self { folder: path.parent().unwrap_or(Path::new("")), stem })
    }

    pub(super) fn shard(&self, number: usize, count: usize) -> String {
        format!("{}-{number:05}-of-{count:05}{SUFFIX}", self.stem)
    }

    pub(super) fn shard_path(&self, number: usize, count: usize) -> PathBuf {
        self.folder.join(self.shard(number, count))
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.folder.join([self.stem, INDEX_SUFFIX].concat())
    }

    /// Waits until no other save is naming files of this set.
    pub(super) fn turn(&self) -> Option<Turn> {
        Turn::wait(self.folder, OsStr::new(&[self.stem, SUFFIX].concat()))
    }

    /// Removes the files of older saves that one of `count` files has not
    /// replaced, once the new ones have their names. The index first: by it a
    /// loader would find the older tensors, or miss them.
    pub(super) fn remove_older(&self, count: usize, sync: Durability) -> Result<()> {
        if count == 1 {
            let index = self.index_path();
            match fs::remove_file(&index) {
                Ok(()) if sync == Durability::Synced => stage::sync_folder(self.folder)?,
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let what = "removing the index of an older save (the new file is in place)";
                    return Err(Error::os(what, &error).in_file(&escaped(index.as_os_str().as_bytes())));
                }
            }
        }
        // Where the folder may be written to but not read, they stay.
        for entry in fs::read_dir(self.folder).into_iter().flatten().flatten() {
            if self.count_in(entry.file_name().as_bytes()).is_some_and(|of| of != count || count == 1) {
                drop(fs::remove_file(entry.path()));
            }
        }
        if count != 1 {
            drop(fs::remove_file(self.folder.join([self.stem, SUFFIX].concat())));
        }
        Ok(())
    }

    /// The number of shards that a shard's name tells.
    fn count_in(&self, name: &[u8]) -> Option<usize> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix(self.stem)?.strip_suffix(SUFFIX)?;
        let (number, count) = name.strip_prefix('-')?.split_once("-of-")?;
        let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(number) && digits(count)).then(|| count.parse().ok())?
    }
}
