// SPDX-License-Identifier: Apache-2.0
//! Quantised groups: what a model calls one weight and a file stores as codes,
//! scales and zero points.
//!
//! Tensors are walked through once; each that could be codes goes to the
//! recogniser of its name and dtype (`gptq`, `packed`, `float8`, `bytes`, `bnb`,
//! `mlx`, `blocks`), which looks for companions by name and makes a `Form` of
//! them, or says why not (`draft`). A form is a recipe (`recipe`) and its sizes;
//! `boxes` says what a slice needs, and `decode` makes values of that.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "from a caller's record")]
mod assembly;
mod blocks;
mod bnb;
mod boxes;
mod bytes;
mod decode;
mod draft;
mod findings;
mod float8;
mod gptq;
mod index;
mod marker;
mod mlx;
mod packed;
mod pattern;
mod read;
mod recipe;
#[allow(unsafe_code, reason = "records with pointers into what stays")]
mod record;
mod settings;

pub(crate) use self::assembly::assembly;
pub use self::boxes::MemberBox;
pub use self::draft::Break;
pub(crate) use self::findings::findings;
pub use self::recipe::{Code, Global, Layout, Order, Packing, Recipe, ScaleLayout, ScaleType, Zero};
pub(crate) use self::record::Listing;
pub use self::settings::Override;

use std::ffi::CStr;

use self::draft::{Draft, Fault, Form, Found};
use self::marker::Markers;
use self::settings::Settings;
use crate::base::memory;
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::model::config;
use crate::record::Tensor;

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Role {
    Codes,
    Scales,
    Zeros,
    Offsets,
    Global,
    Order,
    Shape,
    Map,
    State,
    NestedScales,
    NestedMap,
    Format,
    InputScale,
    PreScale,
    KvScale,
}

impl Role {
    /// As the C interface spells it, NUL-terminated.
    #[must_use]
    pub fn c_name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Codes => c"codes",
            Self::Scales => c"scales",
            Self::Zeros => c"zeros",
            Self::Offsets => c"offsets",
            Self::Global => c"global",
            Self::Order => c"order",
            Self::Shape => c"shape",
            Self::Map => c"map",
            Self::State => c"state",
            Self::NestedScales => c"nested_scales",
            Self::NestedMap => c"nested_map",
            Self::Format => c"format",
            Self::InputScale => c"input_scale",
            Self::PreScale => c"pre_scale",
            Self::KvScale => c"kv_scale",
        }
    }
}

/// A tensor of a group.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// What it is for.
    pub role: Role,
    /// Its number in the checkpoint's list.
    pub tensor: usize,
}

/// What is particular about a group. The bits are the C constants `ST_GROUP_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// Codes are stored [in, out].
    pub const TRANSPOSED: Self = Self(1);
    /// Groups are given by an index.
    pub const ACT_ORDER: Self = Self(2);
    /// There are zero points.
    pub const ASYMMETRIC: Self = Self(4);
    /// Scales are stored in tiles.
    pub const SWIZZLED: Self = Self(8);
    /// Of two codes in a byte the first is the high one.
    pub const HIGH_NIBBLE_FIRST: Self = Self(16);
    /// Codes are one run over the whole matrix.
    pub const FLAT: Self = Self(32);
    /// Words have unused bits.
    pub const PADDED_WORDS: Self = Self(64);
    /// Several readings fit.
    pub const AMBIGUOUS: Self = Self(128);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As the C interface has it.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// Whether a group can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It can.
    Ok,
    /// A rule is broken.
    Broken(Break),
    /// Several readings fit.
    Ambiguous,
    /// Recognised, and there is no decoder.
    Opaque,
}

/// Scales that are quantised themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Nested {
    /// Scales that share a scale.
    block: u64,
    /// What is added to each.
    offset: f32,
}

/// One logical tensor.
#[derive(Debug)]
pub struct Group {
    name: Vec<u8>,
    kind: &'static CStr,
    status: Status,
    problem: String,
    members: Vec<Member>,
    /// `None` where it is not ok.
    layout: Option<&'static Layout>,
    recipe: Option<Recipe>,
    bits: u32,
    flags: Flags,
    shape: Vec<i64>,
    block: Vec<i64>,
    step: Vec<i64>,
    nested: Option<Nested>,
    /// The group of each column, where an index is used.
    order: Option<Vec<u32>>,
}

