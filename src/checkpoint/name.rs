// SPDX-License-Identifier: Apache-2.0
//! What the name of a file in a folder says: its stem, its variant, its place
//! in a series, or that it is an index.
//!
//! `model.fp16.safetensors` is the variant `fp16` of `model`, and
//! `sd3.5_large.safetensors` is not a variant of `sd3`. A name alone can't always tell,
//! so what else lies in the folder has a say: see [`FileNames`].
#![forbid(unsafe_code)]

use crate::base::{memory, sort};
use crate::error::Result;

/// What files of tensors are called.
pub(crate) const FILE_SUFFIX: &str = ".safetensors";
/// And the index of a set of them.
pub(crate) const INDEX_SUFFIX: &str = ".safetensors.index.json";

const FILE: &[u8] = FILE_SUFFIX.as_bytes();
const JSON: &[u8] = b".json";
const INDEX: &[u8] = b".index";

/// Stems by which libraries find their weights: what follows one of them is a variant.
const KNOWN: [&[u8]; 5] =
    [b"model", b"diffusion_pytorch_model", b"pytorch_lora_weights", b"adapter_model", b"consolidated"];

/// One file's name, taken apart as far as that goes without its folder.
#[derive(Clone, Copy)]
struct NameParts<'a> {
    /// All of it before `.safetensors`, but for a number in a series.
    stem: &'a [u8],
    /// The stem without its last word, and that word.
    words: Option<(&'a [u8], &'a [u8])>,
    /// The name's form leaves no doubt that the word is a variant.
    certain: bool,
    role: FileRole,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileRole {
    Index,
    /// A file by itself.
    Whole,
    Member(SeriesNumbering),
}

/// A file's number in its series. Two series of one stem differ in what comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesNumbering {
    /// The variant follows the numbers.
    pub(super) word_last: bool,
    pub(super) total: u64,
    pub(super) digits: usize,
    /// From 1 on.
    pub(super) number: u64,
}

/// What a name says once its folder is known.
pub(super) struct Name<'a> {
    /// As it is in the folder.
    pub(super) file: &'a [u8],
    pub(super) stem: &'a [u8],
    pub(super) role: FileRole,
}

/// All names of a folder that count, read together.
pub(super) struct FileNames<'a> {
    parts: Vec<(&'a [u8], NameParts<'a>)>,
    /// What stands before a word is known from these.
    stems: Vec<(&'a [u8], usize)>,
}

impl<'a> FileNames<'a> {
    /// Of a folder's files those whose names count, in the order of their names.
    pub(super) fn read(files: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut parts = memory::vec_with_capacity(files.len(), "files")?;
        for (file, _) in sort::sorted(files, "files")? {
            parts.extend(NameParts::of(file).map(|part| (file, part)));
        }
        let known = parts.iter().map(|(_, part): &(_, NameParts<'a>)| match part.words {
            Some((stem, _)) if part.certain => stem,
            _ => part.stem,
        });
        let stems = sort::sorted(known, "files")?;
        Ok(Self { parts, stems })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Those of a variant, or of none.
    ///
    /// In `foo.fp16-00001-of-00002.safetensors` and in `foo.fp16.safetensors.index.json`
    /// the word may be a variant or a part of the stem, where nothing else tells: such a
    /// name answers to both.
    pub(super) fn of<'s>(&'s self, variant: Option<&'s [u8]>) -> impl Iterator<Item = Name<'a>> + 's {
        self.parts.iter().filter_map(move |(file, part)| {
            let (stem, found) = match part.words {
                Some((stem, word)) if self.is_variant(part) || part.may_be() && variant == Some(word) => {
                    (stem, Some(word))
                }
                _ => (part.stem, None),
            };
            (found == variant).then_some(Name { file, stem, role: part.role })
        })
    }

