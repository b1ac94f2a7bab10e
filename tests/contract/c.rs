// SPDX-License-Identifier: Apache-2.0
//! The contract seen from C: the programs in tests/contract/c are compiled without a
//! warning, linked with the shared library, and run plainly, under
//! AddressSanitizer with UBSan, and under valgrind.

use std::process::Command;

use crate::support::compile::{compile, has, root, said, scratch};

const PROGRAMS: &[&str] = &["contract", "corpus", "engine", "load", "many", "threads", "writing"];

/// Runs each program the way that the command says; tells all that failed.
fn run_all(command: impl Fn(&str) -> Command) {
    let mut failed = String::new();
    for program in PROGRAMS {
        let mut command = command(program);
        let output = command.arg(root().join("tests/corpus")).arg(scratch()).output().unwrap();
        if !output.status.success() {
            failed += &format!("{program}: {}\n{}\n", output.status, said(&output));
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn as_they_are() {
    if has("cc") {
        run_all(|program| Command::new(compile("cc", program, "plain", &["-O2"])));
    }
}

#[test]
fn under_address_and_undefined_behaviour_sanitizers() {
    if has("clang") {
        run_all(|program| {
            let flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
            let mut command = Command::new(compile("clang", program, "sanitized", &flags));
            command
                .env("ASAN_OPTIONS", "detect_stack_use_after_return=1:strict_string_checks=1")
                .env_remove("LD_PRELOAD");
            command
        });
    }
}

#[test]
fn under_valgrind() {
    if has("valgrind") && has("cc") {
        run_all(|program| {
            let mut command = Command::new("valgrind");
            command.args(["--quiet", "--error-exitcode=99", "--fair-sched=yes", "--leak-check=full"]);
            // What std keeps for the main thread is "possibly lost" to valgrind.
            command.args(["--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect"]);
            command.arg(compile("cc", program, "valgrind", &["-O1"]));
            command
        });
    }
}

#[test]
fn warning_free_in_every_dialect() {
    for compiler in ["gcc", "clang"] {
        if has(compiler) {
            for dialect in ["-std=c11", "-std=gnu11", "-std=c17"] {
                compile(compiler, "contract", &format!("{compiler}{dialect}"), &[dialect, "-O2"]);
            }
        }
    }
}
