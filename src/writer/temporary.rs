// SPDX-License-Identifier: Apache-2.0
//! What files are called that are not there to stay, and which of them are stale.
//!
//!     .NAME.RANDOM.safetensors-tmp         a file on its way, or the first of several
//!     .NAME.RANDOM-NUMBER.safetensors-tmp  another of the same save
//!     .NAME.RANDOM-NUMBER.safetensors-old  an older file under a name set aside
//!
//! Whoever writes the first holds a lock (flock) on it, which the kernel drops
//! when that process ends, however it ends. So a temporary that can be locked is
//! stale, with all of its save, and the next save to the same path removes them;
//! one that can't is somebody's work. Between making the file and locking it
//! another save may take it for stale: the maker looks whether its file still
//! has a name, and makes another if not.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use super::system::{self, Lock};
use crate::source;

const TEMPORARY: &[u8] = b".safetensors-tmp";
const SET_ASIDE: &[u8] = b".safetensors-old";
/// A name may have 255 bytes; two dots, 16 digits, a dash, a number and the
/// suffix are ours.
const LONGEST_TAG: usize = 255 - 2 - 16 - 11 - TEMPORARY.len();

/// A number that nobody can know before: keyed by the system's random numbers,
/// and another in each of two processes of which one has forked the other.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}

/// The name of a file on its way. `tag` is by what later saves find it.
pub(super) fn name(tag: &OsStr, random: u64) -> OsString {
    named(tag, &format!("{random:016x}"), TEMPORARY)
}

/// The name of another of the same save.
pub(super) fn member(tag: &OsStr, random: u64, number: usize) -> OsString {
    named(tag, &format!("{random:016x}-{number:05}"), TEMPORARY)
}

/// The name for an older file set aside. UTF-8 if the tag is, as an index names it.
pub(super) fn set_aside(tag: &OsStr, random: u64, number: usize) -> OsString {
    named(tag, &format!("{random:016x}-{number:05}"), SET_ASIDE)
}

fn named(tag: &OsStr, digits: &str, suffix: &[u8]) -> OsString {
    OsString::from_vec([&prefix(tag), digits.as_bytes(), suffix].concat())
}

fn prefix(tag: &OsStr) -> Vec<u8> {
    let tag = tag.as_bytes();
    if tag.len() <= LONGEST_TAG {
        return [b".", tag, b"."].concat();
    }
    // What is cut off still tells two names apart (FNV-1a).
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = format!("~{:016x}", tag.iter().fold(0xcbf2_9ce4_8422_2325, step));
    let mut end = LONGEST_TAG.saturating_sub(hash.len());
    // Not in the middle of a character.
    while tag.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
        end = end.saturating_sub(1);
    }
    [b".", tag.get(..end).unwrap_or(tag), hash.as_bytes(), b"."].concat()
}

/// What a name says.
enum TemporaryKind<'a> {
    Lead,
    /// Of the save whose first file has these digits.
    Member(&'a [u8]),
    SetAside,
}

fn kind<'a>(name: &'a [u8], prefix: &[u8]) -> Option<TemporaryKind<'a>> {
    let rest = name.strip_prefix(prefix)?;
    let (random, rest) = rest.split_at_checked(16)?;
    if !random.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    if rest == TEMPORARY {
        return Some(TemporaryKind::Lead);
    }
    let (number, suffix) = rest.split_at_checked(rest.len().checked_sub(TEMPORARY.len())?)?;
    let digits = number.strip_prefix(b"-")?;
    match suffix {
        _ if digits.len() < 5 || !digits.iter().all(u8::is_ascii_digit) => None,
        TEMPORARY => Some(TemporaryKind::Member(random)),
        SET_ASIDE => Some(TemporaryKind::SetAside),
        _ => None,
    }
}

/// Whether an older file under a name set aside is called so.
pub(super) fn is_set_aside(name: &[u8], tag: &OsStr) -> bool {
    matches!(kind(name, &prefix(tag)), Some(TemporaryKind::SetAside))
}

/// Removes what killed saves to this path left of their work; where that can't
/// be known or done, it stays. `others` sees all other names in the folder.
pub(super) fn clear_stale(folder: &Path, tag: &OsStr, others: &mut dyn FnMut(&[u8])) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let prefix = prefix(tag);
    for entry in entries.flatten() {
        let name = entry.file_name();
        match kind(name.as_bytes(), &prefix) {
            Some(TemporaryKind::Lead) => clear_if_stale(&entry.path(), &entry.path()),
            Some(TemporaryKind::Member(random)) => {
                let lead = [&prefix, random, TEMPORARY].concat();
                clear_if_stale(&entry.path(), &folder.join(OsStr::from_bytes(&lead)));
            }
            _ => others(name.as_bytes()),
        }
    }
}

/// Removes a file if nobody holds the lock on `lead`.
fn clear_if_stale(path: &Path, lead: &Path) {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags).open(lead) {
        Ok(file) => file,
        // The first is named last and removed last: without it there is no save.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path != lead => {
            let local =
                path.parent().and_then(|folder| File::open(folder).ok()).is_some_and(|file| source::is_local(&file));
            if local && fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
                drop(fs::remove_file(path));
            }
            return;
        }
        Err(_) => return,
    };
    let Ok(found) = file.metadata() else { return };
    // On a network file system another machine's lock may not be seen here.
    if !found.is_file() || !source::is_local(&file) || system::lock(&file) != Lock::Held {
        return;
    }
    // Still the one that was locked, and not one that took its name.
    if is_at(&file, lead) && fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        drop(fs::remove_file(path));
    }
}

/// Whether the path still leads to this file.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(there)) => identity(file) == identity(there),
        _ => false,
    }
}
