// SPDX-License-Identifier: Apache-2.0
//! An older set that stays whole while a newer one takes its names.
//!
//! Shards can't be replaced all at once; an index can. So the older shards that
//! are in the way get second names (hard links), and an index that leads to
//! those takes the place of the older one. From then on the first names are
//! free: whoever opens the folder or the index finds the older set, until the
//! newer index takes its place. A save that is killed in between leaves it so,
//! and the next one to the path clears up.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::older::Older;
use super::set::SetNames;
use super::stage::{self, Staged};
use super::system;
use super::target::Target;
use super::temporary;
use super::{Durability, Overwrite};
use crate::base::{memory, sort};
use crate::error::{Error, ErrorKind, Result};

pub(super) struct StandIn {
    folder: PathBuf,
    tag: OsString,
    random: u64,
    shards: Vec<SetAside>,
    /// Where the index really is, and the older one's second name, if there was one.
    index: PathBuf,
    older_index: Option<PathBuf>,
    is_in_charge: bool,
}

/// An older shard.
struct SetAside {
    path: PathBuf,
    /// The number of the file that takes its name.
    by: usize,
    is_copy: bool,
}

impl StandIn {
    /// Puts one up where any of `files` would take the place of an older shard,
    /// or where nothing but the files in the folder said what it is opened as.
    pub(super) fn raise(names: &SetNames, older: &Older, files: &[Staged], sync: Durability) -> Result<Option<Self>> {
        let in_the_way = in_the_way(names, older, files)?;
        if in_the_way.is_empty() && older.is_index {
            return Ok(None);
        }
        let index = Target::resolve(&names.at(&names.index()), Path::new(&names.index()), Overwrite::Replace)?;
        let mut this = Self {
            folder: names.folder().to_owned(),
            tag: names.tag(),
            random: temporary::random(),
            shards: memory::vec_with_capacity(in_the_way.len(), "shards")?,
            index: index.path.clone(),
            older_index: None,
            is_in_charge: false,
        };
        match this.take_charge(older, in_the_way, index, sync) {
            Ok(()) => Ok(Some(this)),
            Err(error) => {
                this.give_way(files);
                Err(error)
            }
        }
    }

    fn take_charge(
        &mut self,
        older: &Older,
        in_the_way: Vec<InTheWay<'_>>,
        index: Target,
        sync: Durability,
    ) -> Result<()> {
        let mut renamed = memory::vec_with_capacity(in_the_way.len(), "shards")?;
        for (number, shard) in in_the_way.into_iter().enumerate() {
            let name = temporary::set_aside(&self.tag, self.random, number);
            let path = self.folder.join(&name);
            let linked = system::link(&shard.target.path, &path).map_err(|error| aside(&shard.target, &error))?;
            self.shards.push(SetAside { path: path.clone(), by: shard.by, is_copy: !linked });
            if !linked {
                stage::copy(&shard.target, &path, sync)?;
            }
            renamed.push((shard.name, name.into_string().unwrap_or_default()));
        }
        if older.is_index {
            // The numbers of shards end before this one.
            let path = self.folder.join(temporary::set_aside(&self.tag, self.random, renamed.len()));
            let linked = system::link(&index.path, &path).map_err(|error| aside(&index, &error))?;
            self.older_index = Some(path.clone());
            if !linked {
                stage::copy(&index, &path, sync)?;
            }
        }
        let mut stand_in = Staged::create(index, &self.tag)?;
        stand_in.write_at(&older.renamed(&renamed)?, 0)?;
        stand_in.settle(sync)?;
        self.sync(sync)?;
        stand_in.publish(Overwrite::Replace)?;
        self.is_in_charge = true;
        self.sync(sync)
    }

    fn sync(&self, sync: Durability) -> Result<()> {
        match sync {
            Durability::Synced => stage::sync_folder(&self.folder, None),
            Durability::Unsynced => Ok(()),
        }
    }

    /// The save has failed: the older set gets its names back. If that fails
    /// too, it stays whole under those it has.
    pub(super) fn give_way(&self, files: &[Staged]) {
        if self.is_in_charge && (self.restore_shards(files).is_none() || self.restore_index().is_none()) {
            return;
        }
        self.clear();
    }

    fn restore_shards(&self, files: &[Staged]) -> Option<()> {
        for shard in &self.shards {
            let file = files.get(shard.by)?;
            if !file.is_published() {
                continue;
            }
            // Under both names until the older index is back.
            let again = self.folder.join(temporary::name(&self.tag, temporary::random()));
            if shard.is_copy || !system::link(&shard.path, &again).ok()? {
                return None;
            }
            if system::rename(&again, &file.target().path).is_err() {
                drop(fs::remove_file(&again));
                return None;
            }
        }
        Some(())
    }

    fn restore_index(&self) -> Option<()> {
        match &self.older_index {
            Some(older) => system::rename(older, &self.index).ok(),
            None => fs::remove_file(&self.index).ok(),
        }
    }

    /// Removes the second names, to which no index leads any more.
    pub(super) fn clear(&self) {
        for path in self.shards.iter().map(|shard| &shard.path).chain(&self.older_index) {
            drop(fs::remove_file(path));
        }
    }
}

/// An older shard whose name a new file takes.
struct InTheWay<'a> {
    name: &'a str,
    target: Target,
    by: usize,
}

/// The older shards among what the files replace, by name. By identity, as one
/// file may be reached by several names.
fn in_the_way<'a>(names: &SetNames, older: &'a Older, files: &[Staged]) -> Result<Vec<InTheWay<'a>>> {
    let mut replaced = memory::vec_with_capacity(files.len(), "shards")?;
    replaced.extend(files.iter().zip(0_u64..).filter_map(|(file, number)| {
        let existing = file.target().existing.as_ref()?;
        Some([existing.dev(), existing.ino(), number])
    }));
    sort::rows(&mut replaced);
    let mut found = Vec::new();
    for name in older.names()? {
        let target = match Target::resolve(&names.at(name), Path::new(name), Overwrite::Replace) {
            Ok(target) => target,
            Err(error) if may_pass(&error) => return Err(error),
            // Nothing that could be opened.
            Err(_) => continue,
        };
        let identity = target.existing.as_ref().map(|existing| [existing.dev(), existing.ino()]);
        let by = identity.and_then(|identity| {
            // Of those that replace one file, the last.
            let after = replaced.partition_point(|[dev, ino, _]| [*dev, *ino] <= identity);
            let [dev, ino, number] = replaced.get(after.checked_sub(1)?)?;
            usize::try_from(*number).ok().filter(|_| [*dev, *ino] == identity)
        });
        if let Some(by) = by {
            memory::reserve(&mut found, 1, "shards")?;
            found.push(InTheWay { name, target, by });
        }
    }
    Ok(found)
}

fn may_pass(error: &Error) -> bool {
    let known = [libc::EISDIR, libc::EINVAL, libc::ELOOP, libc::ENOTDIR, libc::EACCES, libc::ENAMETOOLONG];
    error.kind() == ErrorKind::OutOfMemory || !known.contains(&error.os_errno())
}

fn aside(target: &Target, error: &io::Error) -> Error {
    Error::os("setting the older file aside", error).in_file(&target.label())
}
