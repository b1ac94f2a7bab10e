// SPDX-License-Identifier: Apache-2.0
//! Groups with all else that a load can do: strides, transforms, buffers of pieces,
//! cancelling, sources that call back; and what a caller knows better.

use std::ffi::{c_void, CString};
use std::ptr::null;
use std::sync::atomic::Ordering::SeqCst;

use safetensors::ffi::*;
use safetensors::group::st_group;
use safetensors::model::groups::{Break, Group, Groups, GroupsOptions, Override, Status};
use safetensors::{Dtype, ErrorKind, Range};
use serde_json::{json, Map};

use crate::groups::{cases, open, text, Case};
use crate::loading::{item, Opened};
use crate::mutations::File;
use crate::support::callbacks::Reader;
use crate::support::handle::{self, init_options, ErrorSlot};
use crate::support::load::{init_load, init_sink, load, Progress};
use crate::support::validation::{validate, Problem};

fn usable_cases() -> Vec<Case> {
    let all = cases().into_iter();
    all.filter(|case| !case.folder.file_name().unwrap().to_str().unwrap().starts_with("x-")).collect()
}

/// Runs `check` on each group that can be decoded, with its values.
fn each_group(dtype: Dtype, mut check: impl FnMut(&Opened, &st_group, &[i64], &[u8])) {
    for case in usable_cases() {
        let (opened, checkpoint) = (Opened::new(&case), open(&case));
        let groups = Groups::open(&checkpoint, &GroupsOptions::default()).unwrap();
        for group in groups.list().iter().filter(|group| group.usable().is_ok()) {
            let expected = group.read(&checkpoint, &[], dtype).unwrap();
            let name = std::str::from_utf8(group.name()).unwrap();
            check(&opened, opened.find(name), group.shape(), &expected);
        }
    }
}

#[test]
fn strides_put_each_value_where_they_say() {
    each_group(Dtype::Bf16, |opened, group, shape, expected| {
        // The last dimension outermost, and a gap after each value.
        let mut strides = vec![0; shape.len()];
        let mut stride = 6;
        for (place, size) in strides.iter_mut().zip(shape) {
            *place = stride;
            stride *= size;
        }
        let mut found = vec![0xee; usize::try_from(stride).unwrap()];
        let mut item = item(group, &[], ST_DTYPE_BF16, &mut found);
        item.dst_strides = strides.as_ptr();
        for threads in [1, 2] {
            load(&opened.handle, &[item], &st_load_options { threads, staging_bytes: 65536, ..init_load() }).unwrap();
        }
        let mut index = vec![0; shape.len()];
        for value in expected.chunks(2) {
            let at: i64 = index.iter().zip(&strides).map(|(index, stride)| index * stride).sum();
            let at = usize::try_from(at).unwrap();
            assert_eq!((&found[at..at + 2], &found[at + 2..at + 6]), (value, &[0xee; 4][..]));
            for (place, size) in index.iter_mut().zip(shape).rev() {
                *place = (*place + 1) % size;
                if *place != 0 {
                    break;
                }
            }
        }
    });
}

/// Turns all bits of its units of 8 values.
unsafe extern "C" fn inverted(
    _: *mut c_void,
    _: usize,
    element: u64,
    count: usize,
    src: *const c_void,
    dst: *mut c_void,
    _: *mut st_error,
) -> st_status {
    assert_eq!((element % 8, count % 8, src.addr() % 64), (0, 0, 0), "whole units, aligned");
    // SAFETY: count values of four bytes, and room for them.
    let (src, dst) = unsafe {
        let size = count * 4;
        (std::slice::from_raw_parts(src.cast::<u8>(), size), std::slice::from_raw_parts_mut(dst.cast::<u8>(), size))
    };
    for (from, to) in src.iter().zip(dst) {
        *to = !from;
    }
    ST_OK
}

#[test]
fn a_transform_is_given_decoded_values() {
    let mut tried = 0;
    each_group(Dtype::F32, |opened, group, shape, expected| {
        if shape.iter().product::<i64>() % 8 != 0 {
            return;
        }
        let transform = st_transform {
            struct_size: size_of::<st_transform>(),
            unit: 8,
            unit_size: 32,
            run: Some(inverted),
            user_data: std::ptr::null_mut(),
        };
        for (threads, staging_bytes) in [(1, 0), (2, 65536)] {
            let mut found = vec![0; expected.len()];
            let mut item = item(group, &[], ST_DTYPE_F32, &mut found);
            item.transform = &transform;
            load(&opened.handle, &[item], &st_load_options { threads, staging_bytes, ..init_load() }).unwrap();
            assert!(found.iter().zip(expected).all(|(found, expected)| *found == !expected));
        }
        tried += 1;
    });
    assert!(tried > 80, "{tried}");
}

