// SPDX-License-Identifier: Apache-2.0
//! All files of one save: staged together, then named together, the index last.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::stage::{self, Staged};
use super::system;
use super::target::Target;
use super::tensor::NewTensor;
use super::text;
use super::transfer::{Meter, Pieces};
use super::{Durability, Overwrite, SaveOptions};
use crate::error::{escaped, Error, ErrorKind, Result};

const SUFFIX: &str = ".safetensors";
/// Below this the threads and the waits for the disk cost more than they save.
const DIRECT_FROM: u64 = 32 << 20;

/// Files under temporary names, and what is to become of them.
pub(super) struct Output {
    files: Vec<Staged>,
    /// Written already.
    index: Option<Staged>,
    sync: Durability,
    overwrite: Overwrite,
}

impl Output {
    /// Makes the files, empty and with room for all that they will hold.
    pub(super) fn create(
        path: &Path,
        layout: &Layout,
        tensors: &[NewTensor<'_>],
        options: &SaveOptions,
    ) -> Result<Self> {
        Self::staged(path, layout, tensors, options)
            .map_err(|error| error.in_file(&escaped(path.as_os_str().as_bytes())))
    }

    fn staged(path: &Path, layout: &Layout, tensors: &[NewTensor<'_>], options: &SaveOptions) -> Result<Self> {
        let names = match options.max_shard_size {
            0 => None,
            _ => Some(Names::of(path)?),
        };
        let mut this = Self { files: Vec::new(), index: None, sync: options.sync, overwrite: options.overwrite };
        let count = layout.files.len();
        let resolve = |path: &Path| Target::resolve(path, options.overwrite);
        let (targets, index) = match names {
            Some(names) if count > 1 => {
                let targets = (1..=count).map(|number| resolve(&names.shard_path(number, count)));
                let targets: Vec<_> = targets.collect::<Result<_>>()?;
                (targets, Some((resolve(&names.index_path())?, names)))
            }
            _ => (vec![resolve(path)?], None),
        };
        // All temporaries of a save bear one name, whatever the number of
        // shards: so the next save to this path finds them.
        let tag = match targets.as_slice() {
            [only] => only.name(),
            _ => path.file_name().unwrap_or_default().to_owned(),
        };
        let folders = distinct(targets.iter().map(|target| target.folder.as_path()));
        folders.into_iter().for_each(|folder| stage::clear_stale(folder, &tag));
        for (target, file) in targets.into_iter().zip(&layout.files) {
            let staged = Staged::create(target, &tag)?;
            staged.allocate(file.size())?;
            this.files.push(staged);
        }
        if let Some((target, names)) = index {
            this.index = Some(this.write_index(target, &tag, &names, layout, tensors)?);
        }
        Ok(this)
    }

    fn write_index(
        &self,
        target: Target,
        tag: &OsStr,
        names: &Names<'_>,
        layout: &Layout,
        tensors: &[NewTensor<'_>],
    ) -> Result<Staged> {
        let count = layout.files.len();
        let shards: Vec<_> = (1..=count).map(|number| names.shard(number, count)).collect();
        let places = layout.places()?;
        let entries = layout.by_name.iter().filter_map(|index| {
            let index = usize::try_from(*index).ok()?;
            Some((tensors.get(index)?.name, shards.get(places.get(index)?.file)?.as_str()))
        });
        let text = text::index(layout.data_size, entries)?;
        let staged = Staged::create(target, tag)?;
        staged.write_at(&text, 0)?;
        Ok(staged)
    }

    /// Fills one of the files.
    pub(super) fn fill(&self, number: usize, pieces: &Pieces<'_>, meter: &mut Meter<'_>) -> Result<()> {
        let to = self.file(number)?;
        let direct = self.sync == Durability::Synced && pieces.size() >= DIRECT_FROM && !pieces.shares_blocks(to);
        if direct && system::direct(to.file(), true) {
            pieces.write_direct(to, meter)
        } else {
            pieces.write(to, self.sync == Durability::Synced, meter)
        }
    }

    pub(super) fn file(&self, number: usize) -> Result<&Staged> {
        self.files.get(number).ok_or_else(|| Error::new(ErrorKind::Internal, "a file's number is out of range"))
    }

    /// Starts writing to the disk what has been written so far, where the end
    /// will wait for it.
    pub(super) fn start_writeback(&self, number: usize) {
        if let (Durability::Synced, Some(file)) = (self.sync, self.files.get(number)) {
            system::start_writeback(file.file());
        }
    }

    /// Gives the finished files their names, the index last. A failure before
    /// the first name leaves everything as it was.
    pub(super) fn publish(mut self) -> Result<()> {
        for file in self.files.iter().chain(&self.index) {
            file.settle(self.sync)?;
        }
        let named = self.name_files();
        if named.is_err() {
            self.files.iter_mut().for_each(Staged::withdraw);
        }
        named?;
        if self.sync == Durability::Synced {
            let folders = distinct(self.files.iter().chain(&self.index).map(Staged::folder));
            folders.into_iter().try_for_each(stage::sync_folder)?;
        }
        Ok(())
    }

    fn name_files(&mut self) -> Result<()> {
        let count = self.files.len();
        for (done, file) in self.files.iter_mut().enumerate() {
            file.publish(self.overwrite).map_err(|error| match done {
                0 => error,
                _ => partly_named(&error, done, count),
            })?;
        }
        let Some(index) = &mut self.index else { return Ok(()) };
        if self.sync == Durability::Synced {
            // An index must not outlast a power failure that its shards do not.
            let folders = distinct(self.files.iter().map(Staged::folder));
            folders.into_iter().try_for_each(stage::sync_folder)?;
        }
        index.publish(self.overwrite)
    }
}

/// Each folder once: one as a rule, more where shards are symbolic links.
fn distinct<'a>(folders: impl Iterator<Item = &'a Path>) -> Vec<&'a Path> {
    let mut found = Vec::new();
    for folder in folders {
        if !found.contains(&folder) {
            found.push(folder);
        }
    }
    found
}

/// Shards that replaced older ones can't be taken back.
fn partly_named(error: &Error, done: usize, count: usize) -> Error {
    let text = format!("{error}; {done} of {count} shards had their names already");
    Error::new(error.kind(), text).with_errno(error.os_errno())
}

/// What the files of a sharded save are called.
struct Names<'a> {
    folder: &'a Path,
    stem: &'a str,
}

impl<'a> Names<'a> {
    fn of(path: &'a Path) -> Result<Self> {
        let name = path.file_name().and_then(OsStr::to_str);
        let Some(stem) = name.and_then(|name| name.strip_suffix(SUFFIX)) else {
            let text = "with max_shard_size the path must end in a name like model.safetensors, in UTF-8";
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        };
        Ok(Self { folder: path.parent().unwrap_or(Path::new("")), stem })
    }

    fn shard(&self, number: usize, count: usize) -> String {
        format!("{}-{number:05}-of-{count:05}{SUFFIX}", self.stem)
    }

    fn shard_path(&self, number: usize, count: usize) -> PathBuf {
        self.folder.join(self.shard(number, count))
    }

    fn index_path(&self) -> PathBuf {
        self.folder.join(format!("{}{SUFFIX}.index.json", self.stem))
    }
}
