// SPDX-License-Identifier: Apache-2.0
//! Opening and looking up, beside the crate `safetensors`, through the C
//! functions that a C program calls.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libsafetensors_benches::{medians, peak_memory, show};
use memmap2::Mmap;
use reference::SafeTensors;
use safetensors::ffi::{st_find_tensor, st_tensors};
use safetensors::ffi::{st_free, st_open};

struct Case {
    path: PathBuf,
    names: Vec<String>,
    header: u64,
    rounds: usize,
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if let Some(path) = arguments.next() {
        let path = CString::new(path.as_encoded_bytes()).expect("no NUL");
        println!("{}", peak_memory(|| open_ours(&path)));
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cases = [
        write(folder.path(), "model.safetensors", &llama(), "BF16", &[4096, 4096], 301),
        write(folder.path(), "experts.safetensors", &experts(100_000), "BF16", &[16, 8], 21),
        write(folder.path(), "million.safetensors", &flat(1_000_000), "F32", &[4, 4], 7),
    ];

    println!("open + parse + free, warm; medians\n");
    println!(
        "{:>9} {:>10} {:>11} {:>11} {:>7}   {:>9} {:>12} {:>12}",
        "tensors", "header", "ours", "crate", "ratio", "read only", "peak memory", "per header"
    );
    for case in &cases {
        let path = CString::new(case.path.to_str().expect("UTF-8")).expect("no NUL");
        let times = medians(
            case.rounds,
            &mut [&mut || open_ours(&path), &mut || open_crate(&case.path), &mut || {
                read_header(&case.path, case.header)
            }],
        );
        let peak = peak_in_fresh_process(&case.path);
        println!(
            "{:>9} {:>7} kB {:>11} {:>11} {:>6.1}x   {:>9} {:>9} kB {:>11.2}x",
            case.names.len(),
            case.header / 1000,
            show(times[0]),
            show(times[1]),
            times[1].as_secs_f64() / times[0].as_secs_f64(),
            show(times[2]),
            peak / 1000,
            peak as f64 / case.header as f64,
        );
    }

    let (indexed, plain) = sharded(folder.path(), &experts(222_747), 66);
    let processor = |path: &Path| {
        let path = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
        let mut times: Vec<_> = (0..15).map(|_| processor_time(|| open_ours(&path))).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (with, without) = (processor(&indexed), processor(&plain));
    println!("\nopen + free of 222,747 tensors in 66 shards, warm; median of processor time\n");
    println!("{:>11} {:>11} {:>11}", "with index", "without", "the index");
    println!("{:>11} {:>11} {:>11}", show(with), show(without), show(with.saturating_sub(without)));

    println!("\nlookup by name, each name once in random order, the caller's own strings; medians\n");
    println!("{:>9} {:>11} {:>11} {:>7}", "tensors", "ours", "crate", "ratio");
    for case in &cases {
        let (ours, theirs) = lookups(case);
        println!(
            "{:>9} {:>11} {:>11} {:>6.1}x",
            case.names.len(),
            show(ours),
            show(theirs),
            theirs.as_secs_f64() / ours.as_secs_f64()
        );
    }
}

/// A model in shards, in a folder with its index and in one without.
fn sharded(folder: &Path, names: &[String], shards: usize) -> (PathBuf, PathBuf) {
    let folders = ["indexed", "series"].map(|name| folder.join(name));
    folders.iter().for_each(|folder| std::fs::create_dir(folder).expect("create"));
    let mut map = Vec::new();
    for (part, number) in names.chunks(names.len().div_ceil(shards)).zip(1..) {
        let file = format!("model-{number:05}-of-{shards:05}.safetensors");
        write(&folders[0], &file, part, "BF16", &[1, 2], 0);
        std::fs::hard_link(folders[0].join(&file), folders[1].join(&file)).expect("link");
        map.extend(part.iter().map(|name| format!("\"{name}\": \"{file}\"")));
    }
    // By name, as writers sort it.
    map.sort_unstable();
    let index = format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", map.join(", "));
    std::fs::write(folders[0].join("model.safetensors.index.json"), index).expect("write");
    let [indexed, series] = folders;
    (indexed, series)
}

/// What all threads of this process take for some work.
fn processor_time(work: impl FnOnce()) -> Duration {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the clock is written to the struct.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = now();
    work();
    now() - start
}

fn open_ours(path: &CStr) {
    // SAFETY: a C string, and a handle freed once.
    unsafe {
        let checkpoint = st_open(path.as_ptr(), std::ptr::null_mut());
        assert!(!checkpoint.is_null());
        black_box(st_tensors(checkpoint, std::ptr::null_mut()));
        st_free(checkpoint);
    }
}

fn open_crate(path: &Path) {
    let file = File::open(path).expect("open");
    // SAFETY: nobody writes the file meanwhile.
    let map = unsafe { Mmap::map(&file) }.expect("map");
    black_box(SafeTensors::deserialize(&map).expect("parse"));
}

/// Peak memory of one open, in a process that has opened nothing before.
fn peak_in_fresh_process(path: &Path) -> u64 {
    let own = std::env::current_exe().expect("own path");
    let output = std::process::Command::new(own).arg(path).output().expect("run");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// The machine's own limit: the header's bytes in fresh memory.
fn read_header(path: &Path, header: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::open(path).expect("open");
    let mut text = vec![0; header as usize];
    file.read_exact_at(&mut text, 8).expect("read");
    black_box(text);
}

fn lookups(case: &Case) -> (Duration, Duration) {
    let mut names = case.names.clone();
    shuffle(&mut names);
    // Two sets of strings, so that neither contender warms the other's.
    let c_names: Vec<CString> = names.iter().map(|name| CString::new(name.as_str()).expect("no NUL")).collect();
    let file = File::open(&case.path).expect("open");
    // SAFETY: nobody writes the file meanwhile.
    let map = unsafe { Mmap::map(&file) }.expect("map");
    let theirs = SafeTensors::deserialize(&map).expect("parse");
    let path = CString::new(case.path.to_str().expect("UTF-8")).expect("no NUL");
    // SAFETY: a C string.
    let ours = unsafe { st_open(path.as_ptr(), std::ptr::null_mut()) };
    let repeat = (100_000 / names.len()).max(1);
    let times = medians(
        15,
        &mut [
            &mut || {
                for _ in 0..repeat {
                    for name in &c_names {
                        // SAFETY: a live handle and a C string.
                        let found = unsafe { st_find_tensor(ours, name.as_ptr()).as_ref() };
                        black_box(found.expect("found").size());
                    }
                }
            },
            &mut || {
                for _ in 0..repeat {
                    for name in &names {
                        black_box(theirs.tensor(name).expect("found").data().len());
                    }
                }
            },
        ],
    );
    // SAFETY: freed once.
    unsafe { st_free(ours) };
    let each = |time: Duration| time / u32::try_from(repeat * names.len()).expect("few");
    (each(times[0]), each(times[1]))
}

/// A header as the reference writes it over a data section that is a hole.
fn write(folder: &Path, file: &str, names: &[String], dtype: &str, shape: &[u64], rounds: usize) -> Case {
    let size = shape.iter().product::<u64>() * if dtype == "F32" { 4 } else { 2 };
    let mut header = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    for (name, number) in names.iter().zip(0..) {
        let (begin, end) = (number * size, (number + 1) * size);
        header += &format!(
            ",\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":[{},{}],\"data_offsets\":[{begin},{end}]}}",
            shape[0], shape[1]
        );
    }
    header += "}";
    header += &" ".repeat((8 - header.len() % 8) % 8);
    let path = folder.join(file);
    let mut out = File::create(&path).expect("create");
    out.write_all(&(header.len() as u64).to_le_bytes()).expect("write");
    out.write_all(header.as_bytes()).expect("write");
    out.set_len(8 + header.len() as u64 + names.len() as u64 * size).expect("extend");
    Case { path, names: names.to_vec(), header: header.len() as u64, rounds }
}

/// The 291 tensors of a Llama of 32 layers.
fn llama() -> Vec<String> {
    let parts = [
        "input_layernorm",
        "mlp.down_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "post_attention_layernorm",
        "self_attn.k_proj",
        "self_attn.o_proj",
        "self_attn.q_proj",
        "self_attn.v_proj",
    ];
    let layers = (0..32).flat_map(|layer| parts.map(|part| format!("model.layers.{layer}.{part}.weight")));
    ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]
        .map(String::from)
        .into_iter()
        .chain(layers)
        .collect()
}

/// A mixture of experts.
fn experts(count: usize) -> Vec<String> {
    let parts = ["down_proj", "gate_proj", "up_proj"];
    (0..count)
        .map(|i| format!("model.layers.{}.mlp.experts.{}.{}.weight", i / 768, i / 3 % 256, parts[i % 3]))
        .collect()
}

/// As many as a header of 100 MB can hold.
fn flat(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("blk.{}.ffn.{}.w", i / 1000, i % 1000)).collect()
}

fn shuffle(names: &mut [String]) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for i in (1..names.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        names.swap(i, (state >> 33) as usize % (i + 1));
    }
}
