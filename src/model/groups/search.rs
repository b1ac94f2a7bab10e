// SPDX-License-Identifier: Apache-2.0
//! The walk through a checkpoint's tensors that finds its groups.
#![forbid(unsafe_code)]

use super::draft::{self, Draft, Form, Found, Refusal};
use super::group::{Break, Group, Role};
use super::marker::Markers;
use super::settings::{Override, Settings};
use super::wording::Word::{Given, Name, Text};
use super::{blocks, bytes, float8, gptq, mlx, packed};
use crate::base::{memory, sort};
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::model::config;
use crate::record::Tensor;

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
        groups = by_name(groups)?;
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

/// Groups in the order of their names.
fn by_name(groups: Vec<Group>) -> Result<Vec<Group>> {
    let names = sort::sorted(groups.iter().map(Group::name), "groups")?;
    let mut order = memory::vec_with_capacity(names.len(), "groups")?;
    order.extend(names.into_iter().map(|(_, number)| number));
    let mut rest = memory::vec_with_capacity(groups.len(), "groups")?;
    rest.extend(groups.into_iter().map(Some));
    let mut sorted = memory::vec_with_capacity(rest.len(), "groups")?;
    sorted.extend(order.into_iter().filter_map(|number: usize| rest.get_mut(number)?.take()));
    Ok(sorted)
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
        for (number, tensor) in self.checkpoint.tensors().iter().enumerate() {
            // Members are many, and names take time to look at.
            let taken = self.taken.get(number).copied().unwrap_or(true);
            if let Some(module) = Some(tensor).filter(|_| !taken).and_then(scaled_module) {
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
        // What has biases and no scales may be anybody's.
        let alone = companion.name().ends_with(b".biases") && checkpoint.find(&[module, b".scales"].concat()).is_none();
        if alone || settings.ignores(module) {
            return Ok(());
        }
        let mut draft = Draft { checkpoint, settings, markers, module, codes, members: Vec::new() };
        draft.add(Role::Codes, codes);
        draft.add(Role::Scales, companion);
        let dtype = codes.dtype().name();
        let words = [Name(codes), Text(" is "), Text(dtype), Text(", which "), Name(companion), Text(" is not for")];
        self.keep(draft, Err(draft::broken(Break::Dtype, &words)))
    }

    fn is_taken(&self, tensor: &Tensor) -> bool {
        let number = self.checkpoint.index_of(tensor);
        number.and_then(|number| self.taken.get(number)).copied().unwrap_or(true)
    }

    fn keep(&mut self, draft: Draft<'_>, found: Found) -> Result<()> {
        // gpt-oss calls the weight itself what others call a module.
        let stacked = draft.codes.name().ends_with(b"blocks");
        let name = if stacked { draft.module.to_vec() } else { [draft.module, b".weight"].concat() };
        if let Some(group) = draft.group(name, found)? {
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
                let said = Given(said.as_bytes());
                Err(draft::config(&[Text("it is said to be "), said, Text(", and fits "), Text(found)]))
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
        false => Err(Refusal::Plain),
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
