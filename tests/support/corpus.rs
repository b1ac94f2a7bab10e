// SPDX-License-Identifier: Apache-2.0
//! The conformance table: what tests/corpus/README.md describes.

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::{OpenOptions, Variant};

/// One row of corpus.tsv.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The file or folder; relative to the corpus in `relative`.
    pub(crate) path: PathBuf,
    pub(crate) relative: String,
    pub(crate) options: OpenOptions,
    pub(crate) has_options: bool,
    /// The status's spelling in C.
    pub(crate) status: String,
    /// What is in it, where it opens.
    pub(crate) contents: Option<Contents>,
    /// Parts of what the message says, where it does not.
    pub(crate) says: Vec<String>,
}

impl Case {
    pub(crate) fn is_folder(&self) -> bool {
        self.path.is_dir()
    }

    /// Among the folders there may be several files.
    pub(crate) fn is_single(&self) -> bool {
        self.relative.starts_with("files/")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

/// What a checkpoint holds, in the spelling of contents.tsv: one line for each.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub(crate) struct Contents {
    /// Sorted: empty tensors at one place have no order among them.
    pub(crate) tensors: Vec<String>,
    /// In their order; `None` is no metadata.
    pub(crate) metadata: Option<Vec<String>>,
}

pub(crate) struct Tensor<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) dtype: &'a [u8],
    pub(crate) shape: &'a [i64],
    pub(crate) shard: usize,
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

impl Tensor<'_> {
    pub(crate) fn line(&self) -> String {
        let shape: Vec<_> = self.shape.iter().map(i64::to_string).collect();
        let shape = if shape.is_empty() { "-".to_owned() } else { shape.join("x") };
        let (dtype, hash) = (spelled(self.dtype), fnv1a(self.bytes));
        // The table has no such names, but some tests have.
        let name = match self.name.len() {
            0..4096 => spelled(self.name),
            len => format!("{len} bytes, {:016x}", fnv1a(self.name)),
        };
        format!("{name}\t{dtype}\t{shape}\t{}\t{}\t{}\t{hash:016x}", self.shard, self.offset, self.bytes.len())
    }
}

pub(crate) fn entry_line(key: &[u8], value: &[u8]) -> String {
    format!("{}\t{}", spelled(key), spelled(value))
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The whole table.
pub(crate) fn cases() -> Vec<Case> {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let mut inside: HashMap<String, Contents> = HashMap::new();
    for line in read("contents.tsv").lines().filter(|line| !line.starts_with('#')) {
        let (case, rest) = line.split_once('\t').unwrap();
        let contents = inside.entry(case.to_owned()).or_default();
        match rest.split_once('\t').unwrap() {
            ("tensor", cells) => contents.tensors.push(cells.to_owned()),
            (_, cells) => contents.metadata.get_or_insert_default().push(cells.to_owned()),
        }
    }
    let table = read("corpus.tsv");
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let mut cases: Vec<_> = lines.map(|line| case(&line.split('\t').collect::<Vec<_>>(), &mut inside)).collect();
    for line in read("messages.tsv").lines().filter(|line| !line.starts_with('#')) {
        let (name, said) = line.split_once('\t').unwrap();
        cases.iter_mut().find(|case| case.name == name).unwrap().says.push(said.to_owned());
    }
    cases
}

fn case(cells: &[&str], inside: &mut HashMap<String, Contents>) -> Case {
    let [name, relative, options, status, tensors, metadata, _shows] = cells else { panic!("a row of {cells:?}") };
    let contents = (*status == "ST_OK").then(|| {
        let mut contents = inside.remove(*name).unwrap_or_default();
        contents.tensors.sort();
        if *metadata != "-" {
            contents.metadata.get_or_insert_default();
        }
        assert_eq!(contents.tensors.len().to_string(), *tensors, "{name}");
        assert_eq!(contents.metadata.as_ref().map_or("-".to_owned(), |m| m.len().to_string()), *metadata, "{name}");
        contents
    });
    Case {
        name: (*name).to_owned(),
        path: root().join(relative),
        relative: (*relative).to_owned(),
        options: parse_options(options),
        has_options: *options != "-",
        status: (*status).to_owned(),
        contents,
        says: Vec::new(),
    }
}

fn parse_options(text: &str) -> OpenOptions {
    let mut options = OpenOptions::default();
    for option in text.split(',').filter(|option| *option != "-") {
        let (name, value) = option.split_once('=').unwrap_or((option, "0"));
        if name == "variant" {
            options.variant = Variant::new(value.as_bytes());
            continue;
        }
        let value = value.parse().unwrap();
        match name {
            "trailing_bytes" => options.tolerate.trailing_bytes = true,
            "unknown_dtype" => options.tolerate.unknown_dtype = true,
            "max_header_size" => options.limits.header_bytes = value,
            "max_tensors" => options.limits.tensors = value,
            "max_name_length" => options.limits.name_bytes = value,
            "max_set_bytes" => options.limits.set_bytes = Some(value),
            other => panic!("no such option: {other}"),
        }
    }
    options
}

/// Percent-encoded; "-" for nothing.
pub(crate) fn spelled(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    if out.is_empty() {
        "-".to_owned()
    } else {
        out
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}
