// SPDX-License-Identifier: Apache-2.0
//! Files made to hurt: messages stay short, whole and safe to print; huge and
//! nested headers take no more than linear time.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::handle::{self, init_options, open, open_memory, Failure};
use crate::support::{entry, file, file_of, index_of};

/// What a terminal would obey, in JSON's spelling and raw: colours, cursor
/// movement, a window title, a right-to-left override, a line break.
const EVIL_JSON: &str = r"\u001b[2J\u001b]0;owned\u0007\r\n\u009b31m\u202e\u2028\u0000";
const EVIL_RAW: &[u8] = b"\x1b[2J\x1b]0;owned\x07\r\n\xc2\x9b31m\xe2\x80\xae\xff\xfe";

/// A message must say this and must not do anything to a terminal.
fn harmless(failure: &Failure, parts: &[&str]) {
    let message = &failure.message;
    assert!(message.len() < 504);
    for c in ['\u{202e}', '\u{2028}', '\u{9b}', '\u{fffd}'] {
        assert!(!message.contains(c), "{message:?}");
    }
    assert!(parts.iter().all(|part| message.contains(part)), "{message} lacks one of {parts:?}");
}

fn refused(header: &str, data: &[u8]) -> Failure {
    open_memory(&file(header, data), &init_options()).err().expect("must not open")
}

