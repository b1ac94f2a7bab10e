// SPDX-License-Identifier: Apache-2.0
//! `qweight`, `qzeros` and `scales`: GPTQ in two versions, AWQ for two kernels.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "members have 2^48 elements at most, divisors are above 0")]

use super::draft::{
    ambiguous, broken, config, lcm, matrix, opaque, period, require_dtype, require_shape, shape, Draft, Form, Found,
    Refusal,
};
use super::group::{Break, Flags, Role};
use super::index;
use super::recipe::{Layout, AWQ_GEMM, AWQ_GEMV, GPTQ_V1, GPTQ_V2};
use super::settings::GroupSize;
use super::sizes::SmallShape;
use super::wording::Word::{Given, Is, Name, Number, Text};
use crate::dtype::Dtype;
use crate::record::Tensor;

/// What the shapes can be read as.
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    Gptq,
    Gemm,
    Gemv,
}

struct GptqMembers<'a> {
    codes: &'a Tensor,
    zeros: &'a Tensor,
    scales: &'a Tensor,
    order: Option<&'a Tensor>,
    /// Rows and columns of each.
    qweight: (u64, u64),
    qzeros: (u64, u64),
    scale: (u64, u64),
}

pub(super) fn recognise(draft: &mut Draft<'_>) -> Found {
    draft.add(Role::Codes, draft.codes);
    // Both are looked for before one is missed, so that all that is there is a member.
    let zeros = draft.required(Role::Zeros, ".qzeros");
    let scales = draft.required(Role::Scales, ".scales");
    let order = draft.optional(Role::Order, ".g_idx");
    let (zeros, scales, codes) = (zeros?, scales?, draft.codes);
    require_dtype(codes, &[Dtype::I32])?;
    require_dtype(zeros, &[Dtype::I32])?;
    require_dtype(scales, &[Dtype::F16, Dtype::Bf16])?;
    let (qweight, qzeros, scale) = (matrix(codes)?, matrix(zeros)?, matrix(scales)?);
    let members = GptqMembers { codes, zeros, scales, order, qweight, qzeros, scale };
    match members.reading(draft)? {
        Reading::Gptq => members.gptq(draft),
        Reading::Gemm => members.gemm(),
        Reading::Gemv => members.gemv(draft),
    }
}

