// SPDX-License-Identifier: Apache-2.0
//! What went wrong: which rule, in which file and tensor, with the numbers.
#![forbid(unsafe_code)]

use std::fmt::{self, Write as _};

/// Shorthand for a result with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The rule that was broken; the numbers are the C constants `ST_ERROR_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs, reason = "documented once, at the C constants of the same name")]
pub enum ErrorKind {
    InvalidArgument = 1,
    OutOfMemory = 2,
    Io = 3,
    NotFound = 4,
    BufferSize = 5,
    Cancelled = 6,
    Unsupported = 7,
    Internal = 8,
    Truncated = 9,
    HeaderTooLarge = 10,
    HeaderLength = 11,
    HeaderStart = 12,
    HeaderUtf8 = 13,
    HeaderJson = 14,
    DuplicateKey = 15,
    Metadata = 16,
    Dtype = 17,
    Shape = 18,
    Offsets = 19,
    SizeMismatch = 20,
    DataNotCovered = 21,
    SubByte = 22,
    Index = 23,
    Shard = 24,
    Plan = 25,
    Group = 26,
    Config = 27,
}

impl ErrorKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: &'static [ErrorKind] = &[
        Self::InvalidArgument,
        Self::OutOfMemory,
        Self::Io,
        Self::NotFound,
        Self::BufferSize,
        Self::Cancelled,
        Self::Unsupported,
        Self::Internal,
        Self::Truncated,
        Self::HeaderTooLarge,
        Self::HeaderLength,
        Self::HeaderStart,
        Self::HeaderUtf8,
        Self::HeaderJson,
        Self::DuplicateKey,
        Self::Metadata,
        Self::Dtype,
        Self::Shape,
        Self::Offsets,
        Self::SizeMismatch,
        Self::DataNotCovered,
        Self::SubByte,
        Self::Index,
        Self::Shard,
        Self::Plan,
        Self::Group,
        Self::Config,
    ];

    /// The kind with this C number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as i32 == number)
    }
}

/// An error with its context. Texts are already safe to print.
///
/// One word: errors are rare, and a `Result` that carries one crosses many
/// functions.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    os_errno: i32,
    file: String,
    text: String,
}

impl Error {
    /// An error that says `text`; whatever came from a file must have gone
    /// through [`quoted`] or [`escaped`] before.
    #[must_use]
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self::of_text(kind, text.into())
    }

    #[cold]
    #[inline(never)]
    fn of_text(kind: ErrorKind, text: String) -> Self {
        Self(Box::new(Inner { kind, os_errno: 0, file: String::new(), text }))
    }

    /// An error about one tensor (or other named thing) of a file.
    #[must_use]
    pub fn tensor(kind: ErrorKind, name: &[u8], text: impl fmt::Display) -> Self {
        Self::of_tensor(kind, name, &text)
    }

    #[cold]
    #[inline(never)]
    fn of_tensor(kind: ErrorKind, name: &[u8], text: &dyn fmt::Display) -> Self {
        Self::of_text(kind, format!("tensor {}: {text}", quoted(name)))
    }

    /// A failed system call; `what` says what was being done.
    #[must_use]
    pub fn os(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::of_os(&what, error)
    }

    #[cold]
    #[inline(never)]
    fn of_os(what: &dyn fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            _ => ErrorKind::Io,
        };
        Self::of_text(kind, format!("{what}: {error}")).with_errno(error.raw_os_error().unwrap_or(0))
    }

    /// There is no memory for `what`.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub fn out_of_memory(what: &str, bytes: usize) -> Self {
        Self::of_text(ErrorKind::OutOfMemory, format!("no memory for {what} ({bytes} bytes)"))
    }

    /// A number that no memory has room for; `what` says which.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub(crate) fn beyond_memory(what: &dyn fmt::Display) -> Self {
        Self::of_text(ErrorKind::InvalidArgument, format!("{what} is beyond any memory"))
    }

    /// The same error under another kind: a shard's `ENOENT` is the index's fault.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error with an OS error number.
    #[must_use]
    pub fn with_errno(mut self, os_errno: i32) -> Self {
        self.0.os_errno = os_errno;
        self
    }

    /// The same error with something added to what it says.
    #[must_use]
    pub(crate) fn with_text(mut self, text: &str) -> Self {
        self.0.text.push_str(text);
        self
    }

    /// The same error with something said before it.
    #[must_use]
    pub(crate) fn after(mut self, text: &str) -> Self {
        self.0.text.insert_str(0, text);
        self
    }

    /// Names the file the error is about, unless it is named already.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub fn in_file(mut self, label: &str) -> Self {
        if self.0.file.is_empty() {
            self.0.file = label.to_owned();
        }
        self
    }

    /// The same where it has a path.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub(crate) fn in_path(self, path: &std::path::Path) -> Self {
        match std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()) {
            // An empty path would be no name at all.
            b"" => self.in_file("\"\""),
            path => self.in_file(&escaped(path)),
        }
    }

    /// Which rule was broken.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operating system's error number, or 0.
    #[must_use]
    pub fn os_errno(&self) -> i32 {
        self.0.os_errno
    }

    /// The message in at most `room` bytes: a long path gives way first, from
    /// its front, so that rule and numbers stay.
    #[must_use]
    pub fn message(&self, room: usize) -> String {
        let Inner { file, text, .. } = &*self.0;
        if file.is_empty() {
            return head(text, room).to_owned();
        }
        let for_file = room.saturating_sub(text.len().saturating_add(2));
        if file.len() <= for_file {
            return format!("{file}: {text}");
        }
        let file = tail(file, for_file.saturating_sub(3));
        head(&format!("...{file}: {text}"), room).to_owned()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message(usize::MAX))
    }
}

