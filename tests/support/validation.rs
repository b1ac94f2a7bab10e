// SPDX-License-Identifier: Apache-2.0
//! What st_validate reports, and that it agrees with opening.

use std::ffi::{c_void, CStr};
use std::path::Path;
use std::slice;

use proptest::prelude::*;
use safetensors::ffi::st_open_options;
use safetensors::ffi::ST_OK;
use safetensors::ffi::{st_problem, st_validate, ST_FATAL_STRICT, ST_FATAL_TOLERANT};
use safetensors::OpenOptions;

use super::handle::{c_path, open_with, options, status_name, ErrorSlot, Failure};

/// What was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    pub(crate) tolerable: bool,
    /// It keeps nobody from opening.
    pub(crate) harmless: bool,
    pub(crate) position: u64,
    pub(crate) file: Vec<u8>,
    pub(crate) tensor: Option<Vec<u8>>,
    pub(crate) text: String,
}

impl Problem {
    pub(crate) fn brief(&self) -> (&str, u64, String) {
        let tensor = self.tensor.as_ref().map_or("-".into(), |name| String::from_utf8(name.clone()).unwrap());
        (self.code, self.position, tensor)
    }
}

/// What was reported, and after how many problems to stop.
struct Listener {
    problems: Vec<Problem>,
    stop_at: usize,
}

pub(crate) unsafe extern "C" fn report(user_data: *mut c_void, problem: *const st_problem) -> i32 {
    // SAFETY: what validate_until passed, and what the library promises.
    unsafe {
        let (listener, problem) = (&mut *user_data.cast::<Listener>(), &*problem);
        let text = |start: *const std::ffi::c_char, len: usize| {
            assert_eq!(start.add(len).read(), 0, "terminated");
            slice::from_raw_parts(start.cast::<u8>(), len).to_vec()
        };
        assert!([0, ST_FATAL_STRICT, ST_FATAL_STRICT | ST_FATAL_TOLERANT].contains(&problem.fatal));
        assert_eq!((problem.reserved, problem.tensor.is_null() && problem.tensor_len != 0), ([0; 4], false));
        let said = CStr::from_ptr(problem.text).to_str().unwrap().to_owned();
        assert!(!said.is_empty() && !said.chars().any(char::is_control), "{said:?}");
        listener.problems.push(Problem {
            code: status_name(problem.code),
            tolerable: problem.fatal == ST_FATAL_STRICT,
            harmless: problem.fatal == 0,
            position: problem.position,
            file: text(problem.file, problem.file_len),
            tensor: (!problem.tensor.is_null()).then(|| text(problem.tensor, problem.tensor_len)),
            text: said,
        });
        i32::from(listener.problems.len() == listener.stop_at)
    }
}

pub(crate) fn validate_until(
    path: &Path,
    options: &st_open_options,
    stop_at: usize,
) -> (Vec<Problem>, Result<(), Failure>) {
    let mut listener = Listener { problems: Vec::new(), stop_at };
    let (path, mut error) = (c_path(path), ErrorSlot::default());
    let user_data = (&raw mut listener).cast();
    // SAFETY: as the header says.
    let status = unsafe { st_validate(path.as_ptr(), options, Some(report), user_data, error.as_mut()) };
    if status == ST_OK {
        assert!(error.untouched(), "success writes no error");
        return (listener.problems, Ok(()));
    }
    let failure = error.failure();
    assert_eq!(failure.code, status);
    (listener.problems, Err(failure))
}

pub(crate) fn validate(path: &Path, options: &st_open_options) -> (Vec<Problem>, Result<(), Failure>) {
    validate_until(path, options, usize::MAX)
}

/// Every profile: what it says is what opening says.
pub(crate) fn agrees(path: &Path, wanted: &OpenOptions) -> Result<Vec<Problem>, TestCaseError> {
    let mut all = Vec::new();
    for tolerance in 0..4_u32 {
        let mut wanted = *wanted;
        wanted.tolerate.trailing_bytes = tolerance & 1 != 0;
        wanted.tolerate.unknown_dtype = tolerance & 2 != 0;
        let wanted = options(&wanted);
        let opened = open_with(path, &wanted).map(|_| ());
        let (problems, verdict) = validate(path, &wanted);
        let fatal = |problem: &&Problem| match problem.code {
            _ if problem.harmless => false,
            _ if !problem.tolerable => true,
            "ST_ERROR_DTYPE" => tolerance & 2 == 0,
            "ST_ERROR_DATA_NOT_COVERED" => tolerance & 1 == 0,
            other => panic!("{other} can't be tolerated"),
        };
        let first = problems.iter().find(fatal).map(|problem| problem.code);
        prop_assert_eq!(first, opened.as_ref().err().map(Failure::status), "{:?} {:?}", path, &problems);
        // The code, the errno and every word of the message.
        prop_assert_eq!(verdict.err(), opened.err(), "{:?} {:?}", path, &problems);
        all = problems;
    }
    Ok(all)
}
