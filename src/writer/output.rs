// SPDX-License-Identifier: Apache-2.0
//! All files of one save: staged together, then named together, the index last.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::set::Names;
use super::stage::{self, Staged};
use super::system;
use super::target::Target;
use super::tensor::NewTensor;
use super::text;
use super::transfer::{Meter, Pieces};
use super::{Durability, Overwrite, SaveOptions};
use crate::error::{escaped, Error, ErrorKind, Result};

/// Below this the threads and the waits for the disk cost more than they save.
const DIRECT_FROM: u64 = 32 << 20;

/// Files under temporary names, and what is to become of them.
pub(super) struct Output {
    files: Vec<Staged>,
    /// Written already.
    index: Option<Staged>,
    /// What the names are made from, absolute, as the program may change its
    /// folder in the meantime; `None` where only the path itself is touched.
    set: Option<PathBuf>,
    /// What temporaries of this save are called.
    tag: OsString,
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
        let count = layout.files.len();
        let resolve = |path: &Path| Target::resolve(path, options.overwrite);
        let mut this = Self {
            files: Vec::new(),
            index: None,
            set: None,
            tag: OsString::new(),
            sync: options.sync,
            overwrite: options.overwrite,
        };
        let (targets, index) = if options.max_shard_size == 0 {
            (vec![resolve(path)?], None)
        } else {
            let names = Names::of(path)?;
            // Whatever it will be, a file or several, it takes the place of both.
            let (plain, index) = (resolve(path)?, resolve(&names.index_path())?);
            this.set = Some(std::path::absolute(path).map_err(|error| Error::os("resolving the path", &error))?);
            match count {
                1 => (vec![plain], None),
                _ => {
                    let targets = (1..=count).map(|number| resolve(&names.shard_path(number, count)));
                    (targets.collect::<Result<_>>()?, Some((index, names)))
                }
            }
        };
        // All temporaries of a save bear one name, whatever the number of
        // shards: so the next save to this path finds them.
        this.tag = match targets.as_slice() {
            [only] => only.name(),
            _ => path.file_name().unwrap_or_default().to_owned(),
        };
        let folders = distinct(targets.iter().map(|target| target.folder.as_path()));
        folders.into_iter().for_each(|folder| stage::clear_stale(folder, &this.tag));
        for (target, file) in targets.into_iter().zip(&layout.files) {
            let staged = Staged::create(target, &this.tag)?;
            staged.allocate(file.size())?;
            this.files.push(staged);
        }
        if let Some((target, names)) = index {
            this.index = Some(this.write_index(target, &names, layout, tensors)?);
        }
        Ok(this)
    }

    fn write_index(
        &self,
        target: Target,
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
        let staged = Staged::create(target, &self.tag)?;
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
        let set = self.set.take();
        let names = set.as_deref().map(Names::of).transpose()?;
        let _turn = names.as_ref().and_then(Names::turn);
        if names.is_some() {
            self.files.iter_mut().chain(&mut self.index).for_each(Staged::look_again);
        }
        let named = self.name_files();
        if named.is_err() {
            self.files.iter_mut().for_each(Staged::withdraw);
        }
        named??;
        sync_folders(self.sync, self.files.iter().chain(&self.index))?;
        match names {
            Some(names) if self.overwrite == Overwrite::Replace => names.remove_older(self.files.len(), self.sync),
            _ => Ok(()),
        }
    }

    /// What comes out is what became of the sync before the index: where all
    /// files have their names they keep them.
    fn name_files(&mut self) -> Result<Result<()>> {
        let count = self.files.len();
        // Where shards are replaced, an older index would now lead to a mixture
        // of both: better to none, whatever happens in between.
        let replaced = self.files.iter().any(Staged::replaces);
        let mut aside = match &self.index {
            Some(index) if replaced && index.replaces() => index.set_aside(&self.tag)?,
            _ => None,
        };
        if aside.is_some() {
            sync_folders(self.sync, &self.index)?;
        }
        for (done, file) in self.files.iter_mut().enumerate() {
            file.publish(self.overwrite).map_err(|error| match done {
                0 => error,
                _ => partly_named(&error, done, count),
            })?;
            if let Some(aside) = aside.take() {
                aside.remove();
            }
        }
        let Some(index) = &mut self.index else { return Ok(Ok(())) };
        // An index must not outlast a power failure that its shards do not.
        // Where that can't be said, the set is at least whole.
        let synced = sync_folders(self.sync, &self.files);
        index.publish(self.overwrite).map_err(|error| partly_named(&error, count, count))?;
        Ok(synced)
    }
}

/// Makes the names of these files outlast a power failure, if asked to.
fn sync_folders<'a>(sync: Durability, files: impl IntoIterator<Item = &'a Staged>) -> Result<()> {
    match sync {
        Durability::Synced => {
            let folders = distinct(files.into_iter().map(Staged::folder));
            folders.into_iter().try_for_each(stage::sync_folder)
        }
        Durability::Unsynced => Ok(()),
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
