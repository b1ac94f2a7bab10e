// SPDX-License-Identifier: Apache-2.0
//! The library as others get it: installed with CMake, moved, and used from
//! CMake, from pkg-config, and as a part of another project.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::released::{cargo_target, exists, root, run, scratch};

/// What every consumer's program prints.
const SAID: &str = concat!("libsafetensors ", env!("CARGO_PKG_VERSION"), ": x is U8 of 3\n");

const NEEDS: &[(&str, &str)] = &[
    ("cmake", "CMake 3.16 or newer"),
    ("cc", "a C compiler"),
    ("c++", "a C++ compiler"),
    ("pkg-config", "pkg-config"),
    ("make", "make"),
];

/// Has rustc say what its archives need. (C compilers add libc and libgcc_s by themselves.)
const NATIVE_LIBS: &str = "rustc --crate-type staticlib --print native-static-libs -o \"$OUT\" - </dev/null 2>&1 \
    | sed -n 's/.*native-static-libs: //p'";

/// A CMake project, to be built in `out`.
fn project(source: &Path, out: &Path) -> cmake::Config {
    for (program, what) in NEEDS {
        assert!(exists(program), "this test needs {what}: {program} was not found");
    }
    let host = run(Command::new("rustc").arg("-vV"));
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let mut config = cmake::Config::new(source);
    config.host(host).target(host).profile("Release").out_dir(out).generator("Unix Makefiles");
    config.define("SAFETENSORS_CARGO_TARGET_DIR", cargo_target()).configure_arg("--no-warn-unused-cli");
    config.cflag("-Wall -Wextra -Wpedantic -Werror").cxxflag("-Wall -Wextra -Wpedantic -Werror");
    config
}

/// Builds a consumer's programs; returns the folder they are in.
fn consumer(name: &str, out: &Path, configure: impl FnOnce(&mut cmake::Config)) -> PathBuf {
    let mut config = project(&root().join("tests/product/consumers").join(name), &out.join(name));
    configure(&mut config);
    config.build_target("all").build().join("build")
}

fn check_programs(folder: &Path) {
    assert_eq!(run(&mut Command::new(folder.join("shared"))), SAID);
    assert_eq!(run(&mut Command::new(folder.join("static"))), SAID);
    assert!(needed(&folder.join("shared")).contains("libsafetensors.so.0"));
    assert!(!needed(&folder.join("static")).contains("libsafetensors"));
}

/// What the dynamic section of a program says.
fn needed(program: &Path) -> String {
    run(Command::new("readelf").arg("-d").arg(program))
}

/// Installs, and moves what was installed.
fn moved_install(out: &Path) -> PathBuf {
    let installed = project(root(), &out.join("installed")).build();
    let moved = out.join("moved to here");
    fs::create_dir(&moved).unwrap();
    for part in ["include", "lib", "share"] {
        fs::rename(installed.join(part), moved.join(part)).unwrap();
    }
    fs::remove_dir_all(installed).unwrap();
    moved
}

#[test]
fn an_install_that_was_moved_serves_examples_and_consumers() {
    let out = scratch("install");
    let prefix = moved_install(&out);
    let lib = prefix.join("lib");
    let links = ["libsafetensors.so", "libsafetensors.so.0"].map(|name| fs::read_link(lib.join(name)).unwrap());
    let file = concat!("libsafetensors.so.", env!("CARGO_PKG_VERSION"));
    assert_eq!(links, [Path::new("libsafetensors.so.0"), Path::new(file)]);
    assert!(fs::symlink_metadata(lib.join(file)).unwrap().is_file());
    assert_eq!(
        fs::read(prefix.join("share/doc/safetensors/LICENSE")).unwrap(),
        fs::read(root().join("LICENSE")).unwrap()
    );

    examples(&prefix, &out);
    let programs = consumer("find_package", &out, |config| {
        config.define("CMAKE_PREFIX_PATH", &prefix).define("WANTED_VERSION", env!("CARGO_PKG_VERSION"));
    });
    check_programs(&programs);
    let programs = consumer("find_package_cpp", &out, |config| {
        config.define("CMAKE_PREFIX_PATH", &prefix);
    });
    check_programs(&programs);
    pkg_config(&lib, &out);
    beside_another_rust_archive(&prefix, &out);
}

