// SPDX-License-Identifier: Apache-2.0
//! Opens what a path means: a file, an index and its shards, or a folder of
//! either. What is replaced while it is being opened is opened again.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::folder::{choose, CheckpointFiles, FolderChoice};
use super::name;
use super::shards::{self, c_path, label, OpenIndex, Whose};
use super::Checkpoint;
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::budget::HeaderBudget;
use crate::format::header::Header;
use crate::format::index;
use crate::options::OpenOptions;
use crate::source::{self, Manner, ReadAt, Source, Stamp};

/// How often a set that changes meanwhile is opened again.
const MOST_TRIES: u64 = 10;

impl Checkpoint {
    /// Opens a `.safetensors` file, an index file or a folder with either.
    ///
    /// # Errors
    /// Says which file, tensor and rule.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let in_path = |error: Error| error.in_path(path);
        for attempt in 0..MOST_TRIES {
            // Who replaces it needs the processor too.
            thread::sleep(Duration::from_millis(attempt));
            if let Some(checkpoint) = try_open(path, options).map_err(in_path)? {
                return Ok(checkpoint);
            }
        }
        let text = format!("is being replaced: it changed {MOST_TRIES} times while it was opened");
        Err(in_path(Error::new(ErrorKind::Io, text)))
    }

    /// Opens these files as one checkpoint, in their order.
    ///
    /// # Errors
    /// `InvalidArgument` for none, and for an index among them; else as [`open`](Self::open).
    pub fn open_files(paths: &[&Path], options: &OpenOptions) -> Result<Self> {
        let Some(first) = paths.first() else {
            return Err(Error::new(ErrorKind::InvalidArgument, "no paths are given"));
        };
        let mut names = memory::vec_with_capacity(paths.len(), "paths")?;
        for path in paths {
            let bytes = path.as_os_str().as_bytes();
            let found = source::look_at(path).map_err(|error| error.in_file(&label(bytes)))?;
            if !found.is_dir() && name::is_index(bytes) || json_index(path, options).is_some() {
                let text = "is an index, and not one of a checkpoint's files: open it by itself";
                return Err(Error::new(ErrorKind::InvalidArgument, text).in_file(&label(bytes)));
            }
            names.push(memory::concat(&[bytes], "paths")?);
        }
        let mut whole = label(first.as_os_str().as_bytes());
        if let more @ 1.. = paths.len().saturating_sub(1) {
            whole += &format!(" and {more} more");
        }
        let budget = HeaderBudget::of_set(&options.limits, &whole);
        let parts = shards::open_parts(&names, options, &budget, Whose::Callers);
        let checkpoint = parts.and_then(|parts| Self::assemble(parts, None, &whole));
        checkpoint.map_err(|error| error.in_file(&whole))
    }

    /// Opens a part of a file that is open already: `size` bytes from `offset` on,
    /// or all up to its end where that is 0. Keeps a duplicate of the descriptor.
    ///
    /// # Errors
    /// `Io` for what is not a regular file, `InvalidArgument` for a part outside it;
    /// else says which tensor and rule.
    pub fn open_fd(fd: BorrowedFd<'_>, offset: u64, size: u64, options: &OpenOptions) -> Result<Self> {
        let name = format!("descriptor {}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let source = Source::part(fd, offset, size, options.access);
        source.and_then(|source| single(None, source, options, &name)).map_err(|error| error.in_file(&name))
    }

    /// Opens one `.safetensors` file, and nothing else that a path can mean.
    pub(crate) fn open_file(path: &Path, options: &OpenOptions) -> Result<Self> {
        let opened = source::check_regular(path).and_then(|()| open_single(path, options));
        opened.map_err(|error| error.in_path(path))
    }

    /// A checkpoint in memory that stays as it is for as long as the checkpoint lives.
    ///
    /// # Errors
    /// Says which tensor and rule.
    pub fn open_memory(bytes: &'static [u8], options: &OpenOptions) -> Result<Self> {
        single(None, Source::memory(bytes), options, "memory").map_err(|error| error.in_file("memory"))
    }

    /// One file through a reader of the caller's.
    ///
    /// # Errors
    /// Says which tensor and rule, or what the reader said.
    pub fn open_reader(reader: Box<dyn ReadAt>, options: &OpenOptions) -> Result<Self> {
        single(None, Source::callback(reader), options, "read_at").map_err(|error| error.in_file("read_at"))
    }
}

/// What a path leads to.
pub(crate) enum FoundFiles {
    File,
    Index,
    Folder(FolderChoice),
}

impl FoundFiles {
    pub(crate) fn at(path: &Path, options: &OpenOptions) -> Result<Self> {
        let found = source::look_at(path)?;
        if found.is_dir() {
            return choose(path, options).map(Self::Folder);
        }
        if name::is_index(path.as_os_str().as_bytes()) || json_index(path, options).is_some() {
            return Ok(Self::Index);
        }
        source::require_regular(&found).map(|()| Self::File)
    }
}

