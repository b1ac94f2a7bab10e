// SPDX-License-Identifier: Apache-2.0
//! The examples that show groups: what `inspect` says of one, and that `dequantise`
//! writes the recorded values, in little memory.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use safetensors::{Checkpoint, OpenOptions};

use crate::groups::{cases, hash, text, Case};
use crate::mutations::File;
use crate::support::compile::{has, link, root, said};

/// A program of examples/c; `None` where there is no compiler.
fn program(name: &'static str) -> Option<PathBuf> {
    has("cc").then(|| {
        let mut command = Command::new("cc");
        command.args(["-std=c11", "-D_DEFAULT_SOURCE"]).arg(root().join("examples/c").join(format!("{name}.c")));
        link(&mut command, name, "example")
    })
}

/// `dequantise`, which is built once.
fn built() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| program("dequantise")).as_ref()
}

fn dequantise(from: &std::path::Path, to: &std::path::Path, options: &[&str]) -> Option<Output> {
    Some(Command::new(built()?).arg(from).arg(to).args(options).output().unwrap())
}

/// The groups of a case, and whether all of them can be decoded.
fn records(case: &Case) -> (Vec<&serde_json::Value>, bool) {
    let records: Vec<_> = case.expected["groups"].as_array().unwrap().iter().collect();
    let good = records.iter().all(|record| record["status"] == "ok");
    (records, good)
}

#[test]
fn dequantise_writes_the_recorded_values_and_leaves_plain_tensors_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for (number, case) in cases().iter().enumerate().filter(|(_, case)| records(case).1) {
        let (input, output) =
            (case.folder.join(text(&case.expected["open"])), folder.path().join(format!("{number}.safetensors")));
        let (option, key) = [("--f16", "f16_sha256"), ("--f32", "f32_sha256"), ("--bf16", "bf16_sha256")][number % 3];
        let options: &[&str] = if option == "--bf16" { &[] } else { &[option] };
        let Some(ended) = dequantise(&input, &output, options) else { return };
        assert!(ended.status.success(), "{:?}: {}", case.folder, said(&ended));
        let (before, after) = (
            Checkpoint::open(&input, &OpenOptions::default()).unwrap(),
            Checkpoint::open(&output, &OpenOptions::default()).unwrap(),
        );
        let read = |checkpoint: &Checkpoint, name: &str| {
            let tensor = checkpoint.find(name.as_bytes()).unwrap_or_else(|| panic!("{name} is not there"));
            let mut bytes = vec![0; usize::try_from(tensor.size()).unwrap()];
            checkpoint.read(tensor, &mut bytes).unwrap();
            (tensor.shape().to_vec(), bytes)
        };
        let (records, _) = records(case);
        for record in &records {
            let (shape, bytes) = read(&after, text(&record["name"]));
            assert_eq!(serde_json::json!(shape), record["shape"]);
            if record["tolerance"]["ulp"] == 0 && record["decoded"][key].is_string() {
                assert_eq!(hash(&bytes), text(&record["decoded"][key]), "{:?}: {}", case.folder, record["name"]);
                compared += 1;
            }
        }
        let plain = case.expected["plain"].as_array().unwrap();
        for name in plain.iter().map(text) {
            assert_eq!(read(&before, name), read(&after, name), "{name}");
        }
        assert_eq!(after.tensors().len(), records.len() + plain.len());
    }
    assert!(compared > 90, "{compared}");
}

#[test]
fn dequantise_writes_nothing_where_a_group_can_not_be_decoded() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases().iter().filter(|case| !records(case).1) {
        let output = folder.path().join("out.safetensors");
        let Some(ended) = dequantise(&case.folder.join(text(&case.expected["open"])), &output, &[]) else { return };
        assert!(!ended.status.success() && !output.exists(), "{:?}", case.folder);
        let bad = records(case).0.into_iter().find(|record| record["status"] != "ok");
        let named = bad.is_none_or(|record| said(&ended).contains(text(&record["name"])));
        assert!(named || said(&ended).contains("config.json"), "{}", said(&ended));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn dequantise_needs_no_memory_for_the_model() {
    // 96 MiB of codes, which become 192 MiB.
    let (rows, columns, layers) = (4096, 4096, 6);
    let mut file = File { header: serde_json::Map::new(), data: vec![0x38; layers * rows * columns] };
    for layer in 0..layers {
        let start = layer * rows * columns;
        let entry = serde_json::json!({"dtype": "F8_E4M3", "shape": [rows, columns], "data_offsets": [start, start + rows * columns]});
        file.header.insert(format!("{layer}.weight"), entry);
        let (start, end) = (file.data.len(), file.data.len() + 4);
        file.data.extend(0.5_f32.to_le_bytes());
        file.header.insert(
            format!("{layer}.weight_scale"),
            serde_json::json!({"dtype": "F32", "shape": [], "data_offsets": [start, end]}),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    std::fs::write(&input, file.bytes()).unwrap();
    // What is mapped is not counted: memory is limited, not address space.
    let Some(program) = built() else { return };
    let script = "ulimit -d 49152; exec \"$@\"";
    let ended = Command::new("sh").args(["-c", script, "sh"]).arg(program).arg(&input).arg(&output).output().unwrap();
    assert!(ended.status.success(), "{}", said(&ended));
    assert!(std::fs::metadata(&output).unwrap().len() > (2 * layers * rows * columns) as u64);
}

#[test]
fn inspect_has_a_line_for_each_group_and_its_members_on_request() {
    let Some(program) = program("inspect") else { return };
    let all = cases();
    let case = all.iter().find(|case| case.folder.ends_with("gptq-4-v1")).unwrap();
    let run = |options: &[&str]| {
        let output = Command::new(&program).args(options).arg(&case.folder).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let lines = run(&[]);
    let line = lines.lines().find(|line| line.contains("gptq-v1 4 bit")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let name = "model.layers.0.mlp.up_proj.weight";
    let expected = [name, "gptq-v1", "4", "bit", "g32", "[24,", "96]", "effective"];
    let found =
        lines.lines().any(|line| line.split_whitespace().zip(expected).all(|(a, b)| a == b) && line.ends_with("bit"));
    assert!(found, "{words:?}\n{lines}");
    assert!(lines.contains("3 quantised groups"), "{lines}");
    assert!(!lines.contains("    codes") && run(&["--groups"]).contains("    codes"));
}