fn examples(prefix: &Path, out: &Path) {
    let mut config = project(&root().join("examples"), &out.join("examples"));
    let programs = config.define("CMAKE_PREFIX_PATH", prefix).build_target("all").build().join("build");
    let data = root().join("examples/data");
    let model = data.join("silero_vad_16k.safetensors");
    let inspect = run(Command::new(programs.join("inspect")).arg(&model));
    assert!(inspect.contains(" tensors in 1 file\n"), "{inspect}");
    let check = |flags: &[&str], path: &Path| {
        let output = Command::new(programs.join("inspect")).arg("--check").args(flags).arg(path).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check(&[], &model);
    assert!(code == Some(0) && said.ends_with(": 0 problems: opens\n"), "{said}");
    let trailing = root().join("tests/corpus/files/end-extra-4.safetensors");
    let (code, said) = check(&[], &trailing);
    assert!(code == Some(1) && said.contains(": fatal unless tolerated: ST_ERROR_DATA_NOT_COVERED: "), "{said}");
    let (code, said) = check(&["--tolerate"], &trailing);
    assert!(code == Some(0) && said.ends_with(": 1 problem: opens\n"), "{said}");
    let half = out.join("half.safetensors");
    run(Command::new(programs.join("to_bf16")).arg(&model).arg(&half));
    halved(&inspect, &run(Command::new(programs.join("inspect")).arg(&half)));
    let sound = data.join("speech.wav");
    let vad = run(Command::new(programs.join("vad")).arg(&model).arg(&sound));
    assert!(vad.contains("of speech in "), "{vad}");
    let ours = run(Command::new(programs.join("vad")).arg(&model).arg(&sound).arg("--probabilities"));
    let reference = fs::read_to_string(data.join("vad_reference.txt")).unwrap();
    same_probabilities(&ours, &reference);

    let of_windows = |said: &str| said.lines().take_while(|line| !line.contains(" windows in ")).count();
    let vad_cpp = run(Command::new(programs.join("vad_cpp")).arg(&model).arg(&sound));
    let alike = vad.lines().zip(vad_cpp.lines()).take(of_windows(&vad)).all(|(c, cpp)| c == cpp);
    assert!(alike && of_windows(&vad) == of_windows(&vad_cpp), "{vad}{vad_cpp}");
    let ours = run(Command::new(programs.join("vad_cpp")).arg(&model).arg(&sound).arg("--probabilities"));
    same_probabilities(&ours, &reference);
    let loaded = run(Command::new(programs.join("load")).arg(&model).args(["--to", "BF16", "--device"]));
    assert!(loaded.starts_with("15 tensors in 1 files: 619266 bytes in memory, 1238532 to read (0 of them in gaps)\n"));
    assert!(loaded.contains("\nloaded in "), "{loaded}");
    let device = run(Command::new(programs.join("device")).arg(&model).arg("1000"));
    assert_eq!(device, "15 tensors, 3 of them quantised: 672004 bytes on the device\n");
    onto_a_gpu(&programs.join("cuda"), &model, out);
    loaded_alike(&run(Command::new(programs.join("load_cpp")).arg(&model).arg("--list")), &{
        run(Command::new(programs.join("load_cpp")).arg(&half).args(["--list", "--threads", "3"]))
    });
}

/// The example for GPUs, on a driver that does each copy as late as it may, and with each
/// of its calls failing.
#[cfg(target_os = "linux")]
fn onto_a_gpu(cuda: &Path, model: &Path, out: &Path) {
    let driver = root().join("tests/product/cuda_stand_in.c");
    run(Command::new("cc")
        .args(["-std=c11", "-O1", "-fPIC", "-shared", "-o"])
        .arg(out.join("libcuda.so.1"))
        .arg(driver));
    let load = |model: &Path, flags: &str, fails: &str| {
        let mut command = Command::new(cuda);
        command.arg(model).args(flags.split_whitespace()).arg("--check").env("LD_LIBRARY_PATH", out);
        let output = command.env("STAND_IN_FAILS", fails).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let quantised = root().join("tests/model/quantised");
    for (model, flags) in [
        (model, "--rounds 2"),
        (model, "--threads 3 --buffers 2 --buffer-mb 1"),
        (model, "--to BF16 --mapped"),
        (&quantised.join("fp8-block-sharded"), "--decode --buffers 1 --buffer-mb 1"),
        (&quantised.join("gptq-4-v1-act"), "--decode --to F32 --threads 2"),
    ] {
        let (code, said, errors) = load(model, flags, "");
        assert!(code == Some(0) && said.contains("every result on the GPU is right\n"), "{flags}: {said}{errors}");
    }
    let calls = fs::read_to_string(root().join("examples/c/cuda.c")).unwrap();
    let calls = calls.split("{\"cu").skip(1).map(|rest| rest.split('"').next().unwrap());
    let calls = calls.filter(|call| !["GetErrorString", "DevicePrimaryCtxRelease_v2"].contains(call));
    for call in calls.filter(|call| !call.contains("Free") && !call.contains("Destroy")) {
        let (code, _, errors) = load(model, "", &format!("cu{call}"));
        let named = format!("cuda: ST_ERROR_OUT_OF_MEMORY: cu{}: out of memory\n", call.trim_end_matches("_v2"));
        assert!(code == Some(1) && errors == named, "{call}: {errors}");
    }
}

#[cfg(not(target_os = "linux"))]
fn onto_a_gpu(_: &Path, _: &Path, _: &Path) {}

/// Loaded as F32, a checkpoint and its half of BF16 hold the same tensors with
/// like sums, each at a multiple of 64 bytes.
fn loaded_alike(whole: &str, half: &str) {
    let rows = |said: &str, stored: &str| -> BTreeMap<String, f64> {
        let rows = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows = rows.filter(|cells| cells.len() == 5 && cells[1] == "F32" && cells[2] == stored);
        rows.map(|cells| {
            assert_eq!(cells[0].parse::<u64>().unwrap() % 64, 0);
            (cells[4].to_owned(), cells[3].parse().unwrap())
        })
        .collect()
    };
    let (whole, half) = (rows(whole, "F32"), rows(half, "BF16"));
    assert!(whole.len() == 15 && whole.keys().eq(half.keys()));
    for (name, sum) in &whole {
        assert!((sum - half[name]).abs() < 0.5 + sum.abs() / 100.0, "{name}: {sum} and {}", half[name]);
    }
}

/// By what `inspect` shows: every tensor, F32 before, is BF16 now, in half the bytes.
fn halved(before: &str, after: &str) {
    let totals = |text: &str, dtype: &str| -> [u64; 3] {
        let rows = text.lines().skip_while(|line| !line.ends_with("bytes"));
        let mut rows = rows.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|cells| cells.first() == Some(&dtype)).unwrap_or_else(|| panic!("no {dtype}: {text}"));
        [1, 2, 3].map(|cell| row[cell].replace(',', "").parse().unwrap())
    };
    let [tensors, elements, bytes] = totals(before, "F32");
    assert!(tensors == 15 && bytes == elements * 4 && totals(before, "all") == [tensors, elements, bytes]);
    assert_eq!(totals(after, "BF16"), [tensors, elements, bytes / 2]);
    assert_eq!(totals(after, "all"), [tensors, elements, bytes / 2]);
}

/// The network's output is that of an independent pass over the same weights
/// (data/vad_reference.py), to the rounding of F32 sums.
fn same_probabilities(ours: &str, reference: &str) {
    let numbers = |text: &str| -> Vec<f64> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split_whitespace().last().unwrap().parse().unwrap()).collect()
    };
    let (ours, reference) = (numbers(ours), numbers(reference));
    assert_eq!(ours.len(), reference.len());
    assert!(reference.iter().any(|p| *p > 0.9) && reference.iter().any(|p| *p < 0.1));
    for (window, (ours, reference)) in ours.iter().zip(&reference).enumerate() {
        assert!((ours - reference).abs() < 1e-5, "window {window}: {ours}, not {reference}");
    }
}

