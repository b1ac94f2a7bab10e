// SPDX-License-Identifier: Apache-2.0
//! Other metadata for a file whose tensors stay where they are.
//!
//! Safe where the file system can share blocks: a new file takes over the old
//! one's data without copying, gets the new header and then the name. A header
//! that has become too long moves the data by whole blocks. Elsewhere the
//! header can only be overwritten where it is, if the caller accepts that: in
//! one write past the page cache, which no signal cuts short, where the file
//! system has such writes.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::layout::sorted_metadata;
use super::set::SetNames;
use super::stage::{self, Staged};
use super::system;
use super::target::{Base, Target};
use super::temporary;
use super::text::HeaderText;
use super::{Durability, MetadataEntry, NewTensor, Overwrite};
use crate::base::memory::{self, Aligned};
use crate::base::sort;
use crate::checkpoint::Checkpoint;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::format::header::LENGTH_BYTES;
use crate::options::{Access, OpenOptions};
use crate::source::{self, BLOCK};

/// How metadata may be changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct EditOptions {
    /// Where blocks can't be shared, overwrite the header where it is. A crash
    /// in that moment can leave a header that can't be read.
    pub in_place: bool,
    /// Durability.
    pub sync: Durability,
}

/// What is to become of a file's metadata.
#[derive(Clone, Copy)]
enum Change<'a> {
    /// Just these entries, or none at all.
    Replace(Option<&'a [MetadataEntry<'a>]>),
    /// These keys get these values or are removed; others stay.
    Merge(&'a [(&'a str, Option<&'a str>)]),
}

/// Replaces all metadata of one file (`None`: removes it) without rewriting
/// its tensors; with an index, that of each of its shards.
///
/// # Errors
/// Whatever reading the file finds; `BufferSize` where the new header does not
/// fit, and `Unsupported` where only overwriting would do and that was not
/// allowed; `Io` with the errno. Several files are changed one after another,
/// once it is known that all of them can be.
pub fn set_metadata(path: &Path, metadata: Option<&[MetadataEntry<'_>]>, options: &EditOptions) -> Result<()> {
    change(path, Change::Replace(metadata), options)
}

/// Sets some of the metadata's keys, removes those without a value, and keeps
/// the others.
///
/// # Errors
/// As [`set_metadata`].
pub fn merge_metadata(path: &Path, entries: &[(&str, Option<&str>)], options: &EditOptions) -> Result<()> {
    let keys = sort::sorted(entries.iter().map(|(key, _)| key.as_bytes()), "metadata keys")?;
    if let Some((key, _)) = sort::repeated(&keys).next() {
        return Err(Error::new(ErrorKind::DuplicateKey, format!("metadata has the key {} twice", quoted(key))));
    }
    change(path, Change::Merge(entries), options)
}

fn change(path: &Path, change: Change<'_>, options: &EditOptions) -> Result<()> {
    let in_path = |error: Error| error.in_path(path);
    let base = Base::of(path).map_err(in_path)?;
    if !path.as_os_str().as_bytes().ends_with(b".json") {
        let edit = Edit::prepare(&base, path, change, options).map_err(in_path)?;
        return edit.apply(options.sync).map_err(in_path);
    }
    // Nobody replaces the set in the meantime.
    let stem = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".index.json"));
    let names = stem.and_then(|stem| SetNames::of(&base.with_name(stem)));
    let _turn = names.map(|names| names.turn(&mut || Ok(()))).transpose().map_err(in_path)?;
    let shards = shards(&base.path).map_err(in_path)?;
    let mut edits = memory::vec_with_capacity(shards.len(), "shards")?;
    for shard in &shards {
        let edit = Base::of(shard).and_then(|base| Edit::prepare(&base, shard, change, options));
        edits.push(edit.map_err(|error| error.in_path(shard))?);
    }
    for (edit, shard) in edits.into_iter().zip(&shards) {
        edit.apply(options.sync).map_err(|error| error.in_path(shard))?;
    }
    Ok(())
}

/// The files to which an index leads.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let options = OpenOptions { access: Access::Read, ..OpenOptions::default() };
    let checkpoint = Checkpoint::open(index, &options)?;
    let mut shards = memory::vec_with_capacity(checkpoint.shards().len(), "shards")?;
    let path = |shard: usize| PathBuf::from(std::ffi::OsStr::from_bytes(checkpoint.shard_label(shard)));
    shards.extend((0..checkpoint.shards().len()).map(path));
    Ok(shards)
}

/// A change to one file that is known to be possible.
struct Edit {
    /// The file with its new header, which takes the older one's name.
    renamed: Option<Staged>,
    /// What can be done without, or where that fails.
    overwritten: Option<Overwriting>,
}

