// SPDX-License-Identifier: Apache-2.0
//! How configurations name modules: by name, with stars, by regular expression
//! or by the class of a layer.
#![forbid(unsafe_code)]

use regex_lite::{Regex, RegexBuilder};

/// Longer ones are not read, but for names and beginnings.
const LONGEST: usize = 4096;
/// Most bytes of a compiled one: that of fifty alternatives has a quarter of it.
const LARGEST: usize = 64 << 10;
/// Stands for any byte in a text to look for; none of UTF-8's.
const ANY: u8 = 0xff;

pub(super) enum Pattern {
    Name(Vec<u8>),
    /// A name's beginning: one `*`, at the end.
    Starts(Vec<u8>),
    Texts(Texts),
    Regex(Regex),
    Everything,
    /// Can't be compiled: what it matches is not known.
    Unreadable,
}

/// Texts that follow each other, with anything between them: stars, and what most regular
/// expressions are, of which an engine takes a microsecond for each name.
pub(super) struct Texts {
    texts: Vec<Vec<u8>>,
    /// Whether the first one begins the name, and the last one ends it.
    begins: bool,
    ends: bool,
    /// Modules below one that it names are meant too.
    below: bool,
}

impl Pattern {
    /// An entry of a list of modules that are left alone.
    pub(super) fn of_module(text: &str) -> Self {
        if let Some(expression) = text.strip_prefix("re:") {
            return Self::regex(expression);
        }
        match text.split_once('*') {
            Some((start, "")) => Self::Starts(start.as_bytes().to_vec()),
            Some(_) if text.len() > LONGEST => Self::Unreadable,
            Some(_) => {
                let texts = text.split('*').map(|text| text.as_bytes().to_vec()).collect();
                Self::Texts(Texts { texts, begins: true, ends: true, below: !text.ends_with('*') })
            }
            None => Self::Name(text.as_bytes().to_vec()),
        }
    }

    /// A target of a config group, which may be a class ("Linear").
    pub(super) fn of_target(text: &str) -> Self {
        if let Some(expression) = text.strip_prefix("re:") {
            return Self::regex(expression);
        }
        let class = text.chars().next().is_some_and(|first| first.is_ascii_uppercase()) && !text.contains('.');
        match class {
            true => Self::Everything,
            false => Self::Name(text.as_bytes().to_vec()),
        }
    }

    /// As Python's match has it: from the beginning, and to wherever it ends.
    fn regex(expression: &str) -> Self {
        if expression.len() > LONGEST {
            return Self::Unreadable;
        }
        if let Some(texts) = Texts::of_regex(expression) {
            return Self::Texts(texts);
        }
        let whole = ["^(?:", expression, ")"].concat();
        RegexBuilder::new(&whole).size_limit(LARGEST).build().map_or(Self::Unreadable, Self::Regex)
    }

    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable)
    }

    /// How many patterns it takes the time of.
    pub(super) fn weight(&self) -> usize {
        if matches!(self, Self::Regex(_)) {
            4
        } else {
            1
        }
    }

    /// Whether modules below one that matches are meant too.
    pub(super) fn is_of_those_below(&self) -> bool {
        matches!(self, Self::Texts(Texts { below: true, .. }))
    }

    pub(super) fn matches(&self, module: &[u8]) -> bool {
        match self {
            Self::Name(name) => name == module,
            Self::Starts(start) => module.starts_with(start),
            Self::Texts(texts) => texts.match_name(module),
            Self::Regex(regex) => std::str::from_utf8(module).is_ok_and(|module| regex.is_match(module)),
            Self::Everything => true,
            Self::Unreadable => false,
        }
    }
}

