// SPDX-License-Identifier: Apache-2.0
//! Gives the shared library its SONAME: cargo sets none, and without one every
//! program would record the path it was linked with.

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
}
