// SPDX-License-Identifier: Apache-2.0
//! The index by which an older set is opened: the one that is there, or one
//! that says the same of files that have none.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::set::SetNames;
use super::spelling::push_ascii_string;
use super::text;
use crate::base::extent::TextExtent;
use crate::base::json::{Cursor, JsonFault};
use crate::base::{memory, sort};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Access, OpenOptions, Tolerate};
use crate::source;

/// What whoever opens the folder of a set meets.
pub(super) struct Older {
    text: Vec<u8>,
    /// The text once more, with strings unescaped.
    decoded: Vec<u8>,
    shards: Vec<Shard>,
    /// Whether it is the text of an index that is there.
    pub(super) is_index: bool,
}

/// Where a shard's name is in the text, with its quotes.
struct Shard {
    start: usize,
    end: usize,
    name: TextExtent,
}

impl Older {
    /// Looks at what is there now; `None` where that can't be opened anyway.
    pub(super) fn look(names: &SetNames) -> Result<Option<Self>> {
        match read_index(&names.at(&names.index()).path)? {
            Some(text) => Self::parse(text, true),
            None => {
                let files = names.without_index()?;
                let files: Vec<_> = files.iter().map(|name| (names.at(name).path, name.as_str())).collect();
                match index_of(&files) {
                    _ if files.is_empty() => Ok(None),
                    Ok(text) => Self::parse(text, false),
                    Err(error) if may_pass(&error) => Err(error),
                    Err(_) => Ok(None),
                }
            }
        }
    }

    fn parse(text: Vec<u8>, is_index: bool) -> Result<Option<Self>> {
        let mut decoded = memory::concat(&[&text], "index")?;
        match shards(&mut Cursor::new(&mut decoded)) {
            Ok(shards) => Ok(Some(Self { text, decoded, shards, is_index })),
            Err(JsonFault::Other(error)) => Err(error),
            // What is not an index is not one to any loader.
            Err(_) => Ok(None),
        }
    }

    /// The names of its shards, each once.
    pub(super) fn names(&self) -> Result<Vec<&str>> {
        let all = sort::sorted(self.shards.iter().map(|shard| shard.name.of(&self.decoded)), "shards")?;
        let mut names = memory::vec_with_capacity(all.len(), "shards")?;
        names.extend(all.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok()));
        names.dedup();
        Ok(names)
    }

    /// The index's text, with other names for some of its shards: pairs of both,
    /// by the first.
    pub(super) fn renamed(&self, other: &[(&str, String)]) -> Result<Vec<u8>> {
        let mut out = memory::vec_with_capacity(self.text.len(), "index")?;
        let mut add = |bytes: &[u8]| {
            memory::reserve(&mut out, bytes.len(), "index")?;
            out.extend_from_slice(bytes);
            Ok(())
        };
        let mut done = 0;
        for shard in &self.shards {
            let name = shard.name.of(&self.decoded);
            let found = other.binary_search_by(|(older, _)| older.as_bytes().cmp(name)).ok();
            if let Some((_, newer)) = found.and_then(|found| other.get(found)) {
                add(self.text.get(done..shard.start).unwrap_or_default())?;
                let mut spelled = Vec::new();
                push_ascii_string(&mut spelled, newer);
                add(&spelled)?;
                done = shard.end;
            }
        }
        add(self.text.get(done..).unwrap_or_default())?;
        Ok(out)
    }
}

/// The text of an index; `None` where there is none.
fn read_index(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |error: io::Error| Error::os("reading the older index", &error).in_path(path);
    match source::check_regular(path) {
        Err(error) if error.os_errno() == libc::ENOENT => return Ok(None),
        // Nothing that a loader takes for an index, but it is in the way all the same.
        Err(error) if error.os_errno() == 0 => return Ok(Some(Vec::new())),
        checked => checked.map_err(|error| error.in_path(path))?,
    }
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let size = file.metadata().map_err(failed)?.len();
    let mut text = memory::zeroed(usize::try_from(size).unwrap_or(usize::MAX), "index")?;
    source::read_exact(&file, 0, &mut text).map_err(|error| error.in_path(path))?;
    Ok(Some(text))
}

