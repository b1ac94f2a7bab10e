// SPDX-License-Identifier: Apache-2.0
//! Whatever an index holds, it gives what its rules say, read with serde_json:
//! the same verdict, the same tensors, the same metadata.
//!
//! PROPTEST_CASES sets the number of cases of each test.

use crate::support::changes::{change, changes, config};
use crate::support::index_model::agree;
use proptest::collection::vec;
use proptest::prelude::*;

const BASES: [&str; 4] = [
    r#"{"metadata": {"total_size": 12, "f": "pt"}, "weight_map": {"a": "1.safetensors", "c": "2.safetensors"}}"#,
    r#" {"weight_map":{"d\"":"\u00e9","\u0000":"é","":"1.safetensors","b":"2.safetensors"},"x":["y\ud83d\ude00",{"":-1.5e3}]}"#,
    r#"{"metadata":{"a":[1, "t", {"k": null}],"b":true,"c":null,"é\n":"\u0000","":-0.0},"weight_map":{}}"#,
    r#"{"weight_map":{"b":"1.safetensors"},"metadata":null}"#,
];

fn any_index() -> impl Strategy<Value = String> {
    let tensors = ["a", "b", "c", "", "nope", "d\\\"", "\\u0000", "\\u0061", "__metadata__"];
    let shards = [
        "1.safetensors",
        "2.safetensors",
        "é",
        "\\u00e9",
        "gone",
        "../1.safetensors",
        "..",
        "",
        "1.safetensors\\u0000",
        "./é",
    ];
    let values = ["1", "12345678901234567890123", "\"t\"", "null", "[1,2]", "{\"k\":\"v\"}", "1e400", "[\"\\u0041\"]"];
    let pairs = |keys: &'static [&str], values: Vec<String>, most| {
        let pair = (prop::sample::select(keys), prop::sample::select(values));
        vec(pair.prop_map(|(key, value)| format!("\"{key}\":{value}")), 0..most).prop_map(|pairs| pairs.join(","))
    };
    let tensors: &'static [&str] = Vec::leak(tensors.to_vec());
    let weights = pairs(tensors, shards.map(|shard| format!("\"{shard}\"")).to_vec(), 4);
    let metadata = pairs(Vec::leak(vec!["k", "\\u006b", "l", ""]), values.map(str::to_owned).to_vec(), 4);
    (weights, prop::option::of(metadata), any::<bool>()).prop_map(|(weights, metadata, first)| {
        let weights = format!("\"weight_map\":{{{weights}}}");
        match metadata.map(|metadata| format!("\"metadata\":{{{metadata}}}")) {
            Some(metadata) if first => format!("{{{metadata},{weights}}}"),
            Some(metadata) => format!("{{{weights},{metadata}}}"),
            None => format!("{{{weights}}}"),
        }
    })
}

proptest! {
    #![proptest_config(config(4000))]

    #[test]
    fn on_changed_indexes(base in prop::sample::select(&BASES[..]), changes in changes()) {
        let mut text = base.as_bytes().to_vec();
        changes.iter().for_each(|each| change(&mut text, each));
        agree(&text)?;
    }

    #[test]
    fn on_made_up_indexes(text in any_index()) {
        agree(text.as_bytes())?;
    }
}
