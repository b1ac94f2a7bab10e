// SPDX-License-Identifier: Apache-2.0
//! Every wrapper calls every export, but for those that wrappers.txt excuses.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::compile::root;

/// Where each wrapper calls C.
const WRAPPERS: &[(&str, &str)] =
    &[("cpp", "bindings/cpp/include"), ("go", "bindings/go/internal/cst"), ("java", "bindings/java/src/main/c")];

/// The source files right in a folder, without comments' lines.
fn code(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources =
        entries.filter(|path| path.extension().is_some_and(|end| ["hpp", "go", "c", "h"].iter().any(|e| end == *e)));
    let texts: Vec<_> = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines.filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

/// What is called: a name of a function with a parenthesis after it.
fn calls(code: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        let after = code.get(at + name.len()..).unwrap_or_default();
        !before.is_some_and(is_word) && after.starts_with('(')
    })
}

#[test]
fn every_wrapper_calls_every_export_or_is_excused() {
    let list = fs::read_to_string(root().join("tests/contract/abi/symbols.txt")).unwrap();
    let exports: BTreeSet<_> = list.lines().collect();
    let excuses = fs::read_to_string(root().join("tests/contract/wrappers.txt")).unwrap();
    let mut excused = BTreeSet::new();
    for line in excuses.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, wrappers) = line.split_once(": ").expect(line);
        for wrapper in wrappers.split(' ') {
            assert!(WRAPPERS.iter().any(|(known, _)| *known == wrapper), "wrappers.txt: {line}");
            assert!(excused.insert((wrapper, name)), "wrappers.txt has it twice: {line}");
        }
    }
    for (wrapper, folder) in WRAPPERS {
        let code = code(&root().join(folder));
        for name in &exports {
            let is_excused = excused.contains(&(*wrapper, *name));
            let is_called = calls(&code, name);
            assert!(
                is_called || is_excused,
                "{wrapper} does not call {name}: wrap it, or say why not in tests/contract/wrappers.txt"
            );
            assert!(
                !(is_called && is_excused),
                "{wrapper} calls {name} by now: take it out of tests/contract/wrappers.txt"
            );
        }
    }
}
