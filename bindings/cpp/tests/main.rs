// SPDX-License-Identifier: Apache-2.0
//! The C++ header: the programs in this folder are compiled without a warning in
//! every dialect, linked with the shared library, and run plainly and under
//! AddressSanitizer with UBSan.

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::compile::{compile_cpp, has, link, root, said, scratch, STRICT};

const PROGRAMS: &[&str] = &["callbacks", "contract", "corpus", "loading", "threads", "writing"];
const COMPILERS: &[&str] = &["g++", "clang++"];

/// "2b" is what C++23 was called before it was ready.
const DIALECTS: &[&str] = &["-std=c++17", "-std=c++20", "-std=c++2b"];

/// Runs a program, which must succeed and say nothing of a fault.
fn run(program: &Path) {
    let folder = scratch().join(program.file_name().unwrap()).with_extension("files");
    fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(program);
    command.arg(root().join("tests/corpus")).arg(&folder).env_remove("LD_PRELOAD");
    let output =
        command.env("ASAN_OPTIONS", "detect_stack_use_after_return=1:strict_string_checks=1").output().unwrap();
    assert!(output.status.success(), "{}: {}\n{}", program.display(), output.status, said(&output));
    fs::remove_dir_all(folder).unwrap();
}

/// Has a compiler look at a program without linking it; it must have nothing to say.
fn checks(compiler: &mut Command, program: &str) {
    compiler.args(STRICT).arg("-I").arg(root().join("include")).arg("-I").arg(root().join("bindings/cpp/include"));
    let output = compiler.arg(root().join("bindings/cpp/tests").join(format!("{program}.cpp"))).output().unwrap();
    assert!(output.status.success() && said(&output).is_empty(), "{program}: {}", said(&output));
}

#[test]
fn as_they_are() {
    if has("g++") {
        for program in PROGRAMS {
            run(&compile_cpp("g++", program, "plain", &["-std=c++17", "-O2"]));
        }
    }
}

#[test]
fn under_address_and_undefined_behaviour_sanitizers() {
    if has("clang++") {
        let flags =
            ["-std=c++20", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DCHECK_SANITIZED"];
        for program in PROGRAMS {
            run(&compile_cpp("clang++", program, "sanitized", &flags));
        }
    }
}

#[test]
fn warning_free_in_every_dialect() {
    for compiler in COMPILERS.iter().filter(|compiler| has(compiler)) {
        for dialect in DIALECTS {
            for program in ["contract", "loading"] {
                checks(Command::new(compiler).arg(dialect).arg("-fsyntax-only"), program);
            }
        }
    }
}

/// Each program of refused.cpp but the first does one thing that would dangle,
/// or give memory of a type to bytes of another.
#[test]
fn what_would_dangle_does_not_compile() {
    let refused = |compiler: &str, number: u32| {
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-fsyntax-only"]).args(STRICT).arg(format!("-DREFUSED={number}"));
        command.arg("-I").arg(root().join("include")).arg("-I").arg(root().join("bindings/cpp/include"));
        let output = command.arg(root().join("bindings/cpp/tests/refused.cpp")).output().unwrap();
        (!output.status.success(), said(&output))
    };
    for compiler in COMPILERS.iter().filter(|compiler| has(compiler)) {
        assert_eq!(refused(compiler, 0), (false, String::new()), "{compiler}: nothing is wrong with this one");
        for number in 1..=17 {
            let (is_refused, why) = refused(compiler, number);
            let is_seen = number != ONLY_CLANG_SEES || compiler.starts_with("clang");
            assert_eq!(is_refused, is_seen, "{compiler} -DREFUSED={number}: {why}");
            // For what is in this program, and not because the file has become stale.
            let said = ["deleted", "Element<", "no matching", "stack memory"].iter().any(|word| why.contains(word));
            assert_eq!(said, is_seen, "{compiler} -DREFUSED={number}: {why}");
        }
    }
}

/// A function that returns views of its own checkpoint: a warning of clang's alone.
const ONLY_CLANG_SEES: u32 = 14;

#[test]
fn an_older_standard_gets_one_error_that_names_the_flag() {
    let unit = scratch().join("older.cpp");
    fs::create_dir_all(scratch()).unwrap();
    fs::write(&unit, "#include <safetensors.hpp>\n").unwrap();
    for compiler in COMPILERS.iter().filter(|compiler| has(compiler)) {
        for dialect in ["-std=c++14", "-std=c++11"] {
            let mut command = Command::new(compiler);
            command.args([dialect, "-fsyntax-only", "-I"]).arg(root().join("include"));
            let output = command.arg("-I").arg(root().join("bindings/cpp/include")).arg(&unit).output().unwrap();
            let errors = said(&output).lines().filter(|line| line.contains("error:")).count();
            assert_eq!((output.status.success(), errors), (false, 1), "{}", said(&output));
            assert!(said(&output).contains("-std=c++17"), "{}", said(&output));
        }
    }
}

/// The program of README.md, on a model that others have made.
#[test]
fn the_program_of_the_readme_lists_and_loads_a_real_model() {
    if !has("g++") {
        return;
    }
    let readme = fs::read_to_string(root().join("bindings/cpp/README.md")).unwrap();
    let program = readme.split("```cpp\n").nth(1).unwrap().split("```").next().unwrap();
    fs::create_dir_all(scratch()).unwrap();
    let source = scratch().join("readme.cpp");
    fs::write(&source, program).unwrap();
    let mut command = Command::new("g++");
    command.args(["-std=c++17", "-I"]).arg(root().join("bindings/cpp/include")).arg(source);
    let binary = link(&mut command, "readme", "plain");
    let model = root().join("examples/data/silero_vad_16k.safetensors");
    let output = Command::new(binary).arg(model).env_remove("LD_PRELOAD").output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("conv1.weight: F32, ") && text.ends_with(" values\n"), "{text}");
}

#[test]
fn without_exceptions() {
    for compiler in COMPILERS.iter().filter(|compiler| has(compiler)) {
        let flags = ["-std=c++17", "-O2", "-fno-exceptions", "-fno-rtti"];
        run(&compile_cpp(compiler, "without_exceptions", compiler, &flags));
    }
}

#[test]
fn a_library_of_another_interface_is_refused() {
    if has("g++") {
        run(&compile_cpp("g++", "version", "plain", &["-std=c++17"]));
    }
}

/// Two units of one program: of one standard, and of two that differ in what a
/// span is.
#[test]
fn in_two_units() {
    for compiler in COMPILERS.iter().filter(|compiler| has(compiler)) {
        let unit = |dialect: &str, main: &str| -> PathBuf {
            let object = scratch().join(format!("units-{compiler}-{}{main}.o", &dialect[5..]));
            checks(Command::new(compiler).args(["-c", dialect, main, "-o"]).arg(&object), "units");
            object
        };
        for (one, other) in [("-std=c++17", "-std=c++17"), ("-std=c++20", "-std=c++2b"), ("-std=c++17", "-std=c++20")] {
            let objects = [unit(one, "-DUNIT_MAIN"), unit(other, "-DUNIT_OTHER")];
            run(&link(Command::new(compiler).args(objects), "units", &format!("{compiler}{one}")));
        }
    }
}
