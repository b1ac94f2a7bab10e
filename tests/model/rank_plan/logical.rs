// SPDX-License-Identifier: Apache-2.0
//! Plans over groups: cut as logical tensors, loaded decoded.

use std::mem::zeroed;
use std::{ptr, slice};

use safetensors::ffi::{
    st_find_group, st_groups_free, st_groups_open, st_groups_options, st_load, st_load_item, st_text, ST_DTYPE_F32,
};

use super::checkpoint::{one_file, Listed};
use super::plan::{Given, Opened, Plan};
use crate::support::handle::ErrorSlot;

const CONFIG: &str = r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#;

fn tensors() -> [Listed; 4] {
    [
        Listed::new("m.norm.weight", "F32", &[256]),
        Listed::new("m.up.bias", "F32", &[512]),
        Listed::new("m.up.weight", "F8_E4M3", &[512, 256]),
        Listed::new("m.up.weight_scale_inv", "F32", &[4, 2]),
    ]
}

fn loaded(opened: &Opened, item: st_load_item, size: usize) -> Vec<u8> {
    let mut bytes = vec![0xAA; size];
    let item = st_load_item { dtype: ST_DTYPE_F32, dst: bytes.as_mut_ptr().cast(), dst_size: size, ..item };
    let mut error = ErrorSlot::default();
    let status = unsafe { st_load(opened.0, &raw const item, 1, ptr::null(), error.as_mut()) };
    assert_eq!(status, 0, "{:?}", error.failure());
    bytes
}

#[test]
fn a_part_of_a_group_is_that_part_of_it_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::new(&one_file(folder.path(), &tensors()));
    let options = st_groups_options {
        struct_size: size_of::<st_groups_options>(),
        config: st_text { data: CONFIG.as_ptr().cast(), size: CONFIG.len() },
        ..unsafe { zeroed() }
    };
    let groups = unsafe { st_groups_open(opened.0, &raw const options, ptr::null_mut()) };
    assert!(!groups.is_null());
    let group = unsafe { st_find_group(groups, c"m.up.weight".as_ptr()) };
    assert!(!group.is_null());

    // Not members, but what they are together.
    let rules = r#"{"match": "m.up.weight", "axis": "tp", "cut": 0}, {"match": "m.*.*", "axis": "tp", "whole": true}"#;
    let given = Given { strict: true, ..Given::plan(&format!(r#"{{"format": 1, "rules": [{rules}]}}"#)) };
    let plan = Plan::over(&opened, &given, groups).unwrap();
    // SAFETY: zero is a value of every field.
    let zero: st_load_item = unsafe { zeroed() };
    let whole = loaded(&opened, st_load_item { group, ..zero }, 512 * 256 * 4);
    for rank in 0..4_i64 {
        let records = plan.records(&[("tp", rank, 4)]).unwrap();
        let names: Vec<_> = records.iter().map(|part| (part.tensor.is_null(), part.group.is_null())).collect();
        assert_eq!(names, [(false, true), (false, true), (true, false)]);
        let part = &records[2];
        assert!(ptr::eq(part.group, group));
        assert_eq!(unsafe { slice::from_raw_parts(part.shape, part.rank) }, [128, 256]);
        let size = 128 * 256 * 4;
        assert!(
            loaded(&opened, st_load_item { part, ..zero }, size) == whole[rank as usize * size..][..size],
            "{rank}"
        );
    }
    drop(plan);
    unsafe { st_groups_free(groups) };

    let other = Opened::new(&one_file(folder.path(), &tensors()));
    let groups = unsafe { st_groups_open(other.0, &raw const options, ptr::null_mut()) };
    let failure = Plan::over(&opened, &given, groups).err().unwrap();
    assert_eq!(failure.status(), "ST_ERROR_INVALID_ARGUMENT");
    unsafe { st_groups_free(groups) };
}