struct Overwriting {
    path: PathBuf,
    /// Device, inode and size of the file for which the header was made.
    identity: (u64, u64, u64),
    header: Vec<u8>,
}

impl Edit {
    fn prepare(base: &Base, asked: &Path, change: Change<'_>, options: &EditOptions) -> Result<Self> {
        // Before anything is opened.
        if let Change::Replace(Some(entries)) = change {
            sorted_metadata(entries)?;
        }
        let target = Target::resolve(base, asked, Overwrite::Replace)?;
        if target.existing.is_none() {
            return Err(Error::os("opening", &io::Error::from_raw_os_error(libc::ENOENT)));
        }
        let open = OpenOptions { access: Access::Read, ..OpenOptions::default() };
        let checkpoint = Checkpoint::open_file(&target.path, &open)?;
        let metadata = new_metadata(&checkpoint, change)?;
        let start = checkpoint.shards().first().map_or(0, |shard| shard.data_offset());
        let (tensors, ends) = tensors(&checkpoint)?;
        let text = HeaderText::new(metadata.as_deref(), &tensors, &ends)?;
        let file = checkpoint.file_of(0)?.ok_or_else(|| Error::new(ErrorKind::Internal, "a file without a file"))?;
        let block = block_size(&file)?;
        let moved = text.end().saturating_sub(start).checked_next_multiple_of(block).unwrap_or(u64::MAX);
        let path = target.path.clone();
        if let Some(mut staged) = clone(&file, target, start, moved, block)? {
            staged.write_at(&text.write(start.saturating_add(moved), 0)?, 0)?;
            staged.settle(options.sync)?;
            return Ok(Self { renamed: Some(staged), overwritten: None });
        }
        if text.end() > start {
            return Err(no_room(text.end(), start));
        }
        if !options.in_place {
            let text = format!(
                "the file system can't share blocks, and overwriting the header in place was not allowed: it would fit, in the {} bytes there are",
                start.saturating_sub(LENGTH_BYTES as u64)
            );
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let header = text.write(start, 0)?;
        let identity = identity(&file).map_err(|error| Error::os("looking at the file", &error))?;
        // One page is written as a whole. Where less than a block of data comes
        // after more of them, a copy costs less than a write that might be cut short.
        let target = Target::resolve(base, asked, Overwrite::Replace)?;
        let renamed = match header.len() > BLOCK && identity.2 < whole_blocks(header.len()) as u64 {
            true => copy(&file, target, &header, identity.2, options.sync).ok(),
            false => None,
        };
        Ok(Self { renamed, overwritten: Some(Overwriting { path, identity, header }) })
    }

    fn apply(self, sync: Durability) -> Result<()> {
        if let Some(mut staged) = self.renamed {
            match (staged.publish(Overwrite::Replace), &self.overwritten) {
                (Ok(()), _) if sync == Durability::Synced => {
                    return stage::sync_folder(staged.folder(), Some(&staged.label()));
                }
                (Ok(()), _) => return Ok(()),
                (Err(error), None) => return Err(error),
                (Err(_), Some(_)) => {}
            }
        }
        self.overwritten.map_or(Ok(()), |overwriting| overwriting.apply(sync))
    }
}

/// What the file's metadata will be.
fn new_metadata<'a>(checkpoint: &'a Checkpoint, change: Change<'a>) -> Result<Option<Vec<MetadataEntry<'a>>>> {
    let entries = match change {
        Change::Replace(metadata) => return metadata.map(sorted_metadata).transpose(),
        Change::Merge(entries) => entries,
    };
    let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).unwrap_or_default();
    let there = checkpoint.metadata();
    let mut all = memory::vec_with_capacity(entries.len().saturating_add(there.map_or(0, <[_]>::len)), "metadata")?;
    let changed = sort::sorted(entries.iter().map(|(key, _)| key.as_bytes()), "metadata keys")?;
    for entry in there.unwrap_or_default() {
        if changed.binary_search_by(|(key, _)| (*key).cmp(entry.key())).is_err() {
            all.push((text(entry.key()), text(entry.value())));
        }
    }
    all.extend(entries.iter().filter_map(|(key, value)| Some((*key, (*value)?))));
    if all.is_empty() && there.is_none() {
        return Ok(None);
    }
    sorted_metadata(&all).map(Some)
}

/// The file's tensors, and where they end.
fn tensors(checkpoint: &Checkpoint) -> Result<(Vec<NewTensor<'_>>, Vec<u64>)> {
    let start = checkpoint.shards().first().map_or(0, |shard| shard.data_offset());
    let records = || checkpoint.tensors().iter();
    let tensors = records().map(|record| {
        let name = std::str::from_utf8(record.name()).unwrap_or_default();
        NewTensor::new(name, record.dtype(), record.shape())
    });
    let ends = records().map(|record| Ok(record.offset().saturating_sub(start).saturating_add(record.size())));
    let (count, what) = (records().len(), "tensors");
    Ok((memory::collect(tensors, count, what)?, memory::collect(ends, count, what)?))
}

