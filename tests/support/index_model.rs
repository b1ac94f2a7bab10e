// SPDX-License-Identifier: Apache-2.0
//! The rules of an index file, read with serde_json: what one must give beside
//! these shards.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::callbacks::{Files, Reader};
use super::handle::{init_options, open_resolved, shard_path};
use super::made::file_of;
use super::model::Node;

const SHARDS: [(&str, &[&str]); 3] =
    [("1.safetensors", &["a", "b", ""]), ("2.safetensors", &["b", "c"]), ("é", &["d\"", "\0"])];

/// What an index shows: tensors with their shard, metadata with values that are
/// no strings as what their JSON means.
type Shown = (BTreeMap<String, String>, Option<Vec<(String, Node)>>);

/// The verdicts that the rules allow; several where two are broken at once.
fn verdict(text: &[u8]) -> Result<Shown, BTreeSet<&'static str>> {
    let index = || Err(BTreeSet::from(["ST_ERROR_INDEX"]));
    let Ok(Ok(Node::Object(top))) = std::str::from_utf8(text).map(serde_json::from_str) else { return index() };
    let all = |wanted: &str| top.iter().filter(|(key, _)| key == wanted).map(|(_, value)| value).collect::<Vec<_>>();
    let [Node::Object(weights)] = all("weight_map")[..] else { return index() };
    let metadata = match all("metadata")[..] {
        [] | [Node::Null] => None,
        [Node::Object(entries)] => Some(entries.clone()),
        _ => return index(),
    };
    let mut broken = BTreeSet::new();
    let mut shown = BTreeMap::new();
    for (tensor, shard) in weights {
        let Node::Text(shard) = shard else { return index() };
        let shard = shard.strip_prefix("./").unwrap_or(shard);
        if matches!(shard, "" | "." | "..") || shard.contains(['/', '\\', '\0']) {
            broken.insert("ST_ERROR_INDEX");
        }
        if shown.insert(tensor.clone(), shard.to_owned()).is_some() {
            broken.insert("ST_ERROR_DUPLICATE_KEY");
        }
    }
    let keys: BTreeSet<_> = metadata.iter().flatten().map(|(key, _)| key).collect();
    if keys.len() != metadata.as_ref().map_or(0, Vec::len) {
        broken.insert("ST_ERROR_INDEX");
    }
    let lacks = |(tensor, shard): (&String, &String)| {
        let names = SHARDS.iter().find(|(name, _)| name == shard).map(|(_, names)| *names);
        !names.is_some_and(|names| names.contains(&tensor.as_str()))
    };
    if broken.is_empty() && shown.iter().any(lacks) {
        broken.insert("ST_ERROR_SHARD");
    }
    if broken.is_empty() {
        Ok((shown, metadata))
    } else {
        Err(broken)
    }
}

/// Holds the library against the rules.
pub(crate) fn agree(text: &[u8]) -> TestCaseResult {
    let said = String::from_utf8_lossy(text);
    let shards = SHARDS.iter().map(|(name, tensors)| {
        let names: Vec<_> = tensors.iter().map(|name| name.replace('"', "\\\"").replace('\0', "\\u0000")).collect();
        (format!("k/{name}"), Reader::new(file_of(&names, 3)))
    });
    let files = Files::new(shards.chain([("k/x.index.json".to_owned(), Reader::new(text))]));
    let found = match open_resolved(&files.resolver(), "k/x.index.json", &init_options()) {
        Ok(found) => found,
        Err(failure) => {
            let wanted = verdict(text).err().unwrap_or_default();
            prop_assert!(wanted.contains(failure.status()), "wanted {wanted:?}, found {}: {said}", failure.message);
            return Ok(());
        }
    };
    let wanted = verdict(text);
    prop_assert!(wanted.is_ok(), "wanted {wanted:?}, but it opens: {said}");
    let (tensors, metadata) = wanted.unwrap_or_default();
    let shard_of =
        |tensor: &safetensors::Tensor| shard_path(&found.shards()[tensor.shard()]).strip_prefix(b"k/").map(text_of);
    let shown: BTreeMap<_, _> =
        found.tensors().iter().map(|tensor| (text_of(tensor.name()), shard_of(tensor).unwrap())).collect();
    prop_assert_eq!(shown, tensors, "{}", said);
    found.contents();
    let entries = found.metadata().map(|entries| entries.iter().map(|entry| (text_of(entry.key()), entry.value())));
    match (entries, metadata) {
        (None, None) => {}
        (Some(entries), Some(metadata)) => {
            prop_assert_eq!(entries.len(), metadata.len());
            for ((key, value), (wanted_key, wanted)) in entries.zip(metadata) {
                prop_assert_eq!(key, wanted_key, "{}", said);
                match wanted {
                    Node::Text(wanted) => prop_assert_eq!(value, wanted.as_bytes(), "{}", said),
                    wanted => {
                        prop_assert_eq!(value.trim_ascii(), value, "{}", said);
                        prop_assert_eq!(serde_json::from_slice::<Node>(value).ok(), Some(wanted), "{}", said);
                    }
                }
            }
        }
        _ => prop_assert!(false, "metadata is there or not: {said}"),
    }
    Ok(())
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
