// SPDX-License-Identifier: Apache-2.0
//! The binary interface: what the shared library exports and needs, how the
//! structs are laid out, and that programs compiled against older headers run.
//!
//! `tests/contract/abi/<version>/` has the header of each version, with a program of that
//! time that calls all of it. With its release it is never edited again.

#[path = "../support/released.rs"]
mod released;

use std::collections::BTreeSet;
use std::fs;
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use released::{build_program, cargo_target, compilers, exists, released, root, run, scratch};
use safetensors::ffi::st_error;
use safetensors::ffi::st_problem;
use safetensors::ffi::{st_buffer, st_metadata_options, st_output, st_save_options};
use safetensors::ffi::{st_io, st_open_options, st_resolver};
use safetensors::ffi::{st_load_item, st_load_options, st_piece, st_plan, st_sink, st_transform};
use safetensors::record::{st_metadata, st_range, st_shard, st_tensor};

/// The headers, each of which compiles alone; a later one includes the first.
const HEADERS: [&str; 2] = ["safetensors.h", "safetensors_model.h"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_exports_are_the_functions_of_the_header_and_the_list() {
    let headers = HEADERS.map(|name| Header::read(&format!("include/{name}")));
    let names: BTreeSet<_> = headers.iter().flat_map(Header::functions).collect();
    let nm = run(Command::new("nm").args(["-D", "--defined-only", "-P"]).arg(released().join("libsafetensors.so")));
    let exported: BTreeSet<_> = nm.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(exported, names, "exported, and in the header");
    assert!(exported.iter().all(|name| name.starts_with("st_")), "{exported:?}");

    let list: String = exported.iter().map(|name| format!("{name}\n")).collect();
    if std::env::var_os("SAFETENSORS_WRITE_SYMBOLS").is_some() {
        fs::write(root().join("tests/contract/abi/symbols.txt"), &list).unwrap();
    }
    let why = "is a change of the ABI meant? Then: SAFETENSORS_WRITE_SYMBOLS=1 cargo test --test abi";
    assert_eq!(read("tests/contract/abi/symbols.txt"), list, "{why}");
}

#[test]
fn the_shared_library_has_its_soname_and_needs_the_system_alone() {
    let file = released().join("libsafetensors.so");
    let dynamic = run(Command::new("readelf").args(["-d", "-W"]).arg(&file));
    let values = |tag: &str| -> Vec<String> {
        let lines = dynamic.lines().filter(|line| line.contains(tag));
        lines.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned())).collect()
    };
    assert_eq!(values("(SONAME)"), [concat!("libsafetensors.so.", env!("CARGO_PKG_VERSION_MAJOR"))]);
    let system = ["libc.so", "libm.so", "libgcc_s.so", "ld-linux"];
    for needed in values("(NEEDED)") {
        assert!(system.iter().any(|name| needed.starts_with(name)), "needs {needed}");
    }
    assert!(!dynamic.contains("PATH)"), "no RPATH, no RUNPATH:\n{dynamic}");
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 1_700_000, "{} has {size} bytes", file.display());
}

#[test]
fn no_function_is_needed_that_an_old_c_library_has_not() {
    // Younger than glibc 2.17. Weak ones (w) are asked for when it runs.
    let young = [
        "copy_file_range",
        "getrandom",
        "gettid",
        "memfd_create",
        "mlock2",
        "preadv2",
        "pwritev2",
        "renameat2",
        "statx",
    ];
    let nm = run(Command::new("nm").args(["-D", "--undefined-only", "-P"]).arg(released().join("libsafetensors.so")));
    let strong = nm.lines().filter(|line| line.split(' ').nth(1) == Some("U"));
    let strong: BTreeSet<_> = strong.filter_map(|line| line.split([' ', '@']).next()).collect();
    assert!(strong.contains("close") && young.iter().all(|name| !strong.contains(name)), "{strong:?}");
}

