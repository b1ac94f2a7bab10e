// SPDX-License-Identifier: Apache-2.0
//! What the configuration and the caller say about modules: which method, how
//! many bits, which are left alone.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::pattern::Pattern;
use crate::base::sort;
use crate::error::Result;
use crate::model::config::{unreadable, MAX_CONFIG};
use crate::model::json::Json;

/// Most patterns of a configuration, as each is tried on each module; those that take an
/// engine count as four.
const MOST_PATTERNS: usize = 1024;

/// Numbers by name. One type for all that is looked up here, as each would be some kB of code.
pub(super) type Table = BTreeMap<Vec<u8>, usize>;

/// What a caller says about a module or all modules below a prefix, in place
/// of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Override {
    /// A module's name, or a prefix of names that ends where a part of a name ends.
    pub module: Vec<u8>,
    /// A layout's name, or a method's ("gptq").
    pub layout: Option<String>,
    /// Bits of a code.
    pub bits: Option<u64>,
    /// Elements that share a scale, along in.
    pub group_size: Option<u64>,
}

/// The configuration, as far as it speaks of quantisation.
#[derive(Default)]
pub(super) struct Settings {
    /// There is a `quantization_config`.
    pub(super) given: bool,
    pub(super) method: Option<String>,
    pub(super) float: Option<String>,
    pub(super) version: Option<String>,
    pub(super) checkpoint_format: Option<String>,
    pub(super) bits: Option<u64>,
    group_size: Option<i64>,
    pub(super) symmetric: bool,
    /// Rules for modules that replace bits and group size.
    pub(super) dynamic: bool,
    pub(super) weight_block: Option<(u64, u64)>,
    config_groups: Vec<ConfigGroup>,
    /// Which config group is for modules: of these names, and of patterns in their order.
    targeted: Table,
    targets: Vec<(usize, Pattern)>,
    ignored: Vec<Pattern>,
    /// Those that are a name.
    ignored_names: Table,
    /// Those that are the beginning of names: in order, none of them that of another.
    ignored_starts: Vec<Vec<u8>>,
    /// How many other patterns there are.
    patterns: usize,
    mlx: Option<Mlx>,
    overrides: Vec<Override>,
    /// Their numbers by module; of several for one the first.
    overridden: Table,
}

/// A config group of compressed-tensors.
#[derive(Default)]
pub(super) struct ConfigGroup {
    pub(super) bits: Option<u64>,
    pub(super) float: Option<bool>,
    pub(super) symmetric: Option<bool>,
    pub(super) strategy: Option<String>,
    pub(super) group_size: Option<u64>,
    pub(super) block: Option<(u64, u64)>,
}

struct Mlx {
    all: MlxModule,
    /// Their numbers among `modules`.
    names: Table,
    /// `None`: it is not quantised.
    modules: Vec<Option<MlxModule>>,
}

/// MLX's word on one module.
#[derive(Clone, Default)]
pub(super) struct MlxModule {
    pub(super) bits: Option<u64>,
    pub(super) group_size: Option<u64>,
    pub(super) mode: Option<String>,
}

/// A group size in a configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum GroupSize {
    /// −1: one group for the whole of in.
    Whole,
    Of(u64),
}

impl Settings {
    /// Reads a config.json.
    ///
    /// # Errors
    /// `Config` where it is not a JSON object.
    pub(super) fn read(text: &[u8]) -> Result<Self> {
        let root = Json::parse(text, MAX_CONFIG).map_err(|fault| unreadable(&fault))?;
        if !matches!(root, Json::Map(_)) {
            return Err(unreadable("it is not a JSON object"));
        }
        let inner = root.get("text_config");
        let either = |key: &str| {
            let map = |found: &&Json| matches!(found, Json::Map(_));
            let there = root.get(key).filter(map);
            there.or_else(|| inner.and_then(|inner| inner.get(key)).filter(map))
        };
        let mut this = Self::default();
        if let Some(config) = either("quantization_config") {
            this.take_config(config);
        }
        if this.is_full() {
            let limit = MOST_PATTERNS.to_string();
            let text = ["its patterns of modules are more than ", &limit, "; a regular expression counts as four"];
            return Err(unreadable(&text.concat()));
        }
        this.ignored_starts = shortest(&this.ignored_starts)?;
        // MLX writes its table under both keys.
        let table = either("quantization").or_else(|| either("quantization_config").filter(|_| this.method.is_none()));
        this.mlx =
            table.filter(|table| table.get("group_size").is_some() || table.get("bits").is_some()).map(Mlx::read);
        Ok(this)
    }

