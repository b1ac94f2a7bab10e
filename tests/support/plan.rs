// SPDX-License-Identifier: Apache-2.0
//! Headers for property tests: sound ones with up to two faults, in any
//! spelling that JSON allows, and JSON that is no header at all.

use proptest::collection::vec;
use proptest::prelude::*;

/// A header as a tree, and how its text is spelled.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
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

pub(crate) const DTYPES: &[(&str, u64)] = &[
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

pub(crate) fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c.]{0,3}",
        2 => any::<String>(),
        1 => Just("__metadata__x".to_owned()),
        1 => "[\\x00-\\x1f\"\\\\/é中😀]{0,6}",
    ]
}

pub(crate) fn any_json() -> impl Strategy<Value = serde_json::Value> {
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

pub(crate) fn any_plan() -> impl Strategy<Value = Plan> {
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
    let spelling = prop_oneof![Just(Vec::new()), vec(any::<u8>(), 1..24)];
    let parts = (vec(tensor, 0..6), metadata, any::<prop::sample::Index>(), order, faults, spelling);
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
pub(crate) fn write(plan: &Plan) -> (String, usize) {
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
