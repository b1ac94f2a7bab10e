// SPDX-License-Identifier: Apache-2.0
//! Every public C type can be part of a signature of safer-ffi, with the layout
//! it has in C; and nobody gets safer-ffi without asking.
#![cfg(feature = "safer-ffi")]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::mem::{align_of, size_of, zeroed};
use std::path::Path;
use std::process::Command;
use std::ptr;

use libsafetensors_safer_ffi_tests as _;
use safer_ffi::layout::{ConcreteReprC, ReprC};
use safetensors::ffi::{
    st_buffer, st_checkpoint, st_error, st_free, st_io, st_load_item, st_load_options, st_metadata_options, st_open,
    st_open_options, st_output, st_piece, st_plan, st_problem, st_resolver, st_save_options, st_sink, st_status,
    st_tensors, st_transform, st_writer,
};
use safetensors::record::{st_metadata, st_range, st_shard, st_tensor};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn name<T>() -> &'static str {
    std::any::type_name::<T>().rsplit("::").next().unwrap()
}

/// A struct with fields: safer-ffi's idea of it is as large and as aligned.
fn concrete<T: ConcreteReprC>() -> &'static str {
    assert_eq!(
        [size_of::<T::CLayout>(), align_of::<T::CLayout>()],
        [size_of::<T>(), align_of::<T>()],
        "{}",
        name::<T>()
    );
    name::<T>()
}

fn opaque<T: ReprC>() -> &'static str {
    name::<T>()
}

#[test]
fn every_struct_of_the_header_is_repr_c() {
    let covered = BTreeSet::from([
        opaque::<st_checkpoint>(),
        opaque::<st_writer>(),
        concrete::<st_buffer>(),
        concrete::<st_error>(),
        concrete::<st_io>(),
        concrete::<st_load_item>(),
        concrete::<st_load_options>(),
        concrete::<st_metadata>(),
        concrete::<st_metadata_options>(),
        concrete::<st_open_options>(),
        concrete::<st_output>(),
        concrete::<st_piece>(),
        concrete::<st_plan>(),
        concrete::<st_problem>(),
        concrete::<st_range>(),
        concrete::<st_resolver>(),
        concrete::<st_save_options>(),
        concrete::<st_shard>(),
        concrete::<st_sink>(),
        concrete::<st_tensor>(),
        concrete::<st_transform>(),
    ]);
    let header = std::fs::read_to_string(root().join("include/safetensors.h")).unwrap();
    let structs = header.lines().filter_map(|line| line.strip_prefix("typedef struct "));
    let structs: BTreeSet<_> = structs.filter_map(|rest| rest.split([' ', ';']).next()).collect();
    assert_eq!(covered, structs);
}

/// A slice as safer-ffi passes it.
#[repr(C)]
struct Slice<T> {
    first: *const T,
    len: usize,
}

/// What C sees of the engine.
#[allow(improper_ctypes, reason = "a checkpoint is opaque")]
mod engine {
    use super::*;

    extern "C" {
        pub(super) fn engine_bytes(tensors: Slice<st_tensor>) -> u64;
        pub(super) fn engine_load(
            checkpoint: *const st_checkpoint,
            items: Slice<st_load_item>,
            error: *mut st_error,
        ) -> st_status;
        pub(super) fn engine_picked(range: *const st_range) -> i64;
        pub(super) fn engine_first(block: *const st_buffer) -> i32;
    }
}

#[test]
fn its_functions_take_what_the_library_gives() {
    let path = CString::new(root().join("examples/data/silero_vad_16k.safetensors").to_str().unwrap()).unwrap();
    // SAFETY: as the C header says.
    unsafe {
        let checkpoint = st_open(path.as_ptr(), ptr::null_mut());
        assert!(!checkpoint.is_null());
        let mut len = 0;
        let first = st_tensors(checkpoint, &raw mut len);
        let sum: u64 = (0..len).map(|i| (*first.add(i)).size()).sum();
        assert_eq!(engine::engine_bytes(Slice { first, len }), sum);

        let mut item: st_load_item = zeroed();
        let mut bytes = vec![0u8; usize::try_from((*first).size()).unwrap()];
        (item.tensor, item.dst, item.dst_size) = (first, bytes.as_mut_ptr().cast(), bytes.len());
        assert_eq!(engine::engine_load(checkpoint, Slice { first: &raw const item, len: 1 }, ptr::null_mut()), 0);
        assert_eq!((*first).data().unwrap(), bytes);
        item.dst_size -= 1;
        let mut error: st_error = zeroed();
        assert_eq!(engine::engine_load(checkpoint, Slice { first: &raw const item, len: 1 }, &raw mut error), 5);
        assert_eq!(error.code, 5);
        st_free(checkpoint);

        assert_eq!(engine::engine_picked(&st_range { start: 2, stop: 9, step: 3 }), 3);
        let block = st_buffer { data: bytes.as_mut_ptr().cast(), size: bytes.len() };
        assert_eq!(engine::engine_first(&raw const block), i32::from(bytes[0]));
        assert_eq!(engine::engine_first(ptr::null()), -1);
    }
}

#[test]
fn a_build_without_the_feature_has_nothing_of_it() {
    let tree = |features: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["tree", "-p", "libsafetensors", "--edges", "normal,build", "--locked", "--offline"]);
        let output = command.args(features).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!tree(&[]).contains("safer"));
    assert!(tree(&["--features", "safer-ffi"]).contains("safer-ffi"));
}
