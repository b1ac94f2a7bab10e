// SPDX-License-Identifier: Apache-2.0
//! Several files on their way into one checkpoint: an index is read, shards are
//! opened side by side, and what is missing is counted.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::assembly::{OpenedFile, Records};
use crate::base::parallel::{self, Stack};
use crate::base::{memory, sort};
use crate::error::{escaped, listed, quoted, Error, ErrorKind, Result};
use crate::format::budget::HeaderBudget;
use crate::format::finding;
use crate::format::header::Header;
use crate::format::index::Index;
use crate::options::OpenOptions;
use crate::source::{self, Manner, Source, Stamp};

/// An index that has been read, and its file: while that is open, no other file
/// gets its inode's number.
pub(crate) struct OpenIndex {
    pub(crate) text: Vec<u8>,
    source: Source,
}

impl OpenIndex {
    pub(crate) fn read(path: &Path, options: &OpenOptions, budget: &HeaderBudget) -> Result<Self> {
        source::check_regular(path)?;
        // Read, whatever the options say: an index is never mapped.
        let source = Source::file(path, &Manner::once())?;
        let text = index_text(&source, options, budget)?;
        Ok(Self { text, source })
    }

    /// Whether the index is still what was read.
    pub(crate) fn is_still_at(&self, path: &Path) -> bool {
        self.source.stamp().is_some_and(|stamp| Stamp::at(path) == Some(stamp))
    }
}

/// An index's text. No more of it is believed than there is.
pub(crate) fn index_text(source: &Source, options: &OpenOptions, budget: &HeaderBudget) -> Result<Vec<u8>> {
    let (size, limit) = (source.size(), options.limits.header_bytes);
    let Some(len) = usize::try_from(size).ok().filter(|_| size <= limit) else {
        return Err(Error::new(ErrorKind::Index, format!("index of {size} bytes exceeds the limit of {limit}")));
    };
    budget.take(size)?;
    let mut text = memory::zeroed(len, "index")?;
    source.read_exact_at(0, &mut text)?;
    Ok(text)
}

pub(crate) fn parse_index(text: Vec<u8>) -> Result<Index> {
    Index::parse(text, &mut finding::stop)?.ok_or_else(internal)
}

/// Whether two indexes lead to the same.
pub(super) fn say_the_same(one: &Path, other: &Path, options: &OpenOptions) -> Result<bool> {
    let read = |path: &Path| {
        let read = OpenIndex::read(path, options, &HeaderBudget::of_set(&options.limits, ""));
        let parsed = read.and_then(|read| parse_index(read.text));
        parsed.map_err(|error| error.in_path(path))
    };
    read(one)?.says_the_same(&read(other)?)
}

/// The shards' paths: their names after whatever comes before the index's own.
pub(crate) fn shards_beside(index_path: &[u8], index: &Index) -> Result<Vec<Vec<u8>>> {
    let after_slash = index_path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash.saturating_add(1));
    let folder = index_path.get(..after_slash).unwrap_or_default();
    let shards = index.shards();
    let count = shards.len();
    memory::collect(shards.map(|shard| memory::concat(&[folder, shard], "paths")), count, "paths")
}

/// Opens files and reads their headers side by side. `of_set`: that one is missing
/// is a fault of the set.
pub(crate) fn open_parts(
    paths: &[Vec<u8>],
    options: &OpenOptions,
    budget: &HeaderBudget,
    of_set: Whose,
) -> Result<Vec<OpenedFile>> {
    let manner = Manner::of(options.access, paths.len())?;
    // Each holds a descriptor while it looks at its file.
    let most = parallel::WAITING.min(source::descriptors_to_spare().max(1));
    let opened = parallel::map_on(paths.len(), most, Stack::Small, |number| {
        memory::headroom()?;
        let path = paths.get(number).map_or(&[][..], Vec::as_slice);
        let opened = open_file(path, &manner);
        opened.map_err(|error| of_set.blamed(error).in_file(&label(path)))
    });
    let sources = match opened {
        Ok(sources) => sources,
        Err(error) if error.os_errno() == libc::ENOENT => return Err(missing(paths, error)),
        Err(error) => return Err(error),
    };
    let stamps = sources.iter().map(|source| source.stamp().map(|stamp| stamp.identity()));
    let firsts = firsts(stamps)?;
    let headers = parallel::map_on(paths.len(), most, Stack::Small, |number| {
        memory::headroom()?;
        let (Some(source), Some(first)) = (sources.get(number), firsts.get(number)) else { return Err(internal()) };
        if *first != number {
            return Ok(Records::Of(*first));
        }
        let header = Header::read(source, shard_number(number)?, &options.limits, options.tolerate, budget);
        source.prefetch(options.prefetch);
        let path = paths.get(number).map_or(&[][..], Vec::as_slice);
        header.map(Records::Own).map_err(|error| error.in_file(&label(path)))
    })?;
    let parts = sources.into_iter().zip(headers).zip(paths);
    let part =
        |((source, records), path): ((_, _), &Vec<u8>)| Ok(OpenedFile { path: Some(c_path(path)?), source, records });
    memory::collect(parts.map(part), paths.len(), "shards")
}