    fn take_config(&mut self, config: &Json) {
        let lower = |key: &str| lower(config, key);
        self.given = true;
        self.method = lower("quant_method");
        self.float = lower("fmt");
        self.version = lower("version");
        self.checkpoint_format = lower("checkpoint_format");
        self.bits = config.get("bits").and_then(Json::positive);
        self.group_size = config.get("group_size").and_then(Json::integer);
        self.symmetric = config.get("sym").and_then(Json::bool) == Some(true);
        self.dynamic = config.map("dynamic").is_some_and(|rules| !rules.is_empty());
        self.weight_block = config.get("weight_block_size").and_then(pair);
        for (number, (_, group)) in config.map("config_groups").unwrap_or_default().iter().enumerate() {
            self.config_groups.push(ConfigGroup::read(group));
            for target in group.list("targets").iter().filter_map(Json::text) {
                match Pattern::of_target(target) {
                    _ if self.is_full() => return,
                    Pattern::Name(name) => drop(self.targeted.entry(name).or_insert(number)),
                    pattern => {
                        self.patterns = self.patterns.saturating_add(pattern.weight());
                        self.targets.push((number, pattern));
                    }
                }
            }
        }
        for key in ["ignore", "modules_to_not_convert", "exclude_modules"] {
            for name in config.list(key).iter().filter_map(Json::text) {
                match Pattern::of_module(name) {
                    _ if self.is_full() => return,
                    Pattern::Name(name) => drop(self.ignored_names.insert(name, 0)),
                    Pattern::Starts(start) => self.ignored_starts.push(start),
                    pattern => {
                        self.patterns = self.patterns.saturating_add(pattern.weight());
                        self.ignored.push(pattern);
                    }
                }
            }
        }
    }

    /// Whether there are more patterns than are tried on each module.
    fn is_full(&self) -> bool {
        self.patterns > MOST_PATTERNS
    }

    pub(super) fn with_overrides(mut self, overrides: &[Override]) -> Self {
        for (number, over) in overrides.iter().enumerate() {
            let name = over.module.strip_suffix(b".").unwrap_or(&over.module);
            self.overridden.entry(name.to_vec()).or_insert(number);
        }
        self.overrides = overrides.to_vec();
        self
    }

    /// The caller's word on a module.
    pub(super) fn override_of(&self, module: &[u8]) -> Option<&Override> {
        let named = |name: &[u8]| self.overridden.get(name);
        let longest = prefixes(module).filter_map(named).last().or_else(|| named(b""));
        longest.and_then(|number| self.overrides.get(*number))
    }

    /// Whether the configuration leaves a module, or one that it is part of, as it is.
    pub(super) fn ignores(&self, module: &[u8]) -> bool {
        if self.override_of(module).is_some() {
            return false;
        }
        let named = |name: &[u8]| self.ignored_names.contains_key(name);
        let after = self.ignored_starts.partition_point(|start| start.as_slice() <= module);
        let start = after.checked_sub(1).and_then(|last| self.ignored_starts.get(last));
        start.is_some_and(|start| module.starts_with(start))
            || !self.ignored_names.is_empty() && prefixes(module).any(named)
            || self.ignored.iter().any(|pattern| match pattern.is_of_those_below() {
                true => prefixes(module).any(|prefix| pattern.matches(prefix)),
                false => pattern.matches(module),
            })
            || matches!(self.mlx.as_ref().and_then(|mlx| mlx.named(module)), Some(None))
    }

