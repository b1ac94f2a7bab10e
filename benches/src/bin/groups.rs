// SPDX-License-Identifier: Apache-2.0
//! Decoding quantised groups to BF16 beside memset and, where BENCH_PYTHON names a python
//! that has them, the formats' own libraries (benches/groups_peers.py, on the same files).
//!
//!     groups [NAME]          only those whose name holds NAME
//!
//! Each is one weight of 4096 x 4096, warm. GB/s count what is written. CPU is the least CPU
//! time of one thread, which a busy machine disturbs less, and AVX2 the same without AVX-512;
//! /memset is the middle of ratios of CPU time taken in turn. Then, from a file in the page
//! cache: its members read as they are, decoded out of memory, and both as one load; by CPU
//! time on one thread, by the clock on two, and the middle of ratios taken in turn.

use std::path::Path;
use std::time::{Duration, Instant};

use libsafetensors_benches::medians;
use safetensors::load::{load, Assembly, Caller, Item, LoadOptions, Memory, Origin};
use safetensors::model::groups::{without_avx512, Groups, GroupsOptions};
use safetensors::{record, Checkpoint, Dtype, OpenOptions};

const SIDE: usize = 4096;
const ROUNDS: usize = 7;

/// Bytes that a tensor is filled with.
#[derive(Clone)]
enum Fill {
    /// Any bits.
    Random,
    /// F16, BF16 or F32 around 1/64.
    Scales,
    /// Each byte from this range.
    Bytes(u8, u8),
    Exactly(Vec<u8>),
}

struct Tensor {
    name: &'static str,
    dtype: &'static str,
    shape: Vec<usize>,
    fill: Fill,
}

fn tensor(name: &'static str, dtype: &'static str, shape: &[usize], fill: Fill) -> Tensor {
    Tensor { name, dtype, shape: shape.to_vec(), fill }
}

