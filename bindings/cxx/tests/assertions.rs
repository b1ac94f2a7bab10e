// SPDX-License-Identifier: Apache-2.0
//! The assertions of bindings/cpp/tests, and the bridge's own, in this process: C++ and
//! the Rust core in one binary, without the shared library.

use std::path::Path;

use safetensors_cxx as _;

#[allow(unreachable_pub, reason = "cxx makes what it declares public")]
#[cxx::bridge(namespace = "assertions")]
mod cpp {
    unsafe extern "C++" {
        include!("safetensors-cxx/tests/assertions.h");

        fn run(name: &str, corpus: &str, scratch: &str) -> Result<i32>;
        fn bridge(path: &str) -> Result<i32>;
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// One after the other: the C++ side counts failures, memory and descriptors of the process.
#[test]
fn the_headers_assertions_hold_with_the_core_linked_in() {
    let corpus = root().join("tests/corpus");
    for name in ["callbacks", "contract", "corpus", "loading", "threads", "writing"] {
        let scratch = tempfile::tempdir().unwrap();
        let result = cpp::run(name, corpus.to_str().unwrap(), scratch.path().to_str().unwrap());
        assert!(matches!(result, Ok(0)), "{name}: {result:?}");
    }
    let model = root().join("examples/data/silero_vad_16k.safetensors");
    let result = cpp::bridge(model.to_str().unwrap());
    assert!(matches!(result, Ok(0)), "{result:?}");
}
