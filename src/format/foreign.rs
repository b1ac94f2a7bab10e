// SPDX-License-Identifier: Apache-2.0
//! Files that are something else, by their first bytes: what people download
//! and rename. The error for one says what it is.
#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind};

/// As many of the first bytes as are looked at.
pub(crate) const ENOUGH: usize = 512;

/// As what a file was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadAs {
    File,
    Index,
}

/// What begins with these bytes.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"version https://git-lfs", "a Git LFS pointer, the data has not been fetched: git lfs pull"),
    (b"GGUF", "a GGUF file"),
    (b"PK\x03\x04", "a zip archive, as PyTorch checkpoints are"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x80\x02", "a pickle, as older PyTorch checkpoints are"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\0\x05\x16\x07", "an AppleDouble file: a Mac's notes about another file"),
    (b"%PDF", "a PDF"),
];

/// The same error, which says what the file is if its first bytes tell.
pub(crate) fn named(error: Error, start: &[u8], read: ReadAs) -> Error {
    match what(start, read) {
        Some(what) => error.with_text(&format!("; this is {what}")),
        None => error,
    }
}

/// What a file is that does not begin with a header or, read as an index, is not one.
pub(crate) fn what(start: &[u8], read: ReadAs) -> Option<&'static str> {
    if is_tensors(start) {
        return (read == ReadAs::Index).then_some("a safetensors file");
    }
    if let Some((_, what)) = BEGINNINGS.iter().find(|(beginning, _)| start.starts_with(beginning)) {
        return Some(what);
    }
    if !start.is_empty() && start.iter().all(|byte| *byte == 0) {
        return Some("nothing but zeros: a download or a copy that was not finished");
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    match text.first() {
        Some(b'<') => Some(match text.get(1..) {
            Some(rest) if rest.starts_with(b"?xml") => "XML, perhaps a server's error",
            _ => "HTML: a page, perhaps a server's error or a login",
        }),
        Some(b'{' | b'[') if read == ReadAs::File && is_json(text) => Some("JSON"),
        _ => None,
    }
}

/// Whether JSON can go on so: what follows the bracket is a value, a key or the end.
fn is_json(text: &[u8]) -> bool {
    let next = text.get(1..).unwrap_or_default().trim_ascii_start().first();
    next.is_none_or(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'))
}

/// A length that may be a header's, and its bracket.
fn is_tensors(start: &[u8]) -> bool {
    let length = start.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    length < 1 << 40 && start.get(8) == Some(&b'{')
}

/// Whether an error is one that a file of another kind leads to.
pub(crate) fn may_explain(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Truncated
            | ErrorKind::HeaderTooLarge
            | ErrorKind::HeaderLength
            | ErrorKind::HeaderStart
            | ErrorKind::HeaderUtf8
            | ErrorKind::HeaderJson
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_they_are() {
        let cases: [(&[u8], &str); 9] = [
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"PK\x03\x04\x14\0", "zip"),
            (b"\n <!DOCTYPE html>", "HTML"),
            (b"<?xml version=", "XML"),
            (b"\xef\xbb\xbf{ \"a\": 1}", "JSON"),
            (&[0; 40], "zeros"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\x93NUMPY\x01\0", "NumPy"),
        ];
        for (start, expected) in cases {
            assert!(what(start, ReadAs::File).unwrap().contains(expected), "{expected}");
        }
        for start in [&b""[..], b"\x10\0\0\0\0\0\0\0{\"a\"", b"{\x01\0\0\0\0\0\0{}", b"any text"] {
            assert_eq!(what(start, ReadAs::File), None, "{start:?}");
        }
        assert_eq!(what(b"{\"weight_map\":", ReadAs::Index), None);
        assert_eq!(what(b"\x10\0\0\0\0\0\0\0{\"a\"", ReadAs::Index), Some("a safetensors file"));
    }
}