#[test]
fn the_header_compiles_alone_as_every_standard_and_in_two_units() {
    let program = read("tests/contract/abi/header.c");
    for header in HEADERS {
        for name in Header::read(&format!("include/{header}")).initialisers() {
            assert!(program.contains(name), "tests/contract/abi/header.c does not try {name}");
        }
    }
    let out = scratch("header");
    let alone = HEADERS.map(|header| {
        let unit = out.join(header).with_extension("c");
        fs::write(&unit, format!("#include <{header}>\n#include <{header}>\n")).unwrap();
        unit
    });
    for_each_standard(|compiler, language, standard| {
        let mut command = strict(compiler, language, standard);
        run(command.args(["-fsyntax-only", "-Wundef"]).args(&alone));
        let objects = ["other", "main"].map(|unit| out.join(unit).with_extension("o"));
        for (unit, object) in ["other", "main"].iter().zip(&objects) {
            let mut command = strict(compiler, language, standard);
            command.args(["-Wmissing-field-initializers", "-Wconversion", "-Wundef", "-c", "-o"]).arg(object);
            run(command.arg(format!("-DUNIT={unit}")).arg(root().join("tests/contract/abi/header.c")));
        }
        let program = out.join("program");
        run(Command::new(compiler).args(&objects).arg("-o").arg(&program));
        run(&mut Command::new(program));
    });
}

#[test]
fn every_public_field_stands_where_it_always_stood() {
    let layout = read("tests/contract/abi/layout.c");
    for header in HEADERS {
        for (name, fields) in Header::read(&format!("include/{header}")).structs() {
            assert!(layout.contains(&format!("SIZE({name}, ")), "tests/contract/abi/layout.c does not size {name}");
            for field in fields {
                let line = format!("FIELD({name}, {field}, ");
                assert!(layout.contains(&line), "tests/contract/abi/layout.c lacks {name}.{field}");
            }
        }
    }
    for_each_standard(|compiler, language, standard| {
        let mut command = strict(compiler, language, standard);
        run(command.arg("-fsyntax-only").arg(root().join("tests/contract/abi/layout.c")));
    });
}

#[test]
fn rust_lays_the_structs_out_as_c_does() {
    assert_eq!([size_of::<st_error>(), align_of::<st_error>(), offset_of!(st_error, message)], [512, 4, 8]);
    assert_eq!([size_of::<st_tensor>(), size_of::<st_metadata>(), size_of::<st_shard>()], [96, 48, 72]);
    assert_eq!([size_of::<st_range>(), offset_of!(st_range, stop), offset_of!(st_range, step)], [24, 8, 16]);
    assert_eq!([size_of::<st_open_options>(), size_of::<st_io>(), size_of::<st_resolver>()], [72, 56, 32]);
    assert_eq!([offset_of!(st_open_options, variant), offset_of!(st_open_options, max_set_bytes)], [56, 64]);
    assert_eq!([offset_of!(st_open_options, access), offset_of!(st_open_options, max_name_length)], [8, 48]);
    assert_eq!([offset_of!(st_io, read_at), offset_of!(st_io, max_parallel)], [16, 48]);
    assert_eq!([offset_of!(st_resolver, open), offset_of!(st_resolver, user_data)], [8, 24]);
    assert_eq!([size_of::<st_save_options>(), size_of::<st_metadata_options>(), size_of::<st_buffer>()], [80, 24, 16]);
    assert_eq!([offset_of!(st_save_options, max_shard_size), offset_of!(st_save_options, source)], [16, 56]);
    assert_eq!([offset_of!(st_save_options, sources), offset_of!(st_save_options, source_count)], [64, 72]);
    assert_eq!([offset_of!(st_metadata_options, in_place), offset_of!(st_metadata_options, sync)], [8, 12]);
    assert_eq!([offset_of!(st_metadata_options, merge), size_of::<st_output>()], [16, 24]);
    assert_eq!(
        [size_of::<st_load_item>(), size_of::<st_sink>(), size_of::<st_load_options>(), size_of::<st_plan>()],
        [112, 56, 80, 112]
    );
    assert_eq!([size_of::<st_transform>(), size_of::<st_piece>()], [40, 48]);
    assert_eq!([offset_of!(st_load_item, dst), offset_of!(st_load_item, part)], [32, 64]);
    assert_eq!(
        [offset_of!(st_sink, chunk), offset_of!(st_load_options, sink), offset_of!(st_plan, threads)],
        [24, 48, 40]
    );
    assert_eq!([offset_of!(st_buffer, data), offset_of!(st_buffer, size)], [0, 8]);
    assert_eq!([size_of::<st_problem>(), offset_of!(st_problem, position), offset_of!(st_problem, text)], [88, 8, 48]);
}

