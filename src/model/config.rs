// SPDX-License-Identifier: Apache-2.0
//! The config.json beside a checkpoint.
#![forbid(unsafe_code)]

use crate::checkpoint::Checkpoint;
use crate::error::{quoted, Error, ErrorKind, Result};

/// Most bytes of a configuration.
pub(crate) const MAX_CONFIG: usize = 16 << 20;

/// The text of config.json beside a checkpoint's files, if there is one.
///
/// # Errors
/// `Config` where it is too large, `Io` where it can't be read.
pub(crate) fn beside(checkpoint: &Checkpoint) -> Result<Option<Vec<u8>>> {
    let Some(folder) = checkpoint.folder() else {
        return Ok(None);
    };
    let path = folder.join("config.json");
    let failed = |error: &std::io::Error| Error::os(format!("{} can't be read", shown(&path)), error);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    // A folder or a pipe of that name is not a configuration.
    let size = match file.metadata() {
        Ok(found) if found.is_file() => found.len(),
        Ok(_) => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let too_large = || unreadable(&format!("{size} bytes are more than the limit of {MAX_CONFIG}"));
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_CONFIG).ok_or_else(too_large)?;
    let mut text = crate::base::memory::vec_with_capacity(size, "config.json")?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, size as u64), &mut text)
        .map_err(|error| failed(&error))?;
    Ok(Some(text))
}

fn shown(path: &std::path::Path) -> String {
    quoted(path.as_os_str().as_encoded_bytes())
}

/// The error for a configuration that can't be used.
pub(crate) fn unreadable(fault: &str) -> Error {
    Error::new(ErrorKind::Config, format!("config.json: {fault}"))
}
