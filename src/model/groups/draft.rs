// SPDX-License-Identifier: Apache-2.0
//! What recognisers work with: a module's tensors by name, checks of their
//! dtypes and shapes, and the ways in which a group is no good.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "members have 2^48 elements at most (`sound`), and numbers of a configuration are below 2^32"
)]

use std::ffi::CStr;

use super::group::{Break, Flags, Group, Member, Nested, Role, Status};
use super::marker::{Marker, Markers};
use super::recipe::{Layout, Recipe, ScaleType};
use super::settings::{ConfigGroup, GroupSize, MlxModule, Override, Settings};
use super::sizes::SmallShape;
use super::wording::Word::{All, Given, Is, Name, Number, Text};
use super::wording::{say, Word};
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::model::json::Json;
use crate::record::Tensor;

/// Most bytes of a small member that is read at opening.
pub(super) const SMALL: u64 = 64 << 10;
/// More elements than any disk holds; so sums and small multiples fit 64 bits.
const MOST_ELEMENTS: u64 = 1 << 48;

/// Why there is no group that can be decoded.
#[derive(Debug)]
pub(super) enum Refusal {
    Broken(Break, String),
    /// Several readings fit.
    Ambiguous(String),
    /// Recognised, and not decoded.
    Opaque(String),
    /// No group at all: the tensor is what it seems.
    Plain,
    /// Reading failed: not the group's fault.
    Failed(Error),
}

pub(super) type Found = Result<Form, Refusal>;

/// A group that can be decoded.
pub(super) struct Form {
    pub(super) layout: &'static Layout,
    pub(super) recipe: Recipe,
    pub(super) bits: u32,
    pub(super) flags: Flags,
    pub(super) shape: SmallShape,
    pub(super) block: SmallShape,
    pub(super) step: SmallShape,
    pub(super) nested: Option<Nested>,
    pub(super) order: Option<Vec<u32>>,
}

impl Form {
    /// A group without more to say, whose slices go as its blocks do along in.
    #[inline(never)]
    pub(super) fn new(layout: &'static Layout, bits: u32, shape: SmallShape, block: SmallShape) -> Self {
        let step = SmallShape::ones(shape.len());
        let recipe = layout.recipe;
        Self { layout, recipe, bits, flags: Flags::default(), shape, block, step, nested: None, order: None }
    }

    pub(super) fn step_along_in(mut self, step: u64) -> Self {
        if let Some(last) = self.step.last_mut() {
            *last = step;
        }
        self
    }
}

/// One module on its way to being a group.
pub(super) struct Draft<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) settings: &'a Settings,
    pub(super) markers: &'a Markers,
    /// The module's name.
    pub(super) module: &'a [u8],
    pub(super) codes: &'a Tensor,
    pub(super) members: Vec<Member>,
}

