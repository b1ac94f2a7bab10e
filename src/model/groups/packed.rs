// SPDX-License-Identifier: Apache-2.0
//! `weight_packed`: compressed-tensors' integers, FP4 and FP6.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "members have 2^48 elements at most, divisors are above 0")]

use super::draft::{
    config, lcm, opaque, period, require_dtype, require_shape, shape, sound, stack, with, Draft, Form, Found, Refusal,
    FLOATS,
};
use super::group::{Flags, Role};
use super::index;
use super::recipe::{ColumnOrder, Layout, Zero, CT_PACK, CT_PACK_OLD, MXFP4_CT, MXFP6_CT, NVFP4_CT};
use super::settings::ConfigGroup;
use super::sizes::SmallShape;
use super::wording::Word::{All, Is, Name, Number, Text};
use crate::dtype::Dtype;
use crate::record::Tensor;

pub(super) fn recognise(draft: &mut Draft<'_>) -> Found {
    draft.add(Role::Codes, draft.codes);
    match draft.codes.dtype() {
        Dtype::U8 => floats(draft),
        _ => integers(draft),
    }
}

fn floats(draft: &mut Draft<'_>) -> Found {
    let scales = draft.required(Role::Scales, ".weight_scale");
    let global = draft.optional(Role::Global, ".weight_global_scale");
    draft.optional(Role::InputScale, ".input_global_scale");
    let (scales, codes) = (scales?, draft.codes);
    let (outer, rows, columns) = stack(codes)?;
    let said = draft.config_group().and_then(|group| group.bits);
    let contradicts = |bits: u64| match said.filter(|said| *said != bits) {
        Some(said) => {
            Err(config(&[Number(said), Text(" bits are said, and "), Name(codes), Text(" fits "), Number(bits)]))
        }
        None => Ok(()),
    };
    if global.is_some() || scales.dtype() == Dtype::F8E4M3 {
        require_dtype(scales, &[Dtype::F8E4M3])?;
        let global = global.ok_or_else(|| draft.missing(".weight_global_scale"))?;
        require_dtype(global, &[Dtype::F32])?;
        single(global)?;
        require_shape(scales, &with(&outer, &[rows, columns / 8]))?;
        if columns % 8 != 0 {
            return Err(no_whole_groups(codes, 16));
        }
        contradicts(4)?;
        let ones = SmallShape::ones(outer.len() + 1);
        return Ok(Form::new(&NVFP4_CT, 4, with(&outer, &[rows, 2 * columns]), with(&ones, &[16])).step_along_in(16));
    }
    require_dtype(scales, &[Dtype::U8, Dtype::F8E8M0])?;
    let groups = sound(scales)?.last().copied().unwrap_or(1);
    let (layout, bits) = match columns / groups {
        16 => (&MXFP4_CT, 4),
        24 => (&MXFP6_CT, 6),
        _ => {
            return Err(shape(&[Is(codes), Text(", not 16 or 24 columns for each of "), Is(scales)]));
        }
    };
    require_shape(scales, &with(&outer, &[rows, groups]))?;
    if columns % groups != 0 {
        return Err(no_whole_groups(codes, 32));
    }
    contradicts(bits)?;
    let ones = SmallShape::ones(outer.len() + 1);
    let bits = u32::try_from(bits).unwrap_or_default();
    Ok(Form::new(layout, bits, with(&outer, &[rows, 32 * groups]), with(&ones, &[32])).step_along_in(32))
}

pub(super) fn no_whole_groups(codes: &Tensor, group: u64) -> Refusal {
    shape(&[Is(codes), Text(", which holds no whole groups of "), Number(group)])
}

/// A number: one element, of any rank.
#[inline(never)]
pub(super) fn single(tensor: &Tensor) -> Result<(), Refusal> {
    if sound(tensor)?.len() <= 1 && tensor.element_count() == 1 {
        return Ok(());
    }
    Err(shape(&[Is(tensor), Text(", expected one number")]))
}

