// SPDX-License-Identifier: Apache-2.0
//! Compiles programs of tests/contract/c, bindings/cpp/tests and examples against the headers and the
//! built library: the one that cargo builds along with the tests.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

/// What every program is compiled with.
pub(crate) const STRICT: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-g"];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where outputs go; each test binary has its own place.
pub(crate) fn scratch() -> PathBuf {
    let binary = env::current_exe().unwrap();
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(binary.file_stem().unwrap())
}

/// The folder of the built library, shared, under the names that linker and loader
/// look for. Cargo puts it beside this test's binary.
fn built() -> PathBuf {
    static LINKED: Once = Once::new();
    let folder = scratch().join("lib");
    LINKED.call_once(|| {
        let library = env::current_exe().unwrap().with_file_name("libsafetensors.so");
        assert!(library.exists(), "{} is not there", library.display());
        fs::create_dir_all(&folder).unwrap();
        for name in ["libsafetensors.so", "libsafetensors.so.0"] {
            let _ = fs::remove_file(folder.join(name));
            symlink(&library, folder.join(name)).unwrap();
        }
    });
    folder
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Whether a program is there to be used.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: no {program}");
    }
    found
}

/// Compiles a program of tests/contract/c for one way to run it, without a warning.
pub(crate) fn compile(compiler: &str, program: &str, way: &str, flags: &[&str]) -> PathBuf {
    let mut command = Command::new(compiler);
    command.arg("-std=c11").args(flags).arg("-D_DEFAULT_SOURCE");
    link(command.arg(root().join("tests/contract/c").join(format!("{program}.c"))), program, way)
}

/// Compiles a program of bindings/cpp/tests for one way to run it, without a warning.
pub(crate) fn compile_cpp(compiler: &str, program: &str, way: &str, flags: &[&str]) -> PathBuf {
    let mut command = Command::new(compiler);
    command.args(["-Wold-style-cast", "-Wnon-virtual-dtor"]).args(flags);
    command.arg("-I").arg(root().join("bindings/cpp/include"));
    link(command.arg(root().join("bindings/cpp/tests").join(format!("{program}.cpp"))), program, way)
}

/// Has the command make a program linked with the built library.
pub(crate) fn link(command: &mut Command, program: &str, way: &str) -> PathBuf {
    let folder = built();
    let binary = scratch().join(format!("{program}-{way}"));
    command.args(STRICT).arg("-I").arg(root().join("include"));
    command.arg("-L").arg(&folder).args(["-lsafetensors", "-pthread"]).arg(format!("-Wl,-rpath,{}", folder.display()));
    let output = command.arg("-o").arg(&binary).output().unwrap();
    assert!(output.status.success() && said(&output).is_empty(), "{program}: {}", said(&output));
    binary
}
