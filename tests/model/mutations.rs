// SPDX-License-Identifier: Apache-2.0
//! Every mutation of a member's dtype or shape makes a group broken, or leaves its
//! values what they are.

use safetensors::model::groups::{Groups, GroupsOptions, Role};
use safetensors::{Checkpoint, Dtype, OpenOptions};
use serde_json::{json, Map, Value};

use crate::groups::{cases, open, text};

/// A file as one that can be changed: header, then data.
pub(crate) struct File {
    pub(crate) header: Map<String, Value>,
    pub(crate) data: Vec<u8>,
}

impl File {
    /// All of a checkpoint's tensors in one file.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for tensor in checkpoint.tensors() {
            let mut bytes = vec![0; usize::try_from(tensor.size()).unwrap()];
            checkpoint.read(tensor, &mut bytes).unwrap();
            let (start, end) = (data.len(), data.len() + bytes.len());
            data.extend(bytes);
            let entry = json!({"dtype": tensor.dtype().name(), "shape": tensor.shape(), "data_offsets": [start, end]});
            header.insert(String::from_utf8(tensor.name().to_vec()).unwrap(), entry);
        }
        for entry in checkpoint.metadata().unwrap_or_default() {
            let (key, value) = (entry.key(), entry.value());
            let metadata = header.entry("__metadata__").or_insert_with(|| json!({}));
            metadata[std::str::from_utf8(key).unwrap()] = json!(std::str::from_utf8(value).unwrap());
        }
        Self { header, data }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut header = serde_json::to_vec(&self.header).unwrap();
        header.resize(header.len().next_multiple_of(8), b' ');
        [&(header.len() as u64).to_le_bytes()[..], &header, &self.data].concat()
    }

    pub(crate) fn open(&self) -> Checkpoint {
        Checkpoint::open_memory(self.bytes().leak(), &OpenOptions::default()).unwrap()
    }

    /// The same with another dtype and shape of one tensor, of as many bytes.
    fn with(&self, name: &str, dtype: &str, shape: &[i64]) -> Self {
        let mut header = self.header.clone();
        header[name]["dtype"] = json!(dtype);
        header[name]["shape"] = json!(shape);
        Self { header, data: self.data.clone() }
    }
}

/// Other dtypes of as many bits, and shapes of as many elements.
fn mutations(dtype: Dtype, shape: &[i64]) -> Vec<(&'static str, Vec<i64>)> {
    let mut found = Vec::new();
    for other in Dtype::ALL.iter().filter(|other| other.bits() == dtype.bits() && **other != dtype) {
        found.push((other.name(), shape.to_vec()));
    }
    let count: i64 = shape.iter().product();
    let mut shapes = vec![vec![count], vec![1, count], vec![count, 1], shape.iter().rev().copied().collect()];
    shapes.push([&[1], shape].concat());
    if count % 2 == 0 {
        shapes.extend([vec![2, count / 2], vec![count / 2, 2]]);
    }
    if let [rows, columns] = shape {
        if columns % 2 == 0 {
            shapes.push(vec![rows * 2, columns / 2]);
        }
        if rows % 2 == 0 {
            shapes.push(vec![rows / 2, columns * 2]);
        }
    }
    shapes.retain(|other| other != shape);
    found.extend(shapes.into_iter().map(|shape| (dtype.name(), shape)));
    found
}

/// What nobody could tell: a layout that takes both dtypes, where nothing says which.
fn untold(role: Role, layout: &str, from: Dtype, to: &str) -> bool {
    // Scales are padded to the same shape for several weights.
    if layout == "nvfp4-comfy" && role == Role::Codes && from.name() == to {
        return true;
    }
    // FP8 of either kind with one scale, and no configuration.
    if layout.starts_with("fp8-") && from == Dtype::F8E5M2 && matches!(to, "F8_E4M3" | "I8") {
        return true;
    }
    let scales = matches!(role, Role::Scales | Role::Global);
    scales && matches!((from, to), (Dtype::F16, "BF16") | (Dtype::Bf16, "F16"))
}

#[test]
fn a_member_of_another_dtype_or_shape_breaks_its_group_or_changes_nothing() {
    let mut wrong = Vec::new();
    let mut tried = 0;
    for case in cases().iter().filter(|case| !case.folder.file_name().unwrap().to_str().unwrap().starts_with("x-")) {
        let checkpoint = open(case);
        let config = std::fs::read(case.folder.join("config.json")).ok();
        let options =
            GroupsOptions { config: config.as_deref(), ignore_config: config.is_none(), ..GroupsOptions::default() };
        let groups = Groups::open(&checkpoint, &options).unwrap();
        let file = File::of(&checkpoint);
        for group in groups
            .list()
            .iter()
            .filter(|group| group.usable().is_ok() && group.shape().iter().product::<i64>() < 10_000)
        {
            let expected = group.read(&checkpoint, &[], Dtype::F32).unwrap();
            for member in group.members() {
                let tensor = &checkpoint.tensors()[member.tensor];
                let name = std::str::from_utf8(tensor.name()).unwrap();
                for (dtype, shape) in mutations(tensor.dtype(), tensor.shape()) {
                    tried += 1;
                    let changed = file.with(name, dtype, &shape).open();
                    let found = Groups::open(&changed, &options).unwrap();
                    let same = match found.find(group.name()) {
                        Some(group) if group.usable().is_ok() => {
                            group.read(&changed, &[], Dtype::F32).unwrap() == expected
                        }
                        Some(_) => true,
                        None => false,
                    };
                    if !same && !untold(member.role, group.layout(), tensor.dtype(), dtype) {
                        let case = text(&case.expected["case"]);
                        let (from, shape_was) = (tensor.dtype().name(), tensor.shape());
                        wrong.push(format!("{case}: {name}: {from} {shape_was:?} as {dtype} {shape:?}"));
                    }
                }
            }
        }
    }
    assert!(tried > 2500, "{tried}");
    assert!(wrong.is_empty(), "{} of {tried}\n{}", wrong.len(), wrong.join("\n"));
}
