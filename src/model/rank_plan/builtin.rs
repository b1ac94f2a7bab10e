// SPDX-License-Identifier: Apache-2.0
//! The plans that come with the library, by the `model_type` of a config.json.
#![forbid(unsafe_code)]

use std::ffi::CStr;

/// The text of a file in `plans/`, NUL-terminated.
macro_rules! plan {
    ($name:literal) => {
        match CStr::from_bytes_with_nul(
            concat!(include_str!(concat!("../../../plans/", $name, ".json")), "\0").as_bytes(),
        ) {
            Ok(text) => text,
            Err(_) => c"",
        }
    };
}

const LLAMA: &CStr = plan!("llama");
const DEEPSEEK: &CStr = plan!("deepseek");

/// By the names that config.json files have for types of models; then, by the
/// names of their files, those that describe quantised layouts and the one that
/// pads a vocabulary, which are given before a family's.
const PLANS: &[(&str, &CStr)] = &[
    ("bert", plan!("bert")),
    ("bloom", plan!("bloom")),
    ("cohere", LLAMA),
    ("deepseek_v2", DEEPSEEK),
    ("deepseek_v3", DEEPSEEK),
    ("falcon", plan!("falcon")),
    ("gemma2", LLAMA),
    ("gemma3_text", LLAMA),
    ("gpt2", plan!("gpt2")),
    ("gpt_bigcode", plan!("gpt-bigcode")),
    ("gpt_neox", plan!("gpt-neox")),
    ("gpt_oss", plan!("gpt-oss")),
    ("granitemoe", plan!("granite-moe")),
    ("llama", LLAMA),
    ("mistral", LLAMA),
    ("mixtral", plan!("mixtral")),
    ("olmo2", LLAMA),
    ("phi", plan!("phi")),
    ("phi3", plan!("phi3")),
    ("qwen2", LLAMA),
    ("qwen3", LLAMA),
    ("qwen3_moe", plan!("qwen3-moe")),
    ("starcoder2", plan!("starcoder2")),
    ("t5", plan!("t5")),
    ("awq", plan!("awq")),
    ("fp8-block", plan!("fp8-block")),
    ("fp8-channel", plan!("fp8-channel")),
    ("gptq", plan!("gptq")),
    ("vocab-64", plan!("vocab-64")),
];

/// The types of models that have one.
pub(crate) fn families() -> String {
    let types = PLANS.iter().map(|(name, _)| *name).take_while(|name| *name != "awq");
    types.collect::<Vec<_>>().join(", ")
}

/// The plan of this name.
pub(crate) fn builtin(name: &[u8]) -> Option<&'static CStr> {
    PLANS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, text)| *text)
}