/// Results that come piece by piece.
struct Pieces {
    buffers: Vec<Vec<u8>>,
    results: Vec<Vec<u8>>,
    calls: usize,
}

unsafe extern "C" fn pieces(
    user_data: *mut c_void,
    buffer: usize,
    pieces: *const st_piece,
    count: usize,
    _: *mut st_error,
) -> st_status {
    // SAFETY: the load's own, one call at a time.
    let (device, pieces) = unsafe { (&mut *user_data.cast::<Pieces>(), std::slice::from_raw_parts(pieces, count)) };
    device.calls += 1;
    for piece in pieces {
        let at = usize::try_from(piece.item_offset).unwrap();
        let bytes = &device.buffers[buffer][piece.buffer_offset..][..piece.size];
        device.results[piece.item][at..at + piece.size].copy_from_slice(bytes);
    }
    ST_OK
}

#[test]
fn many_groups_share_the_buffers_of_a_sink() {
    for case in usable_cases() {
        let (opened, checkpoint) = (Opened::new(&case), open(&case));
        let groups = Groups::open(&checkpoint, &GroupsOptions::default()).unwrap();
        let read = |group: &Group| group.read(&checkpoint, &[], Dtype::F16).unwrap();
        let usable = || groups.list().iter().filter(|group| group.usable().is_ok());
        let expected: Vec<Vec<u8>> = usable().map(read).collect();
        let records = usable().map(|group| opened.find(std::str::from_utf8(group.name()).unwrap()));
        let items: Vec<st_load_item> = records.map(|group| item(group, &[], ST_DTYPE_F16, &mut [])).collect();
        let mut device = Pieces {
            buffers: vec![vec![0; 8192]; 2],
            results: expected.iter().map(|expected| vec![0xee; expected.len()]).collect(),
            calls: 0,
        };
        let buffers: Vec<st_buffer> =
            device.buffers.iter_mut().map(|data| st_buffer { data: data.as_mut_ptr().cast(), size: 8192 }).collect();
        let user_data = (&raw mut device).cast();
        let sink =
            st_sink { buffers: buffers.as_ptr(), buffer_count: 2, pieces: Some(pieces), user_data, ..init_sink() };
        load(&opened.handle, &items, &st_load_options { sink: &sink, threads: 2, ..init_load() }).unwrap();
        assert!(device.results == expected, "{:?}", case.folder);
        let bytes: usize = expected.iter().map(Vec::len).sum();
        assert!(device.calls <= bytes.div_ceil(8192 - 4096), "{} calls for {bytes} bytes", device.calls);
    }
}

