// SPDX-License-Identifier: Apache-2.0
//! The plan of the house, as CONTRIBUTING.md draws it: a file uses its own room
//! and earlier ones, unsafe code is where it is expected, and a name is one type's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from upstream to downstream. A file beside lib.rs is a word, a room of its own.
const ROOMS: &[&str] = &[
    "error",
    "dtype",
    "options",
    "record",
    "group",
    "part",
    "base",
    "convert",
    "source",
    "format",
    "checkpoint",
    "load",
    "model",
    "writer",
    "ffi",
];

/// What may have unsafe code, a file or a folder, and for what.
const UNSAFE: &[(&str, &str)] = &[
    ("base/memory", "blocks that are pages, huge pages"),
    ("base/parallel.rs", "threads with small stacks"),
    ("record.rs", "records with pointers, as C sees them"),
    ("part.rs", "records with pointers"),
    ("group.rs", "records with pointers"),
    ("source/direct.rs", "reads past the page cache"),
    ("source/file.rs", "mapping"),
    ("source/filesystem.rs", "statfs"),
    ("source/scatter.rs", "preadv"),
    ("source/share.rs", "descriptors of others"),
    ("format/lookup.rs", "names by address"),
    ("checkpoint/loaded.rs", "bytes that records point to"),
    ("checkpoint/mod.rs", "records whose data comes later"),
    ("convert/level.rs", "which kernels this processor has"),
    ("convert/scalar.rs", "memory that is not written yet"),
    ("convert/x86.rs", "SIMD"),
    ("load/destination.rs", "the caller's memory, from several threads"),
    ("model/groups/decode/x86", "SIMD"),
    ("model/groups/assembly.rs", "records that come back from C"),
    ("model/groups/record.rs", "records with pointers"),
    ("writer/system.rs", "system calls that std does not have"),
    ("ffi", "C"),
];

/// The files of the library, by their path below src.
fn files() -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    let (root, mut found) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), BTreeMap::new());
    walk(&root, &root, &mut found);
    found
}

