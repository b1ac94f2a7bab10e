// SPDX-License-Identifier: Apache-2.0
//! Whatever a file holds, the library, the reference implementation and the
//! written-down rules agree on it: verdict, names, dtypes, shapes, bytes.
//!
//! PROPTEST_CASES sets the number of cases of each test.

mod support;

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use safetensors::OpenOptions;
use support::corpus::cases;
use support::handle::{self, open_memory, status_name, Handle};
use support::{file, model, pattern, reference};

fn config(cases: u32) -> ProptestConfig {
    let given = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: given.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

/// Holds the three against each other on one file.
fn agree(file: &[u8], options: &OpenOptions) -> TestCaseResult {
    let shown = String::from_utf8_lossy(file);
    let ours =
        open_memory(file, &handle::options(options)).as_ref().map(Handle::contents).map_err(handle::Failure::status);
    let rules = model::verdict(file, options).map_err(|kind| status_name(kind as i32));
    prop_assert_eq!(&ours, &rules, "ours, the rules: {}", shown);
    if options.tolerate.trailing_bytes || options.tolerate.unknown_dtype {
        return Ok(());
    }
    match (reference::verdict(file), ours) {
        (Some(_), Err(status)) => match reference::departure(file) {
            Some((_, kind)) => prop_assert_eq!(status_name(kind as i32), status, "{}", shown),
            None => prop_assert!(false, "only the reference accepts, we say {}: {}", status, shown),
        },
        (None, Ok(_)) => prop_assert!(false, "only we accept: {}", shown),
        (theirs, ours) => {
            let ours = ours.ok().map(|mut contents| {
                contents.metadata.iter_mut().for_each(|lines| lines.sort());
                contents
            });
            prop_assert_eq!(theirs, ours, "the reference, ours: {}", shown);
        }
    }
    Ok(())
}

fn any_options() -> impl Strategy<Value = OpenOptions> {
    (prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::option::weighted(0.1, 1_u64..300)).prop_map(
        |(trailing, unknown, limit)| {
            let mut options = OpenOptions::default();
            options.tolerate.trailing_bytes = trailing;
            options.tolerate.unknown_dtype = unknown;
            // The reference's limit can't be set.
            options.limits.header_bytes = limit.filter(|_| trailing || unknown).unwrap_or(options.limits.header_bytes);
            options
        },
    )
}

/// The corpus's single files, those that open three times as often.
static BASES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let single = cases().into_iter().filter(|case| case.is_single() && !case.has_options);
    single.flat_map(|case| vec![case.bytes(); if case.contents.is_some() { 3 } else { 1 }]).collect()
});

/// What is worth putting into JSON, beyond single bytes.
const TOKENS: &[&str] = &[
    "\"dtype\":",
    "\"shape\":",
    "\"data_offsets\":",
    "\"__metadata__\":",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\ud83d\\ude00",
    "\\u00e9",
    "\\n",
    "\\",
    "\"",
    "é",
    "\u{1f600}",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "{}",
    "[]",
    "null",
    "true",
    "0",
    "1",
    "4",
    "-0",
    "-1",
    "1.0",
    "1e0",
    "1e400",
    "01",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "\"F32\"",
    "\"F4\"",
    "\"U8\"",
    "\"f32\"",
    "[0,4]",
    "[4,8]",
    "[1]",
    "[0]",
    "{\"F32\":null}",
    "[\"F32\",[1],[0,4]]",
    "\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},",
    "\"__metadata__\":{},",
    "\"__metadata__\":null,",
    "\"k\":\"v\"",
    " ",
    "\n",
    "\t",
    "\u{feff}",
    "\u{0}",
    "\u{1f}",
    "\u{7f}",
];

/// One change: what kind, where, and with what.
type Change = (u8, prop::sample::Index, prop::sample::Index, u8);

