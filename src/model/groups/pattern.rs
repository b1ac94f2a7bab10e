// SPDX-License-Identifier: Apache-2.0
//! How configurations name modules: by name, with stars, by regular expression
//! or by the class of a layer.
#![forbid(unsafe_code)]

use regex_lite::{Regex, RegexBuilder};

/// Longer ones are not compiled.
const LONGEST: usize = 4096;
/// Most bytes of a compiled one: that of fifty alternatives has a quarter of it.
const LARGEST: usize = 64 << 10;
/// Most patterns of a configuration: each is tried on each module.
pub(super) const MOST_PATTERNS: usize = 1024;

pub(super) enum Pattern {
    Name(Vec<u8>),
    /// `*` is any run of bytes.
    Stars(Vec<u8>),
    /// A name's beginning: one `*`, at the end.
    Starts(Vec<u8>),
    /// `.*` and a text that follows: what most patterns are, and found without an engine.
    Holds(Vec<u8>),
    Regex(Regex),
    Everything,
    /// Can't be compiled: what it matches is not known.
    Unreadable,
}

impl Pattern {
    /// An entry of a list of modules that are left alone.
    pub(super) fn of_module(text: &str) -> Self {
        match text.strip_prefix("re:") {
            Some(expression) => Self::regex(expression),
            None => match text.split_once('*') {
                Some((start, "")) => Self::Starts(start.as_bytes().to_vec()),
                Some(_) => Self::Stars(text.as_bytes().to_vec()),
                None => Self::Name(text.as_bytes().to_vec()),
            },
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

    fn regex(expression: &str) -> Self {
        if expression.len() > LONGEST {
            return Self::Unreadable;
        }
        let special = |byte: u8| br".*+?()[]{}|^$\".contains(&byte);
        if let Some(rest) = expression.strip_prefix(".*") {
            let rest = rest.strip_suffix(".*").unwrap_or(rest);
            if !rest.bytes().any(special) {
                return Self::Holds(rest.as_bytes().to_vec());
            }
        }
        // Python's match: from the beginning, and to wherever it ends.
        let whole = format!("^(?:{expression})");
        RegexBuilder::new(&whole).size_limit(LARGEST).build().map_or(Self::Unreadable, Self::Regex)
    }

    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable)
    }

    pub(super) fn matches(&self, module: &[u8]) -> bool {
        match self {
            Self::Name(name) => name == module,
            Self::Stars(pattern) => stars(pattern, module),
            Self::Starts(start) => module.starts_with(start),
            Self::Holds(text) => holds(module, text),
            Self::Regex(regex) => std::str::from_utf8(module).is_ok_and(|module| regex.is_match(module)),
            Self::Everything => true,
            Self::Unreadable => false,
        }
    }
}

fn holds(module: &[u8], text: &[u8]) -> bool {
    text.is_empty() || module.windows(text.len()).any(|window| window == text)
}

/// The parts between stars are looked for one after the other, each as early as
/// it can be, the last one at the end.
fn stars(pattern: &[u8], mut module: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    match module.strip_prefix(first) {
        Some(rest) => module = rest,
        None => return false,
    }
    let last = parts.next_back().unwrap_or_default();
    match module.strip_suffix(last) {
        Some(rest) => module = rest,
        None => return false,
    }
    for part in parts.filter(|part| !part.is_empty()) {
        let found = module.windows(part.len()).position(|window| window == part);
        let rest = found.and_then(|at| module.get(at..)).and_then(|rest| rest.strip_prefix(part));
        match rest {
            Some(rest) => module = rest,
            None => return false,
        }
    }
    true
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
        let module = |text: &str, module: &str| Pattern::of_module(text).matches(module.as_bytes());
        assert!(module("lm_head", "lm_head") && !module("lm_head", "model.lm_head"));
        assert!(module("model.layers.*.self_attn", "model.layers.12.self_attn"));
        assert!(!module("model.layers.*.self_attn", "model.layers.12.self_attn.q_proj"));
        assert!(module("*router*", "a.router.b") && module("a*", "a") && !module("a*a", "a"));
        assert!(module("*a*b*", "xaxbx") && !module("*b*a*", "xaxbx"));
    }
}