    /// The group size for GPTQ and AWQ.
    pub(super) fn group_size(&self, module: &[u8]) -> Option<GroupSize> {
        if let Some(size) = self.override_of(module).and_then(|over| over.group_size) {
            return Some(GroupSize::Of(size));
        }
        match self.group_size? {
            -1 => Some(GroupSize::Whole),
            size => u64::try_from(size).ok().filter(|size| *size != 0).map(GroupSize::Of),
        }
    }

    /// The config group for a module: the only one, or the first with a target that matches.
    pub(super) fn config_group(&self, module: &[u8]) -> Option<&ConfigGroup> {
        if let [only] = self.config_groups.as_slice() {
            return Some(only);
        }
        let named = self.targeted.get(module).copied();
        let earlier = self.targets.iter().filter(|(number, _)| named.is_none_or(|named| *number < named));
        let matching = |(_, target): &&(usize, Pattern)| target.matches(module) || target.is_unreadable();
        let number = match earlier.clone().find(matching) {
            // Whether it is this group can't be known, unless another target says so.
            Some((number, Pattern::Unreadable)) => {
                let sure = |(of, target): &(usize, Pattern)| of == number && target.matches(module);
                Some(*number).filter(|_| self.targets.iter().any(sure))
            }
            Some((number, _)) => Some(*number),
            None => named,
        };
        self.config_groups.get(number?)
    }

    /// What MLX's table says of a module; `None`: there is no table.
    pub(super) fn mlx(&self, module: &[u8]) -> Option<MlxModule> {
        let mlx = self.mlx.as_ref()?;
        Some(mlx.named(module).cloned().flatten().unwrap_or_else(|| mlx.all.clone()))
    }
}

impl ConfigGroup {
    fn read(group: &Json) -> Self {
        let Some(weights) = group.get("weights") else {
            return Self::default();
        };
        let text = |key: &str| lower(weights, key);
        Self {
            bits: weights.get("num_bits").and_then(Json::positive),
            float: text("type").map(|kind| kind == "float"),
            symmetric: weights.get("symmetric").and_then(Json::bool),
            strategy: text("strategy"),
            group_size: weights.get("group_size").and_then(Json::positive),
            block: weights.get("block_structure").and_then(pair),
        }
    }
}

impl Mlx {
    fn read(table: &Json) -> Self {
        let Json::Map(entries) = table else {
            return Self { all: MlxModule::default(), names: Table::new(), modules: Vec::new() };
        };
        let (mut names, mut modules) = (Table::new(), Vec::new());
        for (key, value) in entries {
            let module = match value {
                Json::Map(_) => Some(MlxModule::read(value)),
                Json::Bool(false) => None,
                _ => continue,
            };
            names.insert(key.as_bytes().to_vec(), modules.len());
            modules.push(module);
        }
        Self { all: MlxModule::read(table), names, modules }
    }

    fn named(&self, module: &[u8]) -> Option<&Option<MlxModule>> {
        self.modules.get(*self.names.get(module)?)
    }
}

impl MlxModule {
    fn read(table: &Json) -> Self {
        Self {
            bits: table.get("bits").and_then(Json::positive),
            group_size: table.get("group_size").and_then(Json::positive),
            mode: table.get("mode").and_then(Json::text).map(str::to_owned),
        }
    }
}

/// A text, in lower case.
#[inline(never)]
fn lower(table: &Json, key: &str) -> Option<String> {
    table.get(key).and_then(Json::text).map(str::to_ascii_lowercase)
}

fn pair(list: &Json) -> Option<(u64, u64)> {
    match list {
        Json::List(items) => match items.as_slice() {
            [first, second] => first.positive().zip(second.positive()),
            _ => None,
        },
        _ => None,
    }
}

/// In order, without those that begin as others do.
fn shortest(starts: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for (start, _) in sort::sorted(starts.iter().map(Vec::as_slice), "patterns")? {
        if !kept.last().is_some_and(|last| start.starts_with(last)) {
            kept.push(start.to_vec());
        }
    }
    Ok(kept)
}

