// SPDX-License-Identifier: Apache-2.0
//! Other metadata for a file whose tensors stay where they are.
//!
//! Safe where the file system can share blocks: a new file takes over the old
//! one's data without copying, gets the new header and then the name. A header
//! that has become too long moves the data by whole blocks. Elsewhere the
//! header can only be overwritten where it is, if the caller accepts that.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::layout::sorted_metadata;
use super::stage::{self, Staged};
use super::system;
use super::target::Target;
use super::text::{HeaderText, LENGTH_BYTES};
use super::{Durability, MetadataEntry, NewTensor, Overwrite};
use crate::base::memory;
use crate::checkpoint::Checkpoint;
use crate::error::{escaped, Error, ErrorKind, Result};
use crate::options::{Access, OpenOptions};

/// How metadata may be changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct EditOptions {
    /// Where blocks can't be shared, overwrite the header where it is. A crash
    /// in that moment can leave a header that can't be read.
    pub in_place: bool,
    /// Durability.
    pub sync: Durability,
}

/// Replaces all metadata of one file (`None`: removes it) without rewriting
/// its tensors.
///
/// # Errors
/// Whatever reading the file finds; `BufferSize` where the new header does not
/// fit, and `Unsupported` where only overwriting would do and that was not
/// allowed; `Io` with the errno.
pub fn set_metadata(path: &Path, metadata: Option<&[MetadataEntry<'_>]>, options: &EditOptions) -> Result<()> {
    edit(path, metadata, options).map_err(|error| error.in_file(&escaped(path.as_os_str().as_bytes())))
}

fn edit(path: &Path, metadata: Option<&[MetadataEntry<'_>]>, options: &EditOptions) -> Result<()> {
    let metadata = metadata.map(sorted_metadata).transpose()?;
    let target = Target::resolve(path, Overwrite::Replace)?;
    if target.existing.is_none() {
        return Err(Error::os("opening", &io::Error::from_raw_os_error(libc::ENOENT)));
    }
    let open = OpenOptions { access: Access::Read, ..OpenOptions::default() };
    let checkpoint = Checkpoint::open_file(&target.path, &open)?;
    let start = checkpoint.shards().first().map_or(0, |shard| shard.data_offset());
    let (tensors, ends) = tensors(&checkpoint)?;
    let text = HeaderText::new(metadata.as_deref(), &tensors, &ends)?;
    let file = checkpoint.file_of(0)?.ok_or_else(|| Error::new(ErrorKind::Internal, "a file without a file"))?;
    let block = block_size(&file)?;
    let moved = text.end().saturating_sub(start).checked_next_multiple_of(block).unwrap_or(u64::MAX);
    if let Some(mut staged) = clone(&file, target, start, moved, block)? {
        staged.write_at(&text.write(start.saturating_add(moved), 0)?, 0)?;
        staged.settle(options.sync)?;
        staged.publish(Overwrite::Replace)?;
        return match options.sync {
            Durability::Synced => stage::sync_folder(staged.folder()),
            Durability::Unsynced => Ok(()),
        };
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
    overwrite(path, &file, &text.write(start, 0)?, options.sync)
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
        "the new header takes {needed} bytes and there is room for {there}; the file system can't share blocks, so the data can't move"
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
    stage::clear_stale(&target.folder, &tag);
    let staged = Staged::create(target, &tag)?;
    let first = start.saturating_sub(start.checked_rem(block).unwrap_or(0));
    match system::clone_tail(from, first, staged.file(), first.saturating_add(moved)) {
        Ok(true) => Ok(Some(staged)),
        Ok(false) => Ok(None),
        Err(error) => Err(staged.failed("sharing the data's blocks", &error)),
    }
}

/// One write of the header's text. Its length, and so all else, stays.
fn overwrite(path: &Path, read: &File, new: &[u8], sync: Durability) -> Result<()> {
    let file = File::options().write(true).open(path).map_err(|error| Error::os("opening for writing", &error))?;
    let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino(), found.size()));
    if identity(&file).ok() != identity(read).ok() {
        return Err(Error::new(ErrorKind::Io, "another file has taken its place in the meantime"));
    }
    let text = new.get(LENGTH_BYTES..).unwrap_or_default();
    file.write_all_at(text, LENGTH_BYTES as u64).map_err(|error| Error::os("overwriting the header", &error))?;
    match sync {
        Durability::Synced => file.sync_all().map_err(|error| Error::os("bringing the header to the disk", &error)),
        Durability::Unsynced => Ok(()),
    }
}
