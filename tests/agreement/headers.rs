// SPDX-License-Identifier: Apache-2.0
//! Whatever a file holds, the library, the reference implementation and the
//! written-down rules agree on it: verdict, names, dtypes, shapes, bytes.
//!
//! PROPTEST_CASES sets the number of cases of each test.

use std::sync::LazyLock;

use crate::support::agree::agree;
use crate::support::changes::{change, changes, config};
use crate::support::corpus::cases;
use crate::support::plan::{any_json, any_name, any_plan, write, DTYPES};
use crate::support::{entry, file, model, pattern};
use proptest::collection::vec;
use proptest::prelude::*;
use safetensors::OpenOptions;

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

/// White space after a header: entries near a text's end are read another way
/// than those with much text after them.
fn padding() -> impl Strategy<Value = String> {
    (any::<bool>(), 0_usize..8).prop_map(|(much, some)| " ".repeat(if much { 200 + some } else { some }))
}

/// The corpus's single files, those that open three times as often.
static BASES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let single = cases().into_iter().filter(|case| case.is_single() && !case.has_options);
    single.flat_map(|case| vec![case.bytes(); if case.contents.is_some() { 3 } else { 1 }]).collect()
});

proptest! {
    #![proptest_config(config(8000))]

    #[test]
    fn on_files_with_changed_bytes(base: prop::sample::Index, changes in changes(), options in any_options()) {
        let mut bytes = base.get(&BASES).clone();
        changes.iter().for_each(|each| change(&mut bytes, each));
        agree(&bytes, &options)?;
    }

    #[test]
    fn on_files_with_changed_headers(
        base: prop::sample::Index, changes in changes(), padding in padding(), options in any_options(),
    ) {
        let base = base.get(&BASES);
        let length = base.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let end = usize::try_from(length).map_or(base.len(), |length| length.saturating_add(8).min(base.len()));
        let mut header = base.get(8..end).unwrap_or_default().to_vec();
        changes.iter().for_each(|each| change(&mut header, each));
        header.extend(padding.bytes());
        agree(&file(&header, &base[end..]), &options)?;
    }

    #[test]
    fn on_cut_and_lengthened_files(
        base: prop::sample::Index, at: prop::sample::Index, length in prop::option::of(any::<u64>()),
        more in vec(any::<u8>(), 0..9), options in any_options(),
    ) {
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

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn on_structured_headers(
        plan in any_plan(), short in prop::option::weighted(0.1, -3_isize..4), padding in padding(),
        options in any_options(),
    ) {
        let (mut header, size) = write(&plan);
        header += &padding;
        let size = size.saturating_add_signed(short.unwrap_or(0));
        agree(&file(header, &pattern(size)), &options)?;
    }

    #[test]
    fn on_random_json(json in any_json(), data in vec(any::<u8>(), 0..20), options in any_options()) {
        agree(&file(json.to_string(), &data), &options)?;
    }

    #[test]
    fn on_random_entries(
        entries in vec((any_name(), any_json()), 0..4), data in vec(any::<u8>(), 0..20), options in any_options(),
    ) {
        let entries: serde_json::Map<_, _> = entries.into_iter().collect();
        agree(&file(serde_json::to_string(&entries).unwrap(), &data), &options)?;
    }

    #[test]
    fn on_random_bytes(bytes in vec(any::<u8>(), 0..64), options in any_options()) {
        agree(&bytes, &options)?;
        agree(&file(&bytes, b""), &options)?;
    }
}

const METADATA: [&str; 4] =
    ["", r#""__metadata__":{"k":"]},","j":"{"},"#, r#""__metadata__":null,"#, r#""__metadata__":{"k":1},"#];

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
    prop_oneof![
        4 => 0_u64..10,
        2 => any::<u64>(),
        2 => (any::<u64>(), 0..64_u32).prop_map(|(value, by)| value >> by),
        1 => (0..20_u32).prop_map(|exponent| 10_u64.saturating_pow(exponent)),
    ]
}

/// An entry as nearly every writer spells it, with numbers of all lengths.
fn any_plain_entry() -> impl Strategy<Value = String> {
    let dtype = prop::sample::select(DTYPES).prop_map(|(name, _)| name);
    let sized = (any_numbers(), any_numbers()).prop_map(|(size, begin)| (vec![size], begin, begin.wrapping_add(size)));
    let size = prop_oneof![2 => any_numbers(), 1 => Just(4_194_304), 1 => 100_000_u64..10_000_000, 1 => Just(0)];
    let offset = || prop_oneof![any_numbers(), Just(0)];
    let free = (vec(size, 0..5), offset(), offset());
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

/// A number as JSON may spell it, or nearly: any number of digits, around the
/// ends of what 64 bits and a double hold.
fn any_literal() -> impl Strategy<Value = String> {
    let digits = prop_oneof![
        "[0-9]{1,4}",
        "0{0,3}[1-9]{1,25}",
        "[1-9][0-9]{300,320}",
        "0\\.0{300,330}[0-9]{1,20}",
        "179769313486231[0-9]{0,6}",
        "1\\.79769313486231[0-9]{0,6}",
        "[0-9]{1,3}\\.[0-9]{0,30}",
        "1844674407370955[0-9]{3,5}",
        "922337203685477[0-9]{3,5}",
        "[0-9]{0,2}\\.?[0-9]{0,2}",
        "0\\.0{1,400}",
        "0{1,400}",
    ];
    let exponent = prop_oneof![
        3 => Just(String::new()),
        2 => "[eE][+-]?[0-9]{0,3}",
        2 => (-345_i32..320).prop_map(|e| format!("e{e}")),
        1 => (300_i32..312).prop_map(|e| format!("E+{e}")),
        1 => "e[+-]?[0-9]{8,22}",
    ];
    ("-?", digits, exponent).prop_map(|(minus, digits, exponent)| minus + &digits + &exponent)
}

proptest! {
    #![proptest_config(config(8000))]

    #[test]
    fn on_number_literals(literal in any_literal(), place in 0_usize..5) {
        let [size, offset, field] = match place {
            0 => [&literal, "0", "0"],
            1 => ["0", &literal, "0"],
            _ => ["0", "0", &literal],
        };
        let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{offset}],"x":{field}}}}}"#);
        agree(&file(header, b""), &OpenOptions::default())?;
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn on_large_headers(
        around in vec((prop::sample::select(TRICKY_NAMES), prop::sample::select(TRICKY_FIELDS), 0_usize..4), 1..6),
        metadata in prop::sample::select(&METADATA[..]),
        order in vec(prop::bool::weighted(0.2), 5).prop_map(|all| [all[0], all[1], all[2], all[3], all[4]]),
        jump in prop::option::weighted(0.3, 0_usize..4), filler in 0_usize..3, changes in changes(),
    ) {
        // Two long names before and after, so that the middle is in between.
        let long = |letter: &str| letter.repeat((1 << 19) + 500 * filler);
        let [backwards, twice, before, after, changed] = order;
        let mut begin = 0;
        let mut tensor = |name: &str, more: &str, size: usize| {
            begin += size;
            format!(r#""{name}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{},{begin}]{more}}}"#, begin - size)
        };
        let first = tensor(&long("a"), "", 2);
        let mut between = Vec::new();
        for (i, (name, more, size)) in around.iter().enumerate() {
            if jump == Some(i) {
                tensor("", "", 1);
            }
            between.push(tensor(&format!("{i}{name}"), more, *size));
        }
        let last = tensor(&long("b"), "", 1);
        if backwards {
            between.reverse();
        }
        if twice {
            between.push(between[0].clone());
        }
        let mut middle = between.join(",").into_bytes();
        changes.iter().take(usize::from(changed)).for_each(|each| change(&mut middle, each));
        let (before, after) = (if before { metadata } else { "" }, if after { metadata } else { "" });
        let front = ["{", before, first.as_str(), ","].concat();
        let back = [",", after, last.as_str(), "}"].concat();
        let header = [front.as_bytes(), &middle, back.as_bytes()].concat();
        agree(&file(&header, &pattern(begin)), &OpenOptions::default())?;
    }
}

