// SPDX-License-Identifier: Apache-2.0
//! What a rank plan costs: 256 experts in each of 60 layers, as one tensor for
//! each projection and one for its scales, on 8 tensor-parallel ranks times 4 of
//! experts. Nothing is read.

use std::ffi::CString;
use std::{ptr, slice};

use libsafetensors_benches::{medians, show};
use safetensors::ffi::*;

const LAYERS: usize = 60;
const EXPERTS: usize = 256;
const CONFIG: &str =
    r#"{"num_hidden_layers": 60, "num_attention_heads": 64, "num_key_value_heads": 8, "num_experts": 256}"#;

/// The names and shapes of the model, in order of files.
fn tensors() -> Vec<(String, [u64; 2])> {
    let mut all = vec![("lm_head.weight".to_owned(), [4096, 1]), ("model.embed_tokens.weight".to_owned(), [4096, 1])];
    for layer in 0..LAYERS {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        for expert in 0..EXPERTS {
            for (projection, shape) in [("gate_proj", [128, 2]), ("up_proj", [128, 2]), ("down_proj", [2, 128])] {
                all.push((name(&format!("mlp.experts.{expert}.{projection}.weight")), shape));
                all.push((name(&format!("mlp.experts.{expert}.{projection}.weight_scale_inv")), [1, 1]));
            }
        }
        for (rest, shape) in [("q_proj", [64, 2]), ("k_proj", [8, 2]), ("v_proj", [8, 2]), ("o_proj", [2, 64])] {
            all.push((name(&format!("self_attn.{rest}.weight")), shape));
        }
        for rest in ["mlp.gate.weight", "input_layernorm.weight", "self_attn.q_norm.weight", "self_attn.k_norm.weight"]
        {
            all.push((name(rest), [1, 2]));
        }
    }
    all.push(("model.norm.weight".to_owned(), [1, 2]));
    all
}

fn file(tensors: &[(String, [u64; 2])]) -> Vec<u8> {
    let mut end = 0;
    let entries = tensors.iter().map(|(name, shape)| {
        let begin = end;
        end += shape.iter().product::<u64>();
        format!(r#""{name}":{{"dtype":"F8_E4M3","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + end as usize, 0);
    file
}

fn text(bytes: &[u8]) -> st_text {
    st_text { data: bytes.as_ptr().cast(), size: bytes.len() }
}

fn builtin(name: &str) -> st_text {
    let name = CString::new(name).unwrap();
    let mut size = 0;
    // SAFETY: a text and a number.
    let data = unsafe { st_rank_plan_builtin(name.as_ptr(), &raw mut size) };
    assert!(!data.is_null());
    st_text { data, size }
}

/// The parts of rank (3 of 8, 2 of 4); how many, and the bytes of the plan's answer.
fn parts(plan: *mut st_rank_plan, rank: i64) -> usize {
    let axis =
        |name: &'static std::ffi::CStr, rank, size| st_axis { name: name.as_ptr(), rank, size, reserved: [0; 2] };
    let axes = [axis(c"tp", rank, 8), axis(c"ep", 2, 4)];
    let (mut error, mut count) = (st_error { code: 0, os_errno: 0, message: [0; 504] }, 0);
    // SAFETY: a live plan, and an array of axes.
    let parts = unsafe { st_rank_plan_parts(plan, axes.as_ptr(), axes.len(), &raw mut count, &raw mut error) };
    if parts.is_null() {
        let message: Vec<u8> = error.message.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
        panic!("{}", String::from_utf8_lossy(&message));
    }
    // SAFETY: as many parts as said.
    std::hint::black_box(unsafe { slice::from_raw_parts(parts, count) });
    count
}

fn main() {
    let tensors = tensors();
    let file = file(&tensors);
    // SAFETY: memory that outlives the checkpoint.
    let checkpoint = unsafe { st_open_memory(file.as_ptr().cast(), file.len(), ptr::null(), ptr::null_mut()) };
    assert!(!checkpoint.is_null());
    let plans = [builtin("fp8-block"), builtin("qwen3_moe")];
    let options = st_rank_plan_options {
        struct_size: size_of::<st_rank_plan_options>(),
        plans: plans.as_ptr(),
        plan_count: plans.len(),
        config: text(CONFIG.as_bytes()),
        symbols: ptr::null(),
        symbol_count: 0,
        groups: ptr::null(),
        strict: 0,
    };
    // SAFETY: a live checkpoint and options whose texts outlive the call.
    let open = || unsafe { st_rank_plan_open(checkpoint, &raw const options, ptr::null_mut()) };
    // SAFETY: a plan that is not used afterwards.
    let free = |plan| unsafe { st_rank_plan_free(plan) };
    let mut whole = || {
        let plan = open();
        parts(plan, 3);
        free(plan);
    };
    let mut opening = || free(open());
    let kept = open();
    let mut rank = 0;
    let mut another = || {
        parts(kept, rank % 8);
        rank += 1;
    };
    let mut known = || {
        parts(kept, 3);
    };
    if std::env::args().any(|argument| argument == "once") {
        return println!("{} parts", {
            whole();
            parts(kept, 3)
        });
    }
    let times = medians(4, &mut [&mut whole, &mut opening, &mut another, &mut known]);
    println!("{} tensors, {} parts for a rank", tensors.len(), parts(kept, 3));
    for (what, time) in
        ["plan and parts of a rank", "plan", "parts of another rank", "parts asked for before"].iter().zip(times)
    {
        println!("{what:30} {:>10}", show(time));
    }
    free(kept);
    // SAFETY: not used afterwards.
    unsafe { st_free(checkpoint) };
}