    /// The variants that are there, each once, in order.
    pub(super) fn variants(&self) -> Result<Vec<&'a [u8]>> {
        let mut words = memory::vec_with_capacity(self.parts.len(), "variants")?;
        let parts = self.parts.iter().filter(|(_, part)| self.is_variant(part));
        words.extend(parts.filter_map(|(_, part)| Some((part.words?.1, 0))));
        sort::texts(&mut words);
        words.dedup();
        memory::collect(words.iter().map(|(word, _)| Ok(*word)), words.len(), "variants")
    }

    fn is_variant(&self, part: &NameParts<'_>) -> bool {
        let Some((stem, _)) = part.words else { return false };
        let there = || self.stems.binary_search_by_key(&stem, |(stem, _)| *stem).is_ok();
        part.certain || KNOWN.contains(&stem) || there()
    }
}

impl<'a> NameParts<'a> {
    fn of(file: &'a [u8]) -> Option<Self> {
        if file.starts_with(b".") {
            return None;
        }
        match file.strip_suffix(FILE) {
            Some(stem) => Some(Self::of_file(stem)),
            None => Self::of_index(file),
        }
    }

    fn of_file(stem: &'a [u8]) -> Self {
        let words = last_word(stem);
        // model-00001-of-00002.fp16
        if let Some(((stem, place), word)) = words.and_then(|(before, word)| Some((member(before)?, word))) {
            let role = FileRole::Member(SeriesNumbering { word_last: true, ..place });
            return Self { stem, words: Some((stem, word)), certain: true, role };
        }
        match member(stem) {
            Some((stem, place)) => Self { stem, words: last_word(stem), certain: false, role: FileRole::Member(place) },
            None => Self { stem, words, certain: false, role: FileRole::Whole },
        }
    }

    /// `STEM.safetensors.index.json`, and the two places for a variant in it.
    fn of_index(file: &'a [u8]) -> Option<Self> {
        let before = file.strip_suffix(JSON)?;
        if let Some(stem) = before.strip_suffix(INDEX).and_then(|before| before.strip_suffix(FILE)) {
            return Some(Self { stem, words: last_word(stem), certain: false, role: FileRole::Index });
        }
        let in_front = before.strip_suffix(INDEX).and_then(last_word).filter(|(rest, _)| rest.ends_with(FILE));
        let (rest, word) = match in_front {
            Some(found) => found,
            None => {
                let (rest, word) = last_word(before)?;
                (rest.strip_suffix(INDEX)?, word)
            }
        };
        let stem = rest.strip_suffix(FILE)?;
        Some(Self { stem, words: Some((stem, word)), certain: true, role: FileRole::Index })
    }

    /// Whether the word may be a variant although nothing says so.
    fn may_be(&self) -> bool {
        self.role != FileRole::Whole
    }
}

/// Whether a name is an index's, in any of the spellings, or as other libraries spell theirs.
pub(super) fn is_index(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.ends_with(b".index.json") || NameParts::of_index(name).is_some()
}

/// Whether a folder's file of this name is a tensor file or an index.
pub(super) fn counts(name: &[u8]) -> bool {
    NameParts::of(name).is_some()
}

/// The name of a member of a series.
pub(super) fn of_member(stem: &[u8], variant: Option<&[u8]>, place: SeriesNumbering) -> Vec<u8> {
    let SeriesNumbering { word_last, total, digits, number } = place;
    let numbers = format!("-{number:0digits$}-of-{total:0digits$}");
    let variant = variant.map_or(Vec::new(), |variant| [b".", variant].concat());
    match word_last {
        true => [stem, numbers.as_bytes(), &variant, FILE].concat(),
        false => [stem, &variant, numbers.as_bytes(), FILE].concat(),
    }
}

/// Whether a file of this name may be an index all the same.
pub(super) fn is_json(path: &[u8]) -> bool {
    path.ends_with(JSON)
}

/// Whether this can be a variant: a letter, then letters, digits and `_`.
fn is_word(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Whether `consolidated…`, as one family names the same weights once more.
pub(super) fn is_consolidated(stem: &[u8]) -> bool {
    let rest = stem.strip_prefix(b"consolidated");
    rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'.' | b'-')))
}

fn last_word(stem: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = stem.iter().rposition(|byte| *byte == b'.')?;
    let (before, word) = stem.split_at_checked(dot)?;
    let word = word.get(1..)?;
    (!before.is_empty() && is_word(word)).then_some((before, word))
}