impl std::error::Error for Error {}

/// The longest name quoted in a message; longer ones lose their middle. Three
/// quoted names and the numbers fit into the 504 bytes that C has.
const QUOTED_MAX: usize = 96;

/// From this length on a list of names is cut short.
const LISTED_MAX: usize = 200;

/// The longest path that a system takes.
const PATH_MAX: usize = 4096;

/// `"name"`, escaped and shortened, for a message.
#[must_use]
pub fn quoted(name: &[u8]) -> String {
    let escaped = escape(name, QUOTED_MAX.saturating_mul(2));
    if escaped.len() <= QUOTED_MAX && name.len() <= QUOTED_MAX {
        return format!("\"{escaped}\"");
    }
    let half = QUOTED_MAX / 2;
    let end = escape(name.get(name.len().saturating_sub(half)..).unwrap_or_default(), QUOTED_MAX);
    format!("\"{}...{}\" ({} bytes)", head(&escaped, half), tail(&end, half), name.len())
}

/// A piece of a file's text for a message, in no other quotes than its own, shortened.
pub(crate) fn as_it_stands(text: &[u8]) -> String {
    let (start, shortened) = match text.get(..QUOTED_MAX) {
        Some(start) if text.len() > QUOTED_MAX => (start, "..."),
        _ => (text, ""),
    };
    let mut out = escape(start, usize::MAX).replace("\\\"", "\"").replace("\\\\", "\\");
    out.push_str(shortened);
    out
}

/// Names for a message, with commas between, as many as it has room for.
pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for name in names {
        let between = if text.is_empty() { "" } else { ", " };
        if text.len() > LISTED_MAX {
            return text + between + "...";
        }
        text = text + between + quoted(name).trim_matches('"');
    }
    text
}

/// A path or name with everything a terminal might obey made visible. Of what is
/// longer than any path, the end.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    match bytes.len().checked_sub(PATH_MAX) {
        None | Some(0) => escape(bytes, usize::MAX),
        Some(cut) => format!("...{}", escape(bytes.get(cut..).unwrap_or_default(), usize::MAX)),
    }
}

/// Escapes until about `enough` bytes have been written: a 90 MB name is not
/// walked for a message that shows 48 bytes of it.
fn escape(bytes: &[u8], enough: usize) -> String {
    let mut out = String::new();
    for chunk in bytes.get(..bytes.len().min(enough)).unwrap_or_default().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' => out.push(c),
                _ => out.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String can't fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn head(text: &str, room: usize) -> &str {
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

fn tail(text: &str, room: usize) -> &str {
    let mut start = text.len().saturating_sub(room);
    while !text.is_char_boundary(start) {
        start = start.saturating_add(1);
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_made_visible() {
        assert_eq!(quoted(b"a\x1b[31m\"\\\n\xff\x00"), r#""a\u{1b}[31m\"\\\n\xff\0""#);
        assert_eq!(quoted("\u{202e}é'".as_bytes()), "\"\\u{202e}é'\"");
    }

    #[test]
    fn long_names_keep_both_ends() {
        let name = [vec![b'a'; 300_000], b"the end".to_vec()].concat();
        let shown = quoted(&name);
        assert!(shown.len() < 150 && shown.contains("the end\"") && shown.contains("(300007 bytes)"));
    }

    #[test]
    fn a_long_path_gives_way_to_the_rule() {
        let error = Error::tensor(ErrorKind::Shape, b"w", "holds 7").in_file(&"x/".repeat(4000));
        let message = error.message(60);
        assert!(message.len() <= 60 && message.starts_with("...") && message.ends_with("holds 7"));
    }

    #[test]
    fn cuts_are_between_characters() {
        for text in ["é".repeat(40), format!("x{}", "é".repeat(40)), "\u{1F600}".repeat(20)] {
            let error = Error::new(ErrorKind::Shape, text.as_str());
            for room in 0..=text.len() {
                let message = error.message(room);
                assert!(
                    text.starts_with(&message) && (room.saturating_sub(3)..=room).contains(&message.len()),
                    "{room}: {message}"
                );
            }
            for times in [1, 2, 3, 5] {
                let shown = quoted(text.repeat(times).as_bytes());
                assert!(shown.matches(text.chars().last().unwrap()).count() >= 10, "{shown}");
            }
        }
    }
}