/// Whose fault it is that a file can't be opened.
#[derive(Clone, Copy)]
pub(crate) enum Whose {
    /// The set's, which lacks a shard.
    Sets,
    /// That of whoever named the file.
    Callers,
}

impl Whose {
    pub(crate) fn blamed(self, error: Error) -> Error {
        match (self, error.kind()) {
            (Self::Sets, ErrorKind::Io) => error.with_kind(ErrorKind::Shard),
            _ => error,
        }
    }
}

pub(super) fn open_file(path: &[u8], manner: &Manner) -> Result<Source> {
    let path = Path::new(OsStr::from_bytes(path));
    source::check_regular(path)?;
    Source::file(path, manner)
}

/// For each file the first one that is the same.
pub(super) fn firsts(identities: impl ExactSizeIterator<Item = Option<(u64, u64)>>) -> Result<Vec<usize>> {
    let count = identities.len();
    let mut firsts = memory::vec_with_capacity(count, "shards")?;
    firsts.extend(0..count);
    let mut sorted = memory::vec_with_capacity(count, "shards")?;
    sorted.extend(identities.zip(0_u64..).filter_map(|(identity, number)| Some([identity?.0, identity?.1, number])));
    sort::rows(&mut sorted);
    let number = |row: &[u64; 3]| usize::try_from(row[2]).unwrap_or(usize::MAX);
    for same in sorted.chunk_by(|a, b| a[..2] == b[..2]) {
        for row in same {
            if let (Some(place), Some(first)) = (firsts.get_mut(number(row)), same.first()) {
                *place = number(first);
            }
        }
    }
    Ok(firsts)
}

/// The error for a set of which files are missing: how many, and which.
pub(super) fn missing(paths: &[Vec<u8>], error: Error) -> Error {
    if error.kind() != ErrorKind::Shard {
        return error;
    }
    let gone = |path: &&Vec<u8>| {
        let found = source::look_at(Path::new(OsStr::from_bytes(path)));
        found.is_err_and(|error| error.os_errno() == libc::ENOENT)
    };
    let (mut count, mut names) = (0_usize, Vec::new());
    for path in paths.iter().filter(gone) {
        count = count.saturating_add(1);
        if names.len() < 8 {
            names.push(path);
        }
    }
    let listed = listed(names.iter().map(|path| path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()));
    let more = if count > names.len() && !listed.ends_with("...") { ", ..." } else { "" };
    let links = names.iter().filter_map(|path| std::fs::read_link(Path::new(OsStr::from_bytes(path))).ok());
    // They lead to one folder; one of them tells which.
    let link = links.map(|target| format!("; there is a link to {}", quoted(target.as_os_str().as_bytes()))).next();
    let text = format!("{count} of {} shards missing: {listed}{more}{}", paths.len(), link.unwrap_or_default());
    Error::new(ErrorKind::Shard, text).with_errno(libc::ENOENT)
}

pub(crate) fn shard_number(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::new(ErrorKind::Unsupported, "more than 2^32 shards"))
}

pub(crate) fn internal() -> Error {
    Error::new(ErrorKind::Internal, "an index or a shard is not where it should be")
}

/// A path for a message.
pub(crate) fn label(path: &[u8]) -> String {
    escaped(path)
}

/// A path for C: it came from C or from the file system, so it has no NUL before this one.
pub(crate) fn c_path(path: &[u8]) -> Result<Vec<u8>> {
    memory::concat(&[path, b"\0"], "paths")
}