/// An index of these files, each with the name that it is to have there.
pub(super) fn index_of(files: &[(PathBuf, &str)]) -> Result<Vec<u8>> {
    let tolerate = Tolerate { trailing_bytes: true, unknown_dtype: true };
    let options = OpenOptions { access: Access::Read, tolerate, ..OpenOptions::default() };
    let mut opened = memory::vec_with_capacity(files.len(), "files")?;
    for (path, name) in files {
        opened.push((Checkpoint::open_file(path, &options)?, *name));
    }
    let name = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let entries = opened
        .iter()
        .flat_map(|(checkpoint, shard)| checkpoint.tensors().iter().map(move |tensor| (name(tensor.name()), *shard)));
    text::index(None, entries)
}

/// Whether what kept a file from being opened says nothing of the file.
fn may_pass(error: &Error) -> bool {
    let known = [libc::ENOENT, libc::EACCES, libc::EPERM, 0];
    error.kind() == ErrorKind::OutOfMemory || (error.kind() == ErrorKind::Io && !known.contains(&error.os_errno()))
}

/// The shards' names in an index. What it says else is the loader's to check.
fn shards(cursor: &mut Cursor<'_>) -> Result<Vec<Shard>, JsonFault> {
    let mut shards = Vec::new();
    cursor.skip_space();
    object(cursor, &mut |cursor, key| {
        if cursor.get(key) != b"weight_map" || cursor.peek() != b'{' {
            return cursor.skip_value(1);
        }
        object(cursor, &mut |cursor, _| {
            let start = cursor.position();
            if !cursor.take(b'"') {
                return cursor.skip_value(2);
            }
            let name = cursor.string()?;
            memory::reserve(&mut shards, 1, "shards")?;
            shards.push(Shard { start, end: cursor.position(), name });
            Ok(())
        })
    })?;
    Ok(shards)
}

/// An object; `value` is called after each key's colon.
fn object(
    cursor: &mut Cursor<'_>,
    value: &mut dyn FnMut(&mut Cursor<'_>, TextExtent) -> Result<(), JsonFault>,
) -> Result<(), JsonFault> {
    cursor.expect(b'{', "an object")?;
    cursor.skip_space();
    if cursor.take(b'}') {
        return Ok(());
    }
    loop {
        cursor.skip_space();
        cursor.expect(b'"', "a key in quotes")?;
        let key = cursor.string()?;
        cursor.skip_space();
        cursor.expect(b':', "a colon after the key")?;
        cursor.skip_space();
        value(cursor, key)?;
        cursor.skip_space();
        if cursor.take(b'}') {
            return Ok(());
        }
        cursor.expect(b',', "a comma or } after the value")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_change_nothing_else() {
        let text = r#" {"metadata": {"total_size": 12, "s.st": "a.st"}, "weight_map":
            {"a.st": "a.st", "x\u0022": "\u0061.st", "b": "b.st", "c": 7}, "more": [{"weight_map": {"q": "a.st"}}]}"#;
        let older = Older::parse(text.as_bytes().to_vec(), true).unwrap().unwrap();
        assert_eq!(older.names().unwrap(), ["a.st", "b.st"]);
        let renamed = older.renamed(&[("a.st", ".é\".old".to_owned())]).unwrap();
        let expected = r#" {"metadata": {"total_size": 12, "s.st": "a.st"}, "weight_map":
            {"a.st": ".\u00e9\".old", "x\u0022": ".\u00e9\".old", "b": "b.st", "c": 7}, "more": [{"weight_map": {"q": "a.st"}}]}"#;
        assert_eq!(String::from_utf8(renamed).unwrap(), expected);
        assert_eq!(older.renamed(&[]).unwrap(), text.as_bytes());
        assert!(Older::parse(b"{\"weight_map\": {\"a\": \"b\"".to_vec(), true).unwrap().is_none());
    }
}