fn integers(draft: &mut Draft<'_>) -> Found {
    let scales = draft.required(Role::Scales, ".weight_scale");
    let lists = draft.required(Role::Shape, ".weight_shape");
    let zeros = draft.optional(Role::Zeros, ".weight_zero_point");
    let order = draft.optional(Role::Order, ".weight_g_idx");
    let (scales, lists, codes) = (scales?, lists?, draft.codes);
    require_dtype(codes, &[Dtype::I32])?;
    require_dtype(scales, FLOATS)?;
    require_dtype(lists, &[Dtype::I64])?;
    let (outer, rows, words) = stack(codes)?;
    let sizes = logical(draft, lists)?;
    let width = match sizes.split_last() {
        Some((width, leading)) if *leading == *with(&outer, &[rows]) => *width,
        _ => {
            return Err(shape(&[Name(lists), Text(" says "), All(&sizes), Text(", and "), Is(codes)]));
        }
    };
    let group = draft.config_group();
    let (layout, bits) = packing(draft, group, width, words)?;
    let groups = match sound(scales)?.split_last() {
        Some((groups, leading)) if *leading == *with(&outer, &[rows]) => *groups,
        _ => {
            return Err(shape(&[Is(scales), Text(", expected [.., "), Number(rows), Text(", groups]")]));
        }
    };
    let size = group_size(draft, group, scales, width, groups)?;
    if zeros.is_none() && group.and_then(|group| group.symmetric) == Some(false) {
        return Err(draft.missing(".weight_zero_point"));
    }
    let per_word = if layout == &CT_PACK { period(bits) } else { 32 / bits };
    if let Some(zeros) = zeros {
        require_dtype(zeros, &[Dtype::I32])?;
        let lines = if layout == &CT_PACK { (rows * bits).div_ceil(32) } else { rows.div_ceil(per_word) };
        require_shape(zeros, &with(&outer, &[lines, groups]))?;
    }
    let small = u32::try_from(bits).unwrap_or_default();
    let ones = SmallShape::ones(outer.len() + 1);
    let mut form = Form::new(layout, small, with(&outer, &[rows, width]), with(&ones, &[size]));
    form.recipe.scale_type = super::draft::scale_type(scales);
    if layout == &CT_PACK_OLD {
        form.flags = form.flags.and(Flags::PADDED_WORDS);
    }
    if zeros.is_some() {
        form.flags = form.flags.and(Flags::ASYMMETRIC);
        form.recipe.zero = if layout == &CT_PACK { Zero::Rows } else { Zero::PaddedRows };
    }
    let mut whole = groups == 1;
    if let Some(order) = order {
        require_dtype(order, &[Dtype::I32])?;
        require_shape(order, &with(&outer, &[width]))?;
        // An index that is in order is one all the same: its slices go by words.
        let found = index::read(draft, order, groups, Some(u64::MAX))?;
        if !found.unused {
            form.flags = form.flags.and(Flags::ACT_ORDER);
            form.recipe.order = ColumnOrder::Index;
            form.order = Some(
                found.order.unwrap_or_else(|| vec![0; usize::try_from(order.element_count()).unwrap_or_default()]),
            );
            whole = true;
        }
    }
    let along_out = if zeros.is_some() { per_word } else { 1 };
    let last = form.step.len().saturating_sub(2);
    if let Some(step) = form.step.get_mut(last) {
        *step = along_out;
    }
    Ok(form.step_along_in(if whole { per_word } else { lcm(size, per_word) }))
}

/// The numbers of `weight_shape`.
fn logical(draft: &Draft<'_>, lists: &Tensor) -> Result<SmallShape, Refusal> {
    let rank = sound(lists)?;
    if !matches!(*rank, [2 | 3]) {
        return Err(shape(&[Is(lists), Text(", expected [2] or [3]")]));
    }
    let bytes = draft.read_small(lists)?;
    let numbers = bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap_or_default()));
    let wrong = || shape(&[Name(lists), Text(" says a size that is none")]);
    let mut sizes = SmallShape::default();
    for number in numbers {
        sizes.push(u64::try_from(number).ok().filter(|size| (1..1 << 48).contains(size)).ok_or_else(wrong)?);
    }
    Ok(sizes)
}

/// Which packing, of how many bits: by the configuration, or the only one that fits.
fn packing(
    draft: &Draft<'_>,
    group: Option<&ConfigGroup>,
    width: u64,
    words: u64,
) -> Result<(&'static Layout, u64), Refusal> {
    let dense = |bits: u64| (width * bits).div_ceil(32) == words;
    let padded = |bits: u64| matches!(bits, 3 | 5 | 6 | 7) && width.div_ceil(32 / bits) == words;
    let wanted = |name: &str| draft.layout().is_none_or(|layout| layout == name);
    let of_bits = |bits: u64| -> Vec<(&'static Layout, u64)> {
        let dense = dense(bits) && wanted("ct-pack");
        // In a single word both are the same.
        let padded = padded(bits) && wanted("ct-pack-old") && !(dense && width <= 32 / bits);
        let mut found = Vec::new();
        if dense {
            found.push((&CT_PACK, bits));
        }
        if padded {
            found.push((&CT_PACK_OLD, bits));
        }
        found
    };
    let said = draft.overridden().map_or(group.and_then(|group| group.bits), |over| over.bits);
    let fit: Vec<_> = match said {
        Some(bits @ 1..=8) => of_bits(bits),
        Some(bits) => return Err(opaque(&[Text("codes of "), Number(bits), Text(" bits")])),
        None => (1..=8).rev().flat_map(of_bits).collect(),
    };
    match fit.as_slice() {
        [only] => Ok(*only),
        [] => {
            let (bits, of_bits) = said.map_or((Text(""), Text("")), |bits| (Number(bits), Text("of that many bits: ")));
            Err(shape(&[
                Is(draft.codes),
                Text(", which does not hold rows of "),
                Number(width),
                Text(" codes "),
                of_bits,
                bits,
            ]))
        }
        several => {
            let names: Vec<String> = several.iter().map(|(layout, bits)| format!("{} {bits}", layout.name())).collect();
            Err(Refusal::Ambiguous(names.join(" or ")))
        }
    }
}

/// Columns of a group, which the configuration must not contradict.
pub(super) fn group_size(
    draft: &Draft<'_>,
    group: Option<&ConfigGroup>,
    scales: &Tensor,
    width: u64,
    groups: u64,
) -> Result<u64, Refusal> {
    let by_strategy = |group: &ConfigGroup| match group.strategy.as_deref() {
        Some("channel" | "tensor") => Some(width),
        _ => group.group_size,
    };
    let said = draft.overridden().map_or_else(|| group.and_then(by_strategy), |over| over.group_size);
    let wrong = |size: u64| {
        let of = [Is(scales), Text(", which is not a scale for each "), Number(size)];
        Err(shape(&of))
    };
    match said {
        Some(size) if width.div_ceil(size) == groups => Ok(size),
        Some(size) => wrong(size),
        None if width.is_multiple_of(groups) => Ok(width / groups),
        None => wrong(width / groups),
    }
}