/// Compiles with what pkg-config says, as a Makefile would, and runs.
fn pkg_config(lib: &Path, out: &Path) {
    let flags = |arguments: &str| {
        let said =
            run(Command::new("pkg-config").args(arguments.split(' ')).env("PKG_CONFIG_PATH", lib.join("pkgconfig")));
        said.trim().to_owned()
    };
    assert_eq!(flags("--modversion safetensors"), env!("CARGO_PKG_VERSION"));
    let build = |name: &str, flags: &str| {
        let program = out.join(name);
        let main = root().join("tests/product/consumers/main.c");
        // Through a shell, since flags come quoted for one.
        let line = format!("cc -Wall -Wextra -Werror '{}' -o '{}' {flags}", main.display(), program.display());
        run(Command::new("sh").args(["-c", &line]));
        assert_eq!(run(Command::new(&program).env("LD_LIBRARY_PATH", lib)), SAID);
        needed(&program)
    };
    assert!(build("shared", &flags("--cflags --libs safetensors")).contains("libsafetensors.so.0"));
    // --static adds what the archive needs; which of the two libraries is
    // linked is the linker's business. safetensors-static names the archive.
    let archive = flags("--cflags --libs --static safetensors");
    let rustc = run(Command::new("sh").args(["-c", NATIVE_LIBS]).env("OUT", out.join("empty.a")));
    for name in rustc.split_whitespace().filter(|name| !["-lc", "-lgcc_s"].contains(name)) {
        assert!(archive.split(' ').any(|flag| flag == name), "{name} of {rustc} is not in: {archive}");
    }
    assert!(!build("static", &format!("-static {archive}")).contains("NEEDED"));
    assert!(!build("archive", &flags("--cflags --libs safetensors-static")).contains("libsafetensors"));

    let main = root().join("tests/product/consumers/main.cpp");
    let program = out.join("cpp");
    let (main, binary, flags) = (main.display(), program.display(), flags("--cflags --libs safetensors"));
    run(Command::new("sh")
        .args(["-c", &format!("c++ -std=c++17 -Wall -Wextra -Werror '{main}' -o '{binary}' {flags}")]));
    assert_eq!(run(Command::new(&program).env("LD_LIBRARY_PATH", lib)), SAID);
}