/// The room that a file is in.
fn room(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file: without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The rooms that code names after `crate::`, in a path or in braces.
fn used(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            found.push(word(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// The room of what lib.rs exports under this name of a type.
fn exported_from(name: &str, lib: &str) -> Option<String> {
    let mut exports = lib.lines().filter_map(|line| line.strip_prefix("pub use "));
    let export = exports.find(|line| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == name))?;
    export.split("::").next().map(str::to_owned)
}

#[test]
fn a_file_uses_its_own_room_and_earlier_ones() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let files = files();
    let lib = &files[Path::new("lib.rs")];
    let mut wrong = Vec::new();
    for (path, text) in &files {
        let room = room(path);
        if room == "lib" || path.ends_with("tests.rs") {
            continue;
        }
        let own = place(&room).unwrap_or_else(|| panic!("{}: a room that is not in the plan", path.display()));
        for other in used(&code(text)) {
            match place(&other).or_else(|| place(&exported_from(&other, lib)?)) {
                Some(other) if other <= own => {}
                Some(_) => wrong.push(format!("{} looks downstream, at crate::{other}", path.display())),
                None => wrong.push(format!("{}: crate::{other} is not a room", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The paths that the `use`s at a file's outermost level name, as lists of words.
fn imports(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for statement in code.split(';').map(|text| text.rsplit("\n\n").next().unwrap().trim()) {
        let Some(start) = statement.lines().position(|line| line.starts_with("use ")) else { continue };
        let text = statement.lines().skip(start).collect::<String>();
        let (mut before, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
        for c in text["use ".len()..].chars().chain([',']) {
            match c {
                ':' if !word.is_empty() => words.push(std::mem::take(&mut word)),
                '{' => before.push(words.clone()),
                ',' | '}' => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                        found.push(std::mem::take(&mut words));
                    }
                    if c == '}' {
                        before.pop();
                    }
                    words = before.last().cloned().unwrap_or_default();
                }
                c if c.is_alphanumeric() || c == '_' => word.push(c),
                _ => {}
            }
        }
    }
    found
}

/// The module of a file, as a list of words.
fn module(path: &Path) -> Vec<String> {
    let mut words: Vec<_> = path.with_extension("").iter().map(|word| word.to_str().unwrap().to_owned()).collect();
    words.pop_if(|last| last == "mod" || last == "lib");
    words
}

/// Files with what each uses of others. A folder's mod.rs puts its files
/// together: what it exports of theirs is used where it stands.
fn drawing() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let files: Vec<_> = files().into_iter().filter(|(path, _)| !path.ends_with("tests.rs")).collect();
    let modules: BTreeSet<_> = files.iter().map(|(path, _)| module(path)).collect();
    let arrows = files.iter().map(|(path, text)| {
        let own = module(path);
        let absolute = |words: Vec<String>| -> Option<Vec<String>> {
            let above = words.iter().take_while(|word| *word == "super").count();
            match words.first()?.as_str() {
                "crate" => Some(words[1..].to_vec()),
                "self" => Some([&own[..], &words[1..]].concat()),
                "super" => Some([&own[..own.len() - above], &words[above..]].concat()),
                _ => None,
            }
        };
        let file_of = |words: Vec<String>| {
            (1..=words.len()).rev().map(|len| words[..len].to_vec()).find(|words| modules.contains(words))
        };
        let used = imports(&code(text))
            .into_iter()
            .filter_map(absolute)
            .filter_map(file_of)
            .filter(|used| *used != own)
            .collect();
        (own, used)
    });
    arrows.collect()
}

#[test]
fn files_use_each_other_in_no_circle() {
    let mut left = drawing();
    // Who uses nothing that is left is in no circle.
    loop {
        let there: BTreeSet<_> = left.keys().cloned().collect();
        left.values_mut().for_each(|used| used.retain(|other| there.contains(other)));
        let before = left.len();
        left.retain(|_, used| !used.is_empty());
        if left.len() == before {
            break;
        }
    }
    // The same from the other end.
    loop {
        let used: BTreeSet<_> = left.values().flatten().cloned().collect();
        let before = left.len();
        left.retain(|file, _| used.contains(file));
        if left.len() == before {
            break;
        }
    }
    let shown: Vec<_> = left
        .iter()
        .map(|(file, used)| {
            format!("{} uses {:?}", file.join("/"), used.iter().map(|used| used.join("/")).collect::<Vec<_>>())
        })
        .collect();
    assert!(left.is_empty(), "{shown:#?}");
}

/// What two of them need is in a file that exports nothing.
#[test]
fn no_file_of_exports_uses_another() {
    let drawing = drawing();
    let exports: BTreeSet<_> =
        files().iter().filter(|(_, text)| text.contains("#[no_mangle]")).map(|(path, _)| module(path)).collect();
    assert!(exports.len() > 10);
    for file in &exports {
        let others: Vec<_> = drawing[file].intersection(&exports).collect();
        assert!(others.is_empty(), "{file:?} uses {others:?}");
    }
}

/// A mod.rs can't forbid what a file below it has.
#[test]
fn unsafe_code_is_where_it_is_expected() {
    let files = files();
    for (known, _) in UNSAFE {
        let some = files.iter().any(|(path, text)| path.starts_with(known) && code(text).contains("unsafe "));
        assert!(some, "{known} has no unsafe code (any more): take it off the list");
    }
    let mut wrong = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        if UNSAFE.iter().any(|(known, _)| path.starts_with(known)) {
            continue;
        }
        let above = path.ends_with("mod.rs") || path.ends_with("lib.rs");
        let above = above && UNSAFE.iter().any(|(known, _)| Path::new(known).starts_with(path.parent().unwrap()));
        if code(text).replace("unsafe_code", "").contains("unsafe") {
            wrong.push(format!("{} has unsafe code", path.display()));
        } else if !above && !text.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{} does not say forbid(unsafe_code)", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The types that code declares, by name.
fn declared(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for line in code.lines() {
        let text = line.trim_start();
        let text = match text.strip_prefix("pub(") {
            Some(rest) => rest.split_once(") ").map_or(text, |(_, rest)| rest),
            None => text.strip_prefix("pub ").unwrap_or(text),
        };
        let text = text.strip_prefix("unsafe ").unwrap_or(text);
        let mut kinds = vec!["struct ", "enum ", "trait ", "union "];
        // An indented `type` is a trait's, which names what another one declares.
        if !line.starts_with(' ') {
            kinds.push("type ");
        }
        found.extend(kinds.iter().find_map(|kind| Some(word(text.strip_prefix(*kind)?))));
    }
    found
}

/// Names that two types have all the same, and why.
const SHARED_NAMES: &[(&str, &str)] = &[];

#[test]
fn no_two_types_have_one_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in files().iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        for name in declared(&code(text)) {
            places.entry(name).or_default().push(path.display().to_string());
        }
    }
    for (name, why) in SHARED_NAMES {
        let some = places.get(*name).is_some_and(|places| places.len() > 1);
        assert!(some, "{name} is one type's name ({why}): take it off the list");
    }
    places.retain(|name, places| places.len() > 1 && !SHARED_NAMES.iter().any(|(known, _)| known == name));
    assert!(places.is_empty(), "one word, one meaning: {places:#?}");
}

#[test]
fn declared_types_are_found() {
    let code =
        "pub(crate) struct One<T>(T);\n    enum Two {\npub unsafe trait Three: Send {\n    type Item = One<u8>;\n\
                pub(in crate::x) type Four = One<u8>;\nlet structure = 5;";
    assert_eq!(declared(code), ["One", "Two", "Three", "Four"]);
}

#[test]
fn what_a_file_uses_is_found_in_paths_and_in_braces() {
    let code =
        "use crate::error::Error;\nuse crate::{base::{memory, sort}, record::Tensor};\nlet x = crate::load::read();";
    assert_eq!(used(code), ["error", "base", "record", "load"]);
    let found: Vec<_> = imports(code).iter().map(|path| path.join("/")).collect();
    assert_eq!(found, ["crate/error/Error", "crate/base/memory", "crate/base/sort", "crate/record/Tensor"]);
}