fn change(bytes: &mut Vec<u8>, (kind, at, with, byte): &Change) {
    if bytes.is_empty() {
        return bytes.push(*byte);
    }
    let place = at.index(bytes.len());
    let len = with.index(12).min(bytes.len() - place);
    let token = TOKENS[with.index(TOKENS.len())].bytes();
    match kind % 8 {
        0 => bytes[place] ^= 1 << (byte % 8),
        1 => bytes[place] = *byte,
        2 => bytes.insert(place, *byte),
        3 => drop(bytes.drain(place..place + len)),
        4 => {
            let copy = bytes[place..place + len].to_vec();
            let to = with.index(bytes.len());
            bytes.splice(to..to, copy);
        }
        5 => drop(bytes.splice(place..place, token)),
        6 => drop(bytes.splice(place..place + len, token)),
        _ => {
            let other = with.index(bytes.len());
            bytes.swap(place, other);
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    vec((any::<u8>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..5)
}

proptest! {
    #![proptest_config(config(8000))]

    #[test]
    fn on_files_with_changed_bytes(base: prop::sample::Index, changes in changes(), options in any_options()) {
        let mut bytes = base.get(&BASES).clone();
        changes.iter().for_each(|each| change(&mut bytes, each));
        agree(&bytes, &options)?;
    }

    #[test]
    fn on_files_with_changed_headers(base: prop::sample::Index, changes in changes(), options in any_options()) {
        let base = base.get(&BASES);
        let length = base.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let end = usize::try_from(length).map_or(base.len(), |length| length.saturating_add(8).min(base.len()));
        let mut header = base.get(8..end).unwrap_or_default().to_vec();
        changes.iter().for_each(|each| change(&mut header, each));
        agree(&file(&header, &base[end..]), &options)?;
    }

    #[test]
    fn on_cut_and_lengthened_files(base: prop::sample::Index, at: prop::sample::Index, length in prop::option::of(any::<u64>()), more in vec(any::<u8>(), 0..9), options in any_options()) {
        let mut bytes = base.get(&BASES).clone();
        if let Some(length) = length {
            let length = (length >> (length % 61)).to_le_bytes();
            bytes.iter_mut().zip(length).for_each(|(place, byte)| *place = byte);
        } else {
            bytes.truncate(at.index(bytes.len() + 1));
        }
        bytes.extend(more);
        agree(&bytes, &options)?;
    }
}

/// A header as a tree, and how its text is spelled.
#[derive(Clone, Debug)]
struct Plan {
    tensors: Vec<TensorPlan>,
    metadata: Option<Vec<(String, String)>>,
    metadata_at: prop::sample::Index,
    order: Vec<prop::sample::Index>,
    faults: Vec<(u8, prop::sample::Index, prop::sample::Index)>,
    /// Drives spaces and escapes; nothing: compact and raw.
    spelling: Vec<u8>,
}

#[derive(Clone, Debug)]
struct TensorPlan {
    name: String,
    dtype: &'static str,
    shape: Vec<u64>,
    extra: Option<String>,
    field_order: u8,
}

const DTYPES: &[(&str, u64)] = &[
    ("BOOL", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("U8", 8),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("I16", 16),
    ("U16", 16),
    ("F16", 16),
    ("BF16", 16),
    ("I32", 32),
    ("U32", 32),
    ("F32", 32),
    ("C64", 64),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
];

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c.]{0,3}",
        2 => any::<String>(),
        1 => Just("__metadata__x".to_owned()),
        1 => "[\\x00-\\x1f\"\\\\/é中😀]{0,6}",
    ]
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any_name().prop_map(Into::into),
        prop::sample::select(DTYPES).prop_map(|(name, _)| name.into()),
        (0_u64..5, 0_u64..9).prop_map(|(begin, end)| vec![begin, end].into()),
    ];
    let key = prop_oneof![
        Just("dtype".to_owned()),
        Just("shape".to_owned()),
        Just("data_offsets".to_owned()),
        Just("__metadata__".to_owned()),
        any_name()
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Into::into),
            vec((key.clone(), inner), 0..6)
                .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let extra = prop::option::weighted(0.2, any_json().prop_map(|json| json.to_string()));
    let dimension = prop_oneof![8 => 0_u64..4, 1 => Just(8), 1 => 100_u64..300];
    let tensor = (any_name(), prop::sample::select(DTYPES), vec(dimension, 0..4), extra, any::<u8>());
    let tensor = tensor.prop_map(|(name, (dtype, bits), mut shape, extra, field_order)| {
        // Mostly whole bytes.
        if bits < 8 && field_order < 250 {
            shape.push(4);
        }
        TensorPlan { name, dtype, shape, extra, field_order }
    });
    let metadata = prop::option::of(vec((any_name(), any_name()), 0..4));
    let faults = vec((any::<u8>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3);
    let order = vec(any::<prop::sample::Index>(), 0..4);
    let parts = (vec(tensor, 0..6), metadata, any::<prop::sample::Index>(), order, faults, vec(any::<u8>(), 0..24));
    parts.prop_map(|(tensors, metadata, metadata_at, order, faults, spelling)| Plan {
        tensors,
        metadata,
        metadata_at,
        order,
        faults,
        spelling,
    })
}

/// Writes JSON with the plan's spaces and escapes.
struct Speller<'a> {
    text: String,
    spelling: std::iter::Cycle<std::slice::Iter<'a, u8>>,
}

