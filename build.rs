// SPDX-License-Identifier: Apache-2.0
//! Gives the shared library its SONAME: cargo sets none, and without one every
//! program would record the path it was linked with. And finds out whether the
//! compiler has the AVX-512 intrinsics, which are younger than our oldest one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    match os.as_str() {
        "linux" | "android" | "freebsd" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsafetensors.so.{major}");
        }
        "macos" => println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libsafetensors.{major}.dylib"),
        _ => {}
    }
    println!("cargo:rustc-check-cfg=cfg(safetensors_avx512)");
    if rustc_minor().is_some_and(|minor| minor >= 89) {
        println!("cargo:rustc-cfg=safetensors_avx512");
    }
}

/// 89 of "rustc 1.89.0 (…)".
fn rustc_minor() -> Option<u32> {
    let version = std::process::Command::new(std::env::var_os("RUSTC")?).arg("--version").output().ok()?;
    String::from_utf8(version.stdout).ok()?.split('.').nth(1)?.parse().ok()
}
