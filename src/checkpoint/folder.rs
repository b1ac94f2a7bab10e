// SPDX-License-Identifier: Apache-2.0
//! Which of a folder's files are the checkpoint. Nothing is merged on a guess:
//! where the names leave a choice, the error names what there is to choose from.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::hub;
use super::listing::FolderListing;
use super::name::{self, FileNames, FileRole, Name, SeriesNumbering};
use super::shards;
use crate::base::{memory, sort};
use crate::error::{listed, quoted, Error, ErrorKind, Result};
use crate::options::{OpenOptions, Variant};

/// The files that a path means.
#[derive(PartialEq, Eq)]
pub(crate) enum CheckpointFiles {
    /// One file.
    File(PathBuf),
    /// An index, which names its shards.
    Index(PathBuf),
    /// All files of a series, in their order.
    Series(Vec<Vec<u8>>),
}

/// What a folder is opened as.
#[derive(PartialEq, Eq)]
pub(crate) struct FolderChoice {
    pub(crate) files: CheckpointFiles,
    /// The folder, or the one that it leads to.
    pub(crate) folder: PathBuf,
}

/// What a folder offers.
pub(crate) fn choose(folder: &Path, options: &OpenOptions) -> Result<FolderChoice> {
    let listing = FolderListing::of(folder)?;
    let names = listing.names()?;
    if !names.is_empty() {
        return Ok(FolderChoice { files: choose_among(folder, &names, options)?, folder: folder.into() });
    }
    let snapshot = hub::snapshot(folder, &listing)?;
    let chosen = FolderListing::of(&snapshot).and_then(|listing| {
        let names = listing.names()?;
        match names.is_empty() {
            true => Err(hub::nothing(&snapshot, &listing)),
            false => choose_among(&snapshot, &names, options),
        }
    });
    let files = chosen.map_err(|error| error.in_path(&snapshot))?;
    Ok(FolderChoice { files, folder: snapshot })
}

fn choose_among(folder: &Path, names: &FileNames<'_>, options: &OpenOptions) -> Result<CheckpointFiles> {
    let variant = options.variant.as_ref().map(Variant::as_bytes);
    let path = |file: &[u8]| folder.join(OsStr::from_bytes(file));
    let (mut indexes, mut files) = (Vec::new(), Vec::new());
    for name in names.of(variant) {
        let list = if name.role == FileRole::Index { &mut indexes } else { &mut files };
        memory::reserve(list, 1, "files")?;
        list.push(name);
    }
    if indexes.is_empty() && files.is_empty() {
        return Err(not_there(names, variant)?);
    }
    if let Some(index) = only_index(&mut indexes, &path, options)? {
        return Ok(CheckpointFiles::Index(path(index)));
    }
    if files.iter().any(|name| name.stem == b"model") {
        // The same weights again, as one family names them.
        files.retain(|name| !name::is_consolidated(name.stem));
    }
    let usual = || files.iter().find(|name| name.role == FileRole::Whole && name.stem == b"model");
    let only = if files.len() == 1 { files.first().filter(|name| name.role == FileRole::Whole) } else { None };
    if let Some(file) = only.or_else(usual) {
        return Ok(CheckpointFiles::File(path(file.file)));
    }
    let mut series = Vec::new();
    for name in &files {
        if let FileRole::Member(place) = name.role {
            memory::reserve(&mut series, 1, "files")?;
            series.push((name, place));
        }
    }
    // Names are in order, and so are numbers of equally many digits.
    if series.is_empty() || series.windows(2).any(|pair| pair.first().map(kind) != pair.last().map(kind)) {
        return Err(several(&files, variant)?);
    }
    complete(&series, variant)?;
    let paths = series.iter().map(|(name, _)| Ok(path(name.file).into_os_string().into_vec()));
    memory::collect(paths, series.len(), "paths").map(CheckpointFiles::Series)
}

/// What all members of one series have in common.
fn kind<'a>((name, place): &(&Name<'a>, SeriesNumbering)) -> (&'a [u8], SeriesNumbering) {
    (name.stem, SeriesNumbering { number: 0, ..*place })
}