impl<'a> Draft<'a> {
    /// The tensor `module` + `suffix`.
    #[inline(never)]
    pub(super) fn find(&self, suffix: &str) -> Option<&'a Tensor> {
        let mut name = [0_u8; 512];
        let len = self.module.len() + suffix.len();
        match name.get_mut(..len) {
            Some(room) => {
                let (module, rest) = room.split_at_mut_checked(self.module.len())?;
                module.copy_from_slice(self.module);
                rest.copy_from_slice(suffix.as_bytes());
                self.checkpoint.find(room)
            }
            None => self.checkpoint.find(&[self.module, suffix.as_bytes()].concat()),
        }
    }

    /// Adds a member where it is there.
    #[inline(never)]
    pub(super) fn optional(&mut self, role: Role, suffix: &str) -> Option<&'a Tensor> {
        let found = self.find(suffix)?;
        self.add(role, found);
        Some(found)
    }

    /// Adds a member that must be there.
    pub(super) fn required(&mut self, role: Role, suffix: &str) -> Result<&'a Tensor, Refusal> {
        self.optional(role, suffix).ok_or_else(|| self.missing(suffix))
    }

    pub(super) fn add(&mut self, role: Role, tensor: &'a Tensor) {
        let index = self.checkpoint.index_of(tensor);
        if let Some(tensor) = index.filter(|index| self.members.iter().all(|member| member.tensor != *index)) {
            self.members.push(Member { role, tensor });
        }
    }

    #[inline(never)]
    pub(super) fn missing(&self, suffix: &str) -> Refusal {
        let name = [self.module, suffix.as_bytes()].concat();
        broken(Break::Missing, &[Name(self.codes), Text(" needs "), Given(&name), Text(", which is not there")])
    }

    pub(super) fn config_group(&self) -> Option<&'a ConfigGroup> {
        match self.overridden() {
            Some(_) => None,
            None => self.settings.config_group(self.module),
        }
    }

    /// The method that the configuration names, unless the caller replaces it.
    pub(super) fn method(&self) -> Option<&'a str> {
        match self.overridden() {
            Some(_) => None,
            None => self.settings.method.as_deref(),
        }
    }

    pub(super) fn overridden(&self) -> Option<&'a Override> {
        self.settings.override_of(self.module)
    }

    /// The layout that a caller says this is.
    pub(super) fn layout(&self) -> Option<&'a str> {
        self.overridden().and_then(|over| over.layout.as_deref())
    }

    pub(super) fn group_size(&self) -> Option<GroupSize> {
        self.settings.group_size(self.module)
    }

    pub(super) fn mlx(&self) -> Option<MlxModule> {
        match self.overridden() {
            Some(over) => Some(MlxModule { bits: over.bits, group_size: over.group_size, mode: None }),
            None => self.settings.mlx(self.module),
        }
    }

    /// The marker of this module; its tensor becomes a member.
    pub(super) fn marker(&mut self) -> Result<Option<Marker>, Refusal> {
        let Some(tensor) = self.optional(Role::Format, ".comfy_quant") else {
            return self.markers.find(self.module).map_err(|fault| state(&[Text(&fault)]));
        };
        require_dtype(tensor, &[Dtype::U8])?;
        let text = self.read_small(tensor)?;
        let wrong = |fault: &str| state(&[Name(tensor), Text(": "), Text(fault)]);
        let json = Json::parse(&text, usize::try_from(SMALL).unwrap_or_default()).map_err(|fault| wrong(&fault))?;
        Marker::of(&json).map(Some).ok_or_else(|| wrong("it has no \"format\""))
    }

    /// The bytes of a small member.
    pub(super) fn read_small(&self, tensor: &Tensor) -> Result<Vec<u8>, Refusal> {
        if tensor.size() > SMALL {
            return Err(state(&[
                Name(tensor),
                Text(" has "),
                Number(tensor.size()),
                Text(" bytes, more than the limit of "),
                Number(SMALL),
            ]));
        }
        self.read(tensor, 0, tensor.size())
    }

    /// Bytes of a member.
    pub(super) fn read(&self, tensor: &Tensor, start: u64, size: u64) -> Result<Vec<u8>, Refusal> {
        let read = || {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let mut bytes = crate::base::memory::zeroed(size, "a member of a group")?;
            let offset = tensor.offset().saturating_add(start);
            self.checkpoint.read_bytes(tensor.shard(), offset, tensor.name(), &mut bytes)?;
            Ok(bytes)
        };
        read().map_err(Refusal::Failed)
    }
}

impl Draft<'_> {
    /// The group that this is, by what a recogniser found; `None` where it is none.
    ///
    /// # Errors
    /// What reading said.
    pub(super) fn group(self, name: Vec<u8>, found: Found) -> Result<Option<Group>, Error> {
        let mut this = Group {
            name,
            kind: self.family(),
            status: Status::Ok,
            problem: String::new(),
            members: self.members,
            layout: None,
            recipe: None,
            bits: 0,
            flags: Flags::default(),
            shape: SmallShape::default(),
            block: SmallShape::default(),
            step: SmallShape::default(),
            nested: None,
            order: None,
        };
        let (status, problem) = match found {
            Ok(form) => match form.put(&mut this) {
                Some(()) => (Status::Ok, String::new()),
                None => (Status::Broken(Break::Shape), "shape: a size is beyond 63 bits".to_owned()),
            },
            Err(Refusal::Plain) => return Ok(None),
            Err(Refusal::Failed(error)) => return Err(error),
            Err(Refusal::Broken(rule, text)) => (Status::Broken(rule), [rule.word(), ": ", &text].concat()),
            Err(Refusal::Ambiguous(readings)) => {
                this.flags = Flags::AMBIGUOUS;
                (Status::Ambiguous, ["ambiguous: ", &readings].concat())
            }
            Err(Refusal::Opaque(text)) => (Status::Opaque, ["unsupported: ", &text].concat()),
        };
        (this.status, this.problem) = (status, problem);
        Ok(Some(this))
    }

    /// What a group that is no good seems to be.
    fn family(&self) -> &'static CStr {
        let name = self.codes.name();
        match self.codes.dtype() {
            _ if name.ends_with(b".qweight") => match self.method() {
                Some("awq") => c"awq",
                _ => c"gptq",
            },
            _ if name.ends_with(b"blocks") => c"mxfp4",
            Dtype::I32 => c"int_packed",
            Dtype::U32 => c"mlx",
            Dtype::F8E4M3 | Dtype::F8E5M2 => c"fp8",
            Dtype::I8 => c"int8",
            Dtype::U8 if self.members.iter().any(|member| matches!(member.role, Role::Map | Role::State)) => c"bnb4",
            Dtype::U8 => c"nvfp4",
            _ => c"",
        }
    }
}

