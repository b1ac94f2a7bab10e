// SPDX-License-Identifier: Apache-2.0
//! What a file or an index says about itself.

use std::ffi::CStr;
use std::path::PathBuf;

use safetensors::OpenOptions;

use crate::script::Script;
use crate::support::agree::agree;
use crate::support::index_model;
use crate::support::made::{file, pattern};
use crate::support::validation::agrees;

/// A file: its options, how much data it has, and its header's text. Or, where
/// the options say so, all of it.
fn input(data: &[u8]) -> (OpenOptions, Vec<u8>) {
    let mut script = Script(data);
    let (how, size) = (script.byte(), usize::from(script.byte()));
    let mut options = OpenOptions::default();
    options.tolerate.trailing_bytes = how & 1 != 0;
    options.tolerate.unknown_dtype = how & 2 != 0;
    let bytes = match how & 4 {
        0 => file(script.0, &pattern(size)),
        _ => script.0.to_vec(),
    };
    (options, bytes)
}

/// The reference implementation, and the written-down rules on serde_json's
/// reading of the text, give the same verdict and the same contents.
pub fn header(data: &[u8]) {
    let (options, bytes) = input(data);
    agree(&bytes, &options).unwrap();
}

/// st_validate agrees with opening, in every profile.
pub fn validate(data: &[u8]) {
    let (mut options, bytes) = input(data);
    let how = data.first().copied().unwrap_or(0);
    if how & 8 != 0 {
        options.limits.tensors = u64::from(how >> 4) % 3 + 1;
        options.limits.rank = u64::from(how >> 5);
        options.limits.name_bytes = u64::from(how >> 6);
    }
    let file = InMemory::new(&bytes);
    for problem in agrees(&file.path(), &options).unwrap() {
        assert!(problem.position <= bytes.len() as u64, "{problem:?}");
    }
}

/// An index opens as its rules say, beside shards that are always the same.
pub fn index(data: &[u8]) {
    index_model::agree(data).unwrap();
}

/// A file that is on no disk.
struct InMemory(libc::c_int);

impl InMemory {
    fn new(bytes: &[u8]) -> Self {
        const NAME: &CStr = c"fuzz";
        // SAFETY: a name that ends in NUL, and bytes as many as are said.
        unsafe {
            let descriptor = libc::memfd_create(NAME.as_ptr(), 0);
            assert!(descriptor >= 0);
            assert_eq!(libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()), bytes.len() as isize);
            Self(descriptor)
        }
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0).into()
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        // SAFETY: ours, and closed once.
        unsafe { libc::close(self.0) };
    }
}