#[test]
fn callers_with_shorter_and_longer_structs_are_served() {
    let program = scratch("struct_size").join("program");
    build_program(&[&root().join("tests/contract/abi/struct_size.c")], &root().join("include"), &program);
    run(&mut Command::new(program));
}

#[test]
fn programs_of_older_headers_run_with_the_library_of_today() {
    let out = scratch("frozen");
    let mut older = BTreeSet::new();
    for folder in frozen() {
        let program = out.join(folder.file_name().unwrap());
        build_program(&[&folder.join("client.c")], &folder, &program);
        run(Command::new(&program).arg(out.join("written.safetensors")));

        let functions = frozen_functions(&folder);
        let new: BTreeSet<_> = functions.difference(&older).cloned().collect();
        let nm = run(Command::new("nm").args(["-D", "--undefined-only", "-P"]).arg(&program));
        let called: BTreeSet<_> = nm.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        let missing: Vec<_> = new.difference(&called).collect();
        assert!(missing.is_empty(), "new in {} and not called by its client.c: {missing:?}", folder.display());
        older = functions;
    }
}

/// The functions that the headers of a frozen folder declare.
fn frozen_functions(folder: &Path) -> BTreeSet<String> {
    let paths = HEADERS.map(|header| folder.join(header));
    let headers = paths.iter().filter(|path| path.exists()).map(|path| Header::read(path.to_str().unwrap()));
    headers.flat_map(|header| header.functions().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// What the compiler made, where the other tests look at what the header says.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn abidiff_finds_nothing_gone_or_changed() {
    if !exists("abidiff") || !exists("abidw") {
        eprintln!("not tried: abidiff and abidw are not installed (the package is abigail-tools)");
        return;
    }
    run(Command::new(env!("CARGO"))
        .args(["rustc", "--lib", "--crate-type", "cdylib", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(cargo_target())
        .env("CARGO_PROFILE_DEV_DEBUG", "2")
        .env_remove("CARGO_BUILD_TARGET"));
    let library = cargo_target().join("debug/libsafetensors.so");
    let tool = |name: &str| {
        let mut command = Command::new(name);
        command.arg("--suppressions").arg(root().join("tests/contract/abi/opaque.suppr"));
        command
    };
    if std::env::var_os("SAFETENSORS_WRITE_SYMBOLS").is_some() {
        let options = ["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--no-parameter-names"];
        let dump = run(tool("abidw").args(options).arg("--no-elf-needed").arg(&library));
        fs::write(frozen().pop().unwrap().join("library.abi"), anonymous(&dump)).unwrap();
    }
    // A version has its dump from its release on.
    for folder in frozen().iter().filter(|folder| folder.join("library.abi").exists()) {
        run(tool("abidiff").arg("--no-added-syms").arg(folder.join("library.abi")).arg(&library));
    }
}

#[test]
fn the_newest_frozen_header_has_all_that_is_exported() {
    let folder = frozen().pop().unwrap();
    let list = read("tests/contract/abi/symbols.txt");
    let why = format!("what is new has to be in {} and be called by its client.c", folder.display());
    assert_eq!(frozen_functions(&folder), list.lines().map(str::to_owned).collect(), "{why}");
}

#[test]
fn todays_header_still_says_all_that_older_ones_said() {
    for (folder, name) in frozen().iter().flat_map(|folder| HEADERS.map(|name| (folder.clone(), name))) {
        let path = folder.join(name);
        if !path.exists() {
            continue;
        }
        let today = Header::read(&format!("include/{name}"));
        let old = Header::read(path.to_str().unwrap());
        for constant in old.constants() {
            assert!(today.defines.contains(constant), "{}: {constant}", folder.display());
        }
        for declaration in &old.declarations {
            // Structs that know their size may have grown, and reserved room may have got names:
            // that no field has moved and no record has grown, tests/contract/abi/layout.c says.
            let fields = declaration.rsplit_once(" }").map(|(fields, _)| fields);
            let grown = fields.filter(|fields| fields.contains("{ size_t struct_size;"));
            let named = fields.and_then(|fields| Some(fields.rsplit_once(" uint64_t reserved[")?.0));
            let grown = grown.or(named);
            let stands = today.declarations.iter().any(|now| match grown {
                Some(fields) => now.starts_with(fields),
                None => now == declaration,
            });
            assert!(stands, "{}: {declaration}", folder.display());
        }
    }
}

/// What abidw says, with numbers for the paths of what was compiled, and without the units that add nothing.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn anonymous(dump: &str) -> String {
    let mut units = dump.split("  <abi-instr ");
    let mut text = units.next().unwrap().to_owned();
    for (number, unit) in units.enumerate() {
        let (start, content) = unit.split_once(">\n").unwrap();
        match content.strip_prefix("  </abi-instr>\n") {
            Some(end) => text.push_str(end),
            None => {
                let (_, language) = start.split_once("' language=").unwrap();
                text.push_str(&format!(
                    "  <abi-instr address-size='64' path='{number}' language={language}>\n{content}"
                ));
            }
        }
    }
    text
}

/// The folders of frozen headers, by version.
fn frozen() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/contract/abi")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort_by_key(|path| {
        let version = path.file_name().unwrap().to_str().unwrap();
        version.split('.').map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>()
    });
    assert!(!folders.is_empty());
    folders
}

