// SPDX-License-Identifier: Apache-2.0
//! Small files of the format, made from their parts.

/// A file of the format: length, header text, data.
pub(crate) fn file(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// One U8 tensor's entry.
pub(crate) fn entry(name: &str, begin: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
}

/// A file with a U8 tensor of `size` bytes for each name; their bytes differ.
pub(crate) fn file_of(names: &[impl AsRef<str>], size: usize) -> Vec<u8> {
    let entries = names.iter().enumerate().map(|(i, name)| entry(name.as_ref(), i * size, (i + 1) * size));
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    file(header, &pattern(names.len() * size))
}

/// Bytes that differ from their neighbours near and far.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// An index file's text that maps each tensor to its shard.
pub(crate) fn index_of<T: AsRef<str>, S: AsRef<str>>(map: impl IntoIterator<Item = (T, S)>) -> String {
    let entries = map.into_iter().map(|(tensor, shard)| format!(r#""{}":"{}""#, tensor.as_ref(), shard.as_ref()));
    format!(r#"{{"weight_map":{{{}}}}}"#, entries.collect::<Vec<_>>().join(","))
}
