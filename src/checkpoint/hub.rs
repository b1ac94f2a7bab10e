// SPDX-License-Identifier: Apache-2.0
//! A folder without tensors: a hub's cache leads to a snapshot; all others say
//! what they hold instead.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::listing::FolderListing;
use crate::base::sort;
use crate::error::{listed, quoted, Error, ErrorKind, Result};
use crate::source;

/// The longest name that a file may have.
const NAME_MAX: usize = 255;

/// How many folders are looked into for models.
const MOST_LOOKED_INTO: usize = 100;

/// The snapshot that a hub's cache of one model (`models--owner--name`) has checked out.
pub(super) fn snapshot(folder: &Path, listing: &FolderListing) -> Result<PathBuf> {
    let has = |name: &[u8]| listing.folders.iter().any(|folder| folder == name);
    let named = folder.file_name().is_some_and(|name| name.as_bytes().starts_with(b"models--"));
    if !has(b"snapshots") || !(named || has(b"blobs") || has(b"refs")) {
        return Err(nothing(folder, listing));
    }
    let snapshots = folder.join("snapshots");
    let why = match checked_out(&folder.join("refs/main")) {
        Ok(name) => {
            let snapshot = snapshots.join(OsStr::from_bytes(&name));
            if fs::metadata(&snapshot).is_ok_and(|found| found.is_dir()) {
                return Ok(snapshot);
            }
            format!("refs/main names the snapshot {}, which is not there", quoted(&name))
        }
        Err(why) => why,
    };
    let there = FolderListing::of(&snapshots).map(|listing| listing.folders).unwrap_or_default();
    let there = in_order(there.iter().map(Vec::as_slice));
    let there = if there.is_empty() { "and there are none".into() } else { format!("open one of them ({there})") };
    Err(absent(format!("a hub's cache: the models are in snapshots/, {there}; {why}")))
}

/// What `refs/main` says: one name.
fn checked_out(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let found = fs::symlink_metadata(path).map_err(|_| "refs/main is not there".to_owned())?;
    if !found.is_file() {
        return Err("refs/main is not a regular file".into());
    }
    let text = source::read_start(path, 4096).map_err(|error| format!("refs/main: {}", error.message(200)))?;
    let name = text.trim_ascii();
    let odd = |byte: &u8| matches!(byte, b'/' | 0) || byte.is_ascii_whitespace() || byte.is_ascii_control();
    let fits = (1..=NAME_MAX).contains(&name.len()) && found.len() <= text.len() as u64;
    if !fits || name.starts_with(b".") || name.windows(2).any(|pair| pair == b"..") || name.iter().any(odd) {
        return Err(format!("refs/main holds {}, which is not the name of a snapshot", quoted(name)));
    }
    Ok(name.to_vec())
}

/// The error of a folder without tensors.
pub(super) fn nothing(folder: &Path, listing: &FolderListing) -> Error {
    let models = listing.folders.iter().map(Vec::as_slice).take(MOST_LOOKED_INTO);
    let models: Vec<_> = models.filter(|name| holds_a_model(folder, name)).map(|name| [name, b"/"].concat()).collect();
    if !models.is_empty() {
        let names = in_order(models.iter().map(Vec::as_slice));
        return absent(format!("the folder holds no tensors itself: the models are in {names}"));
    }
    let ending = |endings: &[&str]| {
        let ends = |name: &&[u8]| endings.iter().any(|ending| name.ends_with(ending.as_bytes()));
        in_order(listing.files.iter().map(Vec::as_slice).filter(ends))
    };
    let none = "the folder holds no *.safetensors and no *.safetensors.index.json";
    let unfinished = ending(&[".incomplete", ".part", ".partial", ".crdownload", ".aria2"]);
    if !unfinished.is_empty() {
        return absent(format!("{none}, but an unfinished download ({unfinished})"));
    }
    let pickles = ending(&[".bin", ".pt", ".pth", ".ckpt"]);
    if !pickles.is_empty() {
        return absent(format!("{none}, but pickle files ({pickles}), which can run code and are not read"));
    }
    let others = ending(&[".gguf"]);
    if !others.is_empty() {
        return absent(format!("{none}, but GGUF files ({others})"));
    }
    absent(none.into())
}

/// Whether a folder within this one is worth opening.
fn holds_a_model(folder: &Path, name: &[u8]) -> bool {
    let inside = folder.join(OsStr::from_bytes(name));
    if name.starts_with(b"models--") && fs::metadata(inside.join("snapshots")).is_ok_and(|found| found.is_dir()) {
        return true;
    }
    FolderListing::of(&inside).is_ok_and(|listing| listing.counting().is_ok_and(|files| !files.is_empty()))
}

/// Names for a message, in order.
fn in_order<'a>(names: impl Iterator<Item = &'a [u8]>) -> String {
    let names: Vec<_> = names.collect();
    listed(sort::sorted(names.into_iter(), "names").unwrap_or_default().into_iter().map(|(name, _)| name))
}

fn absent(text: String) -> Error {
    Error::new(ErrorKind::Io, text).with_errno(libc::ENOENT)
}