/// Calls with each compiler, language and standard.
fn for_each_standard(mut check: impl FnMut(&str, &str, &str)) {
    for (c, cxx) in compilers() {
        for standard in ["c99", "c11", "c17"] {
            check(c, "c", standard);
        }
        for standard in ["c++11", "c++17", "c++20"] {
            check(cxx, "c++", standard);
        }
    }
}

fn strict(compiler: &str, language: &str, standard: &str) -> Command {
    let mut command = Command::new(compiler);
    command.args(["-x", language, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    command.arg(format!("-std={standard}")).arg("-I").arg(root().join("include"));
    command
}

/// A header without its comments, taken apart.
struct Header {
    /// `NAME value`
    defines: Vec<String>,
    /// Functions, structs and types: one line each, single spaces, without `;`.
    declarations: Vec<String>,
}

impl Header {
    fn read(path: &str) -> Self {
        let mut text = read(path).replace("\\\n", " ");
        while let Some((before, rest)) = text.split_once("/*") {
            text = format!("{before}{}", rest.split_once("*/").unwrap().1);
        }
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let (directives, code): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with('#'));
        let defines = directives.iter().filter_map(|line| line.strip_prefix("#define "));
        let code = code.join(" ").replace("extern \"C\" {", "");

        let mut declarations = vec![String::new()];
        let mut depth = 0;
        for piece in code.split_inclusive(['{', '}', ';']) {
            depth += i32::from(piece.ends_with('{')) - i32::from(piece.ends_with('}'));
            declarations.last_mut().unwrap().push_str(piece);
            if depth == 0 && piece.ends_with(';') {
                declarations.push(String::new());
            }
        }
        declarations.pop(); // what ends extern "C"
        let one_line = |text: String| text.trim_end_matches(';').split_whitespace().collect::<Vec<_>>().join(" ");
        let declarations: Vec<_> = declarations.into_iter().map(one_line).collect();
        Self { defines: defines.map(str::to_owned).collect(), declarations }
    }

    fn functions(&self) -> impl Iterator<Item = &str> {
        let functions = self.declarations.iter().filter_map(|text| text.strip_prefix("ST_API "));
        functions.filter_map(|text| name(text.split('(').next()?))
    }

    /// What may not change: all but the version and what depends on struct sizes.
    fn constants(&self) -> impl Iterator<Item = &String> {
        let fixed = |line: &&String| line.starts_with("ST_") && !line.starts_with("ST_API") && !line.contains("_INIT ");
        self.defines.iter().filter(fixed)
    }

    fn initialisers(&self) -> impl Iterator<Item = &str> {
        self.defines.iter().filter_map(|line| Some(line.split_once(" {")?.0.trim_end()))
    }

    /// Structs with fields, and their names.
    fn structs(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        let structs =
            self.declarations.iter().filter_map(|text| text.strip_prefix("typedef struct ")?.split_once(" { "));
        structs.map(|(name, body)| (name, body.split("; ").filter_map(field).collect()))
    }
}

/// The name that a field's declaration gives: `T *name`, `T name[2]`, `T (*name)(...)`.
fn field(declaration: &str) -> Option<&str> {
    match declaration.split_once("(*") {
        _ if declaration.starts_with('}') => None,
        Some((_, function)) => function.split(')').next(),
        None => name(declaration.split('[').next()?),
    }
}

fn name(declaration: &str) -> Option<&str> {
    Some(declaration.split(' ').next_back()?.trim_start_matches('*'))
}