/// Of a variant's indexes the one in charge: `model`'s, else the only one.
fn only_index<'a>(
    indexes: &mut Vec<Name<'a>>,
    path: &dyn Fn(&[u8]) -> PathBuf,
    options: &OpenOptions,
) -> Result<Option<&'a [u8]>> {
    if indexes.iter().any(|name| name.stem == b"model") {
        indexes.retain(|name| name.stem == b"model");
    }
    let Some((first, others)) = indexes.split_first() else { return Ok(None) };
    if others.iter().any(|other| other.stem != first.stem) {
        let names = listed(indexes.iter().map(|name| name.file));
        let text = format!("the folder holds {} index files ({names}): open one of them", indexes.len());
        return Err(Error::new(ErrorKind::Index, text));
    }
    for other in others {
        if !shards::say_the_same(&path(first.file), &path(other.file), options)? {
            let names = listed(indexes.iter().map(|name| name.file));
            let text = format!(
                "the folder holds {} index files of one variant ({names}), which differ: open one of them",
                indexes.len()
            );
            return Err(Error::new(ErrorKind::Index, text));
        }
    }
    Ok(Some(first.file))
}

/// Refuses a series of which numbers are missing.
fn complete(series: &[(&Name<'_>, SeriesNumbering)], variant: Option<&[u8]>) -> Result<()> {
    let Some((name, place)) = series.first() else { return Ok(()) };
    let missing = place.total.saturating_sub(series.len() as u64);
    if missing == 0 {
        return Ok(());
    }
    // There are as many as the files and the gaps between them: few are named.
    let mut there = series.iter().map(|(_, place)| place.number).peekable();
    let gone = (1..=place.total).filter(|number| there.next_if_eq(number).is_none());
    let names = gone.take(4).map(|number| name::of_member(name.stem, variant, SeriesNumbering { number, ..*place }));
    let names: Vec<_> = names.collect();
    let more = if missing > names.len() as u64 { ", ..." } else { "" };
    let names = listed(names.iter().map(Vec::as_slice));
    let text = format!("{missing} of {} shards missing: {names}{more}", place.total);
    Err(Error::new(ErrorKind::Shard, text).with_errno(libc::ENOENT))
}

/// The error of a folder with files of other variants alone.
fn not_there(names: &FileNames<'_>, variant: Option<&[u8]>) -> Result<Error> {
    let variants = names.variants()?;
    let there = listed(variants.iter().copied());
    let Some(variant) = variant else {
        let text = format!("the folder holds nothing but variants ({there}): ask for one of them");
        return Ok(Error::new(ErrorKind::Index, text));
    };
    let there = match (there.as_str(), names.of(None).next()) {
        ("", _) => "only files without one".into(),
        (_, None) => there,
        (_, Some(_)) => format!("{there}, and files without one"),
    };
    let text = format!("the folder has no variant {}, but {there}", quoted(variant));
    Ok(Error::new(ErrorKind::NotFound, text))
}

/// The error of a folder that leaves a choice.
fn several(files: &[Name<'_>], variant: Option<&[u8]>) -> Result<Error> {
    let word = variant.map_or(Vec::new(), |variant| [b".", variant].concat());
    let models = files.iter().map(|name| match name.role {
        FileRole::Member(SeriesNumbering { total, digits, word_last, .. }) => {
            let (before, after) = if word_last { (&[][..], &word[..]) } else { (&word[..], &[][..]) };
            memory::concat(&[name.stem, before, format!("-*-of-{total:0digits$}").as_bytes(), after], "files")
        }
        FileRole::Whole | FileRole::Index => memory::concat(&[name.stem], "files"),
    });
    let models = memory::collect(models, files.len(), "files")?;
    let mut models = sort::sorted(models.iter().map(Vec::as_slice), "files")?;
    models.dedup_by_key(|(model, _)| *model);
    let (count, names) = (models.len(), listed(models.iter().map(|(model, _)| *model)));
    let text = format!("the folder holds {count} models ({names}): open one of them, or several with st_open_files");
    Ok(Error::new(ErrorKind::Index, text))
}
