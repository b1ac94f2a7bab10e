// SPDX-License-Identifier: Apache-2.0
//! Recorded answers: where each comes from is in `plans/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::part::st_interval;
use serde_json::Value;

use super::checkpoint::{counted, one_file, three_files, Listed};
use super::plan::{load, Given, Opened, Part, Plan};
use super::sha256::short;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) tensors: Vec<Listed>,
    hashes: Vec<String>,
    pub(crate) given: Given,
    runs: Vec<Value>,
}

pub(crate) fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/plans"))
}

/// The text of a file in `plans/` of the project.
pub(crate) fn plan_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans").join(name).with_extension("json");
    fs::read_to_string(path).unwrap()
}

impl Case {
    fn read(path: &Path) -> Self {
        let case: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        // Strings compare as their bytes do.
        let tensors: BTreeMap<&String, &Value> = case["tensors"].as_object().unwrap().iter().collect();
        let listed = tensors.iter().map(|(name, tensor)| {
            let shape: Vec<u64> = tensor[1].as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).collect();
            Listed::new(name, tensor[0].as_str().unwrap(), &shape)
        });
        let plans = case["plans"].as_array().unwrap().iter().map(|plan| match (plan.as_str(), plan.get("text")) {
            (Some(name), _) => plan_file(name),
            (None, Some(text)) => text.as_str().unwrap().to_owned(),
            (None, None) => plan.to_string(),
        });
        let symbols = case.get("symbols").and_then(Value::as_object).into_iter().flatten();
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            tensors: listed.collect(),
            hashes: tensors.values().map(|tensor| tensor[2].as_str().unwrap().to_owned()).collect(),
            given: Given {
                plans: plans.collect(),
                config: Some(case.get("config").map_or("{}".to_owned(), Value::to_string)),
                symbols: symbols.map(|(name, value)| (name.clone(), value.as_i64().unwrap())).collect(),
                strict: case.get("strict") == Some(&Value::Bool(true)),
            },
            runs: case["runs"].as_array().unwrap().clone(),
        }
    }

    pub(crate) fn runs(&self) -> &[Value] {
        &self.runs
    }

    pub(crate) fn all() -> Vec<Self> {
        let mut paths: Vec<_> =
            fs::read_dir(folder().join("cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert_eq!(paths.len(), 148);
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

pub(crate) fn axes_of(run: &Value) -> Vec<(&str, i64, i64)> {
    let axes = run["axes"].as_array().unwrap().iter();
    axes.map(|axis| (axis[0].as_str().unwrap(), axis[1].as_i64().unwrap(), axis[2].as_i64().unwrap())).collect()
}

/// Pieces as recorded, without the zeros at their ends.
fn pieces_of(recorded: &Value) -> Vec<st_interval> {
    let piece = |piece: &Value| {
        let number = |at: usize| piece.get(at).map_or(0, |number| number.as_i64().unwrap());
        st_interval { start: number(0), stop: number(1), zeros: number(2), skip: number(3) }
    };
    recorded.as_array().unwrap().iter().map(piece).collect()
}

fn check_run(case: &Case, run: &Value, answer: Result<&[(Part, Vec<u8>)], &str>, bytes: &[Vec<u8>]) {
    let about = format!("{} {}", case.name, run["axes"]);
    if let Some(error) = run.get("error").and_then(Value::as_str) {
        let message = answer.err().unwrap_or_else(|| panic!("{about}: no error, but {error} wanted"));
        assert!(message.starts_with(&format!("{error}: ")), "{about}: {error} wanted: {message}");
        for fact in run["facts"].as_array().unwrap() {
            assert!(message.contains(fact.as_str().unwrap()), "{about}: {fact} is not in {message}");
        }
        return;
    }
    let parts = answer.unwrap_or_else(|message| panic!("{about}: {message}"));
    let recorded: BTreeMap<&String, &Value> = run["parts"].as_object().unwrap().iter().collect();
    let names: Vec<_> = parts.iter().map(|(part, _)| &part.name).collect();
    assert_eq!(names, recorded.keys().copied().collect::<Vec<_>>(), "{about}");
    for ((part, local), (name, recorded)) in parts.iter().zip(&recorded) {
        let about = format!("{about} {name}");
        let number = case.tensors.iter().position(|tensor| tensor.name == **name).unwrap();
        if recorded.is_null() {
            assert!(part.pieces.iter().all(Option::is_none), "{about}: {part:?}");
            assert_eq!(*local, bytes[number], "{about}");
            continue;
        }
        let shape: Vec<_> = recorded["shape"].as_array().unwrap().iter().map(|size| size.as_i64().unwrap()).collect();
        assert_eq!(part.shape, shape, "{about}");
        for (dim, pieces) in part.pieces.iter().enumerate() {
            let wanted = recorded["dims"].get(dim.to_string()).map(pieces_of);
            assert_eq!(*pieces, wanted, "{about} dimension {dim}");
        }
        assert_eq!(local.len() as u64, part.size, "{about}");
        assert_eq!(short(local), recorded["sha256"].as_str().unwrap(), "{about}");
    }
    let sum = |size: fn(&Part) -> u64| parts.iter().map(|(part, _)| size(part)).sum::<u64>();
    let sums = [sum(|part| part.size), sum(|part| part.read_size)];
    assert_eq!(sums, ["bytes", "read_bytes"].map(|key| run[key].as_u64().unwrap()), "{about}");
}

#[test]
fn every_recorded_answer_is_ours() {
    let mut runs = 0;
    for case in Case::all() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = counted(&case.tensors);
        for (bytes, hash) in bytes.iter().zip(&case.hashes) {
            assert_eq!(short(bytes), *hash, "{}", case.name);
        }
        for path in [one_file(folder.path(), &case.tensors), three_files(folder.path(), &case.tensors)] {
            let opened = Opened::new(&path);
            let plan = Plan::new(&opened, &case.given);
            for run in &case.runs {
                let records = plan.as_ref().map_err(Clone::clone).and_then(|plan| plan.records(&axes_of(run)));
                let loaded = records.map(|records| {
                    let bytes = load(&opened, records).unwrap_or_else(|failure| panic!("{}: {failure:?}", case.name));
                    records.iter().map(Part::new).zip(bytes).collect::<Vec<_>>()
                });
                let answer = loaded.as_deref().map_err(|failure| failure.message.as_str());
                check_run(&case, run, answer, &bytes);
                runs += 1;
            }
        }
    }
    assert!(runs > 1000, "{runs}");
}
