// SPDX-License-Identifier: Apache-2.0
//! A test that runs itself again in a process of its own, where limits can be
//! lowered and a crash shows.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const VARIABLE: &str = "SAFETENSORS_TEST_CHILD";

/// Whether this is the child, which then does the test's work.
pub(crate) fn is_child() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// The folder that the parent gave the child.
pub(crate) fn folder() -> Option<PathBuf> {
    env::var_os(VARIABLE).map(PathBuf::from)
}

/// Runs the test of this name, which is in a module, in a child process, after `prepare` in it. Panics
/// with what it said unless it succeeds within the time.
pub(crate) fn succeeds(test: &str, most: Duration, prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static) {
    succeeds_with(test, most, Path::new("/"), prepare);
}

/// The same for a child that is to look at a folder.
pub(crate) fn succeeds_with(
    test: &str,
    most: Duration,
    folder: &Path,
    prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) {
    let output = run(test, most, folder, prepare);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{test}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    assert!(String::from_utf8_lossy(&said).contains("ok. 1 passed"), "{test}: no such test");
}

fn run(
    test: &str,
    most: Duration,
    folder: &Path,
    prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> Output {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([&format!("::{test}"), "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, folder).env("RUST_BACKTRACE", "0");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: the tests' closures call nothing but setrlimit, setuid and their like.
    unsafe { command.pre_exec(prepare) };
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > most {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{test}: not done after {most:?}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Sets a soft and hard limit of the process.
pub(crate) fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: a valid struct.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
