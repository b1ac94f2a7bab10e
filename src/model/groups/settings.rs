// SPDX-License-Identifier: Apache-2.0
//! What the configuration and the caller say about modules: which method, how
//! many bits, which are left alone.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::pattern::Pattern;
use crate::error::Result;
use crate::model::config::{unreadable, MAX_CONFIG};
use crate::model::json::Json;

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
    ignored: Vec<Pattern>,
    /// Names of `ignored` that are no patterns.
    ignored_names: Table,
    mlx: Option<Mlx>,
    overrides: Vec<Override>,
    /// Their numbers by module; of several for one the first.
    overridden: Table,
}

/// A config group of compressed-tensors.
#[derive(Default)]
pub(super) struct ConfigGroup {
    targets: Vec<Pattern>,
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
        for (_, group) in config.map("config_groups").unwrap_or_default() {
            self.config_groups.push(ConfigGroup::read(group));
        }
        for key in ["ignore", "modules_to_not_convert", "exclude_modules"] {
            for name in config.list(key).iter().filter_map(Json::text) {
                match Pattern::of_module(name) {
                    Pattern::Name(name) => drop(self.ignored_names.insert(name, 0)),
                    pattern => self.ignored.push(pattern),
                }
            }
        }
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
        !self.ignored_names.is_empty() && prefixes(module).any(named)
            || self.ignored.iter().any(|pattern| prefixes(module).any(|prefix| pattern.matches(prefix)))
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
        match self.config_groups.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|group| group.targets.iter().any(|target| target.matches(module))),
        }
    }

    /// What MLX's table says of a module; `None`: there is no table.
    pub(super) fn mlx(&self, module: &[u8]) -> Option<MlxModule> {
        let mlx = self.mlx.as_ref()?;
        Some(mlx.named(module).cloned().flatten().unwrap_or_else(|| mlx.all.clone()))
    }
}

impl ConfigGroup {
    fn read(group: &Json) -> Self {
        let targets = group.list("targets").iter().filter_map(Json::text).map(Pattern::of_target).collect();
        let Some(weights) = group.get("weights") else {
            return Self { targets, ..Self::default() };
        };
        let text = |key: &str| lower(weights, key);
        Self {
            targets,
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

/// A module's name and those of the modules that it is part of.
fn prefixes(module: &[u8]) -> impl Iterator<Item = &[u8]> {
    let dots = module.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    dots.chain([module.len()]).filter_map(|end| module.get(..end))
}