impl Speller<'_> {
    fn next(&mut self) -> u8 {
        self.spelling.next().copied().unwrap_or(0)
    }

    fn put(&mut self, token: &str) {
        for _ in 0..(self.next() % 8).saturating_sub(5) {
            let space = [" ", "\n", "\t", "\r"][usize::from(self.next() % 4)];
            self.text.push_str(space);
        }
        self.text.push_str(token);
    }

    fn put_string(&mut self, text: &str) {
        self.put("\"");
        for c in text.chars() {
            let must = c < ' ' || c == '"' || c == '\\';
            if must || self.next() % 8 == 7 {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| self.text.push_str(&format!("\\u{unit:04x}")));
            } else {
                self.text.push(c);
            }
        }
        self.text.push('"');
    }
}

/// The header's text and how many bytes of data it speaks of.
fn write(plan: &Plan) -> (String, usize) {
    let mut begin = 0_u64;
    let mut entries: Vec<(String, [String; 4])> = Vec::new();
    for tensor in &plan.tensors {
        let bits = DTYPES.iter().find(|(name, _)| *name == tensor.dtype).unwrap().1;
        let end = begin + (tensor.shape.iter().product::<u64>() * bits).div_ceil(8);
        let extra = tensor.extra.clone().unwrap_or_default();
        entries.push((
            tensor.name.clone(),
            [format!("{:?}", tensor.dtype), format!("{:?}", tensor.shape), format!("[{begin},{end}]"), extra],
        ));
        begin = end;
    }
    for (kind, which, with) in &plan.faults {
        if let Some(at) = (!entries.is_empty()).then(|| which.index(entries.len())) {
            fault(&mut entries, *kind, at, with);
        }
    }
    for swap in &plan.order {
        if !entries.is_empty() {
            let at = swap.index(entries.len());
            entries.swap(0, at);
        }
    }
    let mut out = Speller { text: String::new(), spelling: plan.spelling.iter().cycle() };
    out.put("{");
    let metadata_at = plan.metadata_at.index(entries.len() + 1);
    let mut comma = "";
    for at in 0..=entries.len() {
        if let Some(pairs) = plan.metadata.as_ref().filter(|_| at == metadata_at) {
            out.put(std::mem::replace(&mut comma, ","));
            out.put_string("__metadata__");
            out.put(":");
            out.put("{");
            for (i, (key, value)) in pairs.iter().enumerate() {
                out.put(if i == 0 { "" } else { "," });
                out.put_string(key);
                out.put(":");
                out.put_string(value);
            }
            out.put("}");
        }
        if let Some((name, fields)) = entries.get(at) {
            out.put(std::mem::replace(&mut comma, ","));
            out.put_string(name);
            out.put(":");
            out.put("{");
            let turn = plan.tensors.get(at).map_or(0, |tensor| usize::from(tensor.field_order));
            let mut inner = "";
            for i in 0..4 {
                let i = (i + turn) % 4;
                if fields[i].is_empty() {
                    continue;
                }
                out.put(std::mem::replace(&mut inner, ","));
                out.put_string(["dtype", "shape", "data_offsets", "more"][i]);
                out.put(":");
                out.put(&fields[i]);
            }
            out.put("}");
        }
    }
    out.put("}");
    out.put("");
    (out.text, begin as usize)
}

