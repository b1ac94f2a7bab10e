// SPDX-License-Identifier: Apache-2.0
//! What the tests of the released library share: that library, as CMake has cargo
//! build what it installs, compilers, and running commands. A tool that is missing is a failure.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{fs, io};

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An empty folder of this name, for a test to work in.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{}: {error}", folder.display()),
        _ => fs::create_dir_all(&folder).unwrap(),
    }
    folder
}

/// Where all tests have cargo make the released library, so that it is made once.
pub(crate) fn cargo_target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cargo")
}

/// The folder of the released library: `libsafetensors.so`, `.so.0` and `.a`.
pub(crate) fn released() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // As cmake/cargo.cmake builds what is installed.
        run(Command::new(env!("CARGO"))
            .args(["rustc", "--release", "--lib", "--crate-type", "cdylib,staticlib", "--manifest-path"])
            .arg(root().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(cargo_target())
            .args(["--", "-C", "llvm-args=-inline-threshold=120"])
            .env_remove("CARGO_BUILD_TARGET"));
        let folder = cargo_target().join("release");
        let soname = folder.join(concat!("libsafetensors.so.", env!("CARGO_PKG_VERSION_MAJOR")));
        match std::os::unix::fs::symlink("libsafetensors.so", soname) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => panic!("{error}"),
            _ => folder,
        }
    })
}

/// The C and C++ compilers on this machine: gcc and clang, whichever there are.
pub(crate) fn compilers() -> Vec<(&'static str, &'static str)> {
    let found = |pair: &(&str, &str)| exists(pair.0) && exists(pair.1);
    let mut pairs: Vec<_> = [("gcc", "g++"), ("clang", "clang++")].into_iter().filter(found).collect();
    if pairs.is_empty() && found(&("cc", "c++")) {
        pairs.push(("cc", "c++"));
    }
    assert!(!pairs.is_empty(), "this test needs a C and a C++ compiler: gcc and g++, or clang and clang++");
    pairs
}

/// Whether there is a program of this name.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Compiles C for a program that uses the released library, shared, from its folder.
pub(crate) fn build_program(sources: &[&Path], include: &Path, program: &Path) {
    let lib = released();
    run(Command::new(compilers()[0].0)
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-I"])
        .arg(include)
        .args(sources)
        .arg("-o")
        .arg(program)
        .arg("-L")
        .arg(lib)
        .arg(format!("-Wl,-rpath,{}", lib.display()))
        .arg("-lsafetensors"));
}

/// Runs a command, which must succeed, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("this test needs {:?}: {error}", command.get_program()));
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\nended with {}\n{printed}{said}", output.status);
    printed.into_owned()
}