#[allow(missing_docs, reason = "the C interface documents the fields of the same names")]
impl Group {
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind.to_str().unwrap_or_default()
    }

    #[must_use]
    pub fn layout(&self) -> &'static str {
        self.layout.map_or("", Layout::name)
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    #[must_use]
    pub fn recipe(&self) -> Option<Recipe> {
        self.recipe
    }

    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    #[must_use]
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    #[must_use]
    pub fn block(&self) -> &[i64] {
        &self.block
    }

    #[must_use]
    pub fn step(&self) -> &[i64] {
        &self.step
    }

    /// Nothing where it can be decoded.
    ///
    /// # Errors
    /// `Group` where it is broken, `Unsupported` where it is ambiguous or opaque.
    pub fn usable(&self) -> Result<()> {
        let kind = match self.status {
            Status::Ok => return Ok(()),
            Status::Broken(_) => ErrorKind::Group,
            Status::Ambiguous | Status::Opaque => ErrorKind::Unsupported,
        };
        Err(Error::new(kind, format!("group {}: {}", quoted(&self.name), self.problem)))
    }

    fn of(draft: Draft<'_>, name: Vec<u8>, found: Found) -> Result<Option<Self>> {
        let mut this = Self {
            name,
            kind: family(&draft),
            status: Status::Ok,
            problem: String::new(),
            members: draft.members,
            layout: None,
            recipe: None,
            bits: 0,
            flags: Flags::default(),
            shape: Vec::new(),
            block: Vec::new(),
            step: Vec::new(),
            nested: None,
            order: None,
        };
        let (status, problem) = match found {
            Ok(form) => match this.take(form) {
                Some(()) => (Status::Ok, String::new()),
                None => (Status::Broken(Break::Shape), "shape: a size is beyond 63 bits".to_owned()),
            },
            Err(Fault::Plain) => return Ok(None),
            Err(Fault::Failed(error)) => return Err(error),
            Err(Fault::Broken(rule, text)) => (Status::Broken(rule), format!("{}: {text}", rule.word())),
            Err(Fault::Ambiguous(readings)) => {
                this.flags = Flags::AMBIGUOUS;
                (Status::Ambiguous, format!("ambiguous: {readings}"))
            }
            Err(Fault::Opaque(text)) => (Status::Opaque, format!("unsupported: {text}")),
        };
        (this.status, this.problem) = (status, problem);
        Ok(Some(this))
    }

    fn take(&mut self, form: Form) -> Option<()> {
        let signed =
            |sizes: Vec<u64>| sizes.into_iter().map(|size| i64::try_from(size).ok()).collect::<Option<Vec<i64>>>();
        self.kind = form.layout.kind;
        self.layout = Some(form.layout);
        self.recipe = Some(form.recipe);
        (self.bits, self.flags, self.nested, self.order) = (form.bits, form.flags, form.nested, form.order);
        (self.shape, self.block, self.step) = (signed(form.shape)?, signed(form.block)?, signed(form.step)?);
        Some(())
    }
}

/// What a group that is no good seems to be.
fn family(draft: &Draft<'_>) -> &'static CStr {
    let name = draft.codes.name();
    match draft.codes.dtype() {
        _ if name.ends_with(b".qweight") => match draft.method() {
            Some("awq") => c"awq",
            _ => c"gptq",
        },
        _ if name.ends_with(b"blocks") => c"mxfp4",
        Dtype::I32 => c"int_packed",
        Dtype::U32 => c"mlx",
        Dtype::F8E4M3 | Dtype::F8E5M2 => c"fp8",
        Dtype::I8 => c"int8",
        Dtype::U8 if draft.members.iter().any(|member| matches!(member.role, Role::Map | Role::State)) => c"bnb4",
        Dtype::U8 => c"nvfp4",
        _ => c"",
    }
}

/// How groups are looked for.
#[derive(Clone, Debug, Default)]
pub struct GroupsOptions<'a> {
    /// A config.json in place of the one beside the checkpoint.
    pub config: Option<&'a [u8]>,
    /// Only what shapes and markers say.
    pub ignore_config: bool,
    /// What the caller knows better.
    pub overrides: &'a [Override],
}