/// Breaks something in one of the entries.
fn fault(entries: &mut Vec<(String, [String; 4])>, kind: u8, at: usize, with: &prop::sample::Index) {
    let nudge = |text: &str, by: u64| {
        let mut numbers: Vec<u64> = serde_json::from_str(text).unwrap_or_else(|_| vec![0]);
        let len = numbers.len().max(1);
        if let Some(number) = numbers.get_mut(with.index(len)) {
            *number = number.wrapping_add(by);
        }
        format!("{numbers:?}")
    };
    let other = with.index(entries.len());
    let pieces = [
        "null",
        "0",
        "[]",
        "{}",
        "\"\"",
        "[0,0]",
        "[1,2,3]",
        "[-1]",
        "[0.0,1]",
        "[18446744073709551616]",
        "\"f32\"",
        "{\"U8\":null}",
        "true",
    ];
    let huge = [1 << 31, 1 << 32, 1 << 61, 1 << 63, u64::MAX, u64::MAX - 1];
    match kind % 12 {
        0 => entries[at].1[2] = nudge(&entries[at].1[2], 1),
        1 => entries[at].1[2] = nudge(&entries[at].1[2], u64::MAX),
        2 => entries[at].1[1] = nudge(&entries[at].1[1], 1),
        3 => entries[at].1[1] = nudge(&entries[at].1[1], huge[with.index(huge.len())]),
        4 => entries[at].1[2] = nudge(&entries[at].1[2], huge[with.index(huge.len())]),
        5 => entries[at].1[usize::from(kind / 12) % 3] = pieces[with.index(pieces.len())].to_owned(),
        6 => entries[at].1[usize::from(kind / 12) % 3].clear(),
        7 => entries[at].1[0] = format!("{:?}", DTYPES[with.index(DTYPES.len())].0),
        8 => entries[at].1[2] = entries[other].1[2].clone(),
        9 => entries[at].0 = entries[other].0.clone(),
        10 => entries[at].1[1] = entries[at].1[1].replacen('[', "[0,", 1).replace(",]", "]"),
        _ => {
            let copy = entries[at].clone();
            entries.insert(other, copy);
        }
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn on_structured_headers(plan in any_plan(), short in prop::option::weighted(0.1, -3_isize..4), options in any_options()) {
        let (header, size) = write(&plan);
        let size = size.saturating_add_signed(short.unwrap_or(0));
        agree(&file(header, &pattern(size)), &options)?;
    }

    #[test]
    fn on_random_json(json in any_json(), data in vec(any::<u8>(), 0..20), options in any_options()) {
        agree(&file(json.to_string(), &data), &options)?;
    }

    #[test]
    fn on_random_entries(entries in vec((any_name(), any_json()), 0..4), data in vec(any::<u8>(), 0..20), options in any_options()) {
        let entries: serde_json::Map<_, _> = entries.into_iter().collect();
        agree(&file(serde_json::to_string(&entries).unwrap(), &data), &options)?;
    }

    #[test]
    fn on_random_bytes(bytes in vec(any::<u8>(), 0..64), options in any_options()) {
        agree(&bytes, &options)?;
        agree(&file(&bytes, b""), &options)?;
    }
}

/// Names and further fields that hold what looks like the end of an entry, or
/// like entries: a large header may be divided there.
const TRICKY_NAMES: &[&str] =
    &["w", "]},", "a]},", "{", "}}", "]},\\\"", "]},\\\",\\\"b", "__metadata__", "]},\\u0022", "\\u005d},", ",", ""];
const TRICKY_FIELDS: &[&str] = &[
    "",
    "",
    "",
    r#","x":"]},""#,
    r#","x":[{"y":[]},"z"]"#,
    r#","x":[[{"y":[]},"z",{}]]"#,
    r#","x":{"y":[{"z":[0]},""]}"#,
    r#","x":{"k":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"evil":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
    r#","x":{"k":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
    r#","x":1e400"#,
];

fn any_numbers() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..10, 2 => any::<u64>(), 2 => (any::<u64>(), 0..64_u32).prop_map(|(value, by)| value >> by), 1 => (0..20_u32).prop_map(|e| 10_u64.saturating_pow(e))]
}