#[test]
fn names_in_messages_are_escaped() {
    let name = format!("{EVIL_JSON}w");
    let shown = [r"\u{1b}[2J"];
    for (header, status) in [
        (format!("{{{},{}}}", entry(&name, 0, 1), entry(&name, 1, 2)), "ST_ERROR_DUPLICATE_KEY"),
        (format!(r#"{{"__metadata__":{{"{name}":"a","{name}":"b"}}}}"#), "ST_ERROR_DUPLICATE_KEY"),
        (format!(r#"{{"__metadata__":{{"{name}":1}}}}"#), "ST_ERROR_METADATA"),
        (format!(r#"{{"w":{{"dtype":"{name}","shape":[1],"data_offsets":[0,1]}}}}"#), "ST_ERROR_DTYPE"),
        (entry(&name, 0, 1).replace("U8", "U9"), "ST_ERROR_DTYPE"),
        (entry(&name, 0, 1).replace("[1]", "[-1]"), "ST_ERROR_SHAPE"),
        (entry(&name, 0, 1).replace("[1]", "[4294967296,4294967296]"), "ST_ERROR_SHAPE"),
        (entry(&name, 0, 1).replace("[0,1]", "[1]"), "ST_ERROR_OFFSETS"),
        (entry(&name, 0, 1).replace("[0,1]", "[1,0]"), "ST_ERROR_OFFSETS"),
        (entry(&name, 3, 4), "ST_ERROR_OFFSETS"),
        (entry(&name, 0, 1).replace("U8", "F4"), "ST_ERROR_SUB_BYTE"),
        (entry(&name, 0, 1).replace("U8", "U16"), "ST_ERROR_SIZE_MISMATCH"),
    ] {
        let header = if header.starts_with('{') { header } else { format!("{{{header}}}") };
        let failure = refused(&header, b"12");
        assert_eq!(failure.status(), status, "{}", failure.message);
        harmless(&failure, &shown);
    }
    for value in [r#"["\u001b[2J"]"#, r#"{"\u001b[2J":"\u202e"}"#, "[\u{202e}]"] {
        for field in ["dtype", "shape", "data_offsets"] {
            let fields = [("dtype", r#""U8""#), ("shape", "[1]"), ("data_offsets", "[0,1]")];
            let fields = fields.map(|(key, good)| format!(r#""{key}":{}"#, if key == field { value } else { good }));
            harmless(&refused(&format!(r#"{{"w":{{{}}}}}"#, fields.join(",")), b"1"), &[]);
        }
    }
    for header in [&b"{\"\x1b"[..], b"\x1b{}", b"{\"a\\\x1b", b"{\"w\":\x1b", b"{\"\xff\x1b\""] {
        harmless(&open_memory(&file(header, b""), &init_options()).err().unwrap(), &["header"]);
    }
}

#[test]
fn names_asked_for_are_escaped() {
    let bytes = file_of(&["w"], 4);
    let found = open_memory(&bytes, &init_options()).unwrap();
    let failure = found.get(EVIL_RAW).err().unwrap();
    assert_eq!(failure.status(), "ST_ERROR_NOT_FOUND");
    harmless(&failure, &[r"\u{1b}[2J", r"\xff"]);
    harmless(&found.get(vec![b'\x1b'; 5_000_000]).err().unwrap(), &["5000000"]);
}

#[test]
fn paths_in_messages_are_escaped() {
    let root = tempfile::tempdir().unwrap();
    let evil: Vec<u8> = EVIL_RAW.iter().copied().filter(|byte| *byte != 0).collect();
    let path = |tail: &str| root.path().join(OsStr::from_bytes(&[&evil[..], tail.as_bytes()].concat()));
    harmless(&open(path(".safetensors")).err().unwrap(), &[r"\u{1b}[2J", r"\xff"]);
    fs::write(path(".safetensors"), b"no").unwrap();
    harmless(&open(path(".safetensors")).err().unwrap(), &[r"\u{1b}[2J"]);
    harmless(&open(root.path()).err().unwrap(), &[r"\u{1b}[2J"]);
    fs::write(path(".safetensors.index.json"), b"{}").unwrap();
    harmless(&open(root.path()).err().unwrap(), &[r"\u{1b}[2J", "weight_map"]);
    fs::write(path("2.safetensors.index.json"), b"{}").unwrap();
    harmless(&open(root.path()).err().unwrap(), &[r"\u{1b}[2J", "index"]);
}

#[test]
fn index_texts_in_messages_are_escaped() {
    let root = tempfile::tempdir().unwrap();
    let index = root.path().join("model.safetensors.index.json");
    let long = "x".repeat(300);
    fs::write(root.path().join("s.safetensors"), file_of(&["w"], 4)).unwrap();
    for text in [
        format!(r#"{{"weight_map":{{"{EVIL_JSON}":"s.safetensors"}}}}"#),
        format!(r#"{{"weight_map":{{"{EVIL_JSON}":"../{EVIL_JSON}"}}}}"#),
        format!(r#"{{"weight_map":{{"w":"no{}"}}}}"#, EVIL_JSON.replace(r"\u0000", "")),
        format!(r#"{{"weight_map":{{"{EVIL_JSON}{long}":"a","{EVIL_JSON}{long}":"a"}}}}"#),
        format!(r#"{{"weight_map":{{}},"metadata":{{"{EVIL_JSON}":1,"{EVIL_JSON}":2}}}}"#),
        format!(r#"{{"weight_map":"{EVIL_JSON}{long}"}}"#),
        format!(r#"{{"weight_map":{{"w":["{EVIL_JSON}"]}}}}"#),
        "{\"weight_map\":{\"w\x1b\":1}}".to_owned(),
    ] {
        fs::write(&index, text).unwrap();
        harmless(&open(root.path()).err().unwrap(), &[]);
    }
}

/// A folder whose path is about 4000 bytes long.
fn deep(root: &Path) -> PathBuf {
    let mut path = root.to_owned();
    while path.as_os_str().len() < 3750 {
        path.push("d".repeat(200));
        fs::create_dir(&path).unwrap();
    }
    path
}

#[test]
fn a_long_path_leaves_room_for_tensor_and_rule() {
    let root = tempfile::tempdir().unwrap();
    let folder = deep(root.path());
    let long = format!("first.{}.last", "layer.".repeat(200));
    let model = folder.join("m.safetensors");
    let check = |path: &Path, parts: &[&str]| {
        let failure = open(path).err().unwrap();
        harmless(&failure, parts);
        assert!(failure.message.len() > 300, "the path takes what is left: {}", failure.message);
    };
    for (name, parts) in [("w", ["\"w\"", "m.safetensors"]), (&long, ["first.", ".last"])] {
        fs::write(&model, file(format!("{{{}}}", entry(name, 0, 5).replace("[5]", "[7]")), b"12345")).unwrap();
        check(&model, &[parts[0], parts[1], "[0, 5]", "needs 7"]);
        check(&folder, &[parts[0], parts[1], "[0, 5]", "needs 7"]);
    }
    fs::write(folder.join("n.safetensors"), file_of(&["w"], 4)).unwrap();
    fs::write(&model, file_of(&["w"], 4)).unwrap();
    let opened = open(&model).unwrap();
    harmless(&opened.get(&long).err().unwrap(), &["m.safetensors", "first.", ".last"]);
    harmless(
        &opened.read_into(&opened.tensors()[0], &mut [0; 3]).unwrap_err(),
        &["m.safetensors", "\"w\"", "4 bytes", "3"],
    );
    let (first, second) = (folder.join("a-1-of-2.safetensors"), folder.join("a-2-of-2.safetensors"));
    fs::rename(&model, &first).unwrap();
    fs::rename(folder.join("n.safetensors"), &second).unwrap();
    let failure = open(&folder).err().unwrap();
    assert_eq!(failure.status(), "ST_ERROR_DUPLICATE_KEY");
    harmless(&failure, &["\"w\"", "a-1-of-2.safetensors", "a-2-of-2.safetensors"]);
    fs::rename(&first, folder.join("a.safetensors")).unwrap();
    fs::write(folder.join("model.safetensors.index.json"), index_of([("w", "gone.safetensors")])).unwrap();
    check(&folder, &["gone.safetensors", "1 of 1 shards missing"]);
    fs::write(folder.join("model.safetensors.index.json"), index_of([(&*long, "a.safetensors")])).unwrap();
    check(&folder, &["first.", ".last", "a.safetensors"]);
}

#[test]
fn names_of_300_kb_are_names() {
    let names: Vec<_> = (0..5).map(|i| format!("{}{i}", "n\u{e9}".repeat(100_000))).collect();
    let bytes = file_of(&names, 8);
    let found = open_memory(&bytes, &init_options()).unwrap();
    for (i, name) in names.iter().enumerate() {
        assert_eq!(
            (found.get(name).unwrap().name(), found.get(name).unwrap().data().unwrap().len()),
            (name.as_bytes(), 8),
            "{i}"
        );
    }
    let failure = found.get(&names[0][..300_000]).err().unwrap();
    assert_eq!(failure.status(), "ST_ERROR_NOT_FOUND");
    harmless(&failure, &["300000 bytes"]);
    let twice = file_of(&[&names[0], &names[1], &names[0]], 8);
    harmless(&open_memory(&twice, &init_options()).err().unwrap(), &["300001 bytes", "twice"]);
    let limited = handle::options(&safetensors::OpenOptions {
        limits: safetensors::Limits { name_bytes: 300_000, ..Default::default() },
        ..Default::default()
    });
    assert_eq!(open_memory(&bytes, &limited).err().unwrap().status(), "ST_ERROR_HEADER_TOO_LARGE");
}

/// Opens a header of `size` bytes, `piece` over and over between two ends, and
/// says how long that took.
fn timed(before: &str, piece: &str, after: &str, size: usize) -> (Result<usize, &'static str>, Duration) {
    let header = format!("{before}{}{after}", piece.repeat(size / piece.len()));
    let bytes = file(header, b"");
    let start = Instant::now();
    let found = open_memory(&bytes, &init_options());
    let took = start.elapsed();
    (found.as_ref().map(|found| found.tensors().len()).map_err(Failure::status), took)
}

#[test]
fn ninety_megabytes_of_brackets_are_refused_at_once() {
    for (before, piece, after, status) in [
        ("{", "[", "", "ST_ERROR_HEADER_JSON"),
        ("", "{", "", "ST_ERROR_HEADER_JSON"),
        (" [", "[", "", "ST_ERROR_HEADER_START"),
        ("{\"w\":", "[", "", "ST_ERROR_HEADER_JSON"),
        ("{\"__metadata__\":", "[", "", "ST_ERROR_HEADER_JSON"),
        ("{\"w\":{\"x\":", "[", "", "ST_ERROR_HEADER_JSON"),
        ("{\"w\":{\"shape\":", "[", "", "ST_ERROR_HEADER_JSON"),
        ("{\"w\":{\"x\":", "{\"\":", "", "ST_ERROR_HEADER_JSON"),
        ("{", "]", "", "ST_ERROR_HEADER_JSON"),
    ] {
        // The first two at full size; the others, as fast, differ in where they end.
        let size = if before.len() < 2 && piece != "]" { 90_000_000 } else { 9_000_000 };
        let (found, took) = timed(before, piece, after, size);
        assert_eq!(found, Err(status), "{before}{piece}");
        // About 0.1 s where the code is optimised; what is not linear takes hours.
        assert!(took < Duration::from_secs(60), "{before}{piece}: {took:?}");
    }
}

#[test]
fn huge_headers_take_linear_time() {
    let fields = r#""dtype":"U8","shape":[0],"data_offsets":[0,0]"#;
    let json = "ST_ERROR_HEADER_JSON";
    let cases: Vec<(String, &str, String, Result<usize, &str>)> = vec![
        (String::new(), " ", "{}".into(), Ok(0)),
        ("{".into(), "\n", "}".into(), Ok(0)),
        (format!("{{\"w\":{{{fields},\"x\":["), "[],", "0]}}".into(), Ok(1)),
        (format!("{{\"w\":{{{fields},\"x\":{{"), "\"\":{},", "\"\":0}}}".into(), Ok(1)),
        (format!("{{\"w\":{{{fields},\"x\":"), "9", "}}".into(), Err(json)),
        (format!("{{\"w\":{{{fields},\"x\":0."), "9", "}}".into(), Ok(1)),
        (format!("{{\"w\":{{{fields}"), ",\"\":0", "}}".into(), Ok(1)),
        (format!("{{\"w\":{{{fields}"), ",\"shape\":[0]", "}}".into(), Err("ST_ERROR_DUPLICATE_KEY")),
        (format!("{{\"w\":{{{fields}"), ",\"dtype\":\"X\"", "}}".into(), Err("ST_ERROR_DUPLICATE_KEY")),
        ("{\"".into(), "n", format!("\":{{{fields}}}}}"), Ok(1)),
        ("{\"".into(), "\\u0000", format!("\":{{{fields}}}}}"), Ok(1)),
        ("{\"".into(), "\\\\", format!("\":{{{fields}}}}}"), Ok(1)),
        ("{\"".into(), "\\n\u{e9}", "\\q\"}".into(), Err(json)),
        ("{\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,0],\"shape\":[".into(), "0,", "0]}}".into(), Ok(1)),
        (
            "{\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[".into(),
            "0,",
            "0]}}".into(),
            Err("ST_ERROR_OFFSETS"),
        ),
        ("{\"__metadata__\":{".into(), "\"\":\"\",", "\"k\":\"v\"}}".into(), Err("ST_ERROR_DUPLICATE_KEY")),
        ("{\"__metadata__\":{".into(), "\"\":0,", "\"k\":\"v\"}}".into(), Err("ST_ERROR_DUPLICATE_KEY")),
        ("{".into(), "\"__metadata__\":{\"k\":\"v\"},", format!("\"w\":{{{fields}}}}}"), Err("ST_ERROR_DUPLICATE_KEY")),
    ];
    for (before, piece, after, wanted) in cases {
        let (found, took) = timed(&before, piece, &after, 4_000_000);
        assert_eq!(found, wanted, "{before}{piece}");
        // A quadratic pass over four million bytes takes hours.
        assert!(took < Duration::from_secs(60), "{before}{piece}: {took:?}");
    }
}

#[test]
fn many_tensors_take_linear_time_in_any_order() {
    let count = 50_000;
    for step in [1, count - 1, 7919] {
        let entries = (0..count).map(|i| (i * step) % count).map(|i| entry(&format!("layer.{i}.weight"), i, i + 1));
        let bytes = file(format!("{{{}}}", entries.collect::<Vec<_>>().join(",")), &vec![7; count]);
        let start = Instant::now();
        let found = open_memory(&bytes, &init_options()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(60));
        assert!(found.tensors().is_sorted_by_key(|tensor| tensor.offset()) && found.tensors().len() == count);
        for i in (0..count).step_by(997) {
            let tensor = found.get(format!("layer.{i}.weight")).unwrap();
            assert_eq!(tensor.offset(), found.shards()[0].data_offset() + i as u64);
        }
    }
}
