// SPDX-License-Identifier: Apache-2.0
//! All files of one save: staged together, then named together, the index last.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::layout::SaveLayout;
use super::older::{self, Older};
use super::set::SetNames;
use super::stage::{self, Staged};
use super::stand_in::StandIn;
use super::system;
use super::target::{Base, Target};
use super::temporary;
use super::tensor::NewTensor;
use super::text;
use super::transfer::{FilePieces, Meter};
use super::{Durability, Overwrite, SaveOptions};
use crate::base::{memory, sort};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::source;

/// Below this the threads and the waits for the disk cost more than they save.
const DIRECT_FROM: u64 = 32 << 20;

/// Files under temporary names, and what is to become of them.
pub(super) struct Output {
    /// Before the index, whose lock is theirs, when they are dropped.
    files: Vec<Staged>,
    index: Option<IndexFile>,
    /// `None` where the path is not one that can stand for a set.
    names: Option<SetNames>,
    /// Whether the path stands for a set: the caller wants shards, or there are some.
    is_set: bool,
    /// What temporaries of this save are called.
    tag: OsString,
    sync: Durability,
    overwrite: Overwrite,
}

struct IndexFile {
    file: Staged,
    /// To be written, where that waits for the shards.
    text: Vec<u8>,
}

impl Output {
    /// Makes the files, empty and with room for all that they will hold.
    pub(super) fn create(
        path: &Path,
        layout: &SaveLayout,
        tensors: &[NewTensor<'_>],
        options: &SaveOptions,
    ) -> Result<Self> {
        let create = |base: Base| Self::staged(path, &base, layout, tensors, options);
        Base::of(path).and_then(create).map_err(|error| error.in_path(path))
    }

    fn staged(
        path: &Path,
        base: &Base,
        layout: &SaveLayout,
        tensors: &[NewTensor<'_>],
        options: &SaveOptions,
    ) -> Result<Self> {
        let count = layout.files.len();
        let is_set = options.max_shard_size != 0;
        let names = if is_set { Some(SetNames::required(base)?) } else { SetNames::of(base) };
        // Whatever it will be, a file or several, it takes the place of both.
        let plain = Target::resolve(base, path, options.overwrite)?;
        let mut this = Self {
            files: Vec::new(),
            index: None,
            names,
            is_set,
            // All temporaries of a save bear one name, whatever the number of
            // shards: so the next save to this path finds them.
            tag: plain.name(),
            sync: options.sync,
            overwrite: options.overwrite,
        };
        if let (Some(names), Overwrite::Refuse) = (&this.names, this.overwrite) {
            if is_set || names.has_index() {
                let index = Target::resolve(&names.at(&names.index()), Path::new(&names.index()), this.overwrite);
                index.map_err(|error| error.in_file(&names.label(&names.at(&names.index()).path)))?;
            }
        }
        match (&this.names, count) {
            (Some(names), 2..) => {
                this.tag = names.tag();
                let resolve = |name: &str| Target::resolve(&names.at(name), Path::new(name), options.overwrite);
                let shards = (1..=count).map(|number| memory::headroom().map(|()| names.shard(number, count)));
                let shards = memory::collect(shards, count, "shards")?;
                let targets = shards.iter().map(|name| memory::headroom().and_then(|()| resolve(name)));
                let targets = memory::collect(targets, count, "shards")?;
                let index = resolve(&names.index())?;
                let text = index_text(layout, tensors, &shards)?;
                this.clear_stale(&targets);
                this.stage_set(targets, index, text)?;
            }
            _ => {
                this.clear_stale(std::slice::from_ref(&plain));
                let file = if this.is_direct() { Staged::direct(plain) } else { Staged::create(plain, &this.tag)? };
                this.files.push(file);
            }
        }
        for (staged, file) in this.files.iter_mut().zip(&layout.files) {
            if !staged.is_direct() {
                staged.allocate(file.size())?;
                staged.rest();
            }
        }
        Ok(this)
    }

    fn is_direct(&self) -> bool {
        self.overwrite == Overwrite::Direct
    }

    /// Refuses to write straight into a file that tensors are read from.
    pub(super) fn refuse_sources(&self, sources: &[&Checkpoint]) -> Result<()> {
        let mut read = Vec::new();
        for source in sources {
            memory::reserve(&mut read, source.shards().len(), "the sources of a save")?;
            for shard in 0..source.shards().len() {
                let found = source.file_of(shard)?.and_then(|file| file.metadata().ok());
                read.extend(found.map(|found| [found.dev(), found.ino(), 0]));
            }
        }
        sort::rows(&mut read);
        let existing = |file: &Staged| file.target().existing.as_ref().map(|found| [found.dev(), found.ino(), 0]);
        match self
            .files
            .iter()
            .find(|file| existing(file).is_some_and(|identity| read.binary_search(&identity).is_ok()))
        {
            None => Ok(()),
            Some(file) => {
                let text = "tensors are read from this file, which ST_OVERWRITE_DIRECT would empty first";
                Err(Error::new(ErrorKind::InvalidArgument, text).in_file(&file.label()))
            }
        }
    }

    fn stage_set(&mut self, targets: Vec<Target>, index: Target, text: Vec<u8>) -> Result<()> {
        memory::reserve(&mut self.files, targets.len(), "shards")?;
        if self.is_direct() {
            self.files.extend(targets.into_iter().map(Staged::direct));
            self.index = Some(IndexFile { file: Staged::direct(index), text });
            return Ok(());
        }
        let is_frugal = targets.len() >= source::descriptors_to_spare();
        let (file, lead) = Staged::lead(index, &self.tag)?;
        file.write_at(&text, 0)?;
        self.index = Some(IndexFile { file, text: Vec::new() });
        for (number, target) in (1..).zip(targets) {
            memory::headroom()?;
            let mut member = Staged::member(target, &lead, number, is_frugal)?;
            member.rest();
            self.files.push(member);
        }
        Ok(())
    }

    /// Clears what killed saves left, and looks whether the path stands for a set.
    fn clear_stale(&mut self, targets: &[Target]) {
        let Self { names, is_set, tag, .. } = self;
        let mut places: Vec<(&Path, &OsStr)> = Vec::new();
        let set_tag = names.as_ref().map(SetNames::tag);
        let of_set = names.as_ref().zip(set_tag.as_deref()).map(|(names, tag)| (names.folder(), tag));
        for place in of_set.into_iter().chain(targets.iter().map(|target| (target.folder.as_path(), tag.as_os_str()))) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        for (folder, tag) in places {
            let in_set = names.as_ref().filter(|names| names.folder() == folder);
            temporary::clear_stale(folder, tag, &mut |name| {
                *is_set |= in_set.is_some_and(|names| names.is_of_set(name))
            });
        }
    }

    /// Opens all files for writing; those that are written straight into their
    /// names empty what is there.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.clear_way()?;
        self.files.iter_mut().filter(|file| file.is_direct()).try_for_each(Staged::begin)
    }

    /// Before the first byte goes straight into a name of an older set: the set
    /// is gone, as a part of it beside a part of the new one would be a mixture.
    fn clear_way(&self) -> Result<()> {
        let Some(names) = self.names.as_ref().filter(|_| self.is_direct() && self.is_set) else { return Ok(()) };
        let Some(older) = Older::look(names)? else { return Ok(()) };
        let targets: Vec<_> = self.files.iter().map(|file| &file.target().path).collect();
        let mut shards = Vec::new();
        for name in older.names()? {
            shards.push(Target::resolve(&names.at(name), Path::new(name), Overwrite::Replace)?);
        }
        if !shards.iter().any(|shard| targets.contains(&&shard.path)) {
            return Ok(());
        }
        let index = names.at(&names.index()).path;
        for path in std::iter::once(&index).chain(shards.iter().map(|shard| &shard.path)) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let failed = |error| Error::os("removing the older set", &error).in_file(&names.label(path));
                    stage::empty(path).map_err(failed)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Fills one of the files.
    pub(super) fn fill(&mut self, number: usize, pieces: &FilePieces<'_>, meter: &mut Meter<'_>) -> Result<()> {
        let sync = self.sync;
        if number == 0 {
            self.clear_way()?;
        }
        let to = self.files.get_mut(number).ok_or_else(no_such_file)?;
        to.begin()?;
        let past_cache = sync == Durability::Synced && pieces.size() >= DIRECT_FROM && !to.is_direct();
        if past_cache && !pieces.shares_blocks(to)? && system::direct(&*to.file()?, true) {
            pieces.write_direct(to, meter)?;
        } else {
            pieces.write(to, sync == Durability::Synced, meter)?;
        }
        if to.is_frugal() || to.is_direct() {
            to.settle(sync)?;
        }
        Ok(())
    }

    pub(super) fn file(&self, number: usize) -> Result<&Staged> {
        self.files.get(number).ok_or_else(no_such_file)
    }

    /// Starts writing to the disk what has been written so far, where the end
    /// will wait for it.
    pub(super) fn start_writeback(&self, number: usize) {
        if let (Durability::Synced, Some(Ok(file))) = (self.sync, self.files.get(number).map(Staged::file)) {
            system::start_writeback(&file);
        }
    }

    /// Gives the finished files their names, the index last. After a failure all
    /// is as it was, but where the message says that the new files are in place.
    pub(super) fn publish(mut self, goes_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        for file in &mut self.files {
            file.settle(self.sync)?;
        }
        if let Some(index) = self.index.as_mut().filter(|index| !index.file.is_direct()) {
            index.file.settle(self.sync)?;
        }
        match self.names.take() {
            Some(names) if self.is_direct() => self.name_direct(&names),
            Some(names) if self.is_set || names.has_index() => self.name_set(&names, goes_on),
            _ => self.name_files(),
        }
    }

    /// Names a single file, in one step.
    fn name_files(&mut self) -> Result<()> {
        for file in &mut self.files {
            file.publish(self.overwrite)?;
        }
        self.sync_names(self.files.iter(), NamedFiles::InPlace)
    }

    /// What is written straight into its names has them. The index comes last,
    /// and then nothing older stays.
    fn name_direct(&mut self, names: &SetNames) -> Result<()> {
        for file in &mut self.files {
            file.publish(self.overwrite)?;
        }
        if let Some(IndexFile { file, text }) = &mut self.index {
            file.begin()?;
            file.write_at(text, 0)?;
            file.settle(self.sync)?;
            file.publish(self.overwrite)?;
        }
        self.sync_names(self.all(), NamedFiles::InPlace)?;
        if self.is_set {
            if self.index.is_none() {
                names.remove_index();
            }
            names.remove_older(self.files.len());
        }
        Ok(())
    }

    /// Names the files of a set, or one that takes a set's place, in a turn of
    /// its own: at every moment the older set is whole, or the new one.
    fn name_set(&mut self, names: &SetNames, goes_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let _turn = names.turn(goes_on)?;
        let index = self.index.as_mut().map(|index| &mut index.file);
        self.files.iter_mut().chain(index).try_for_each(Staged::look_again)?;
        let older = match self.overwrite {
            Overwrite::Refuse => None,
            _ => Older::look(names)?,
        };
        let stand_in = match &older {
            Some(older) if self.index.is_some() || !is_just(older, &names.plain())? => {
                StandIn::raise(names, older, &self.files, self.sync)?
            }
            _ => None,
        };
        let named = self.name_in_turn(names);
        if named.is_err() {
            if let Some(stand_in) = &stand_in {
                stand_in.give_way(&self.files);
            }
            self.files.iter().for_each(Staged::withdraw);
        }
        named?;
        self.sync_names(self.all(), NamedFiles::InPlace)?;
        if let Some(stand_in) = stand_in {
            stand_in.clear();
        }
        if self.overwrite != Overwrite::Refuse {
            names.remove_older(self.files.len());
        }
        Ok(())
    }

    fn name_in_turn(&mut self, names: &SetNames) -> Result<()> {
        if self.index.is_none() && self.overwrite != Overwrite::Refuse && names.has_index() {
            self.index = self.index_of_one(names)?;
        }
        for file in &mut self.files {
            file.publish(self.overwrite)?;
        }
        let Some(IndexFile { file: index, .. }) = &mut self.index else { return Ok(()) };
        // An index must not outlast a power failure that its shards do not.
        sync_folders(self.sync, self.files.iter(), NamedFiles::NotYet)?;
        index.publish(self.overwrite)
    }

    /// An index that leads to the single file, in place of an older one for as
    /// long as anything else of that is there.
    fn index_of_one(&self, names: &SetNames) -> Result<Option<IndexFile>> {
        let target = Target::resolve(&names.at(&names.index()), Path::new(&names.index()), Overwrite::Replace)?;
        let plain = names.plain();
        let files: Vec<_> = self.files.iter().map(|file| (file.path().to_owned(), plain.as_str())).collect();
        let text = older::index_of(&files)?;
        let mut file = Staged::create(target, &names.tag())?;
        file.write_at(&text, 0)?;
        file.settle(self.sync)?;
        Ok(Some(IndexFile { file, text: Vec::new() }))
    }

    fn all(&self) -> impl Iterator<Item = &Staged> {
        self.files.iter().chain(self.index.as_ref().map(|index| &index.file))
    }

    fn sync_names<'a>(&'a self, files: impl Iterator<Item = &'a Staged>, named: NamedFiles) -> Result<()> {
        sync_folders(self.sync, files, named)
    }
}

/// What an error of bringing names to the disk says of the files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NamedFiles {
    InPlace,
    NotYet,
}

