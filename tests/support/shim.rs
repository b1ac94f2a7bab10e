// SPDX-License-Identifier: Apache-2.0
//! A system that fails on demand: shim.c, which is preloaded. Its rules are
//! one text for this process and for others; shim.h says what there is.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::env;
use std::ffi::{c_char, c_long, CStr, CString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::OnceLock;

/// The shim, compiled.
pub(crate) fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (library, mine) = (folder.join("shim.so"), folder.join(format!("shim-{}.so", process::id())));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/shim.c");
        let mut cc = Command::new("cc");
        // As gcc knows malloc, it would take what counts blocks for superfluous.
        cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-fno-builtin", "-shared", "-fPIC", "-o"]);
        let status = cc.arg(&mine).arg(source).args(["-ldl", "-pthread"]).status();
        assert!(status.expect("this test needs cc").success(), "{cc:?}");
        // Another test may be using it.
        fs::rename(mine, &library).unwrap();
        library
    })
}

/// Has a program run with the shim, by these rules from its start.
pub(crate) fn preload<'a>(command: &'a mut Command, rules: &str) -> &'a mut Command {
    command.env("LD_PRELOAD", library()).env("FAULTS", rules)
}

/// Has this program start anew with the shim, if it is without. To be called before `main`.
pub(crate) extern "C" fn preload_this() {
    if symbol(c"faults").is_none() {
        assert!(env::var_os("LD_PRELOAD").is_none_or(|already| already != library()), "the shim can't be preloaded");
        let mut again = Command::new(env::current_exe().unwrap());
        // The harness, too, starts threads.
        preload(again.args(env::args_os().skip(1)), "").env("RUST_TEST_THREADS", "1");
        panic!("{:?}", again.exec());
    }
}

fn symbol(name: &CStr) -> Option<*mut libc::c_void> {
    // SAFETY: a text that ends in NUL.
    Some(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }).filter(|found| !found.is_null())
}

/// Has this process, which is preloaded, go by these rules from now on. How many times the earlier ones were met.
pub(crate) fn faults(rules: &str) -> usize {
    let rules = CString::new(rules).unwrap();
    let faults = symbol(c"faults").expect("the shim is preloaded");
    // SAFETY: it has this type, and takes a text that ends in NUL.
    let met = unsafe {
        std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(*const c_char) -> c_long>(faults)(rules.as_ptr())
    };
    met.try_into().unwrap()
}

/// A call that met a rule.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) call: String,
    pub(crate) path: String,
    pub(crate) more: String,
    pub(crate) rule: String,
    pub(crate) thread: String,
}

/// The calls of this process that met a rule, in order.
pub(crate) fn log() -> Vec<Met> {
    let log = symbol(c"faults_log").expect("the shim is preloaded");
    // SAFETY: it has this type, and returns a text that ends in NUL.
    let text =
        unsafe { CStr::from_ptr(std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> *const c_char>(log)()) };
    lines(&text.to_string_lossy())
}

/// Those of another one that had this file as FAULTS_LOG; the file is removed.
pub(crate) fn log_in(file: &Path) -> Vec<Met> {
    let text = fs::read(file).unwrap();
    fs::remove_file(file).unwrap();
    lines(&CStr::from_bytes_until_nul(&text).unwrap().to_string_lossy())
}

fn lines(text: &str) -> Vec<Met> {
    let met = |line: &str| {
        let [call, path, more, rule, thread] =
            line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        Met { call, path, more, rule, thread }
    };
    text.lines().map(met).collect()
}
