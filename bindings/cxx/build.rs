// SPDX-License-Identifier: Apache-2.0
//! Compiles the C++ sides: the bridge itself, the example, and the C++ header's
//! own tests. Archives: what a program does not call is not linked.

use std::path::Path;

/// The programs of bindings/cpp/tests that take part.
const ASSERTIONS: &[&str] = &["callbacks", "contract", "corpus", "loading", "threads", "writing"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for folder in ["src", "examples", "tests", "build.rs"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    for folder in ["include", "bindings/cpp/include", "bindings/cpp/tests"] {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
    }

    let mut bridges = cxx_build::bridges(["src/lib.rs", "examples/inspect.rs", "tests/assertions.rs"]);
    bridges.std("c++17").file("examples/inspect.cc").file("tests/assertions.cc");
    for name in ASSERTIONS {
        bridges.file(root.join(format!("bindings/cpp/tests/{name}.cpp")));
    }
    bridges.define("CHECK_NO_MAIN", None);
    bridges.include(root.join("include")).include(root.join("bindings/cpp/include"));
    bridges.flag_if_supported("-Wall").flag_if_supported("-Wextra");
    bridges.compile("safetensors-cxx");
}
