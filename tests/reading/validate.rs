// SPDX-License-Identifier: Apache-2.0
//! st_validate tells of every broken rule, and agrees with opening: the first
//! fatal problem is the error that st_open_with gives.

use std::sync::LazyLock;
use std::{fs, ptr};

use crate::support::changes::{change, changes, config};
use crate::support::corpus::{cases, root};
use crate::support::handle::{c_path, init_options, open_with, status_name, ErrorSlot};
use crate::support::plan::{any_json, any_plan, write};
use crate::support::validation::{agrees, report, validate, validate_until, Problem};
use crate::support::{entry, file, file_of, index_of, pattern};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use safetensors::ffi::st_open_options;
use safetensors::ffi::st_validate;
use safetensors::OpenOptions;

/// The same for a file of these bytes; also, each place is where it should be.
fn agrees_on(bytes: &[u8], wanted: &OpenOptions) -> TestCaseResult {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, bytes).unwrap();
    let utf8 = std::str::from_utf8(bytes).is_ok();
    for problem in agrees(&path, wanted)? {
        let at = problem.position as usize;
        prop_assert!(at <= bytes.len(), "{:?}", problem);
        if let Some(name) = problem.tensor.filter(|_| utf8) {
            // serde_json reads the name that stands there.
            let mut names = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<String>();
            prop_assert_eq!(names.next().unwrap().unwrap().into_bytes(), name);
        }
    }
    Ok(())
}

static BASES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let single = cases().into_iter().filter(|case| case.is_single() && !case.has_options);
    single.flat_map(|case| vec![case.bytes(); if case.contents.is_some() { 3 } else { 1 }]).collect()
});