/// The groups of a checkpoint, and what belongs to none.
#[derive(Debug)]
pub struct Groups {
    /// By name.
    groups: Vec<Group>,
    /// Numbers of tensors, in the checkpoint's order.
    plain: Vec<usize>,
}

impl Groups {
    /// Finds the groups of a checkpoint. One that can't be decoded is listed with its reason.
    ///
    /// # Errors
    /// `Config` for a configuration that can't be read, or what reading small members said.
    pub fn open(checkpoint: &Checkpoint, options: &GroupsOptions<'_>) -> Result<Self> {
        let beside = match options.config {
            None if !options.ignore_config => config::beside(checkpoint)?,
            _ => None,
        };
        let settings = match options.config.or(beside.as_deref()).filter(|_| !options.ignore_config) {
            Some(text) => Settings::read(text)?,
            None => Settings::default(),
        };
        let settings = settings.with_overrides(options.overrides);
        let markers = Markers::of(checkpoint);
        let mut search =
            Search { checkpoint, settings: &settings, markers: &markers, groups: Vec::new(), taken: Vec::new() };
        memory::reserve(&mut search.taken, checkpoint.tensors().len(), "groups")?;
        search.taken.resize(checkpoint.tensors().len(), false);
        search.run()?;
        let Search { mut groups, taken, .. } = search;
        groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut plain = memory::vec_with_capacity(taken.len(), "plain tensors")?;
        plain.extend(taken.iter().enumerate().filter(|(_, taken)| !**taken).map(|(number, _)| number));
        Ok(Self { groups, plain })
    }

    /// All groups, by name.
    #[must_use]
    pub fn list(&self) -> &[Group] {
        &self.groups
    }

    /// The group of this logical name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Group> {
        let found = self.groups.binary_search_by(|group| group.name.as_slice().cmp(name));
        found.ok().and_then(|found| self.groups.get(found))
    }

    /// The numbers of the tensors that belong to no group.
    #[must_use]
    pub fn plain(&self) -> &[usize] {
        &self.plain
    }
}

/// The walk through a checkpoint.
struct Search<'a> {
    checkpoint: &'a Checkpoint,
    settings: &'a Settings,
    markers: &'a Markers,
    groups: Vec<Group>,
    /// Whether each tensor is a member.
    taken: Vec<bool>,
}

