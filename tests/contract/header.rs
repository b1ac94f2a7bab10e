// SPDX-License-Identifier: Apache-2.0
//! The committed headers are what cbindgen makes of the exports.

use std::path::Path;

/// A header, how it is made, and of what, in the order of its sections.
struct Header {
    file: &'static str,
    config: &'static str,
    sources: &'static [&'static str],
}

const HEADERS: &[Header] = &[
    Header {
        file: "safetensors.h",
        config: "cbindgen.toml",
        sources: &[
            "ffi/version.rs",
            "ffi/status.rs",
            "ffi/dtype.rs",
            "record.rs",
            "ffi/arguments.rs",
            "ffi/open_options.rs",
            "ffi/callbacks.rs",
            "ffi/open.rs",
            "ffi/inspect.rs",
            "ffi/read.rs",
            "ffi/slice.rs",
            "ffi/given_load.rs",
            "ffi/load.rs",
            "ffi/load_helpers.rs",
            "ffi/convert.rs",
            "ffi/given_save.rs",
            "ffi/save.rs",
            "ffi/validate.rs",
            "ffi/helpers.rs",
        ],
    },
    Header {
        file: "safetensors_model.h",
        config: "cbindgen_model.toml",
        sources: &["part.rs", "group.rs", "ffi/model_arguments.rs", "ffi/rank_plan.rs", "ffi/groups.rs"],
    },
];

/// The folder whose copies follow the headers until its version is released.
const UNRELEASED: &str = "tests/contract/abi/0.2";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generate(header: &Header) -> String {
    let config = cbindgen::Config::from_file(root().join(header.config)).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in header.sources {
        builder = builder.with_src(root().join("src").join(source));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    with_sections(header, &String::from_utf8(text).unwrap())
}

/// A part of a header: what stands above its functions, and their names.
#[derive(Default)]
struct Section {
    title: String,
    preface: String,
    functions: Vec<String>,
}

/// The sections that src/ffi/sections.txt describes. A file that it does not
/// name goes on with the section before.
fn sections(header: &Header) -> Vec<Section> {
    let read = |path: &str| std::fs::read_to_string(root().join("src").join(path)).unwrap();
    let described = read("ffi/sections.txt");
    let mut found: Vec<Section> = Vec::new();
    for source in header.sources {
        if let Some((_, rest)) = described.split_once(&format!("\n[{source}] ")) {
            let (title, preface) = rest.split("\n[").next().unwrap().split_once('\n').unwrap();
            let (title, preface) = (title.to_owned(), preface.trim_end().to_owned());
            found.push(Section { title, preface, ..Section::default() });
        }
        let text = read(source);
        let names = text.split("extern \"C\" fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
        let names: Vec<_> = names.filter(|name| name.starts_with("st_")).map(str::to_owned).collect();
        match found.last_mut() {
            Some(section) => section.functions.extend(names),
            None => assert!(names.is_empty(), "src/ffi/sections.txt has no section for {source}"),
        }
    }
    found
}

/// Puts each section's heading above the first of its functions, and the table of contents
/// where the header's own text has "@CONTENTS@".
fn with_sections(header: &Header, made: &str) -> String {
    let mut lines: Vec<String> = made.lines().map(str::to_owned).collect();
    let mut contents = String::new();
    for Section { title, preface, functions } in sections(header) {
        let Some(first) = functions.first() else { continue };
        let is_declared = |line: &String| line.contains(&format!("{first}("));
        let first_in = |line: &String| !line.trim_start().starts_with(['/', '*']) && is_declared(line);
        let mut at = lines.iter().position(first_in).unwrap_or_else(|| panic!("{first} is not in the header"));
        while !lines[at - 1].is_empty() {
            at -= 1;
        }
        let rule = "-".repeat(70 - title.len());
        let preface: String = preface.lines().map(|line| format!(" * {line}").trim_end().to_owned() + "\n").collect();
        lines.insert(at, format!("/* {rule} {title}\n *\n{preface} */\n"));
        let mut line = format!(" *   {title:<16}");
        for name in functions {
            if line.len() + name.len() > 90 {
                contents += &(line.trim_end().to_owned() + "\n");
                line = format!(" *{:19}", "");
            }
            line += &format!(" {name}");
        }
        contents += &(line.trim_end().to_owned() + "\n");
    }
    let mut text = lines.join("\n").replace(" * @CONTENTS@\n", &contents);
    text.push('\n');
    text
}

#[test]
fn no_line_is_longer_than_a_hundred_columns() {
    for header in HEADERS {
        for (number, line) in generate(header).lines().enumerate() {
            assert!(line.chars().count() <= 100, "{}:{}: {line}", header.file, number + 1);
        }
    }
}

#[test]
fn the_committed_headers_are_what_cbindgen_makes() {
    for header in HEADERS {
        let made = generate(header);
        for folder in ["include", UNRELEASED] {
            let path = root().join(folder).join(header.file);
            if std::env::var_os("SAFETENSORS_WRITE_HEADER").is_some() {
                std::fs::write(&path, &made).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            let why = format!("rewrite {}: SAFETENSORS_WRITE_HEADER=1 cargo test --test header", path.display());
            assert!(made == committed, "{why}");
        }
    }
}