fn no_room(needed: u64, start: u64) -> Error {
    let (needed, there) = (needed.saturating_sub(LENGTH_BYTES as u64), start.saturating_sub(LENGTH_BYTES as u64));
    let text = format!(
        "the new header takes {needed} bytes and there is room for {there}; the file system can't share blocks, so the data can't move: \
         write the file anew (st_open it, and st_save its st_tensors with it as st_save_options.source)"
    );
    Error::new(ErrorKind::BufferSize, text)
}

/// What a file system shares at least.
fn block_size(file: &File) -> Result<u64> {
    let found = file.metadata().map_err(|error| Error::os("reading the block size", &error))?;
    Ok(found.blksize().max(4096).checked_next_power_of_two().unwrap_or(4096))
}

/// A new file with the old one's blocks, from the one in which the data begins,
/// `moved` bytes further on. `None`: the file system can't.
fn clone(from: &File, target: Target, start: u64, moved: u64, block: u64) -> Result<Option<Staged>> {
    let tag = target.name();
    temporary::clear_stale(&target.folder, &tag, &mut |_| ());
    let staged = Staged::create(target, &tag)?;
    let first = start.saturating_sub(start.checked_rem(block).unwrap_or(0));
    match system::clone_tail(from, first, &*staged.file()?, first.saturating_add(moved)) {
        Ok(true) => Ok(Some(staged)),
        Ok(false) => Ok(None),
        Err(error) => Err(staged.failed("sharing the data's blocks", &error)),
    }
}

/// A copy with another header.
fn copy(from: &File, target: Target, header: &[u8], size: u64, sync: Durability) -> Result<Staged> {
    let data = size.saturating_sub(header.len() as u64);
    let mut bytes = memory::zeroed(usize::try_from(data).unwrap_or(usize::MAX), "the data")?;
    source::read_exact(from, header.len() as u64, &mut bytes)?;
    let tag = target.name();
    let mut staged = Staged::create(target, &tag)?;
    staged.write_at(header, 0)?;
    staged.write_at(&bytes, header.len() as u64)?;
    staged.settle(sync)?;
    Ok(staged)
}

fn whole_blocks(len: usize) -> usize {
    len.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX)
}

fn identity(file: &File) -> io::Result<(u64, u64, u64)> {
    file.metadata().map(|found| (found.dev(), found.ino(), found.size()))
}

impl Overwriting {
    /// The header's length, and so all else, stays.
    fn apply(&self, sync: Durability) -> Result<()> {
        let file = File::options().read(true).write(true).open(&self.path);
        let file = file.map_err(|error| Error::os("opening for writing", &error))?;
        if identity(&file).ok() != Some(self.identity) {
            return Err(Error::new(ErrorKind::Io, "another file has taken its place in the meantime"));
        }
        if !self.at_once(&file)? {
            let text = self.header.get(LENGTH_BYTES..).unwrap_or_default();
            let written = file.write_all_at(text, LENGTH_BYTES as u64);
            written.map_err(|error| Error::os("overwriting the header", &error))?;
        }
        match sync {
            Durability::Synced => {
                system::sync(&file).map_err(|error| Error::os("bringing the header to the disk", &error))
            }
            Durability::Unsynced => Ok(()),
        }
    }

    /// Writes it past the page cache: handed to the disk as a whole, where the
    /// page cache takes it page by page and stops for a signal. `false`: the
    /// file or the file system can't.
    fn at_once(&self, file: &File) -> Result<bool> {
        let end = whole_blocks(self.header.len());
        // One page is taken as a whole.
        if end <= BLOCK || (end as u64) > self.identity.2 {
            return Ok(false);
        }
        let mut blocks = Aligned::zeroed(end, "header")?;
        let (header, data) = blocks.as_mut().split_at_mut_checked(self.header.len()).unwrap_or_default();
        header.copy_from_slice(&self.header);
        source::read_exact(file, self.header.len() as u64, data)?;
        if !system::direct(file, true) {
            return Ok(false);
        }
        let written = file.write_at(blocks.as_mut(), 0);
        system::direct(file, false);
        let failed = |error: io::Error| Error::os("overwriting the header", &error);
        match written {
            Ok(done) if done < end => {
                let rest = blocks.as_mut().get(done..).unwrap_or_default();
                file.write_all_at(rest, done as u64).map(|()| true).map_err(failed)
            }
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}
