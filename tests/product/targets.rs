// SPDX-License-Identifier: Apache-2.0
//! What CMake builds for, and that it stops with the words that help where it
//! can't. Nothing is built here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::released::{root, scratch};

/// Configures the project in `folder` with these definitions, and a toolchain
/// file where its text is not empty.
fn configure(folder: &Path, toolchain: &str, definitions: &[&str]) -> Output {
    fs::write(folder.join("toolchain.cmake"), toolchain).unwrap();
    let mut cmake = Command::new("cmake");
    cmake.args(["-G", "Unix Makefiles", "-S"]).arg(root()).arg("-B").arg(folder.join("build"));
    if !toolchain.is_empty() {
        cmake.arg(format!("-DCMAKE_TOOLCHAIN_FILE={}/toolchain.cmake", folder.display()));
    }
    cmake.arg("-DSAFETENSORS_BUILD_EXAMPLES=OFF").args(definitions);
    // Neither of these may decide what is built here.
    cmake.env_remove("CC").env_remove("CFLAGS").output().unwrap()
}

/// CMake breaks its lines where it likes.
fn words(text: &[u8]) -> String {
    String::from_utf8_lossy(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A cargo beside a rustc that says it is this release.
fn cargo_of(release: &str, folder: &Path) -> PathBuf {
    let said = format!("rustc {release} (of a test)\nhost: x86_64-unknown-linux-gnu\nrelease: {release}\n");
    for (name, script) in [("rustc", format!("#!/bin/sh\ncat <<'END'\n{said}END\n")), ("cargo", "#!/bin/sh\n".into())] {
        fs::write(folder.join(name), script).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder.join("cargo")
}

#[test]
fn what_can_not_be_built_stops_with_words_that_help() {
    let folder = scratch("targets");
    let other = if cfg!(target_arch = "x86_64") { "aarch64" } else { "x86_64" };
    let old_cargo = format!("-DSAFETENSORS_CARGO={}", cargo_of("1.63.0", &folder).display());
    let windows = "set(CMAKE_SYSTEM_NAME Windows)\nset(CMAKE_C_COMPILER_WORKS 1)\n";
    let no_compiler = format!("set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_SYSTEM_PROCESSOR {other})\n");
    let cases: [(&str, &str, &str); 5] = [
        ("-DSAFETENSORS_CARGO=/nowhere/cargo", "", "SAFETENSORS_CARGO is /nowhere/cargo, and there is no such file"),
        (&old_cargo, "", "or newer; "),
        ("-DSAFETENSORS_RUST_TARGET=aarch64-linux-gnu", "", "Name the one you mean with -DSAFETENSORS_RUST_TARGET"),
        ("-DSAFETENSORS_RUST_TARGET=", windows, "does not build for Windows yet"),
        ("-DSAFETENSORS_RUST_TARGET=", &no_compiler, "name the compiler too"),
    ];
    for (definition, toolchain, text) in cases {
        let _ = fs::remove_dir_all(folder.join("build"));
        let output = configure(&folder, toolchain, &[definition]);
        let said = words(&output.stderr);
        assert!(!output.status.success() && said.contains(text), "{definition}, {toolchain:?}: {said}");
    }
}

/// Of this machine's own kind too, where it holds another C library.
#[test]
fn the_library_is_linked_against_the_sysroot() {
    let folder = scratch("sysroot");
    let output = configure(&folder, "", &["-DCMAKE_SYSROOT=/"]);
    assert!(output.status.success(), "{}", words(&output.stderr));
    let rules = fs::read_to_string(folder.join("build/CMakeFiles/safetensors_cargo.dir/build.make")).unwrap();
    assert!(rules.contains("link-arg=--sysroot=/"), "{rules}");
}
