// SPDX-License-Identifier: Apache-2.0
//! Quantised groups against the recorded answers of the formats' own libraries, and of
//! variants that those do not cover against numpy's (variants/make.py).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use safetensors::model::groups::{Group, Groups, GroupsOptions, Status};
use safetensors::{Checkpoint, Dtype, ErrorKind, OpenOptions, Range};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub(crate) struct Case {
    pub(crate) folder: PathBuf,
    pub(crate) expected: Value,
}

pub(crate) fn cases() -> Vec<Case> {
    let of = |root: &str| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model").join(root);
        let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|folder| folder.join("expected.json").exists()).collect::<Vec<PathBuf>>()
    };
    let (mut folders, variants) = (of("quantised"), of("variants"));
    assert_eq!((folders.len(), variants.len()), (72, 24));
    folders.extend(variants);
    folders.sort();
    let read = |folder: PathBuf| {
        let expected = std::fs::read(folder.join("expected.json")).unwrap();
        Case { expected: serde_json::from_slice(&expected).unwrap(), folder }
    };
    folders.into_iter().map(read).collect()
}

pub(crate) fn open(case: &Case) -> Checkpoint {
    let path = case.folder.join(case.expected["open"].as_str().unwrap());
    Checkpoint::open(path, &OpenOptions::default()).unwrap()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn sizes(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|size| size.as_i64().unwrap()).collect()
}

fn words<'a>(value: &'a Value) -> BTreeSet<&'a str> {
    value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap()).collect()
}

/// What a group is called where the answers are compared.
fn status_of(group: &Group) -> &'static str {
    match group.status() {
        Status::Ok => "ok",
        Status::Broken(_) => "broken",
        Status::Ambiguous => "ambiguous",
        Status::Opaque => "opaque",
    }
}

const FLAGS: [(&str, u32); 7] = [
    ("transposed", 1),
    ("act_order", 2),
    ("asymmetric", 4),
    ("swizzled", 8),
    ("high_nibble_first", 16),
    ("flat", 32),
    ("padded_words", 64),
];

