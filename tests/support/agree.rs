// SPDX-License-Identifier: Apache-2.0
//! The library, the reference implementation and the written-down rules, held
//! against each other.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use safetensors::OpenOptions;

use super::handle::{self, open_memory, status_name, Handle};
use super::{model, reference};

/// Holds the three against each other on one file.
pub(crate) fn agree(file: &[u8], options: &OpenOptions) -> TestCaseResult {
    let shown = String::from_utf8_lossy(file);
    let ours =
        open_memory(file, &handle::options(options)).as_ref().map(Handle::contents).map_err(handle::Failure::status);
    let rules = model::verdict(file, options).map_err(|kind| status_name(kind as i32));
    let rules = rules.map_err(|status| match status {
        "ST_ERROR_HEADER_TOO_LARGE" if is_something_else(file) => "ST_ERROR_HEADER_LENGTH",
        status => status,
    });
    prop_assert_eq!(&ours, &rules, "ours, the rules: {}", shown);
    if options.tolerate.trailing_bytes || options.tolerate.unknown_dtype {
        return Ok(());
    }
    match (reference::verdict(file), ours) {
        (Some(_), Err(status)) => match reference::departure(file) {
            Some((_, kind)) => prop_assert_eq!(status_name(kind as i32), status, "{}", shown),
            None => prop_assert!(false, "only the reference accepts, we say {}: {}", status, shown),
        },
        (None, Ok(_)) => prop_assert!(false, "only we accept: {}", shown),
        (theirs, ours) => {
            let ours = ours.ok().map(|mut contents| {
                contents.metadata.iter_mut().for_each(|lines| lines.sort());
                contents
            });
            prop_assert_eq!(theirs, ours, "the reference, ours: {}", shown);
        }
    }
    Ok(())
}

/// Whether the first bytes are another kind of file's, whose length field, read
/// as a header's, is beyond the file.
fn is_something_else(file: &[u8]) -> bool {
    const OTHERS: [&[u8]; 16] = [
        b"version https://git-lfs",
        b"GGUF",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x1f\x8b",
        b"\x28\xb5\x2f\xfd",
        b"BZh",
        b"\xfd7zXZ\0",
        b"\x89HDF\r\n\x1a\n",
        b"\x93NUMPY",
        b"\x80\x02",
        b"\x80\x03",
        b"\x80\x04",
        b"\x80\x05",
        b"\0\x05\x16\x07",
        b"%PDF",
    ];
    let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file).trim_ascii_start();
    let json = |rest: &[u8]| rest.trim_ascii_start().first().is_none_or(|next| b"\"{[}]-0123456789tfn".contains(next));
    let other = match text {
        [b'<', ..] => true,
        [b'{' | b'[', rest @ ..] => json(rest),
        _ => OTHERS.iter().any(|start| file.starts_with(start)),
    };
    let length = file.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let cut_short = length < 1 << 40 && file.get(8) == Some(&b'{');
    other && !cut_short && length.saturating_add(8) > file.len() as u64
}