fn cases() -> Vec<(&'static str, &'static str, Vec<Tensor>)> {
    let shape = Fill::Exactly([SIDE as u64, SIDE as u64].iter().flat_map(|size| size.to_le_bytes()).collect());
    let state = format!(r#"{{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [{SIDE}, {SIDE}]}}"#);
    let one = Fill::Exactly(0.5_f32.to_le_bytes().to_vec());
    let map = (0..16_u8).flat_map(|code| (f32::from(code) / 8.0 - 1.0).to_le_bytes()).collect();
    let pack = |symmetric: bool| {
        let text = format!(
            r#"{{"quantization_config": {{"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {{"group_0": {{"targets": ["Linear"], "weights": {{"num_bits": 4, "type": "int", "symmetric": {symmetric}, "strategy": "group", "group_size": 128}}}}}}}}}}"#
        );
        &*text.leak()
    };
    let gptq = r#"{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": false}}"#;
    let awq = r#"{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}}"#;
    let fp8 = r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#;
    let mlx = r#"{"quantization": {"bits": 4, "group_size": 64}}"#;
    let mx = r#"{"quantization_config": {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}}"#;
    let nv = r#"{"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}"#;
    vec![
        (
            "ct-pack 4 bit, groups of 128",
            pack(true),
            vec![
                tensor("m.weight_packed", "I32", &[SIDE, SIDE / 8], Fill::Random),
                tensor("m.weight_scale", "BF16", &[SIDE, SIDE / 128], Fill::Scales),
                tensor("m.weight_shape", "I64", &[2], shape.clone()),
            ],
        ),
        (
            "ct-pack 4 bit, asymmetric",
            pack(false),
            vec![
                tensor("m.weight_packed", "I32", &[SIDE, SIDE / 8], Fill::Random),
                tensor("m.weight_scale", "BF16", &[SIDE, SIDE / 128], Fill::Scales),
                tensor("m.weight_zero_point", "I32", &[SIDE / 8, SIDE / 128], Fill::Random),
                tensor("m.weight_shape", "I64", &[2], shape),
            ],
        ),
        (
            "gptq 4 bit, groups of 128",
            gptq,
            vec![
                tensor("m.qweight", "I32", &[SIDE / 8, SIDE], Fill::Random),
                tensor("m.qzeros", "I32", &[SIDE / 128, SIDE / 8], Fill::Random),
                tensor("m.scales", "F16", &[SIDE / 128, SIDE], Fill::Scales),
            ],
        ),
        (
            "awq-gemm, groups of 128",
            awq,
            vec![
                tensor("m.qweight", "I32", &[SIDE, SIDE / 8], Fill::Random),
                tensor("m.qzeros", "I32", &[SIDE / 128, SIDE / 8], Fill::Random),
                tensor("m.scales", "F16", &[SIDE / 128, SIDE], Fill::Scales),
            ],
        ),
        (
            "fp8-block 128x128",
            fp8,
            vec![
                tensor("m.weight", "F8_E4M3", &[SIDE, SIDE], Fill::Bytes(0, 0x7e)),
                tensor("m.weight_scale_inv", "F32", &[SIDE / 128, SIDE / 128], Fill::Scales),
            ],
        ),
        (
            "mxfp4-ct",
            mx,
            vec![
                tensor("m.weight_packed", "U8", &[SIDE, SIDE / 2], Fill::Random),
                tensor("m.weight_scale", "U8", &[SIDE, SIDE / 32], Fill::Bytes(115, 135)),
            ],
        ),
        (
            "nvfp4-modelopt",
            nv,
            vec![
                tensor("m.weight", "U8", &[SIDE, SIDE / 2], Fill::Random),
                tensor("m.weight_scale", "F8_E4M3", &[SIDE, SIDE / 16], Fill::Bytes(0x28, 0x50)),
                tensor("m.weight_scale_2", "F32", &[], one),
            ],
        ),
        (
            "mlx-affine 4 bit, groups of 64",
            mlx,
            vec![
                tensor("m.weight", "U32", &[SIDE, SIDE / 8], Fill::Random),
                tensor("m.scales", "BF16", &[SIDE, SIDE / 64], Fill::Scales),
                tensor("m.biases", "BF16", &[SIDE, SIDE / 64], Fill::Scales),
            ],
        ),
        (
            "bnb-nf4",
            "{}",
            vec![
                tensor("m.weight", "U8", &[SIDE * SIDE / 2, 1], Fill::Random),
                tensor("m.weight.absmax", "F32", &[SIDE * SIDE / 64], Fill::Scales),
                tensor("m.weight.quant_map", "F32", &[16], Fill::Exactly(map)),
                tensor(
                    "m.weight.quant_state.bitsandbytes__nf4",
                    "U8",
                    &[state.len()],
                    Fill::Exactly(state.into_bytes()),
                ),
            ],
        ),
        (
            "bnb-int8",
            "{}",
            vec![tensor("m.weight", "I8", &[SIDE, SIDE], Fill::Random), tensor("m.SCB", "F32", &[SIDE], Fill::Scales)],
        ),
    ]
}

/// A file of these tensors.
fn file(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data, mut seed) = (String::from("{"), Vec::new(), 1_u64);
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    for tensor in tensors {
        let width = match tensor.dtype {
            "I64" => 8,
            "I32" | "U32" | "F32" => 4,
            "BF16" | "F16" => 2,
            _ => 1,
        };
        let count: usize = tensor.shape.iter().product();
        let start = data.len();
        match &tensor.fill {
            Fill::Random => (0..count * width / 4).for_each(|_| data.extend(random().to_le_bytes())),
            Fill::Bytes(low, high) => {
                (0..count).for_each(|_| data.push(low + (random() % u32::from(high - low)) as u8))
            }
            Fill::Scales => (0..count).for_each(|_| {
                let bits = random();
                match tensor.dtype {
                    "F32" => data.extend((0x3c80_0000 | bits & 0x7f_ffff).to_le_bytes()),
                    "BF16" => data.extend((0x3c80 | bits as u16 & 0x7f).to_le_bytes()),
                    _ => data.extend((0x2400 | bits as u16 & 0x3ff).to_le_bytes()),
                }
            }),
            Fill::Exactly(bytes) => data.extend(bytes),
        }
        let comma = if header.len() > 1 { "," } else { "" };
        let (name, dtype, shape) = (tensor.name, tensor.dtype, &tensor.shape);
        let end = data.len();
        header += &format!(r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#);
    }
    header.push('}');
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// The CPU time of this thread that a run takes.
fn once(work: &mut dyn FnMut()) -> Duration {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writable.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = now();
    work();
    now() - start
}

fn elapsed(work: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The least of some runs.
fn cpu_time(work: &mut dyn FnMut()) -> Duration {
    work();
    (0..2 * ROUNDS).map(|_| once(work)).min().unwrap()
}

/// The time to list the groups of a checkpoint of 100,000 tensors, of which a
/// quarter are codes.
fn listing() -> Duration {
    let (mut header, mut at) = (String::from("{"), 0);
    for layer in 0..25_000 {
        let tensors = [
            ("qweight", "I32", "[8,16]", 512),
            ("qzeros", "I32", "[2,2]", 16),
            ("scales", "F16", "[2,16]", 64),
            ("g_idx", "I32", "[64]", 256),
        ];
        for (name, dtype, shape, size) in tensors {
            let comma = if at == 0 { "" } else { "," };
            let end = at + size;
            header += &format!(
                r#"{comma}"model.layers.{layer}.mlp.up_proj.{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{at},{end}]}}"#
            );
            at = end;
        }
    }
    header.push('}');
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    bytes.resize(bytes.len() + at, 0);
    let config = r#"{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": false}}"#;
    let checkpoint = Checkpoint::open_memory(bytes.leak(), &OpenOptions::default()).unwrap();
    let options = GroupsOptions { config: Some(config.as_bytes()), ..GroupsOptions::default() };
    cpu_time(&mut || assert_eq!(Groups::open(&checkpoint, &options).unwrap().list().len(), 25_000))
}

/// What is measured of one checkpoint.
struct Bench<'a> {
    checkpoint: &'a Checkpoint,
    assembly: &'a dyn Assembly,
    /// Each member's bytes, and room for them.
    members: Vec<(&'a record::Tensor, Vec<u8>)>,
}

impl<'a> Bench<'a> {
    fn new(checkpoint: &'a Checkpoint, assembly: &'a dyn Assembly) -> Self {
        let room = |tensor: &record::Tensor| vec![1; usize::try_from(tensor.size()).unwrap()];
        let members = checkpoint.tensors().iter().map(|tensor| (tensor, room(tensor))).collect();
        Self { checkpoint, assembly, members }
    }

    fn run(&self, items: &[Item<'_>], threads: usize) {
        load(
            self.checkpoint,
            &mut items.iter().copied(),
            &LoadOptions { threads, ..LoadOptions::default() },
            Caller::default(),
        )
        .unwrap();
    }

    /// The members as stored.
    fn read(&mut self, threads: usize) {
        let mut members = std::mem::take(&mut self.members);
        let items = members.iter_mut().map(|(tensor, room)| Item {
            of: Origin::Ranges(tensor, &[]),
            dtype: None,
            place: Memory::of(room),
            strides: None,
            transform: None,
        });
        let items: Vec<Item<'_>> = items.collect();
        self.run(&items, threads);
        drop(items);
        self.members = members;
    }

    fn decode(&self, threads: usize, dst: &mut [u8]) {
        let of = Origin::Group(self.assembly, &[]);
        let item = Item { of, dtype: Some(Dtype::Bf16), place: Memory::of(dst), strides: None, transform: None };
        self.run(&[item], threads);
    }
}

/// The middle ratio of the first one's CPU time to the second one's, taken in turn.
fn cpu_ratio(first: &mut dyn FnMut(), second: &mut dyn FnMut()) -> f64 {
    let mut ratios: Vec<f64> = (0..3 * ROUNDS)
        .map(|_| {
            let before = once(first);
            let time = once(second);
            (before + once(first)).as_secs_f64() / 2.0 / time.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// What one case took.
struct Row {
    name: &'static str,
    /// GB/s.
    cpu: f64,
    avx2: f64,
    /// Of memset's speed.
    of_memset: f64,
    threads: [f64; 2],
    /// On one thread and on two: read, decoded, and both, in GB/s of what is written; how
    /// long both take of the longer one.
    parts: [[f64; 4]; 2],
}

fn row(name: &'static str, config: &str, path: &Path, bytes: Vec<u8>, dst: &mut [u8]) -> Row {
    std::fs::write(path, &bytes).unwrap();
    let written = dst.len() as f64;
    let speed = |time: Duration| written / time.as_secs_f64() / 1e9;
    let options = GroupsOptions { config: Some(config.as_bytes()), ..GroupsOptions::default() };
    let memory = Checkpoint::open_memory(bytes.leak(), &OpenOptions::default()).unwrap();
    let file = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    let (of_memory, of_file) = (Groups::open(&memory, &options).unwrap(), Groups::open(&file, &options).unwrap());
    of_memory.list()[0].usable().unwrap();
    let in_memory = of_memory.list()[0].assembly(&memory).unwrap();
    let in_file = of_file.list()[0].assembly(&file).unwrap();
    let memory = Bench::new(&memory, &*in_memory);
    let mut file = Bench::new(&file, &*in_file);
    without_avx512(true);
    let avx2 = speed(cpu_time(&mut || memory.decode(1, dst)));
    without_avx512(false);
    let cpu = speed(cpu_time(&mut || memory.decode(1, dst)));
    let mut other = vec![1_u8; dst.len()];
    let of_memset = cpu_ratio(&mut || std::hint::black_box(&mut other).fill(3), &mut || memory.decode(1, dst));
    let threads = medians(ROUNDS, &mut [&mut || memory.decode(1, dst), &mut || memory.decode(2, &mut other)]);
    file.read(1);
    let parts = [1, 2].map(|threads| {
        // CPU time says nothing of two threads that wait for each other.
        let timed = |work: &mut dyn FnMut()| if threads == 1 { once(work) } else { elapsed(work) };
        let mut times = Vec::new();
        for _ in 0..3 * ROUNDS {
            let read = timed(&mut || file.read(threads));
            times.push([read, timed(&mut || memory.decode(threads, dst)), timed(&mut || file.decode(threads, dst))]);
        }
        let middle = |of: &dyn Fn(&[Duration; 3]) -> f64| {
            let mut all: Vec<f64> = times.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let [read, decode, both] = [0, 1, 2].map(|part| middle(&|times| speed(times[part])));
        let ratio = middle(&|[read, decode, both]| both.as_secs_f64() / read.max(decode).as_secs_f64());
        [read, decode, both, ratio]
    });
    Row { name, cpu, avx2, of_memset, threads: [threads[0], threads[1]].map(speed), parts }
}

fn main() {
    println!("listing 100,000 tensors: {} of CPU time", libsafetensors_benches::show(listing()));
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let python = std::env::var("BENCH_PYTHON").ok();
    let folder = tempfile::tempdir().unwrap();
    let mut dst = vec![1_u8; SIDE * SIDE * 2];
    let written = dst.len() as f64;
    let memset = cpu_time(&mut || std::hint::black_box(&mut dst).fill(3));
    println!("memset {:.1} GB/s\n", written / memset.as_secs_f64() / 1e9);
    let mut rows = Vec::new();
    let cases = cases().into_iter().enumerate().filter(|(_, case)| case.0.contains(&wanted));
    for (number, (name, config, tensors)) in cases {
        let folder = folder.path().join(format!("{number:02}"));
        std::fs::create_dir_all(&folder).unwrap();
        rows.push((number, row(name, config, &folder.join("model.safetensors"), file(&tensors), &mut dst)));
    }
    println!(
        "{:34} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "to BF16, GB/s", "CPU", "/memset", "AVX2", "1 thread", "2", "ratio"
    );
    for (_, Row { name, cpu, avx2, of_memset, threads: [one, two], .. }) in &rows {
        println!("{name:34} {cpu:8.2} {of_memset:8.2} {avx2:8.2} {one:8.2} {two:8.2} {:7.2}", two / one);
    }
    println!("\n{:34} {:>8} {:>8} {:>8} {:>9}", "from a file in the page cache", "read", "decode", "both", "/ longer");
    for (_, Row { name, parts, .. }) in &rows {
        for (threads, [read, decode, both, ratio]) in [" 1", " 2"].iter().zip(parts) {
            println!("{name:31}{threads:3} {read:8.2} {decode:8.2} {both:8.2} {ratio:9.2}");
        }
    }
    if let Some(python) = python {
        let ours: Vec<_> = rows.iter().map(|(number, row)| (*number, row.name, row.cpu)).collect();
        peers(&python, folder.path(), &ours);
    }
}

/// What the formats' own libraries do with the same files.
fn peers(python: &str, folder: &std::path::Path, ours: &[(usize, &str, f64)]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/groups_peers.py");
    let output = std::process::Command::new(python).arg(script).arg(folder).output().unwrap();
    print!("\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{:34} {:20} {:>8} {:>8} {:>8}", "beside, GB/s of CPU", "", "theirs", "ours", "ratio");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut cells = line.split('\t');
        let mut next = || cells.next().unwrap_or_default();
        let (number, library, theirs) = (next(), next(), next().parse().unwrap_or(f64::NAN));
        for (_, name, cpu) in ours.iter().filter(|(of, ..)| number.parse() == Ok(*of)) {
            println!("{name:34} {library:20} {theirs:8.2} {cpu:8.2} {:8.1}", cpu / theirs);
        }
    }
}