/// An entry as nearly every writer spells it, with numbers of all lengths.
fn any_plain_entry() -> impl Strategy<Value = String> {
    let dtype = prop::sample::select(DTYPES).prop_map(|(name, _)| name);
    let sized = (any_numbers(), any_numbers()).prop_map(|(size, begin)| (vec![size], begin, begin.wrapping_add(size)));
    let free = (vec(any_numbers(), 0..4), any_numbers(), any_numbers());
    let numbers = prop_oneof![sized, free.prop_map(|(shape, begin, end)| (shape, begin, end))];
    (prop_oneof![Just("U8"), dtype], numbers).prop_map(|(dtype, (shape, begin, end))| {
        let shape = shape.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        format!(r#"{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#)
    })
}

proptest! {
    #![proptest_config(config(8000))]

    #[test]
    fn on_numbers_of_every_length(entry in any_plain_entry(), changes in changes(), padding in 0_usize..200) {
        let mut header = format!(r#"{{"w":{entry}}}"#).into_bytes();
        changes.iter().take(1).for_each(|each| change(&mut header, each));
        header.resize(header.len() + padding, b' ');
        agree(&file(&header, b""), &OpenOptions::default())?;
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn on_large_headers(
        around in vec((prop::sample::select(TRICKY_NAMES), prop::sample::select(TRICKY_FIELDS), 0_usize..4), 1..6),
        metadata in prop_oneof![Just(""), Just(r#""__metadata__":{"k":"]},","j":"{"},"#), Just(r#""__metadata__":null,"#), Just(r#""__metadata__":{"k":1},"#)],
        order in any::<[bool; 3]>(), filler in 0_usize..3, changes in changes(),
    ) {
        // Two long names before and behind, so that the middle is in between.
        let long = |letter: &str| letter.repeat((1 << 19) + 500 * filler);
        let mut begin = 0;
        let mut tensor = |name: &str, more: &str, size: usize| {
            begin += size;
            format!(r#""{name}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{},{begin}]{more}}}"#, begin - size)
        };
        let first = tensor(&long("a"), "", 2);
        let mut between: Vec<_> = around.iter().enumerate().map(|(i, (name, more, size))| tensor(&format!("{i}{name}"), more, *size)).collect();
        let last = tensor(&long("b"), "", 1);
        if order[0] {
            between.reverse();
        }
        if order[1] {
            between.push(between[0].clone());
        }
        let mut middle = between.join(",").into_bytes();
        changes.iter().take(if order[2] { 1 } else { 0 }).for_each(|each| change(&mut middle, each));
        let (before, after) = if order[2] { (metadata, "") } else { ("", metadata) };
        let header = [b"{", before.as_bytes(), first.as_bytes(), b",", &middle, b",", after.as_bytes(), last.as_bytes(), b"}"].concat();
        agree(&file(&header, &pattern(begin)), &OpenOptions::default())?;
    }
}

#[test]
fn at_every_depth_of_nesting() {
    let shells: [(&str, &str); 6] = [
        ("", ""),
        ("{\"__metadata__\":", "}"),
        ("{\"w\":", "}"),
        (r#"{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":"#, "}}"),
        (r#"{"w":{"dtype":"U8","data_offsets":[0,0],"shape":"#, "}}"),
        ("{\"__metadata__\":{\"k\":", "}}"),
    ];
    for (before, after) in shells {
        for depth in 120..132 {
            for (open, close) in [("[", "]"), ("{\"\":", "}"), ("[[],", "]")] {
                let inner = if open == "[" { "" } else { "0" };
                let text = format!("{before}{}{inner}{}{after}", open.repeat(depth), close.repeat(depth));
                agree(&file(text, b""), &OpenOptions::default()).unwrap();
            }
        }
    }
}

#[test]
fn on_every_single_byte_change_of_one_header() {
    let header = r#" {"__metadata__":{"k":"vé"},"a\n\ud83d\ude00":{"dtype":"F32","shape":[1, 2],"data_offsets":[0,8],"x":[-1.5e3,null]}} "#;
    for at in 0..header.len() {
        for byte in 0..=255 {
            let mut bytes = header.as_bytes().to_vec();
            bytes[at] = byte;
            agree(&file(&bytes, b"12345678"), &OpenOptions::default()).unwrap();
        }
    }
}