impl GptqMembers<'_> {
    fn fits(&self, reading: Reading) -> bool {
        let ((a, b), (c, d), (e, f)) = (self.qweight, self.qzeros, self.scale);
        match reading {
            Reading::Gemm => f == 8 * b && d == b && c == e && a % e == 0,
            Reading::Gptq => {
                let bits = 32 * d / f;
                f == b && c == e && 32 * d % f == 0 && matches!(bits, 2 | 3 | 4 | 8) && 32 * a % bits == 0
            }
            Reading::Gemv => a == e && a == c && f == 8 * d,
        }
    }

    fn reading(&self, draft: &Draft<'_>) -> Result<Reading, Refusal> {
        let awq_only = |reading: Reading| reading != Reading::Gptq;
        let allowed = |reading: Reading| match (draft.layout(), draft.method()) {
            (Some(layout), _) if layout.starts_with("gptq") => reading == Reading::Gptq,
            (Some("awq-gemm"), _) => reading == Reading::Gemm,
            (Some("awq-gemv"), _) => reading == Reading::Gemv,
            (Some("awq"), _) | (_, Some("awq")) => awq_only(reading),
            (_, Some("gptq")) => reading == Reading::Gptq,
            _ => true,
        };
        // In the order of their names.
        let all = [Reading::Gemm, Reading::Gemv, Reading::Gptq];
        let mut fit: Vec<Reading> =
            all.into_iter().filter(|reading| self.fits(*reading) && allowed(*reading)).collect();
        // AWQ's configuration names the kernel, and so the order of what is stored.
        match draft.settings.version.as_deref().filter(|_| draft.overridden().is_none()) {
            Some("gemv") => fit.retain(|reading| *reading != Reading::Gemm),
            Some("gemm") => fit.retain(|reading| *reading != Reading::Gemv),
            _ => {}
        }
        // An index is GPTQ's.
        if self.order.is_some() && draft.method().is_none() {
            fit.retain(|reading| *reading != Reading::Gemm);
        }
        match fit.as_slice() {
            [Reading::Gemv] if draft.group_size().is_none() => {
                Err(ambiguous(&[Text("awq-gemv, and its group size is not in the shapes and in no configuration")]))
            }
            [only] => Ok(*only),
            [] => {
                let rest = Text(", which fits neither gptq nor awq");
                Err(shape(&[Is(self.codes), Text(", "), Is(self.zeros), Text(", "), Is(self.scales), rest]))
            }
            several => {
                let names = several.iter().map(|reading| match reading {
                    Reading::Gptq => "gptq",
                    Reading::Gemm => "awq-gemm",
                    Reading::Gemv => "awq-gemv",
                });
                let names: Vec<_> = names.collect();
                Err(Refusal::Ambiguous(names.join(" or ")))
            }
        }
    }

    fn gptq(&self, draft: &Draft<'_>) -> Found {
        let ((rows, out), (_, zero_columns), (groups, columns)) = (self.qweight, self.qzeros, self.scale);
        let bits = 32 * zero_columns / columns;
        let width = 32 * rows / bits;
        let fixed = draft.overridden().map_or(draft.settings.bits, |over| over.bits);
        let free = draft.overridden().is_none() && draft.settings.dynamic;
        if let Some(said) = fixed.filter(|said| *said != bits && !free) {
            let has = [Number(said), Text(" bits are said, and "), Name(self.codes), Text(" has "), Number(bits)];
            return Err(config(&has));
        }
        if let Some(order) = self.order {
            require_dtype(order, &[Dtype::I32])?;
            require_shape(order, &[width])?;
        }
        let said = draft.group_size().map(|said| match said {
            GroupSize::Whole => width,
            GroupSize::Of(size) => size,
        });
        let fits = |size: u64| size != 0 && width.div_ceil(size) == groups;
        let divided = || (width % groups == 0).then(|| width / groups);
        let size = match said {
            Some(size) if fits(size) => Some(size),
            Some(size) if !free => {
                return Err(self.other_groups(size, width));
            }
            _ => divided(),
        };
        let found = match self.order {
            Some(order) => Some(index::read(draft, order, groups, size)?),
            None => None,
        };
        let size = size.or_else(|| found.as_ref().and_then(|found| found.largest).filter(|size| fits(*size)));
        let size = match (size, &found) {
            (Some(size), _) => size,
            (None, Some(_)) => width.div_ceil(groups),
            (None, None) => {
                return Err(ambiguous(&[
                    Number(groups),
                    Text(" groups for "),
                    Number(width),
                    Text(" columns, of no size that is said"),
                ]))
            }
        };
        if let (Some(order), true) = (self.order, found.as_ref().is_some_and(|found| found.unused)) {
            let words = [Name(order), Text(" has an entry of -1, and "), Number(groups), Text(" groups")];
            return Err(broken(Break::Value, &words));
        }
        let order = found.and_then(|found| found.order);
        let layout = self.version(draft, bits)?;
        let step = period(bits);
        let bits = u32::try_from(bits).unwrap_or_default();
        let mut form = Form::new(layout, bits, SmallShape::join(&[out], &[width]), SmallShape::join(&[1], &[size]));
        form.recipe.scale_type = super::draft::scale_type(self.scales);
        form.flags = Flags::TRANSPOSED;
        let whole = order.is_some() || groups == 1;
        form.step = SmallShape::join(&[step], &[if whole { step } else { lcm(size, step) }]);
        if order.is_some() {
            form.flags = form.flags.and(Flags::ACT_ORDER);
            form.recipe.order = super::recipe::ColumnOrder::Index;
        }
        form.order = order;
        Ok(form)
    }

    /// The version, and whether the zeros as stored contradict it.
    fn version(&self, draft: &Draft<'_>, bits: u64) -> Result<&'static Layout, Refusal> {
        let both = |why: &str| Err(ambiguous(&[Text("gptq-v1 or gptq-v2: "), Text(why)]));
        // Symmetric zeros are the middle, stored one less by v1.
        let middle = 1_u32.checked_shl(u32::try_from(bits - 1).unwrap_or_default()).unwrap_or_default();
        let (v1, v2) = (middle.wrapping_sub(1), middle);
        match draft.layout() {
            Some("gptq-v1") => return Ok(&GPTQ_V1),
            Some("gptq-v2") => return Ok(&GPTQ_V2),
            _ => {}
        }
        let settings = draft.settings;
        if !settings.given || draft.overridden().is_some() {
            return match self.all_zeros(draft, bits)? {
                Some(zero) if zero == v1 => Ok(&GPTQ_V1),
                Some(zero) if zero == v2 => Ok(&GPTQ_V2),
                _ => both("no configuration says which, and the zero points are not symmetric"),
            };
        }
        let (layout, other, text) = match settings.checkpoint_format.as_deref() {
            None | Some("gptq") => (&GPTQ_V1, v2, "v1"),
            Some("gptq_v2") => (&GPTQ_V2, v1, "v2"),
            Some(other) => {
                return Err(opaque(&[Text("checkpoint_format "), Given(other.as_bytes())]));
            }
        };
        if settings.symmetric && self.all_zeros(draft, bits)? == Some(other) {
            let why = [
                Text("gptq-v1 or gptq-v2: the configuration says "),
                Text(text),
                Text(", and every zero point is the other's middle, "),
                Number(u64::from(other)),
            ];
            return Err(ambiguous(&why));
        }
        Ok(layout)
    }

    /// The zero point that all are, as stored; `None` where they differ.
    fn all_zeros(&self, draft: &Draft<'_>, bits: u64) -> Result<Option<u32>, Refusal> {
        const CHUNK: u64 = 64 << 10;
        let row = 4 * self.qzeros.1;
        // Of a period's words the pattern of one value repeats.
        let words = bits / super::draft::gcd(bits, 32);
        let mut expected: Option<(u32, Vec<u8>)> = None;
        let mut start = 0;
        while start < self.zeros.size() {
            let size = CHUNK.min(self.zeros.size() - start);
            let bytes = draft.read(self.zeros, start, size)?;
            for (at, byte) in (start..).zip(&bytes) {
                let (_, pattern) = expected.get_or_insert_with(|| {
                    let zero = u32::from(*byte) & ((1 << bits) - 1);
                    (zero, pattern(zero, bits, words))
                });
                let place = usize::try_from(at % row % (4 * words)).unwrap_or_default();
                if pattern.get(place) != Some(byte) {
                    return Ok(None);
                }
            }
            start += size;
        }
        Ok(expected.map(|(zero, _)| zero))
    }

    /// Scales are not those of groups of this size.
    #[cold]
    fn other_groups(&self, size: u64, width: u64) -> Refusal {
        let columns = Text(" columns, and ");
        config(&[Text("groups of "), Number(size), Text(" are said for "), Number(width), columns, Is(self.scales)])
    }

    fn gemm(&self) -> Found {
        require_dtype(self.scales, &[Dtype::F16])?;
        let ((width, words), (groups, _)) = (self.qweight, self.scale);
        let size = width / groups;
        let mut form =
            Form::new(&AWQ_GEMM, 4, SmallShape::join(&[8 * words], &[width]), SmallShape::join(&[1], &[size]));
        form.flags = Flags::TRANSPOSED;
        form.step = SmallShape::join(&[8], &[if groups == 1 { 1 } else { size }]);
        Ok(form)
    }

    fn gemv(&self, draft: &Draft<'_>) -> Found {
        require_dtype(self.scales, &[Dtype::F16])?;
        let ((out, words), (_, columns)) = (self.qweight, self.scale);
        let width = 8 * words;
        let size = match draft.group_size() {
            Some(GroupSize::Of(size)) => size,
            _ => width,
        };
        if size == 0 || width % size != 0 || width / size > columns {
            return Err(self.other_groups(size, width));
        }
        Ok(Form::new(&AWQ_GEMV, 4, SmallShape::join(&[out], &[width]), SmallShape::join(&[1], &[size]))
            .step_along_in(size))
    }
}

/// The bytes of a period's words that hold one value throughout.
fn pattern(value: u32, bits: u64, words: u64) -> Vec<u8> {
    let mut bytes = vec![0_u8; usize::try_from(4 * words).unwrap_or_default()];
    for bit in 0..32 * words {
        if value >> (bit % bits) & 1 == 1 {
            if let Some(byte) = bytes.get_mut(usize::try_from(bit / 8).unwrap_or_default()) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    bytes
}
