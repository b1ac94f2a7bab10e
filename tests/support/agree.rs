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
