// SPDX-License-Identifier: Apache-2.0
//! Every system call and every large allocation fails, each in turn: the right
//! result or the right error comes out, and nothing is left. The programs are
//! C, in tests/product/faults, and run with the shim.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::released::{released, root, run, scratch};
use crate::shim;

/// The folder of the programs.
fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let out = scratch("faults");
        for name in ["driver", "soak"] {
            let mut cc = Command::new("cc");
            cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-I"]).arg(root().join("include"));
            cc.arg("-I").arg(root().join("tests/support"));
            cc.arg(root().join("tests/product/faults").join(format!("{name}.c"))).arg(shim::library());
            cc.arg("-o").arg(out.join(name)).arg("-L").arg(released()).args(["-lsafetensors", "-pthread"]);
            run(cc.arg(format!("-Wl,-rpath,{}", released().display())));
        }
        out
    })
}

fn with_shim(program: &str, arguments: &[&str]) -> Option<Output> {
    if !cfg!(target_env = "gnu") {
        eprintln!("not tested: the shim knows no other C library than glibc");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(programs().join(program));
    let output = shim::preload(command.arg(folder.path()).args(arguments), "").output().unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{said}", output.status);
    Some(output)
}

/// Runs the driver on one kind of work, of which it has to make so many rounds.
fn every_fault_of(what: &str, least: usize) {
    if let Some(output) = with_shim("driver", &[what]) {
        let said = String::from_utf8(output.stdout).unwrap();
        let rounds = said.lines().last().and_then(|line| line.split(' ').nth(1)?.parse::<usize>().ok());
        assert!(rounds.is_some_and(|rounds| rounds >= least), "{said}");
    }
}

#[test]
fn of_opening() {
    every_fault_of("open", 300);
}

#[test]
fn of_opening_shards() {
    every_fault_of("shards", 300);
}

#[test]
fn of_reading() {
    every_fault_of("get", 150);
}

#[test]
fn of_loading() {
    every_fault_of("load", 300);
}

#[test]
fn of_shards_that_are_opened_anew() {
    every_fault_of("reopened", 800);
}

#[test]
fn of_saving() {
    every_fault_of("save", 500);
}

#[test]
fn of_memory_that_runs_out() {
    every_fault_of("memory", 10);
}

/// A short form of scripts/soak.
#[test]
fn eight_threads_in_a_storm_leave_nothing_behind() {
    with_shim("soak", &["4", "1"]);
}