impl Form {
    /// Makes a group this; `None` where a size is beyond 63 bits.
    fn put(self, group: &mut Group) -> Option<()> {
        group.kind = self.layout.kind;
        group.layout = Some(self.layout);
        group.recipe = Some(self.recipe);
        (group.bits, group.flags, group.nested, group.order) = (self.bits, self.flags, self.nested, self.order);
        (group.shape, group.block, group.step) = (self.shape.signed()?, self.block.signed()?, self.step.signed()?);
        Some(())
    }
}

#[cold]
#[inline(never)]
pub(super) fn broken(rule: Break, words: &[Word<'_>]) -> Refusal {
    Refusal::Broken(rule, say(words))
}

#[cold]
pub(super) fn state(words: &[Word<'_>]) -> Refusal {
    broken(Break::State, words)
}

#[cold]
pub(super) fn config(words: &[Word<'_>]) -> Refusal {
    broken(Break::Config, words)
}

#[cold]
pub(super) fn shape(words: &[Word<'_>]) -> Refusal {
    broken(Break::Shape, words)
}

#[cold]
pub(super) fn ambiguous(words: &[Word<'_>]) -> Refusal {
    Refusal::Ambiguous(say(words))
}

#[cold]
pub(super) fn opaque(words: &[Word<'_>]) -> Refusal {
    Refusal::Opaque(say(words))
}

/// A shape of which no element is missing and none too many.
#[inline(never)]
pub(super) fn sound(tensor: &Tensor) -> Result<SmallShape, Refusal> {
    let mut sizes = SmallShape::default();
    for size in tensor.shape() {
        sizes.push(u64::try_from(*size).unwrap_or(0));
    }
    let wrong = sizes.contains(&0) || tensor.element_count() > MOST_ELEMENTS || sizes.len() != tensor.shape().len();
    if wrong {
        return Err(shape(&[Is(tensor), Text(", and can't hold a group")]));
    }
    Ok(sizes)
}

/// A member's shape, which has two dimensions.
#[inline(never)]
pub(super) fn matrix(tensor: &Tensor) -> Result<(u64, u64), Refusal> {
    match &*sound(tensor)? {
        [rows, columns] => Ok((*rows, *columns)),
        _ => Err(shape(&[Is(tensor), Text(", expected two dimensions")])),
    }
}

/// A member's shape as that of a matrix, or of a stack of them.
#[inline(never)]
pub(super) fn stack(tensor: &Tensor) -> Result<(SmallShape, u64, u64), Refusal> {
    match &*sound(tensor)? {
        [outer @ .., rows, columns] if outer.len() < 2 => Ok((SmallShape::join(outer, &[]), *rows, *columns)),
        _ => Err(shape(&[Is(tensor), Text(", expected two or three dimensions")])),
    }
}

pub(super) fn with(outer: &[u64], inner: &[u64]) -> SmallShape {
    SmallShape::join(outer, inner)
}

#[inline(never)]
pub(super) fn require_shape(tensor: &Tensor, expected: &[u64]) -> Result<(), Refusal> {
    if *sound(tensor)? == *expected {
        return Ok(());
    }
    Err(shape(&[Is(tensor), Text(", expected "), All(expected)]))
}

#[inline(never)]
pub(super) fn require_dtype(tensor: &Tensor, allowed: &[Dtype]) -> Result<(), Refusal> {
    if allowed.contains(&tensor.dtype()) {
        return Ok(());
    }
    let names: Vec<&str> = allowed.iter().map(|dtype| dtype.name()).collect();
    let (found, names) = (tensor.dtype().name(), names.join(" or "));
    Err(broken(Break::Dtype, &[Name(tensor), Text(" is "), Text(found), Text(", expected "), Text(&names)]))
}

/// Scales that are floats.
pub(super) const FLOATS: &[Dtype] = &[Dtype::F32, Dtype::Bf16, Dtype::F16];

pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a.checked_rem(b).unwrap_or_default());
    }
    a.max(1)
}

pub(super) fn lcm(a: u64, b: u64) -> u64 {
    (a / gcd(a, b)).saturating_mul(b)
}

/// Codes after which a stream is at the beginning of a word again.
pub(super) fn period(bits: u64) -> u64 {
    32 / gcd(bits, 32)
}

/// The type of scales that are floats.
pub(super) fn scale_type(scales: &Tensor) -> ScaleType {
    match scales.dtype() {
        Dtype::F16 => ScaleType::F16,
        Dtype::Bf16 => ScaleType::Bf16,
        Dtype::F8E8M0 | Dtype::U8 => ScaleType::E8M0,
        Dtype::F8E4M3 => ScaleType::E4M3,
        _ => ScaleType::F32,
    }
}