/// `STEM-00001-of-00002`: any number of digits, equally many in both.
fn member(stem: &[u8]) -> Option<(&[u8], SeriesNumbering)> {
    let (rest, total) = number_at_end(stem)?;
    let (rest, number) = number_at_end(rest.strip_suffix(b"-of-")?)?;
    let (stem, digits) = (rest.strip_suffix(b"-")?, total.len());
    if stem.is_empty() || number.len() != digits {
        return None;
    }
    let value = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    let (number, total) = (value(number)?, value(total)?);
    (1..=total).contains(&number).then_some((stem, SeriesNumbering { word_last: false, total, digits, number }))
}

fn number_at_end(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let before = text.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last.saturating_add(1));
    let (before, digits) = text.split_at_checked(before)?;
    (!digits.is_empty()).then_some((before, digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[&str], variant: Option<&str>) -> Vec<String> {
        let names = FileNames::read(files.iter().map(|file| file.as_bytes())).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let shown = |name: Name<'_>| format!("{} {:?}", text(name.stem), name.role);
        names.of(variant.map(str::as_bytes)).map(shown).collect()
    }

    fn variants(files: &[&str]) -> Vec<String> {
        let names = FileNames::read(files.iter().map(|file| file.as_bytes())).unwrap();
        names.variants().unwrap().iter().map(|word| String::from_utf8(word.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_word_is_a_variant_where_its_stem_is_known() {
        for alone in
            ["sd3.5_large.safetensors", "sd_xl_base_1.0.safetensors", "foo.fp16.safetensors", "model.16bit.safetensors"]
        {
            assert_eq!(variants(&[alone]), [""; 0], "{alone}");
            assert_eq!(read(&[alone], None).len(), 1, "{alone}");
        }
        assert_eq!(variants(&["diffusion_pytorch_model.non_ema.safetensors"]), ["non_ema"]);
        assert_eq!(variants(&["foo.fp16.safetensors", "foo.safetensors"]), ["fp16"]);
        assert_eq!(variants(&["foo.fp16.safetensors", "foo-1-of-3.safetensors"]), ["fp16"]);
        assert_eq!(variants(&["foo.fp16.safetensors", "foo.safetensors.index.json"]), ["fp16"]);
        assert_eq!(variants(&["foo.a.b.safetensors", "foo.safetensors"]), [""; 0]);
    }

    #[test]
    fn both_spellings_of_series_and_index_are_known() {
        let place = |word_last, number| {
            format!("x Member(SeriesNumbering {{ word_last: {word_last}, total: 12, digits: 3, number: {number} }})")
        };
        assert_eq!(read(&["x-001-of-012.safetensors"], None), [place(false, 1)]);
        assert_eq!(read(&["x.fp16-011-of-012.safetensors"], Some("fp16")), [place(false, 11)]);
        assert_eq!(read(&["x-012-of-012.fp16.safetensors"], Some("fp16")), [place(true, 12)]);
        assert_eq!(read(&["x-012-of-012.fp16.safetensors"], None), [""; 0]);
        for index in ["x.safetensors.index.q8.json", "x.safetensors.q8.index.json", "x.q8.safetensors.index.json"] {
            assert_eq!(read(&[index], Some("q8")), ["x Index"], "{index}");
        }
        // What nothing else tells answers to both.
        assert_eq!(
            read(&["x.v-1-of-1.safetensors"], None).len() + read(&["x.v-1-of-1.safetensors"], Some("v")).len(),
            2
        );
    }

    #[test]
    fn what_is_no_member_of_a_series_is_a_file_by_itself() {
        for file in [
            "x-01-of-2",
            "x-0-of-2",
            "x-3-of-2",
            "-1-of-2",
            "x-1-of-",
            "x-of-2",
            "x-mtp-of-1",
            "x-1-of-99999999999999999999",
        ] {
            let file = format!("{file}.safetensors");
            assert!(read(&[&file], None).iter().all(|shown| shown.ends_with("Whole")), "{file}");
        }
    }

    #[test]
    fn other_names_do_not_count() {
        for file in [
            ".x.safetensors",
            "._model.safetensors",
            "x.bin",
            "x.index.json",
            "x.safetensors.index.8bit.json",
            "x.safetensors.json",
        ] {
            assert_eq!(read(&[file], None), [""; 0], "{file}");
        }
    }
}
