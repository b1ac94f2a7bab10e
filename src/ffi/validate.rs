// SPDX-License-Identifier: Apache-2.0
//! Finding everything that is wrong with a file.

use std::ffi::{c_char, c_void, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::arguments::{null, required_text};
use super::boundary::guard;
use super::open_options::{open_options, st_open_options};
use super::status::{st_error, st_status, ST_OK};
use crate::base::memory;
use crate::checkpoint::validate::{validate, Fatal, Problem};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::model::groups::findings;

/// st_problem.fatal: st_open refuses the file for it.
pub const ST_FATAL_STRICT: u32 = 1;
/// st_problem.fatal: st_open_with refuses it also with all ST_TOLERATE_ flags.
pub const ST_FATAL_TOLERANT: u32 = 2;

/// One rule that a file breaks.
///
/// Borrowed for the call of report.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
pub struct st_problem {
    /// The rule, as st_open's status.
    pub code: st_status,
    /// Any of ST_FATAL_*, or'ed; 0: the file opens all the same (since 0.2).
    pub fatal: u32,
    /// The byte in the file where it shows: the place in the header's text, the
    /// start of the tensor's entry there, or where bytes are missing or too many.
    pub position: u64,
    /// Path of the file, NUL-terminated: a shard's, the index's, or what st_validate was given.
    pub file: *const c_char,
    /// Bytes in file, without the terminating NUL.
    pub file_len: usize,
    /// The tensor it is about, NUL-terminated UTF-8 that may itself contain NUL;
    /// NULL where no tensor is concerned.
    pub tensor: *const c_char,
    /// Bytes in tensor, without the terminating NUL.
    pub tensor_len: usize,
    /// What is wrong, with the numbers: NUL-terminated, safe to print.
    pub text: *const c_char,
    /// Zero.
    pub reserved: [u64; 4],
}

/// Reports everything that is wrong with a file, an index and its shards, or a
/// folder: every broken rule, where st_open stops at the first. Reads headers,
/// and of tensors only what says how a quantised group is stored.
///
/// path, options: as for st_open_with, and what they mean is the same; access
/// and prefetch have no effect, and tolerate affects the result alone.
/// report: called for each problem, on the calling thread, file by file and
/// within a file in the order in which st_open checks the rules. A result other
/// than 0 ends the call. user_data: passed to report.
///
/// Also reported, as not fatal: tensors that are in a shard and not in its index, an
/// index without entries beside files, a total_size that is wrong, and files that a
/// folder has beside what is opened. And, once all can be opened: quantised groups that
/// are broken or can be read in several ways, their scales and zero points without codes,
/// and a config.json beside them that can't be read.
///
/// A fault can hide others after it: a header is not read past text that is not
/// JSON, and where offsets are unreadable, holes are not reported.
///
/// Returns what st_open_with with these options would say: ST_OK if there is
/// nothing that it refuses the file for, else the code and message of the first
/// problem that it does. ST_ERROR_CANCELLED where report ended it. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_validate(
    path: *const c_char,
    options: *const st_open_options,
    report: Option<unsafe extern "C" fn(user_data: *mut c_void, problem: *const st_problem) -> i32>,
    user_data: *mut c_void,
    error: *mut st_error,
) -> st_status {
    let body = || {
        let report = report.ok_or_else(|| null("report"))?;
        // SAFETY: arguments are as the header's rules say.
        let (path, options) = unsafe { (required_text(path, "path")?, open_options(options)?) };
        let (mut result, mut texts) = (Ok(0), ProblemTexts::default());
        let mut tell = |problem: &Problem<'_>| {
            // SAFETY: the caller's function with the caller's data.
            let told = texts.lend(problem, |problem| unsafe { report(user_data, problem) });
            let goes_on = matches!(told, Ok(0));
            result = told;
            goes_on
        };
        let path = Path::new(OsStr::from_bytes(path));
        let verdict = validate(path, &options, &mut tell);
        // What opens may still hold groups that can't be decoded. That looking for them
        // fails does not change the result.
        if verdict.is_ok() {
            let _ = Checkpoint::open(path, &options).and_then(|checkpoint| findings(&checkpoint, &mut tell));
        }
        result.and(verdict).map(|()| ST_OK)
    };
    // SAFETY: arguments are as the header's rules say.
    unsafe { guard(error, |kind| kind as st_status, body) }
}

/// Texts of the last problem, for the next one of the same tensor: a name may be as
/// long as a header, and have as many problems.
#[derive(Default)]
struct ProblemTexts {
    file: Vec<u8>,
    tensor: Vec<u8>,
    /// Where in the file that tensor is.
    position: Option<u64>,
}

impl ProblemTexts {
    fn keep(&mut self, problem: &Problem<'_>) -> Result<()> {
        let same_file = self.file.strip_suffix(b"\0") == Some(problem.file);
        if !same_file {
            self.file = memory::concat(&[problem.file, b"\0"], "a path")?;
        }
        // A place in a file has one name.
        let name = problem.tensor.unwrap_or_default();
        let same =
            same_file && self.position == Some(problem.position) && self.tensor.len() == name.len().saturating_add(1);
        if problem.tensor.is_some() && !same {
            self.tensor = memory::concat(&[name, b"\0"], "a name")?;
            self.position = Some(problem.position);
        }
        Ok(())
    }

    /// The problem as C sees it, for one call.
    fn lend<T>(&mut self, problem: &Problem<'_>, call: impl FnOnce(*const st_problem) -> T) -> Result<T> {
        self.keep(problem)?;
        let text = CString::new(problem.error.message(usize::MAX)).unwrap_or_default();
        Ok(call(&st_problem {
            code: problem.error.kind() as st_status,
            fatal: match problem.fatal {
                Fatal::Never => 0,
                Fatal::Strictly => ST_FATAL_STRICT,
                Fatal::Always => ST_FATAL_STRICT | ST_FATAL_TOLERANT,
            },
            position: problem.position,
            file: self.file.as_ptr().cast(),
            file_len: problem.file.len(),
            tensor: problem.tensor.map_or(std::ptr::null(), |_| self.tensor.as_ptr().cast()),
            tensor_len: problem.tensor.map_or(0, <[u8]>::len),
            text: text.as_ptr(),
            reserved: [0; 4],
        }))
    }
}