/// A `.json` file that has a weight_map is an index, whatever it is called.
fn json_index(path: &Path, options: &OpenOptions) -> Option<()> {
    if !name::is_json(path.as_os_str().as_bytes()) {
        return None;
    }
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    if found.len() > options.limits.header_bytes {
        return None;
    }
    let text = OpenIndex::read(path, options, &HeaderBudget::of_set(&options.limits, "")).ok()?.text;
    index::has_weight_map(&text).then_some(())
}

/// Opens it; `None` where it has changed meanwhile, and what was found may be
/// a mixture of old and new.
fn try_open(path: &Path, options: &OpenOptions) -> Result<Option<Checkpoint>> {
    let chosen = match FoundFiles::at(path, options)? {
        FoundFiles::File => return open_single(path, options).map(Some),
        FoundFiles::Index => return open_index(path, options, &label(path.as_os_str().as_bytes())),
        FoundFiles::Folder(chosen) => chosen,
    };
    let whole = label(chosen.folder.as_os_str().as_bytes());
    let in_file = |error: Error, file: &PathBuf| error.in_path(file);
    let opened = match &chosen.files {
        CheckpointFiles::File(file) => {
            let opened = source::check_regular(file).and_then(|()| open_single(file, options));
            opened.map(Some).map_err(|error| in_file(error, file))
        }
        CheckpointFiles::Index(index) => open_index(index, options, &whole),
        CheckpointFiles::Series(files) => open_series(files, options, &whole).map(Some),
    };
    let still = || matches!(FoundFiles::at(path, options), Ok(FoundFiles::Folder(now)) if now == chosen);
    match (opened, &chosen.files) {
        // One file is whole, and an index has been looked at again, whatever lies beside them.
        (Ok(opened), CheckpointFiles::File(_) | CheckpointFiles::Index(_)) => Ok(opened),
        (Ok(Some(opened)), CheckpointFiles::Series(files)) => Ok((still() && opened.is_of(files)).then_some(opened)),
        (opened, _) if still() => opened,
        _ => Ok(None),
    }
}

impl Checkpoint {
    /// Whether these are still the files that were opened.
    fn is_of(&self, files: &[Vec<u8>]) -> bool {
        let now = |file: &Vec<u8>| Stamp::at(Path::new(std::ffi::OsStr::from_bytes(file)));
        let then = self.sources.iter().map(Source::stamp);
        files.iter().map(now).zip(then).all(|pair| match pair {
            (Some(now), Some(then)) => now.same_contents(&then),
            _ => false,
        })
    }
}

fn open_single(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let source = Source::file(path, &Manner::of(options.access, 1)?)?;
    let bytes = path.as_os_str().as_bytes();
    single(Some(bytes), source, options, &label(bytes))
}

fn single(path: Option<&[u8]>, source: Source, options: &OpenOptions, whole: &str) -> Result<Checkpoint> {
    let header = Header::read(&source, 0, &options.limits, options.tolerate, &HeaderBudget::of_one(&options.limits))?;
    source.prefetch(options.prefetch);
    Checkpoint::single(path.map(c_path).transpose()?, source, header, whole)
}

fn open_series(files: &[Vec<u8>], options: &OpenOptions, whole: &str) -> Result<Checkpoint> {
    let parts = shards::open_parts(files, options, &HeaderBudget::of_set(&options.limits, whole), Whose::Sets);
    let checkpoint = parts.and_then(|parts| Checkpoint::assemble(parts, None, whole));
    checkpoint.map_err(|error| error.in_file(whole))
}

/// An index and its shards; `None` where the index is another one by now.
fn open_index(path: &Path, options: &OpenOptions, whole: &str) -> Result<Option<Checkpoint>> {
    let bytes = path.as_os_str().as_bytes();
    let in_index = |error: Error| error.in_file(&label(bytes));
    let budget = HeaderBudget::of_set(&options.limits, whole);
    let mut read = OpenIndex::read(path, options, &budget).map_err(in_index)?;
    let text = std::mem::take(&mut read.text);
    let open = || {
        let index = shards::parse_index(text).map_err(in_index)?;
        let paths = shards::shards_beside(bytes, &index).map_err(in_index)?;
        let parts = shards::open_parts(&paths, options, &budget, Whose::Sets);
        let parts = parts.map_err(|error| error.in_file(whole))?;
        Checkpoint::assemble(parts, Some(index), whole).map_err(in_index)
    };
    let opened = open();
    match read.is_still_at(path) {
        true => opened.map(Some),
        false => Ok(None),
    }
}
