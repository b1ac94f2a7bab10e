// SPDX-License-Identifier: Apache-2.0
//! Checkpoints of given tensors, whose bytes are counting numbers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{file, index_of};

/// A tensor of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
}

impl Listed {
    pub(crate) fn new(name: &str, dtype: &str, shape: &[u64]) -> Self {
        Self { name: name.to_owned(), dtype: dtype.to_owned(), shape: shape.to_vec() }
    }

    pub(crate) fn bits(&self) -> u64 {
        match self.dtype.as_str() {
            "F4" => 4,
            "F6_E2M3" | "F6_E3M2" => 6,
            "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
            "F16" | "BF16" | "I16" | "U16" => 16,
            "F32" | "I32" | "U32" => 32,
            "F64" | "I64" | "U64" | "C64" => 64,
            other => panic!("{other}"),
        }
    }

    pub(crate) fn size(&self) -> usize {
        (self.shape.iter().product::<u64>() * self.bits() / 8) as usize
    }
}

/// The bytes of each tensor, in byte order of the names: the little-endian F32
/// numbers 1, 2, 3, ... through all of them, each tensor beginning with a new one.
pub(crate) fn counted(tensors: &[Listed]) -> Vec<Vec<u8>> {
    assert!(tensors.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes()));
    let mut next = 1_u32;
    let mut bytes = |tensor: &Listed| {
        let count = tensor.size().div_ceil(4) as u32;
        let mut bytes: Vec<u8> = (next..next + count).flat_map(|number| (number as f32).to_le_bytes()).collect();
        next += count;
        bytes.truncate(tensor.size());
        bytes
    };
    tensors.iter().map(&mut bytes).collect()
}

fn file_of<'a>(tensors: impl Iterator<Item = (&'a Listed, &'a Vec<u8>)>) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (tensor, bytes) in tensors {
        let (begin, end) = (data.len(), data.len() + bytes.len());
        let name = serde_json::to_string(&tensor.name).unwrap();
        let (dtype, shape) = (&tensor.dtype, &tensor.shape);
        entries.push(format!(r#"{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
        data.extend_from_slice(bytes);
    }
    file(format!("{{{}}}", entries.join(",")), &data)
}

/// Writes one file, its tensors from the last name to the first.
pub(crate) fn one_file(folder: &Path, tensors: &[Listed]) -> PathBuf {
    let path = folder.join("one.safetensors");
    fs::write(&path, file_of(tensors.iter().zip(&counted(tensors)).rev())).unwrap();
    path
}

/// Writes three files, every third tensor to each, and their index.
pub(crate) fn three_files(folder: &Path, tensors: &[Listed]) -> PathBuf {
    let bytes = counted(tensors);
    let name = |shard: usize| format!("model-{:05}-of-00003.safetensors", shard + 1);
    for shard in 0..3 {
        let own = tensors.iter().zip(&bytes).skip(shard).step_by(3);
        fs::write(folder.join(name(shard)), file_of(own)).unwrap();
    }
    let quoted = |name: &str| serde_json::to_string(name).unwrap().trim_matches('"').to_owned();
    let map = tensors.iter().enumerate().map(|(number, tensor)| (quoted(&tensor.name), name(number % 3)));
    let path = folder.join("model.safetensors.index.json");
    fs::write(&path, index_of(map)).unwrap();
    path
}
