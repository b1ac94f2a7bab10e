// SPDX-License-Identifier: Apache-2.0
//! The files that one path stands for: NAME.safetensors, or shards and their
//! index, as the hub names them. A save replaces what an older one made of that
//! path, so that a loader never finds parts of both.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::target::Base;
use super::temporary;
use super::turn::Turn;
use crate::base::{memory, sort};
use crate::checkpoint::name::{FILE_SUFFIX, INDEX_SUFFIX};
use crate::error::{Error, ErrorKind, Result};

/// What the files are called.
pub(super) struct SetNames {
    base: Base,
    stem: String,
}

impl SetNames {
    pub(super) fn of(base: &Base) -> Option<Self> {
        let name = base.path.file_name().and_then(OsStr::to_str);
        let stem = name.and_then(|name| name.strip_suffix(FILE_SUFFIX))?.to_owned();
        Some(Self { base: base.clone(), stem })
    }

    /// The same where the caller wants shards.
    pub(super) fn required(base: &Base) -> Result<Self> {
        Self::of(base).ok_or_else(|| {
            let text = "with max_shard_size the path must end in a name like model.safetensors, in UTF-8";
            Error::new(ErrorKind::InvalidArgument, text)
        })
    }

    pub(super) fn shard(&self, number: usize, count: usize) -> String {
        format!("{}-{number:05}-of-{count:05}{FILE_SUFFIX}", self.stem)
    }

    pub(super) fn plain(&self) -> String {
        [&self.stem, FILE_SUFFIX].concat()
    }

    pub(super) fn index(&self) -> String {
        [&self.stem, INDEX_SUFFIX].concat()
    }

    /// What temporaries of all saves to this path are called by.
    pub(super) fn tag(&self) -> OsString {
        self.plain().into()
    }

    /// One of them, in its folder.
    pub(super) fn at(&self, name: &str) -> Base {
        self.base.with_name(name)
    }

    pub(super) fn folder(&self) -> &Path {
        self.base.folder()
    }

    /// A path in it for a message.
    pub(super) fn label(&self, path: &Path) -> String {
        self.base.label(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Waits until no other save is naming files of this set.
    pub(super) fn turn(&self, goes_on: &mut dyn FnMut() -> Result<()>) -> Result<Option<Turn>> {
        Turn::wait(self.folder(), &self.tag(), goes_on)
    }

    /// Whether a file of this name makes a set of the path.
    pub(super) fn is_of_set(&self, name: &[u8]) -> bool {
        name == self.index().as_bytes() || self.number_in(name).is_some() || temporary::is_set_aside(name, &self.tag())
    }

    /// Whether there is an index now.
    pub(super) fn has_index(&self) -> bool {
        fs::symlink_metadata(self.path(&self.index())).is_ok()
    }

    /// What the folder is opened by where it has no index: the plain file, or
    /// the only series of shards, if that is complete.
    pub(super) fn without_index(&self) -> Result<Vec<String>> {
        if fs::metadata(self.path(&self.plain())).is_ok_and(|found| found.is_file()) {
            return Ok(vec![self.plain()]);
        }
        let failed = |error| Error::os("listing the folder", &error);
        let (mut places, mut names) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let found = self.number_in(name.as_bytes()).zip(name.to_str());
            if let Some(((number, count), name)) = found {
                memory::headroom()?;
                memory::reserve(&mut places, 1, "shards")?;
                memory::reserve(&mut names, 1, "shards")?;
                places.push([number as u64, count as u64, names.len() as u64]);
                names.push(name.to_owned());
            }
        }
        sort::rows(&mut places);
        let all = places.len() as u64;
        let complete = (1..).zip(&places).all(|(number, [found, count, _])| number == *found && *count == all);
        if !complete {
            return Ok(Vec::new());
        }
        let in_order = places.iter().map(|[_, _, name]| {
            let name = usize::try_from(*name).ok().and_then(|name| names.get_mut(name));
            Ok(name.map(std::mem::take).unwrap_or_default())
        });
        memory::collect(in_order, places.len(), "shards")
    }

    /// Removes the files of older saves that one of `count` files has not
    /// replaced, while the new index leads to the new ones: so whatever can't be
    /// removed is in nobody's way. An index of one file goes last, if all went.
    pub(super) fn remove_older(&self, count: usize) {
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        let mut all_gone = true;
        // Where the folder may be written to but not read, they stay.
        let Ok(entries) = fs::read_dir(self.folder()) else { return };
        let tag = self.tag();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let other_series = self.number_in(name.as_bytes()).is_some_and(|(_, of)| of != count || count == 1);
            if other_series || temporary::is_set_aside(name.as_bytes(), &tag) {
                all_gone &= remove(&entry.path());
            }
        }
        match count {
            1 if all_gone => self.remove_index(),
            1 => {}
            _ => drop(fs::remove_file(self.path(&self.plain()))),
        }
    }

    pub(super) fn remove_index(&self) {
        drop(fs::remove_file(self.path(&self.index())));
    }

    /// The number and count that a shard's name tells.
    fn number_in(&self, name: &[u8]) -> Option<(usize, usize)> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix(&self.stem)?.strip_suffix(FILE_SUFFIX)?;
        let (number, count) = name.strip_prefix('-')?.split_once("-of-")?;
        let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(number) && digits(count)).then(|| Some((number.parse().ok()?, count.parse().ok()?)))?
    }
}