/// Makes the names of these files outlast a power failure, if asked to.
fn sync_folders<'a>(sync: Durability, files: impl Iterator<Item = &'a Staged>, named: NamedFiles) -> Result<()> {
    if sync == Durability::Unsynced {
        return Ok(());
    }
    // Each folder once: one as a rule, more where shards are symbolic links.
    let mut folders: Vec<(&Path, &Staged)> = Vec::new();
    for file in files {
        match folders.iter_mut().find(|(folder, _)| *folder == file.folder()) {
            // Of the files in it the last: the index, where there is one.
            Some((_, last)) => *last = file,
            None => folders.push((file.folder(), file)),
        }
    }
    folders.into_iter().try_for_each(|(folder, file)| match named {
        NamedFiles::InPlace => stage::sync_folder(folder, Some(&file.label())),
        NamedFiles::NotYet => stage::sync_folder(folder, None),
    })
}

/// Whether the older set is this one file, without an index.
fn is_just(older: &Older, plain: &str) -> Result<bool> {
    Ok(!older.is_index && older.names()? == [plain])
}

fn index_text(layout: &SaveLayout, tensors: &[NewTensor<'_>], shards: &[String]) -> Result<Vec<u8>> {
    let places = layout.places()?;
    let entries = layout.by_name.iter().filter_map(|index| {
        let index = usize::try_from(*index).ok()?;
        Some((tensors.get(index)?.name, shards.get(places.get(index)?.file)?.as_str()))
    });
    text::index(Some(layout.data_size), entries)
}

fn no_such_file() -> Error {
    Error::new(ErrorKind::Internal, "a file's number is out of range")
}