type Recogniser = fn(&mut Draft<'_>) -> Found;

impl<'a> Search<'a> {
    fn run(&mut self) -> Result<()> {
        for tensor in self.checkpoint.tensors() {
            let name = tensor.name();
            if let Some((module, recogniser)) = self.recogniser(name, tensor.dtype()) {
                self.recognise(tensor, module, recogniser)?;
            }
        }
        // Scales of weights whose dtype is none that is quantised.
        for tensor in self.checkpoint.tensors() {
            if let Some(module) = scaled_module(tensor) {
                self.mismatched(tensor, module)?;
            }
        }
        Ok(())
    }

    /// Who looks at a tensor of this name and dtype, and the module that it is of.
    fn recogniser<'n>(&self, name: &'n [u8], dtype: Dtype) -> Option<(&'n [u8], Recogniser)> {
        let of = |suffix: &str| name.strip_suffix(suffix.as_bytes());
        if let Some(module) = of(".weight") {
            let recogniser: Recogniser = match dtype {
                Dtype::F8E4M3 | Dtype::F8E5M2 => float8::recognise,
                Dtype::I8 => bytes::signed,
                Dtype::U8 => bytes::unsigned,
                Dtype::U32 => mlx::recognise,
                _ => return None,
            };
            return Some((module, recogniser));
        }
        if let Some(module) = of(".qweight") {
            return Some((module, gptq::recognise));
        }
        if let Some(module) = of(".weight_packed") {
            return Some((module, packed::recognise));
        }
        if let Some(module) = of("_blocks") {
            return Some((module, |draft| stacked(draft, "_scales")));
        }
        of(".blocks").map(|module| -> (&[u8], Recogniser) { (module, |draft| stacked(draft, ".scales")) })
    }

    fn recognise(&mut self, codes: &'a Tensor, module: &'a [u8], recogniser: Recogniser) -> Result<()> {
        if self.settings.ignores(module) {
            return Ok(());
        }
        let (checkpoint, settings, markers) = (self.checkpoint, self.settings, self.markers);
        let mut draft = Draft { checkpoint, settings, markers, module, codes, members: Vec::new() };
        let found = recogniser(&mut draft);
        let found = found.and_then(|form| draft.as_said(form));
        self.keep(draft, found)
    }

    fn mismatched(&mut self, companion: &'a Tensor, module: &'a [u8]) -> Result<()> {
        let (checkpoint, settings, markers) = (self.checkpoint, self.settings, self.markers);
        let codes = checkpoint.find(&[module, b".weight"].concat());
        let Some(codes) = codes.filter(|codes| !self.is_taken(codes)) else {
            return Ok(());
        };
        if settings.ignores(module) {
            return Ok(());
        }
        let mut draft = Draft { checkpoint, settings, markers, module, codes, members: Vec::new() };
        draft.add(Role::Codes, codes);
        draft.add(Role::Scales, companion);
        let (name, companion) = (quoted(codes.name()), quoted(companion.name()));
        let text = format!("{name} is {}, which {companion} is not for", codes.dtype().name());
        self.keep(draft, Err(Fault::Broken(Break::Dtype, text)))
    }

    fn is_taken(&self, tensor: &Tensor) -> bool {
        let number = self.checkpoint.index_of(tensor);
        number.and_then(|number| self.taken.get(number)).copied().unwrap_or(true)
    }

    fn keep(&mut self, draft: Draft<'_>, found: Found) -> Result<()> {
        // gpt-oss calls the weight itself what others call a module.
        let stacked = draft.codes.name().ends_with(b"blocks");
        let name = if stacked { draft.module.to_vec() } else { [draft.module, b".weight"].concat() };
        if let Some(group) = Group::of(draft, name, found)? {
            for member in &group.members {
                if let Some(taken) = self.taken.get_mut(member.tensor) {
                    *taken = true;
                }
            }
            memory::reserve(&mut self.groups, 1, "groups")?;
            self.groups.push(group);
        }
        Ok(())
    }
}

impl Draft<'_> {
    /// A form that is what the caller says it is, if the caller does.
    fn as_said(&self, form: Form) -> Found {
        match self.layout() {
            Some(said) if form.layout.name() != said && form.layout.kind.to_str() != Ok(said) => {
                let found = form.layout.name();
                Err(draft::config(format!("it is said to be {}, and fits {found}", quoted(said.as_bytes()))))
            }
            _ => Ok(form),
        }
    }
}

/// A stack of gpt-oss, where it is one.
fn stacked(draft: &mut Draft<'_>, scales: &str) -> Found {
    let seems = draft.codes.dtype() == Dtype::U8 && draft.codes.shape().last() == Some(&16);
    match seems || draft.find(scales).is_some() {
        true => blocks::recognise(draft, scales),
        false => Err(Fault::Plain),
    }
}

/// The module whose weight a tensor scales, if its name and dtype leave no doubt.
fn scaled_module(tensor: &Tensor) -> Option<&[u8]> {
    const SURE: [&[u8]; 10] = [
        b".weight_scale",
        b".weight_scale_inv",
        b".weight_scale_2",
        b".scale_weight",
        b".qscale_weight",
        b".SCB",
        b".biases",
        b".weight.absmax",
        b".weight.quant_map",
        b".weight.nested_absmax",
    ];
    let name = tensor.name();
    let sure = SURE.iter().find_map(|suffix| name.strip_suffix(*suffix));
    sure.or_else(|| name.strip_suffix(b".scale").filter(|_| tensor.dtype() == Dtype::F8E8M0))
        .or_else(|| name.strip_suffix(b".scales").filter(|_| tensor.dtype() == Dtype::U8))
}

/// The type of scales that are floats.
fn scale_type(scales: &Tensor) -> ScaleType {
    match scales.dtype() {
        Dtype::F16 => ScaleType::F16,
        Dtype::Bf16 => ScaleType::Bf16,
        Dtype::F8E8M0 | Dtype::U8 => ScaleType::E8M0,
        Dtype::F8E4M3 => ScaleType::E4M3,
        _ => ScaleType::F32,
    }
}