/// A weight of 768 x 1024 in a layout of each kind, with groups of 128 columns.
fn large(layout: &str) -> (File, &'static str) {
    const ROWS: usize = 768;
    const COLUMNS: usize = 1024;
    let mut file = File { header: Map::new(), data: Vec::new() };
    let mut seed = 7_u32;
    let mut add = |name: &str, dtype: &str, shape: &[usize], size: usize| {
        let start = file.data.len();
        for number in 0..shape.iter().product::<usize>() * size {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // F16 and F32 of ordinary size, and no NaN.
            let byte = if number % size == size - 1 { 0x20 } else { (seed >> 24) as u8 & 0x7e };
            file.data.push(if dtype == "I32" { (seed >> 24) as u8 } else { byte });
        }
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, file.data.len()]});
        file.header.insert(name.to_owned(), entry);
    };
    match layout {
        "gptq" => {
            add("m.qweight", "I32", &[COLUMNS / 8, ROWS], 4);
            add("m.qzeros", "I32", &[COLUMNS / 128, ROWS / 8], 4);
            add("m.scales", "F16", &[COLUMNS / 128, ROWS], 2);
            let config =
                r#"{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": false}}"#;
            (file, config)
        }
        "awq" => {
            add("m.qweight", "I32", &[COLUMNS, ROWS / 8], 4);
            add("m.qzeros", "I32", &[COLUMNS / 128, ROWS / 8], 4);
            add("m.scales", "F16", &[COLUMNS / 128, ROWS], 2);
            (
                file,
                r#"{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}}"#,
            )
        }
        "fp8" => {
            add("m.weight", "F8_E4M3", &[ROWS, COLUMNS], 1);
            add("m.weight_scale_inv", "F32", &[ROWS / 128, COLUMNS / 128], 4);
            (file, r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#)
        }
        _ => {
            add("m.weight", "U8", &[ROWS, COLUMNS / 2], 1);
            add("m.weight_scale", "F8_E4M3", &[ROWS, COLUMNS / 16], 1);
            add("m.weight_scale_2", "F32", &[], 4);
            (file, r#"{"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}"#)
        }
    }
}

const LARGE: [&str; 4] = ["gptq", "awq", "fp8", "nvfp4"];

/// Groups of a reader's bytes, by this configuration.
fn groups_of(reader: &Reader, config: &str) -> Opened {
    let handle = handle::open_io(&reader.io(), &init_options()).unwrap();
    let mut error = ErrorSlot::default();
    let text = st_text { data: config.as_ptr().cast(), size: config.len() };
    let options = st_groups_options {
        struct_size: size_of::<st_groups_options>(),
        config: text,
        ignore_config: 0,
        overrides: null(),
        override_count: 0,
    };
    // SAFETY: a live handle, and options as the header says.
    let groups = unsafe { st_groups_open(handle.0, &options, error.as_mut()) };
    assert!(!groups.is_null());
    Opened { handle, groups }
}

#[test]
fn every_byte_of_a_groups_members_is_read_once() {
    for layout in LARGE {
        let (file, config) = large(layout);
        let reader = Reader::new(file.bytes());
        let opened = groups_of(&reader, config);
        let group = opened.find("m.weight");
        let expected = {
            let checkpoint = file.open();
            let options = GroupsOptions { config: Some(config.as_bytes()), ..GroupsOptions::default() };
            let groups = Groups::open(&checkpoint, &options).unwrap();
            groups.find(b"m.weight").unwrap().read(&checkpoint, &[], Dtype::Bf16).unwrap()
        };
        for (threads, staging_bytes) in [(1, 0), (2, 0), (1, 1 << 20)] {
            reader.counts.requests.lock().unwrap().clear();
            let before = reader.counts.reads.load(SeqCst);
            let mut found = vec![0; expected.len()];
            let options = st_load_options { threads, staging_bytes, ..init_load() };
            load(&opened.handle, &[item(group, &[], ST_DTYPE_BF16, &mut found)], &options).unwrap();
            assert!(found == expected, "{layout}");
            let mut requests = reader.counts.requests.lock().unwrap().clone();
            requests.sort_unstable();
            // A scalar is read by each box.
            let read: usize = requests.iter().filter(|(_, len)| *len > 4).map(|(_, len)| len).sum();
            // Little staging has boxes smaller than a block, which share a scale.
            let most = file.data.len() + if staging_bytes == 0 { 0 } else { 1024 };
            assert!(read <= most, "{layout}: {read} bytes are read of {}", file.data.len());
            let requests = reader.counts.reads.load(SeqCst) - before;
            assert!(requests < 60, "{layout}: {requests} requests");
        }
    }
}

#[test]
fn a_load_of_groups_is_cancelled_between_boxes() {
    for layout in LARGE {
        let (file, config) = large(layout);
        let reader = Reader::new(file.bytes());
        let opened = groups_of(&reader, config);
        let group = opened.find("m.weight");
        let mut found = vec![0; 768 * 1024 * 4];
        for threads in [1, 2] {
            let mut progress = Progress::cancels_at(0);
            let mut options = st_load_options { threads, staging_bytes: 1 << 19, ..init_load() };
            progress.listen(&mut options);
            let item = item(group, &[], ST_DTYPE_F32, &mut found);
            assert_eq!(load(&opened.handle, &[item], &options).unwrap_err().code, ST_ERROR_CANCELLED);
            progress.check(768 * 1024 * 4, false);
            let mut progress = Progress::default();
            progress.listen(&mut options);
            load(&opened.handle, &[item], &options).unwrap();
            progress.check(768 * 1024 * 4, true);
        }
    }
}

/// What a caller would say who knows what a group is.
fn told(group: &Group) -> Override {
    let name = std::str::from_utf8(group.name()).unwrap();
    Override {
        module: name.strip_suffix(".weight").unwrap_or(name).as_bytes().to_vec(),
        layout: Some(group.layout().to_owned()),
        bits: Some(u64::from(group.bits())),
        group_size: u64::try_from(*group.block().last().unwrap()).ok(),
    }
}

#[test]
fn what_a_caller_says_takes_the_place_of_a_configuration() {
    let mut tried = 0;
    for case in usable_cases() {
        let checkpoint = open(&case);
        let known = Groups::open(&checkpoint, &GroupsOptions::default()).unwrap();
        let usable = || known.list().iter().filter(|group| group.usable().is_ok());
        let overrides: Vec<Override> = usable().map(told).collect();
        let options = GroupsOptions { ignore_config: true, overrides: &overrides, ..GroupsOptions::default() };
        let found = Groups::open(&checkpoint, &options).unwrap();
        for group in usable() {
            // An override has one size: blocks of others need their configuration.
            let square = !group.layout().starts_with("fp8-block")
                || group.block().iter().rev().take(2).all(|size| *size == group.block()[0]);
            if !square {
                continue;
            }
            let told = found.find(group.name()).unwrap();
            assert!(told.usable().is_ok(), "{:?}: {told:?}", case.folder);
            assert_eq!((told.layout(), told.shape(), told.block()), (group.layout(), group.shape(), group.block()));
            let values = |group: &Group| group.read(&checkpoint, &[], Dtype::F32).unwrap();
            assert!(values(told) == values(group), "{:?}", case.folder);
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn an_override_counts_below_its_prefix_and_never_against_the_shapes() {
    let all = cases();
    let case = all.iter().find(|case| case.folder.ends_with("gptq-4-v1")).unwrap();
    let checkpoint = open(case);
    let name = b"model.layers.0.mlp.up_proj.weight";
    let status = |overrides: &[(&str, Option<&str>, Option<u64>)]| {
        let over = |(module, layout, bits): &(&str, Option<&str>, Option<u64>)| Override {
            module: module.as_bytes().to_vec(),
            layout: layout.map(str::to_owned),
            bits: *bits,
            group_size: None,
        };
        let overrides: Vec<Override> = overrides.iter().map(over).collect();
        let options = GroupsOptions { overrides: &overrides, ..GroupsOptions::default() };
        let groups = Groups::open(&checkpoint, &options).unwrap();
        let group = groups.find(name).unwrap();
        (group.layout().to_owned(), group.status())
    };
    let ok = |layout: &str| (layout.to_owned(), Status::Ok);
    let broken = (String::new(), Status::Broken(Break::Config));
    assert_eq!(status(&[("", Some("gptq-v2"), None)]), ok("gptq-v2"));
    assert_eq!(status(&[("model.layers", Some("gptq-v2"), None)]), ok("gptq-v2"));
    assert_eq!(
        status(&[("model.layers", Some("gptq-v2"), None), ("model.layers.0", Some("gptq-v1"), None)]),
        ok("gptq-v1")
    );
    // A part of a name is no prefix.
    assert_eq!(status(&[("model.lay", Some("gptq-v2"), None)]), ok("gptq-v1"));
    assert_eq!(status(&[("model", Some("gptq-v1"), Some(8))]), broken);
    assert_ne!(status(&[("model", Some("mlx-affine"), None)]).1, Status::Ok);
}

#[test]
fn a_slice_of_every_group_is_that_part_of_its_values_at_every_step() {
    for case in usable_cases() {
        let checkpoint = open(&case);
        let groups = Groups::open(&checkpoint, &GroupsOptions::default()).unwrap();
        for group in groups.list().iter().filter(|group| group.shape().len() == 2) {
            let whole = group.read(&checkpoint, &[], Dtype::F32).unwrap();
            let [rows, columns] = group.shape() else { continue };
            let cuts = |size: i64, step: i64| -> Vec<i64> {
                let mut cuts: Vec<i64> = (0..size).step_by(usize::try_from(step).unwrap()).chain([size]).collect();
                while cuts.len() > 6 {
                    let keep = |(number, cut): (usize, i64)| (number % 2 == 0 || cut == size).then_some(cut);
                    cuts = cuts.into_iter().enumerate().filter_map(keep).collect();
                }
                cuts
            };
            let pairs = |cuts: Vec<i64>| {
                let starts = cuts.clone();
                starts.into_iter().flat_map(move |start| cuts.clone().into_iter().map(move |stop| (start, stop)))
            };
            for (top, bottom) in pairs(cuts(*rows, group.step()[0])).filter(|(start, stop)| start < stop) {
                for (left, right) in pairs(cuts(*columns, group.step()[1])).filter(|(start, stop)| start < stop) {
                    let ranges = [(top, bottom), (left, right)].map(|(start, stop)| Range { start, stop, step: 1 });
                    let found = group.read(&checkpoint, &ranges, Dtype::F32).unwrap();
                    let place = |row: i64, column: i64| usize::try_from((row * columns + column) * 4).unwrap();
                    let expected = (top..bottom).flat_map(|row| &whole[place(row, left)..place(row, right)]);
                    assert!(found.iter().eq(expected), "{:?}: {ranges:?}", case.folder);
                }
            }
        }
    }
}

fn problems(path: impl AsRef<std::path::Path>) -> Vec<Problem> {
    validate(path.as_ref(), &init_options()).0
}

#[test]
fn validating_tells_of_groups_that_are_broken_and_of_companions_of_none() {
    let told = |name: &str| -> Vec<(&'static str, String)> {
        let all = cases();
        let case = all.iter().find(|case| case.folder.ends_with(name)).unwrap();
        let path = case.folder.join(text(&case.expected["open"]));
        problems(path)
            .into_iter()
            .filter(|problem| problem.harmless)
            .map(|problem| (problem.code, problem.text))
            .collect()
    };
    let says = |name: &str, code: &str, words: &[&str]| {
        let found = told(name);
        let told = found.iter().any(|(of, text)| *of == code && words.iter().all(|word| text.contains(word)));
        assert!(told, "{name}: {found:?}");
    };
    says("x-gptq-no-zeros", "ST_ERROR_GROUP", &["missing", "qzeros"]);
    says("x-fp8-grid", "ST_ERROR_GROUP", &["weight_scale_inv", "grid"]);
    says("x-gptq-gidx-range", "ST_ERROR_GROUP", &["value", "g_idx"]);
    says("x-mlx-no-config", "ST_ERROR_UNSUPPORTED", &["ambiguous"]);
    says("x-config-not-json", "ST_ERROR_CONFIG", &["config.json"]);
    says("x-one-of-three", "ST_ERROR_GROUP", &[]);
    assert_eq!(told("gptq-4-v1"), []);
    assert_eq!(told("nvfp4-comfy"), []);
    // Scales without codes are nobody's.
    let (mut file, _) = large("fp8");
    file.header.remove("m.weight");
    file.data.drain(..768 * 1024);
    file.header["m.weight_scale_inv"]["data_offsets"] = json!([0, file.data.len()]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, file.bytes()).unwrap();
    let found = problems(&path);
    assert!(
        found.iter().any(|problem| problem.harmless && problem.text.contains("companion of no group")),
        "{found:?}"
    );
}

#[test]
fn a_weight_of_floats_is_no_group_for_the_biases_beside_it() {
    let mut file = File { header: Map::new(), data: vec![0; 48] };
    file.header.insert("m.weight".to_owned(), json!({"dtype": "BF16", "shape": [4, 4], "data_offsets": [0, 32]}));
    file.header.insert("m.biases".to_owned(), json!({"dtype": "F32", "shape": [4], "data_offsets": [32, 48]}));
    let groups = |file: &File| {
        let checkpoint = file.open();
        let groups = Groups::open(&checkpoint, &GroupsOptions::default()).unwrap();
        (groups.list().len(), groups.plain().len())
    };
    assert_eq!(groups(&file), (0, 2));
    file.header.insert("m.scales".to_owned(), json!({"dtype": "F32", "shape": [0], "data_offsets": [48, 48]}));
    assert_eq!(groups(&file), (1, 1));
}

#[test]
fn options_that_no_group_can_be_found_by_are_refused() {
    let (file, _) = large("fp8");
    let checkpoint = file.open();
    for (config, says) in [("[1]", "not a JSON object"), ("{\"a\": 1, \"a\": 2}", "twice"), ("{", "EOF")] {
        let options = GroupsOptions { config: Some(config.as_bytes()), ..GroupsOptions::default() };
        let error = Groups::open(&checkpoint, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
    }
    let name = CString::new("m").unwrap();
    let over =
        st_group_override { module: name.as_ptr(), layout: null(), bits: 0, group_size: 1 << 40, reserved: [0; 2] };
    let options = st_groups_options {
        struct_size: size_of::<st_groups_options>(),
        config: st_text { data: null(), size: 0 },
        ignore_config: 0,
        overrides: &over,
        override_count: 1,
    };
    let handle = handle::open_io(&Reader::new(file.bytes()).io(), &init_options()).unwrap();
    let mut error = ErrorSlot::default();
    // SAFETY: as the header says.
    let groups = unsafe { st_groups_open(handle.0, &options, error.as_mut()) };
    let failure = error.failure();
    assert!(groups.is_null() && failure.code == ST_ERROR_INVALID_ARGUMENT);
    assert!(failure.message.contains("overrides[0].group_size"), "{}", failure.message);
}