#[test]
fn groups_are_described_as_recorded() {
    let mut wrong = Vec::new();
    for case in cases() {
        let name = case.folder.file_name().unwrap().to_str().unwrap().to_owned();
        let checkpoint = open(&case);
        let found = Groups::open(&checkpoint, &GroupsOptions::default());
        if name == "x-config-not-json" {
            assert_eq!(found.unwrap_err().kind(), ErrorKind::Config);
            continue;
        }
        let found = found.unwrap();
        let names: Vec<&[u8]> = found.list().iter().map(Group::name).collect();
        let records = case.expected["groups"].as_array().unwrap();
        let expected: Vec<&[u8]> = records.iter().map(|record| text(&record["name"]).as_bytes()).collect();
        assert_eq!(names, expected, "{name}");
        let mut lost = BTreeSet::new();
        for record in records {
            let group = found.find(text(&record["name"]).as_bytes()).unwrap();
            let mut check = |what: &str, same: bool| {
                if !same {
                    wrong.push(format!("{name}: {}: {what}: {group:?}", text(&record["name"])));
                }
            };
            check("status", status_of(group) == text(&record["status"]));
            let tensor = |number: usize| std::str::from_utf8(checkpoint.tensors()[number].name()).unwrap();
            let members: BTreeSet<(&str, &str)> = group
                .members()
                .iter()
                .map(|member| (member.role.c_name().to_str().unwrap(), tensor(member.tensor)))
                .collect();
            if text(&record["status"]) != "ok" {
                if let Status::Broken(rule) = group.status() {
                    check("rule", rule.word() == text(&record["error"]));
                }
                for mention in words(&record["mentions"]).iter().chain(&words(&record["readings"])) {
                    check("mention", group.problem().contains(mention));
                }
                lost.extend(members.iter().map(|(_, tensor)| (*tensor).to_owned()));
                assert!(group.usable().is_err());
                continue;
            }
            check("kind", group.kind() == text(&record["kind"]));
            check("layout", group.layout() == text(&record["format"]));
            check("bits", u64::from(group.bits()) == record["bits"].as_u64().unwrap());
            check("shape", group.shape() == sizes(&record["shape"]));
            check("block", group.block() == sizes(&record["block"]));
            check("step", group.step() == sizes(&record["step"]));
            let flags = words(&record["flags"])
                .iter()
                .map(|flag| FLAGS.iter().find(|(name, _)| name == flag).unwrap().1)
                .sum::<u32>();
            check("flags", group.flags().bits() == flags);
            let of = record["members"].as_array().unwrap().iter();
            let expected: BTreeSet<(&str, &str)> =
                of.map(|member| (text(&member["role"]), text(&member["tensor"]))).collect();
            check("members", members == expected);
        }
        let plain: BTreeSet<&str> = found
            .plain()
            .iter()
            .map(|number| std::str::from_utf8(checkpoint.tensors()[*number].name()).unwrap())
            .collect();
        let expected: BTreeSet<&str> =
            words(&case.expected["plain"]).into_iter().filter(|name| !lost.contains(*name)).collect();
        assert_eq!(plain, expected, "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Whether values are those recorded, within their tolerance.
fn same(found: &[f32], expected: &[f32], tolerance: &Value) -> bool {
    let close = |a: f32, b: f32| {
        if a.is_nan() || b.is_nan() {
            return a.is_nan() == b.is_nan();
        }
        if let Some(most) = tolerance["abs"].as_f64() {
            return f64::from((a - b).abs()) <= most;
        }
        let order = |x: f32| {
            if x.to_bits() >> 31 == 0 {
                i64::from(x.to_bits())
            } else {
                -i64::from(x.to_bits() & 0x7fff_ffff)
            }
        };
        let sign = a.is_sign_negative() == b.is_sign_negative();
        sign && (order(a) - order(b)).abs() <= tolerance["ulp"].as_i64().unwrap()
    };
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| close(*a, *b))
}

#[test]
fn values_are_those_of_the_formats_own_libraries() {
    let mut wrong = Vec::new();
    for case in cases().iter().filter(|case| !case.folder.ends_with("x-config-not-json")) {
        let checkpoint = open(case);
        let groups = Groups::open(&checkpoint, &GroupsOptions::default()).unwrap();
        for record in case.expected["groups"].as_array().unwrap().iter().filter(|record| record["status"] == "ok") {
            let name = format!("{}: {}", case.folder.file_name().unwrap().to_str().unwrap(), text(&record["name"]));
            let group = groups.find(text(&record["name"]).as_bytes()).unwrap();
            let decoded = &record["decoded"];
            let exact = record["tolerance"]["ulp"] == 0;
            for (dtype, key) in [(Dtype::F32, "f32_sha256"), (Dtype::F16, "f16_sha256"), (Dtype::Bf16, "bf16_sha256")] {
                let values = match group.read(&checkpoint, &[], dtype) {
                    Ok(values) => values,
                    Err(error) => {
                        wrong.push(format!("{name}: {error}"));
                        continue;
                    }
                };
                if exact && decoded[key].is_string() && hash(&values) != text(&decoded[key]) {
                    wrong.push(format!("{name}: {key}"));
                }
                if dtype == Dtype::F32 {
                    if let Some(file) = decoded["f32"].as_str() {
                        let expected = floats(&std::fs::read(case.folder.join(file)).unwrap());
                        if !same(&floats(&values), &expected, &record["tolerance"]) {
                            let found = floats(&values);
                            let at = (0..expected.len()).find(|at| found[*at] != expected[*at]);
                            wrong.push(format!("{name}: values from {at:?} on"));
                        }
                    }
                    for sample in decoded["samples"].as_array().unwrap() {
                        let at = usize::try_from(sample[0].as_u64().unwrap()).unwrap();
                        let bits = u32::from_str_radix(text(&sample[1]).trim_start_matches("0x"), 16).unwrap();
                        if !same(&floats(&values)[at..=at], &[f32::from_bits(bits)], &record["tolerance"]) {
                            wrong.push(format!("{name}: sample {at}"));
                        }
                    }
                }
            }
            for slice in record["slices"].as_array().into_iter().flatten() {
                let pairs = |value: &Value| -> Vec<(i64, i64)> {
                    value
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|pair| (pair[0].as_i64().unwrap(), pair[1].as_i64().unwrap()))
                        .collect()
                };
                let ranges: Vec<Range> =
                    pairs(&slice["ranges"]).into_iter().map(|(start, stop)| Range { start, stop, step: 1 }).collect();
                let values = group.read(&checkpoint, &ranges, Dtype::F32);
                if slice["error"] == "misaligned" {
                    assert_eq!(values.unwrap_err().kind(), ErrorKind::InvalidArgument);
                    continue;
                }
                let values = values.unwrap();
                if exact && slice["f32_sha256"].is_string() && hash(&values) != text(&slice["f32_sha256"]) {
                    wrong.push(format!("{name}: slice {:?}", slice["ranges"]));
                }
                let parts = group.parts(&checkpoint, &ranges).unwrap();
                let found: BTreeSet<(String, Vec<(i64, i64)>)> = parts
                    .iter()
                    .map(|part| {
                        let tensor = std::str::from_utf8(checkpoint.tensors()[part.tensor].name()).unwrap().to_owned();
                        let bound = |bound: u64| i64::try_from(bound).unwrap();
                        (tensor, part.ranges.iter().map(|range| (bound(range.start), bound(range.end))).collect())
                    })
                    .collect();
                let expected: BTreeSet<(String, Vec<(i64, i64)>)> = slice["parts"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|part| (text(&part["tensor"]).to_owned(), pairs(&part["ranges"])))
                    .collect();
                if !expected.is_subset(&found) {
                    wrong.push(format!("{name}: parts of {:?}: {found:?}, expected {expected:?}", slice["ranges"]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}