#[test]
fn the_corpus_is_judged_as_by_opening() {
    for case in cases() {
        let problems = agrees(&case.path, &case.options).unwrap();
        // Those that open with options may need them.
        let good = case.status == "ST_OK";
        let harmless = problems.iter().all(|problem| problem.harmless);
        assert!(harmless == good || good && case.has_options, "{}: {problems:?}", case.name);
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn changed_files_are_judged_as_by_opening(
        base: prop::sample::Index, changes in changes(), limit in prop::option::weighted(0.1, 0_u64..300),
    ) {
        let mut bytes = base.get(&BASES).clone();
        changes.iter().for_each(|each| change(&mut bytes, each));
        let mut options = OpenOptions::default();
        if let Some(limit) = limit {
            options.limits.header_bytes = limit.max(1);
            options.limits.tensors = limit % 4 + 1;
            options.limits.rank = limit % 3 + 1;
            options.limits.name_bytes = limit % 5 + 1;
        }
        agrees_on(&bytes, &options)?;
    }

    #[test]
    fn changed_headers_are_judged_as_by_opening(base: prop::sample::Index, changes in changes()) {
        let base = base.get(&BASES);
        let length = base.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let end = usize::try_from(length).map_or(base.len(), |length| length.saturating_add(8).min(base.len()));
        let mut header = base.get(8..end).unwrap_or_default().to_vec();
        changes.iter().for_each(|each| change(&mut header, each));
        agrees_on(&file(&header, &base[end..]), &OpenOptions::default())?;
    }

    #[test]
    fn structured_headers_are_judged_as_by_opening(plan in any_plan(), short in -3_isize..4) {
        let (header, size) = write(&plan);
        agrees_on(&file(header, &pattern(size.saturating_add_signed(short))), &OpenOptions::default())?;
    }

    #[test]
    fn random_json_is_judged_as_by_opening(json in any_json(), data in vec(any::<u8>(), 0..20)) {
        agrees_on(&file(json.to_string(), &data), &OpenOptions::default())?;
    }

    #[test]
    fn changed_indexes_are_judged_as_by_opening(changes in changes()) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.safetensors"), file_of(&["x", "y"], 4)).unwrap();
        fs::write(folder.path().join("b.safetensors"), file_of(&["z"], 4)).unwrap();
        let mut text = index_of([("x", "a.safetensors"), ("y", "a.safetensors"), ("z", "b.safetensors")]).into_bytes();
        text.splice(1..1, br#""metadata":{"k":"v","n":1},"#.iter().copied());
        changes.iter().for_each(|each| change(&mut text, each));
        fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
        agrees(folder.path(), &OpenOptions::default())?;
    }
}

/// What can be wrong with one entry by itself: how its value is spelled, and
/// what must be said of it.
const FAULTS: &[(&str, &str, bool)] = &[
    (r#"7"#, "ST_ERROR_HEADER_JSON", false),
    (r#"["U8",[4],[B,E]]"#, "ST_ERROR_HEADER_JSON", false),
    (r#"{}"#, "ST_ERROR_HEADER_JSON", false),
    (r#"{"dtype":"U8","shape":[4]}"#, "ST_ERROR_HEADER_JSON", false),
    (r#"{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[B,E]}"#, "ST_ERROR_DUPLICATE_KEY", false),
    (r#"{"dtype":"U8","shape":[1,1,1,4],"data_offsets":[B,E]}"#, "ST_ERROR_SHAPE", false),
    (r#"{"dtype":3,"shape":[4],"data_offsets":[B,E]}"#, "ST_ERROR_DTYPE", false),
    (r#"{"dtype":"U\u0000","shape":[4],"data_offsets":[B,E]}"#, "ST_ERROR_DTYPE", false),
    (r#"{"dtype":"u8","shape":[4],"data_offsets":[B,E]}"#, "ST_ERROR_DTYPE", true),
    (r#"{"dtype":"U8","shape":4,"data_offsets":[B,E]}"#, "ST_ERROR_SHAPE", false),
    (r#"{"dtype":"U8","shape":[4,-1],"data_offsets":[B,E]}"#, "ST_ERROR_SHAPE", false),
    (r#"{"dtype":"F6_E2M3","shape":[5],"data_offsets":[B,E]}"#, "ST_ERROR_SUB_BYTE", false),
    (r#"{"dtype":"U8","shape":[5],"data_offsets":[B,E]}"#, "ST_ERROR_SIZE_MISMATCH", false),
    (r#"{"data_offsets":[B,E],"shape":[3],"dtype":"U8"}"#, "ST_ERROR_SIZE_MISMATCH", false),
];

proptest! {
    #![proptest_config(config(1500))]

    /// Each fault is reported, once, and nothing else.
    #[test]
    fn every_fault_of_many_is_told_of(
        faults in vec(prop::option::of(0..FAULTS.len()), 1..12), metadata: bool, trailing: bool, spaces in 0_usize..3,
    ) {
        let (mut header, mut wanted) = (String::from("{"), Vec::new());
        if metadata {
            header += r#""__metadata__":{"a":"1","b":2,"a":"3"},"#;
            wanted.push(("ST_ERROR_DUPLICATE_KEY".to_owned(), "-".to_owned(), false));
            wanted.push(("ST_ERROR_METADATA".to_owned(), "-".to_owned(), false));
        }
        let mut unreadable = false;
        for (number, fault) in faults.iter().enumerate() {
            let (name, begin, end) = (format!("t{number}"), number * 4, number * 4 + 4);
            let good = r#"{"dtype":"U8","shape":[4],"data_offsets":[B,E]}"#;
            let value = fault.map_or(good, |fault| FAULTS[fault].0);
            let value = value.replace('B', &begin.to_string()).replace('E', &end.to_string());
            let value = value.replace(&format!("F6_{end}"), "F6_E");
            header += &format!("{}\"{name}\":{value}{}", if number == 0 { "" } else { "," }, " ".repeat(spaces));
            if let Some(fault) = fault {
                let (_, code, tolerable) = FAULTS[*fault];
                wanted.push((code.to_owned(), name, tolerable));
                unreadable |= code == "ST_ERROR_HEADER_JSON";
            }
        }
        header += "}";
        // What an unreadable entry covers is not known.
        if trailing && !unreadable {
            wanted.push(("ST_ERROR_DATA_NOT_COVERED".to_owned(), "-".to_owned(), true));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        fs::write(&path, file(header, &pattern(faults.len() * 4 + usize::from(trailing)))).unwrap();
        let mut options = OpenOptions::default();
        options.limits.rank = 3;
        let problems = agrees(&path, &options)?;
        let mut found: Vec<_> = problems
            .iter()
            .map(|problem| (problem.code.to_owned(), problem.brief().2, problem.tolerable))
            .collect();
        found.sort();
        wanted.sort();
        prop_assert_eq!(found, wanted, "{:?}", problems);
    }
}

/// Writes a file and tells what is wrong with it, briefly.
fn briefly(bytes: &[u8]) -> Vec<(String, u64, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, bytes).unwrap();
    let problems = agrees(&path, &OpenOptions::default()).unwrap();
    problems.iter().map(Problem::brief).map(|(code, at, tensor)| (code.to_owned(), at, tensor)).collect()
}

/// Where a piece of text is in a file.
fn place(bytes: &[u8], text: &str) -> u64 {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap() as u64
}

fn expected(code: &str, position: u64, tensor: &str) -> (String, u64, String) {
    (format!("ST_ERROR_{code}"), position, tensor.to_owned())
}

#[test]
fn rules_that_concern_several_tensors_are_told_of_one_by_one() {
    let entries = [
        entry("a", 0, 8),
        entry("inside", 2, 4),
        entry("b", 8, 12),
        entry("hole", 14, 20),
        entry("b", 20, 24),
        entry("hole2", 25, 30),
        entry("\\u0062", 30, 31),
    ];
    let bytes = file(format!("{{{}}}", entries.join(",")), &pattern(35));
    let at = |text: &str| place(&bytes, text);
    let second_b = at(r#""b":{"dtype":"U8","shape":[4],"data_offsets":[20"#);
    let wanted = [
        expected("DUPLICATE_KEY", second_b, "b"),
        expected("DUPLICATE_KEY", at("\"\\u0062\""), "b"),
        expected("OFFSETS", at("\"inside\""), "inside"),
        expected("OFFSETS", at("\"hole\""), "hole"),
        expected("OFFSETS", at("\"hole2\""), "hole2"),
        expected("DATA_NOT_COVERED", bytes.len() as u64 - 4, "-"),
    ];
    assert_eq!(briefly(&bytes), wanted);

    // Behind offsets that can't be read there are no holes, but still overlaps and an end.
    let entries = [
        entry("a", 0, 8),
        r#""x":{"dtype":"U8","shape":[4],"data_offsets":[8]}"#.to_owned(),
        r#""y":{"dtype":"U8","shape":[4],"data_offsets":[9,4]}"#.to_owned(),
        entry("b", 12, 16),
        entry("c", 14, 40),
    ];
    let bytes = file(format!("{{{}}}", entries.join(",")), &pattern(20));
    let at = |text: &str| place(&bytes, text);
    let wanted = [
        expected("OFFSETS", at("\"x\""), "x"),
        expected("OFFSETS", at("\"y\""), "y"),
        expected("OFFSETS", at("\"c\""), "c"),
        expected("TRUNCATED", bytes.len() as u64, "-"),
    ];
    assert_eq!(briefly(&bytes), wanted);
}

#[test]
fn faults_of_the_text_have_their_byte() {
    // A comma too many, after an entry with a fault of its own.
    let bytes =
        file(format!(r#"{{"w":{{"dtype":"f32","shape":[1],"data_offsets":[0,4]}},{},}}"#, entry("v", 4, 8)), &[]);
    let wanted = [expected("HEADER_JSON", bytes.len() as u64 - 1, "-"), expected("DTYPE", 9, "w")];
    assert_eq!(briefly(&bytes), wanted);

    // Bytes that are no UTF-8, each with its place, and what else is wrong. The names differ.
    let mut header = format!("{{{},{}}}", entry("a#", 0, 4), entry("a#", 4, 7)).into_bytes();
    let places: Vec<_> = header.iter().enumerate().filter(|(_, byte)| **byte == b'#').map(|(at, _)| at).collect();
    (header[places[0]], header[places[1]]) = (0xFF, 0xFE);
    let bytes = file(&header, &pattern(8));
    let wanted = [
        expected("HEADER_UTF8", 8 + places[0] as u64, "-"),
        expected("HEADER_UTF8", 8 + places[1] as u64, "-"),
        expected("DATA_NOT_COVERED", bytes.len() as u64 - 1, "-"),
    ];
    assert_eq!(briefly(&bytes), wanted);

    assert_eq!(briefly(&file(" x\u{fe}", &[])), [expected("HEADER_START", 9, "-")]);
    assert_eq!(briefly(&[1, 2, 3]), [expected("TRUNCATED", 0, "-")]);
    assert_eq!(briefly(&[255; 30]), [expected("HEADER_TOO_LARGE", 0, "-")]);
    assert_eq!(briefly(&[100, 0, 0, 0, 0, 0, 0, 0, b'{']), [expected("HEADER_LENGTH", 0, "-")]);
}

#[test]
fn a_sharded_model_is_judged_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let index = r#"{"metadata":{"k":"v","k":"w"},"weight_map":{"x":"a.safetensors","lost":"a.safetensors","x":"b.safetensors","n":3,
        "evil":"../c.safetensors","gone":"d.safetensors","z":"b.safetensors"}}"#;
    fs::write(at("model.safetensors.index.json"), index).unwrap();
    fs::write(at("a.safetensors"), file_of(&["x"], 4)).unwrap();
    fs::write(at("b.safetensors"), file(format!("{{{}}}", entry("z", 0, 5)), &pattern(4))).unwrap();
    let problems = agrees(folder.path(), &OpenOptions::default()).unwrap();
    let brief: Vec<_> = problems
        .iter()
        .map(|problem| {
            let name = problem.file.rsplit(|byte| *byte == b'/').next().unwrap();
            let (code, position, tensor) = problem.brief();
            (
                String::from_utf8(name.to_vec()).unwrap(),
                code.trim_start_matches("ST_ERROR_").to_owned(),
                position,
                tensor,
            )
        })
        .collect();
    let place = |text: &str| place(index.as_bytes(), text);
    let row = |file: &str, code: &str, position: u64, tensor: &str| {
        (file.to_owned(), code.to_owned(), position, tensor.to_owned())
    };
    let whole = "model.safetensors.index.json";
    let wanted = [
        row(whole, "INDEX", place("3,\n"), "n"),
        row(whole, "DUPLICATE_KEY", place("\"x\":\"b"), "x"),
        row(whole, "INDEX", place("\"../c"), "evil"),
        row(whole, "INDEX", place("\"k\":\"w"), "-"),
        row("d.safetensors", "SHARD", 0, "-"),
        row("b.safetensors", "TRUNCATED", fs::metadata(at("b.safetensors")).unwrap().len(), "-"),
        row(whole, "SHARD", place("\"lost\""), "lost"),
        row(whole, "SHARD", place("\"x\":\"b"), "x"),
    ];
    assert_eq!(brief, wanted);

    // A series: tensors that are in several files.
    for file in [whole, "b.safetensors"] {
        fs::remove_file(at(file)).unwrap();
    }
    let [a, b, c] = [1, 2, 3].map(|number| format!("m-{number}-of-3.safetensors"));
    fs::rename(at("a.safetensors"), at(&a)).unwrap();
    fs::write(at(&b), file_of(&["w", "x"], 4)).unwrap();
    fs::write(at(&c), file_of(&["x", "x"], 4)).unwrap();
    let problems = agrees(folder.path(), &OpenOptions::default()).unwrap();
    let told: Vec<_> = problems.iter().map(|problem| (problem.code, problem.text.as_str())).collect();
    let again = |first: &str, name: &str| format!("tensor \"x\": is in \"{first}\" and again in \"{name}\"");
    let (b, c) = (again(&a, &b), again(&a, &c));
    let twice = "tensor \"x\": the name appears twice in the header";
    let code = "ST_ERROR_DUPLICATE_KEY";
    assert_eq!(told, [(code, twice), (code, &b), (code, &c)]);
}

#[test]
fn what_is_not_there_is_a_problem_too() {
    let folder = tempfile::tempdir().unwrap();
    for (name, make) in [("missing", false), ("folder", true)] {
        let path = folder.path().join(name);
        if make {
            fs::create_dir(&path).unwrap();
        }
        let (problems, verdict) = validate(&path, &init_options());
        assert_eq!((problems.len(), problems[0].code), (1, "ST_ERROR_IO"));
        assert_eq!(verdict.unwrap_err(), open_with(&path, &init_options()).err().unwrap());
    }
}

#[test]
fn a_large_header_is_judged_as_a_small_one() {
    let mut entries: Vec<_> = (0..40_000).map(|i| entry(&format!("layer.{i:07}.weight"), i, i + 1)).collect();
    entries[39_000] = entries[39_000].replace("U8", "U9");
    entries[5] = entries[5].replace("[1]", "[2]");
    let bytes = file(format!("{{{}}}", entries.join(",")), &pattern(40_000));
    let at = |name: &str| place(&bytes, &format!("\"{name}\""));
    let wanted = [
        expected("DTYPE", at("layer.0039000.weight"), "layer.0039000.weight"),
        expected("SIZE_MISMATCH", at("layer.0000005.weight"), "layer.0000005.weight"),
    ];
    assert_eq!(briefly(&bytes), wanted);
}

#[test]
fn the_listener_can_stop_and_arguments_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let entries: Vec<_> = (0..5).map(|i| entry(&i.to_string(), i, i + 1).replace("U8", "u8")).collect();
    fs::write(&path, file(format!("{{{}}}", entries.join(",")), &pattern(5))).unwrap();
    for stop_at in 1..=5 {
        let (problems, verdict) = validate_until(&path, &init_options(), stop_at);
        assert_eq!((problems.len(), verdict.unwrap_err().status()), (stop_at, "ST_ERROR_CANCELLED"));
    }
    let path = c_path(root());
    let (mut error, bad) = (ErrorSlot::default(), st_open_options { tolerate: 8, ..init_options() });
    // SAFETY: what the header says of NULL.
    let statuses = unsafe {
        [
            st_validate(ptr::null(), ptr::null(), Some(report), ptr::null_mut(), error.as_mut()),
            st_validate(path.as_ptr(), ptr::null(), None, ptr::null_mut(), error.as_mut()),
            st_validate(path.as_ptr(), &bad, Some(report), ptr::null_mut(), error.as_mut()),
            st_validate(path.as_ptr(), &bad, Some(report), ptr::null_mut(), ptr::null_mut()),
        ]
    };
    assert!(statuses.iter().all(|status| status_name(*status) == "ST_ERROR_INVALID_ARGUMENT"), "{statuses:?}");
    assert_eq!(error.failure().status(), "ST_ERROR_INVALID_ARGUMENT");
}
