// SPDX-License-Identifier: Apache-2.0
//! Saves of one set take turns in naming their files.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::system::{self, Lock};
use super::temporary;
use crate::error::{Error, ErrorKind, Result};
use crate::source;

/// A turn takes a few renames. Whoever has it for so long is stopped, or has
/// left its lock to a process that it forked.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest time between two looks, and two calls of a progress function.
const LOOK: Duration = Duration::from_millis(20);

/// A save's turn to give several files their names, and to remove others: two
/// that did so at once would leave a mixture. It is a lock on a temporary whose
/// number is known, so that what a killed save leaves of it is cleared like
/// others. Dropped, the next one has it.
pub(super) struct Turn {
    file: File,
    path: PathBuf,
}

impl Turn {
    /// Waits for it, and asks in between whether the save goes on. `None` on
    /// file systems of a network, which may have no locks or wait for another
    /// machine, and where the file is another user's, who could hold it for
    /// ever, or can't be made: then saves to one path at a time are the caller's
    /// care.
    pub(super) fn wait(folder: &Path, tag: &OsStr, goes_on: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self>> {
        let Some(opened) = unless_short(File::open(folder))? else { return Ok(None) };
        if !source::is_local(&opened) {
            return Ok(None);
        }
        drop(opened);
        let path = folder.join(temporary::name(tag, 0));
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let (begun, mut pause) = (Instant::now(), Duration::from_millis(1));
        loop {
            let mut options = File::options();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
            let Some(file) = unless_short(options.open(&path))? else { return Ok(None) };
            if !file.metadata().is_ok_and(|found| found.is_file() && found.uid() == system::user()) {
                return Ok(None);
            }
            loop {
                match system::lock(&file) {
                    // The one before has removed the file for which it let others wait.
                    Lock::Held if temporary::is_at(&file, &path) => return Ok(Some(Self { file, path })),
                    Lock::Held => break,
                    Lock::Unsupported => {
                        drop(fs::remove_file(&path));
                        return Ok(None);
                    }
                    Lock::Busy => {}
                }
                if begun.elapsed() >= PATIENCE {
                    return Err(given_up());
                }
                goes_on()?;
                std::thread::sleep(pause);
                pause = pause.saturating_mul(2).min(LOOK);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
        // Closing is not enough where the program has forked in the meantime.
        system::unlock(&self.file);
    }
}

/// What can't be opened is done without, unless that may pass: then two saves
/// could have their turn at once.
fn unless_short(opened: io::Result<File>) -> Result<Option<File>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
            Err(Error::os("waiting for the turn to name the files", &error))
        }
        Err(_) => Ok(None),
    }
}

fn given_up() -> Error {
    let text = format!(
        "another save to this path has been naming its files for {} s: its process is stopped, or one that it forked holds its lock",
        PATIENCE.as_secs()
    );
    Error::new(ErrorKind::Io, text).with_errno(libc::EBUSY)
}
