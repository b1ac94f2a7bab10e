// SPDX-License-Identifier: Apache-2.0
//! The committed headers are what cbindgen makes of the exports.

use std::path::Path;

/// A header, how it is made, and of what, in the order of its sections.
struct Header {
    file: &'static str,
    config: &'static str,
    sources: &'static [&'static str],
}

const HEADERS: &[Header] = &[
    Header {
        file: "safetensors.h",
        config: "cbindgen.toml",
        sources: &[
            "ffi/version.rs",
            "ffi/status.rs",
            "ffi/dtype.rs",
            "record.rs",
            "ffi/arguments.rs",
            "ffi/open_options.rs",
            "ffi/callbacks.rs",
            "ffi/open.rs",
            "ffi/inspect.rs",
            "ffi/read.rs",
            "ffi/slice.rs",
            "ffi/load.rs",
            "ffi/convert.rs",
            "ffi/given.rs",
            "ffi/save.rs",
            "ffi/validate.rs",
            "ffi/helpers.rs",
        ],
    },
    Header {
        file: "safetensors_model.h",
        config: "cbindgen_model.toml",
        sources: &["part.rs", "group.rs", "ffi/rank_plan.rs", "ffi/groups.rs"],
    },
];

/// The folder whose copies follow the headers until its version is released.
const UNRELEASED: &str = "tests/contract/abi/0.2";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generate(header: &Header) -> String {
    let config = cbindgen::Config::from_file(root().join(header.config)).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in header.sources {
        builder = builder.with_src(root().join("src").join(source));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_committed_headers_are_what_cbindgen_makes() {
    for header in HEADERS {
        let made = generate(header);
        for folder in ["include", UNRELEASED] {
            let path = root().join(folder).join(header.file);
            if std::env::var_os("SAFETENSORS_WRITE_HEADER").is_some() {
                std::fs::write(&path, &made).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            let why = format!("rewrite {}: SAFETENSORS_WRITE_HEADER=1 cargo test --test header", path.display());
            assert!(made == committed, "{why}");
        }
    }
}