/// An archive of Rust's has Rust's standard library in it. A program links two of
/// them, in either order, as ours shows nothing but its functions.
fn beside_another_rust_archive(prefix: &Path, out: &Path) {
    let ours = prefix.join("lib/libsafetensors.a");
    let symbols = run(Command::new("nm").args(["-g", "--defined-only", "-P"]).arg(&ours));
    let symbols = symbols.lines().filter(|line| !line.is_empty() && !line.ends_with(':'));
    let symbols: BTreeSet<_> = symbols.filter_map(|line| line.split(' ').next()).collect();
    let list = fs::read_to_string(root().join("tests/contract/abi/symbols.txt")).unwrap();
    assert_eq!(symbols, list.lines().collect());

    let (folder, other) = (root().join("tests/product/two_archives"), out.join("libother.a"));
    run(Command::new("rustc")
        .args(["-O", "--crate-type", "staticlib"])
        .arg(folder.join("other.rs"))
        .arg("-o")
        .arg(&other));
    for order in [[&ours, &other], [&other, &ours]] {
        let program = out.join("two_archives");
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Werror"]).arg(folder.join("main.c")).arg("-I").arg(prefix.join("include")).args(order);
        run(cc.args(["-pthread", "-lm", "-ldl", "-o"]).arg(&program));
        assert_eq!(run(&mut Command::new(program)), "ST_ERROR_TRUNCATED, 6, 7\n");
    }
}

#[test]
fn it_can_be_a_part_of_another_project() {
    let out = scratch("part");
    let programs = consumer("add_subdirectory", &out, |config| {
        config.define("SAFETENSORS_SOURCE", root());
        // Ninja wants to know of every file where it comes from.
        if exists("ninja") {
            config.generator("Ninja");
        }
    });
    check_programs(&programs);
    run(Command::new("cmake").arg("--install").arg(&programs).arg("--prefix").arg(out.join("prefix")));
    let installed: Vec<_> = fs::read_dir(out.join("prefix")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(installed, ["bin"], "another project's install gives its own files only");
    run(Command::new("cmake").arg("-DSAFETENSORS_INSTALL=ON").arg(&programs));
    run(Command::new("cmake").arg("--build").arg(&programs));
    run(Command::new("cmake").arg("--install").arg(&programs).arg("--prefix").arg(out.join("with it")));
    assert_eq!(run(&mut Command::new(out.join("with it/bin/shared"))), SAID);

    let programs = consumer("fetch_content", &out, |config| {
        config.define("FETCHCONTENT_SOURCE_DIR_SAFETENSORS", root());
    });
    check_programs(&programs);
}