#[test]
fn on_large_headers_with_a_fault_at_each_place() {
    // Twelve entries, two of which are long, so that each half has some.
    let names: Vec<_> = (0..12).map(|i| if i % 11 == 0 { "n".repeat((1 << 19) + i) } else { format!("{i}") }).collect();
    let metadata = r#""__metadata__":{"k":"v"}"#.to_owned();
    for place in 0..=12 {
        for fault in 0..6 {
            let mut entries = Vec::new();
            let mut begin = 0;
            for (i, name) in names.iter().enumerate() {
                begin = match fault {
                    0 if i == place => begin + 1,
                    1 if i == place && i > 0 => begin - 1,
                    _ => begin,
                };
                let size = if fault == 2 && i == place { 0 } else { 2 };
                entries.push(entry(name, begin, begin + size));
                begin += size;
            }
            match fault {
                3 => entries.rotate_left(place),
                4 => entries.insert(place, metadata.clone()),
                5 => {
                    entries.insert(place, metadata.clone());
                    entries.insert(if place > 6 { 0 } else { 12 }, metadata.clone());
                }
                _ => {}
            }
            agree(&file(format!("{{{}}}", entries.join(",")), &pattern(begin)), &OpenOptions::default()).unwrap();
        }
    }
}

#[test]
fn on_numbers_near_the_end_of_f64() {
    // The reference refuses what its parser rounds to infinity, and that is not
    // quite what is nearest to it.
    for tail in (0..100_u32).map(|i| i * 41 + 5000) {
        let digits = format!("179769313486231{tail}");
        let (zeros, more) = ("0".repeat(290), "0".repeat(325));
        for literal in [
            format!("{}.{}e308", &digits[..1], &digits[1..]),
            format!("{digits}E+290"),
            format!("{digits}{zeros}"),
            format!("{digits}{zeros}.0"),
            format!("-0.0{digits}e310"),
            format!("0.{more}{digits}e+634"),
            format!("{digits}{}e1", &zeros[1..]),
            format!("{digits}99999999999999999999{}", &zeros[20..]),
        ] {
            let header = format!(r#"{{"w":{{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":{literal}}}}}"#);
            agree(&file(header, b""), &OpenOptions::default()).unwrap();
        }
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
fn on_the_corpus_with_much_behind_each_header() {
    for case in cases().iter().filter(|case| case.is_single() && !case.has_options) {
        let bytes = case.bytes();
        let Some(header) =
            model::header(&bytes).and(bytes.first_chunk()).map(|length| u64::from_le_bytes(*length) as usize)
        else {
            continue;
        };
        let padded = [&bytes[8..8 + header], &[b' '; 300]].concat();
        agree(&file(padded, &bytes[8 + header..]), &case.options).unwrap();
    }
}

#[test]
fn on_every_byte_in_every_kind_of_string() {
    let entry = r#""dtype":"U8","shape":[0],"data_offsets":[0,0]"#;
    let shells = [
        ("{\"".to_owned(), format!("\":{{{entry}}}}}")),
        (format!("{{\"w\":{{{entry},\"x\":\""), "\"}}".to_owned()),
        (format!("{{\"w\":{{{entry},\""), "\":0}}".to_owned()),
        (format!("{{\"w\":{{{entry},\"x\":{{\""), "\":[\"\"]}}}".to_owned()),
        ("{\"__metadata__\":{\"".to_owned(), "\":\"\"}}".to_owned()),
        ("{\"__metadata__\":{\"\":\"".to_owned(), "\"}}".to_owned()),
        (r#"{"w":{"shape":[0],"data_offsets":[0,0],"dtype":""#.to_owned(), "\"}}".to_owned()),
    ];
    for (before, after) in shells {
        for byte in 0..=255 {
            let around = [("", ""), ("\\n", ""), ("1234567", "123456789"), ("\\u00e9\u{e9}", "\u{e9}"), ("\\", "")];
            for (left, right) in around {
                let text = [before.as_bytes(), left.as_bytes(), &[byte], right.as_bytes(), after.as_bytes()];
                agree(&file(text.concat(), b""), &OpenOptions::default()).unwrap();
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
