// SPDX-License-Identifier: Apache-2.0
//! `*.safetensors.index.json`: which shard holds which tensor.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{escaped, quoted, Error, ErrorKind, Result};

/// A validated index.
pub(crate) struct Index<'a> {
    /// Shards' file names, sorted.
    pub(crate) shards: Vec<Cow<'a, str>>,
    /// For each shard the tensors that it is to show.
    pub(crate) tensors: Vec<Vec<Cow<'a, str>>>,
    /// Values that are no strings stand as their JSON text.
    pub(crate) metadata: Option<Vec<(Cow<'a, str>, Cow<'a, str>)>>,
}

impl<'a> Index<'a> {
    /// Checks an index file's text.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self> {
        let raw: Raw<'a> = serde_json::from_slice(text).map_err(|error| broken(&error))?;
        let Some(mut weights) = raw.weight_map else {
            return Err(Error::new(ErrorKind::Index, "index has no weight_map"));
        };
        weights.sort_unstable();
        let (mut tensors, mut last) = (BTreeMap::<_, Vec<_>>::new(), None);
        for (tensor, shard) in weights {
            if last.as_ref() == Some(&tensor) {
                return Err(Error::tensor(
                    ErrorKind::DuplicateKey,
                    tensor.as_bytes(),
                    "stands twice in the weight_map",
                ));
            }
            check_shard_name(&tensor, &shard)?;
            last = Some(tensor.clone());
            tensors.entry(shard).or_default().push(tensor);
        }
        let metadata = raw.metadata.map(metadata_texts).transpose()?;
        let (shards, tensors) = tensors.into_iter().unzip();
        Ok(Self { shards, tensors, metadata })
    }
}

/// A shard lies beside its index: anything but a plain file name would let an
/// index open files elsewhere.
fn check_shard_name(tensor: &str, shard: &str) -> Result<()> {
    if shard.is_empty() || matches!(shard, "." | "..") || shard.contains(['/', '\\', '\0']) {
        let text = format!("weight_map names the shard {}, which is not a plain file name", quoted(shard.as_bytes()));
        return Err(Error::tensor(ErrorKind::Index, tensor.as_bytes(), text));
    }
    Ok(())
}

fn metadata_texts<'a>(raw: Vec<(Cow<'a, str>, &'a RawValue)>) -> Result<Vec<(Cow<'a, str>, Cow<'a, str>)>> {
    let mut entries = Vec::new();
    for (key, value) in raw {
        let value = match value.get() {
            string if string.starts_with('"') => {
                let Text(value) = serde_json::from_str(string).map_err(|error| broken(&error))?;
                value
            }
            other => Cow::Borrowed(other),
        };
        entries.push((key, value));
    }
    let mut keys: Vec<_> = entries.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => {
            let key = pair.first().map(|key| quoted(key.as_bytes())).unwrap_or_default();
            Err(Error::new(ErrorKind::Index, format!("index metadata has the key {key} twice")))
        }
        None => Ok(entries),
    }
}

fn broken(error: &serde_json::Error) -> Error {
    let text = escaped(error.to_string().as_bytes());
    let shown: String = text.chars().take(240).collect();
    Error::new(ErrorKind::Index, format!("index is not as it should be: {shown}"))
}

/// The index as JSON has it. Equal keys are kept, to be seen.
#[derive(Default)]
struct Raw<'a> {
    weight_map: Option<Vec<(Cow<'a, str>, Cow<'a, str>)>>,
    metadata: Option<Vec<(Cow<'a, str>, &'a RawValue)>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a weight_map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut raw = Raw::default();
                let (mut seen_weights, mut seen_metadata) = (false, false);
                while let Some(Text(key)) = map.next_key()? {
                    match &*key {
                        "weight_map" if std::mem::replace(&mut seen_weights, true) => {
                            return Err(A::Error::custom("weight_map stands twice"));
                        }
                        "metadata" if std::mem::replace(&mut seen_metadata, true) => {
                            return Err(A::Error::custom("metadata stands twice"));
                        }
                        "weight_map" => {
                            let Entries(weights) = map.next_value::<Entries<'de, Text<'de>>>()?;
                            raw.weight_map =
                                Some(weights.into_iter().map(|(name, Text(shard))| (name, shard)).collect());
                        }
                        "metadata" => {
                            let metadata: Option<Entries<'de, &'de RawValue>> = map.next_value()?;
                            raw.metadata = metadata.map(|Entries(entries)| entries);
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(RawVisitor)
    }
}

/// A string, borrowed from the text where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// An object as the list of its entries.
struct Entries<'a, V>(Vec<(Cow<'a, str>, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<'de, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<V> {
            type Value = Entries<'de, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(key), value)) = map.next_entry()? {
                    entries.push((key, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<ErrorKind> {
        Index::parse(text.as_bytes()).err().map(|error| error.kind())
    }

    #[test]
    fn a_good_index_is_grouped_by_shard() {
        let text = r#"{"metadata":{"total_size":12,"f":"pt","x":[1, 2]},"other":{"a":[]},
            "weight_map":{"b":"2.safetensors","a":"1.safetensors","c\u0064":"2.safetensors"}}"#;
        let index = Index::parse(text.as_bytes()).unwrap();
        assert_eq!(index.shards, ["1.safetensors", "2.safetensors"]);
        assert_eq!(index.tensors, [vec!["a"], vec!["b", "cd"]]);
        let metadata: Vec<_> = index.metadata.unwrap().into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(metadata, ["total_size=12", "f=pt", "x=[1, 2]"]);
    }

    #[test]
    fn what_an_index_must_not_say() {
        for name in ["", ".", "..", "/etc/x", "../x", "a/b", "a\\\\b", "a\\u0000b"] {
            assert_eq!(kind(&format!(r#"{{"weight_map":{{"w":"{name}"}}}}"#)), Some(ErrorKind::Index), "{name}");
        }
        for text in [
            "",
            "[]",
            "{}",
            r#"{"weight_map":null}"#,
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{}} x"#,
            r#"{"weight_map":{},"weight_map":{}}"#,
            r#"{"metadata":3,"weight_map":{}}"#,
            r#"{"metadata":{"a":"1","a":"2"},"weight_map":{}}"#,
            r#"{"weight_map":{"a\ud800":"b"}}"#,
        ] {
            assert_eq!(kind(text), Some(ErrorKind::Index), "{text}");
        }
        assert_eq!(kind(r#"{"weight_map":{"a":"x","\u0061":"x"}}"#), Some(ErrorKind::DuplicateKey));
        assert_eq!(kind(r#"{"weight_map":{}}"#), None);
    }
}
