// SPDX-License-Identifier: Apache-2.0
//! Writing: tensors → layout → writer → file.
//!
//! What could not be read back is refused before anything is written. Files
//! appear whole or not at all.
#![deny(unsafe_code)]

mod coverage;
mod edit;
mod handover;
mod layout;
mod older;
mod order;
mod output;
mod permissions;
mod set;
mod spelling;
mod stage;
mod stand_in;
mod stream;
mod system;
mod target;
mod temporary;
mod tensor;
mod text;
mod transfer;
mod turn;

pub use edit::{merge_metadata, set_metadata, EditOptions};
pub(crate) use spelling::is_plain;
pub use stream::Writer;
pub use tensor::NewTensor;

use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use layout::{FileLayout, HeaderRoom, SaveLayout, Supply};
use output::Output;
use transfer::{FilePieces, Meter};

/// How tensors follow one another in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TensorOrder {
    /// As the reference implementation writes them: by dtype, then by name.
    #[default]
    Reference,
    /// As they were given.
    Given,
}

/// How sure it is that a finished file outlasts a power failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// File and folder are on the disk when the call returns.
    #[default]
    Synced,
    /// The system writes them in its own time.
    Unsynced,
}

/// What to do where a file of that name exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Replace it, in one step.
    #[default]
    Replace,
    /// Refuse, with `EEXIST`.
    Refuse,
    /// Write straight into the name, where nothing can be renamed: what is
    /// there is emptied first, and a crash leaves a part.
    Direct,
}

/// How to write. The default gives the reference implementation's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SaveOptions {
    /// How tensors follow one another.
    pub order: TensorOrder,
    /// The data section begins at a multiple of this; 0: 8.
    pub alignment: u64,
    /// Most bytes of tensors in one file; 0: one file, whatever its size.
    pub max_shard_size: u64,
    /// Durability.
    pub sync: Durability,
    /// What to do with an existing file.
    pub overwrite: Overwrite,
    /// Spare bytes in the header, for later metadata.
    pub header_reserve: u64,
}

/// Key and value.
pub type MetadataEntry<'a> = (&'a str, &'a str);

/// Told (done, total) in bytes of tensors; false ends the save.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) -> bool + Send);

/// Writes a file, or shards and their index.
///
/// # Errors
/// What can't be read back is refused under its rule's kind; `Io` with the
/// errno, in which case nothing is left behind and an older file is untouched.
pub fn save<'a>(
    path: &Path,
    tensors: &[NewTensor<'_>],
    metadata: Option<&[MetadataEntry<'_>]>,
    options: &SaveOptions,
    sources: impl IntoIterator<Item = &'a Checkpoint>,
    progress: Option<Progress<'_>>,
) -> Result<()> {
    let sources: Vec<_> = sources.into_iter().collect();
    let layout = SaveLayout::new(tensors, metadata, options, Supply::From(&sources), HeaderRoom::Alone)?;
    let mut output = Output::create(path, &layout, tensors, options)?;
    if options.overwrite == Overwrite::Direct {
        output.refuse_sources(&sources)?;
    }
    let mut meter = Meter::new(layout.data_size, progress);
    for (number, file) in layout.files.iter().enumerate() {
        let pieces = FilePieces::of(&layout, file, &sources);
        output.fill(number, &pieces, &mut meter)?;
    }
    meter.finish()?;
    output.publish(&mut || meter.tell())
}

/// Hands the bytes that [`serialize`] would give to `write`, front to back, and
/// holds none of them but the header.
///
/// # Errors
/// As [`serialize`], and whatever `write` returns.
pub fn save_to<'a>(
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
    tensors: &[NewTensor<'_>],
    metadata: Option<&[MetadataEntry<'_>]>,
    options: &SaveOptions,
    sources: impl IntoIterator<Item = &'a Checkpoint>,
    progress: Option<Progress<'_>>,
) -> Result<()> {
    let sources: Vec<_> = sources.into_iter().collect();
    let layout = SaveLayout::new(tensors, metadata, options, Supply::From(&sources), HeaderRoom::Alone)?;
    let mut meter = Meter::new(layout.data_size, progress);
    let file = only_file(&layout)?;
    FilePieces::of(&layout, file, &sources).deliver(write, &mut meter)?;
    meter.finish()
}

fn only_file<'a>(layout: &'a SaveLayout<'_>) -> Result<&'a FileLayout> {
    match layout.files.as_slice() {
        [file] => Ok(file),
        several => {
            let text = format!("max_shard_size makes {} files of it, and this writes one", several.len());
            Err(Error::new(ErrorKind::Unsupported, text))
        }
    }
}

/// The bytes that [`save`] would write, in memory.
///
/// # Errors
/// As [`save`]; `Unsupported` where it would take several files.
pub fn serialize<'a>(
    tensors: &[NewTensor<'_>],
    metadata: Option<&[MetadataEntry<'_>]>,
    options: &SaveOptions,
    sources: impl IntoIterator<Item = &'a Checkpoint>,
    progress: Option<Progress<'_>>,
) -> Result<Vec<u8>> {
    let sources: Vec<_> = sources.into_iter().collect();
    let mut layout = SaveLayout::new(tensors, metadata, options, Supply::From(&sources), HeaderRoom::WithData)?;
    only_file(&layout)?;
    // The data goes on after the header, where that is.
    let mut out = layout.files.first_mut().map(|file| std::mem::take(&mut file.header)).unwrap_or_default();
    let mut meter = Meter::new(layout.data_size, progress);
    let pieces = layout.files.first().map(|file| FilePieces::of(&layout, file, &sources));
    pieces.map_or(Ok(()), |pieces| pieces.append_to(&mut out, &mut meter))?;
    meter.finish()?;
    Ok(out)
}
