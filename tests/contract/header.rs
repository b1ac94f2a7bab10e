// SPDX-License-Identifier: Apache-2.0
//! The committed header is what cbindgen makes of the exports.

use std::path::Path;

/// In the order in which the header's sections stand.
const SOURCES: &[&str] = &[
    "ffi/version.rs",
    "ffi/status.rs",
    "ffi/dtype.rs",
    "record.rs",
    "ffi/open.rs",
    "ffi/inspect.rs",
    "ffi/read.rs",
    "ffi/slice.rs",
    "ffi/load.rs",
    "ffi/convert.rs",
    "ffi/save.rs",
    "ffi/validate.rs",
    "ffi/helpers.rs",
];

fn generate() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root.join("src").join(source));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_committed_header_is_what_cbindgen_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/safetensors.h");
    let made = generate();
    if std::env::var_os("SAFETENSORS_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == committed, "rewrite it: SAFETENSORS_WRITE_HEADER=1 cargo test --test header");
}