/// A module's name and those of the modules that it is part of.
fn prefixes(module: &[u8]) -> impl Iterator<Item = &[u8]> {
    let dots = module.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    dots.chain([module.len()]).filter_map(|end| module.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &str) -> Settings {
        Settings::read(format!(r#"{{"quantization_config": {config}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn modules_are_left_alone_by_name_by_beginning_and_by_pattern() {
        let list = r#"["lm_head", "model.layers.1*", "model.layers.12.mlp*", "model.l*", "*router*", "re:.*embed.*"]"#;
        let settings = settings(&format!(r#"{{"exclude_modules": {list}}}"#));
        let ignores = |module: &str| settings.ignores(module.as_bytes());
        for module in ["lm_head", "lm_head.inner", "model.layers.1", "model.layers.12.mlp", "a.router.b", "x.embed"] {
            assert!(ignores(module), "{module}");
        }
        for module in ["lm_heads", "model.k", "model", "mode", "z", "", "a.lm_head"] {
            assert!(!ignores(module), "{module}");
        }
    }

    #[test]
    fn the_first_config_group_that_has_a_module_counts_and_one_that_may_have_it_none() {
        let groups = |targets: &[&str]| -> String {
            let group = |(bits, target): (usize, &&str)| {
                format!(r#""{bits}": {{"targets": [{target}], "weights": {{"num_bits": {}}}}}"#, bits + 1)
            };
            let groups: Vec<String> = targets.iter().enumerate().map(group).collect();
            format!(r#"{{"config_groups": {{{}}}}}"#, groups.join(","))
        };
        let bits = |targets: &[&str], module: &str| {
            settings(&groups(targets)).config_group(module.as_bytes()).and_then(|group| group.bits)
        };
        assert_eq!(bits(&[r#""m.a""#, r#""Linear""#], "m.a"), Some(1));
        assert_eq!(bits(&[r#""m.a""#, r#""Linear""#], "m.b"), Some(2));
        assert_eq!(bits(&[r#""Linear""#, r#""m.a""#], "m.a"), Some(1));
        assert_eq!(bits(&[r#""re:.*x$""#, r#""m.a", "m.b""#, r#""m.b", "re:m""#], "m.b"), Some(2));
        assert_eq!(bits(&[r#""re:.*x$""#, r#""m.a""#], "m.c"), None);
        // An engine without look-ahead can't say whether the first one has it.
        assert_eq!(bits(&[r#""re:(?!.*b)m.*""#, r#""Linear""#], "m.b"), None);
        assert_eq!(bits(&[r#""re:(?!.*b)m.*", "m.a", "re:m[.]c""#, r#""Linear""#], "m.c"), Some(1));
        assert_eq!(bits(&[r#""m.a""#, r#""re:(?!.*b)m.*""#], "m.a"), Some(1));
        assert_eq!(bits(&[r#""re:(?!.*b)m.*""#], "m.b"), Some(1));
    }

    #[test]
    fn a_configuration_has_no_more_patterns_than_are_tried_on_each_module() {
        let read = |count: usize, pattern: &str| {
            let list = vec![pattern; count].join(",");
            Settings::read(format!(r#"{{"quantization_config": {{"ignore": [{list}]}}}}"#).as_bytes())
        };
        assert!(read(MOST_PATTERNS, r#""re:a.*b""#).is_ok() && read(MOST_PATTERNS / 4, r#""re:(a|b)""#).is_ok());
        assert!(read(MOST_PATTERNS / 4 + 1, r#""re:(a|b)""#).is_err());
        assert!(read(100_000, r#""a.*""#).is_ok() && read(100_000, r#""a""#).is_ok());
        let refused = read(MOST_PATTERNS + 1, r#""*a*""#).err().unwrap().to_string();
        assert!(refused.contains("1024"), "{refused}");
    }
}