impl Texts {
    /// `None` for an expression of more than characters, any character, and runs of any.
    fn of_regex(expression: &str) -> Option<Self> {
        let (mut bytes, mut texts, mut text) = (expression.bytes().peekable(), Vec::new(), Vec::new());
        let (mut begins, mut ends) = (true, false);
        bytes.next_if_eq(&b'^');
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' if bytes.next_if_eq(&b'*').is_some() => {
                    begins &= !(texts.is_empty() && text.is_empty());
                    if !text.is_empty() {
                        texts.push(std::mem::take(&mut text));
                    }
                }
                b'.' => text.push(ANY),
                b'$' if bytes.peek().is_none() => ends = true,
                b'\\' => text.push(bytes.next().filter(u8::is_ascii_punctuation)?),
                b'*' | b'+' | b'?' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'|' | b'^' | b'$' | 0x80.. => {
                    return None
                }
                byte => text.push(byte),
            }
            if matches!(bytes.peek(), Some(b'*' | b'+' | b'?' | b'{')) {
                return None;
            }
        }
        // A run at the end may be of nothing: what comes before it need not be last.
        if ends || !text.is_empty() {
            texts.push(text);
        }
        Some(Self { texts, begins, ends, below: false })
    }

    fn match_name(&self, mut name: &[u8]) -> bool {
        let mut texts = self.texts.as_slice();
        if let (true, Some((first, later))) = (self.begins, texts.split_first()) {
            let Some((start, rest)) = name.split_at_checked(first.len()) else { return false };
            if !same(start, first) {
                return false;
            }
            (name, texts) = (rest, later);
        }
        if self.ends {
            let Some((last, earlier)) = texts.split_last() else { return name.is_empty() };
            let end = name.len().checked_sub(last.len()).and_then(|at| name.split_at_checked(at));
            let Some((rest, _)) = end.filter(|(_, end)| same(end, last)) else { return false };
            (name, texts) = (rest, earlier);
        }
        // Each as early as it can be.
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let found = name.windows(text.len()).position(|window| same(window, text));
            let rest = found.and_then(|at| name.get(at..)).and_then(|rest| rest.get(text.len()..));
            let Some(rest) = rest else { return false };
            name = rest;
        }
        true
    }
}

/// Whether bytes are those of a text of the same length.
fn same(bytes: &[u8], text: &[u8]) -> bool {
    bytes.iter().zip(text).all(|(byte, wanted)| byte == wanted || *wanted == ANY && byte.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_their_libraries_do() {
        let target = |text: &str, module: &str| Pattern::of_target(text).matches(module.as_bytes());
        assert!(target("Linear", "model.layers.0.mlp.up_proj"));
        assert!(target("re:.*up_proj", "model.layers.0.mlp.up_proj"));
        assert!(target("re:.*up_proj", "model.up_proj.more"));
        assert!(!target("re:up_proj", "model.up_proj"));
        assert!(!target("re:.*up_proj$", "model.up_proj.more"));
        assert!(target("re:.*(up|down)_proj$", "model.down_proj"));
        assert!(!target("re:(unclosed", "(unclosed"));
        assert!(!target("re:.*a\\.b", "a_b") && target("re:.*a\\.b", "x.a.b"));
        assert!(target("re:model.layers.*.up_proj$", "model.layers.3.up_proj") && target("re:a.c", "abcd"));
        assert!(!target("re:a.c", "ac") && !target("re:.*up$", "a.ups") && target("re:.*up$", "up"));
        assert!(target("re:up.*$", "up") && target("re:.*", "") && target("re:$", "") && !target("re:$", "a"));
        assert!(target("re:a.*b.*c$", "axbxbc") && !target("re:a.*b.*c$", "axbxb") && !target("re:a.*a$", "a"));
        assert!(target("re:a\\.*b", "a..b") && !target("re:a\\.*b", "axb") && target("re:a+b", "aab"));
        assert!(target("re:^model\\.(a|b)$", "model.a") && target("re:layers\\.\\d+$", "layers.12"));
        let module = |text: &str, module: &str| Pattern::of_module(text).matches(module.as_bytes());
        assert!(module("lm_head", "lm_head") && !module("lm_head", "model.lm_head"));
        assert!(module("model.layers.*.self_attn", "model.layers.12.self_attn"));
        assert!(!module("model.layers.*.self_attn", "model.layers.12.self_attn.q_proj"));
        assert!(module("*router*", "a.router.b") && module("a*", "a") && !module("a*a", "a"));
        assert!(module("*a*b*", "xaxbx") && !module("*b*a*", "xaxbx"));
    }
}
