// SPDX-License-Identifier: Apache-2.0
//! `weight` of U32: MLX's integers with scales and biases, and its FP4 and FP8.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "members have 2^48 elements at most, divisors are above 0")]

use super::draft::{
    config, require_dtype, require_shape, shape, sound, stack, with, Draft, Form, Found, Refusal, FLOATS,
};
use super::group::Role;
use super::recipe::{MLX_AFFINE, MLX_MXFP4, MLX_MXFP8, MLX_NVFP4};
use super::settings::MlxModule;
use super::sizes::SmallShape;
use super::wording::Word::{All, Given, Is, Name, Number, Text};
use crate::dtype::Dtype;
use crate::record::Tensor;

const BITS: [u64; 6] = [2, 3, 4, 5, 6, 8];
const GROUPS: [u64; 3] = [32, 64, 128];

pub(super) fn recognise(draft: &mut Draft<'_>) -> Found {
    draft.add(Role::Codes, draft.codes);
    let scales = draft.optional(Role::Scales, ".scales");
    let biases = draft.optional(Role::Offsets, ".biases");
    match (scales, biases) {
        (None, None) => Err(Refusal::Plain),
        (None, Some(_)) => Err(draft.missing(".scales")),
        (Some(scales), None) if scales.dtype() == Dtype::U8 => floats(draft, scales),
        (Some(_), None) => Err(draft.missing(".biases")),
        (Some(scales), Some(biases)) => integers(draft, scales, biases),
    }
}

/// The scales' columns, where all else of their shape is the codes'.
fn columns_of(scales: &Tensor, leading: &[u64]) -> Result<u64, Refusal> {
    match sound(scales)?.split_last() {
        Some((columns, found)) if found == leading => Ok(*columns),
        _ => Err(shape(&[Is(scales), Text(", expected "), All(leading), Text(" and groups")])),
    }
}

fn floats(draft: &Draft<'_>, scales: &Tensor) -> Found {
    let (outer, rows, words) = stack(draft.codes)?;
    let columns = columns_of(scales, &with(&outer, &[rows]))?;
    let (layout, bits, group, mode) = match (words / columns, words % columns) {
        (4, 0) => (&MLX_MXFP4, 4, 32, "mxfp4"),
        (8, 0) => (&MLX_MXFP8, 8, 32, "mxfp8"),
        (2, 0) => (&MLX_NVFP4, 4, 16, "nvfp4"),
        _ => {
            let rest = Text(", not 2, 4 or 8 columns for each");
            return Err(shape(&[Is(draft.codes), Text(" for "), Is(scales), rest]));
        }
    };
    if let Some(MlxModule { bits: said_bits, group_size, mode: said_mode }) = draft.mlx() {
        let others = said_bits.is_some_and(|said| said != bits) || group_size.is_some_and(|said| said != group);
        if others || said_mode.is_some_and(|said| said != mode) {
            let rest = Text(", and the configuration says otherwise");
            return Err(config(&[Name(draft.codes), Text(" fits "), Text(mode), rest]));
        }
    }
    let ones = SmallShape::ones(outer.len() + 1);
    let small = u32::try_from(bits).unwrap_or_default();
    Ok(Form::new(layout, small, with(&outer, &[rows, columns * group]), with(&ones, &[group])).step_along_in(group))
}

fn integers(draft: &Draft<'_>, scales: &Tensor, biases: &Tensor) -> Found {
    require_dtype(draft.codes, &[Dtype::U32])?;
    require_dtype(scales, FLOATS)?;
    require_dtype(biases, &[scales.dtype()])?;
    let (outer, rows, words) = stack(draft.codes)?;
    let columns = columns_of(scales, &with(&outer, &[rows]))?;
    require_shape(biases, &sound(scales)?)?;
    // Bits of a group's codes together.
    let (together, rest) = (32 * words / columns, 32 * words % columns);
    let pairs = BITS.iter().flat_map(|bits| GROUPS.iter().map(move |group| (*bits, *group)));
    let fit: Vec<(u64, u64)> = pairs.filter(|(bits, group)| rest == 0 && bits * group == together).collect();
    let said = draft.mlx().unwrap_or_default();
    let agrees = |pair: &&(u64, u64)| {
        said.bits.is_none_or(|bits| bits == pair.0) && said.group_size.is_none_or(|group| group == pair.1)
    };
    if let Some(mode) = said.mode.as_deref().filter(|mode| *mode != "affine") {
        let says = Text(" has biases, and the configuration says ");
        return Err(config(&[Name(draft.codes), says, Given(mode.as_bytes())]));
    }
    let agreeing: Vec<_> = fit.iter().filter(agrees).collect();
    let (bits, group) = match (agreeing.as_slice(), fit.is_empty()) {
        ([only], _) => **only,
        (_, true) if said.bits.is_none() || said.group_size.is_none() => {
            return Err(shape(&[Is(draft.codes), Text(" for "), Is(scales), Text(", which fits no bits")]));
        }
        ([], _) => {
            let (bits, group) = (said.bits.unwrap_or_default(), said.group_size.unwrap_or_default());
            let said =
                [Number(bits), Text(" bits in groups of "), Number(group), Text(" are said (0: not said), and ")];
            return Err(config(&[said.as_slice(), &[Is(draft.codes), Text(" for "), Is(scales)]].concat()));
        }
        (several, _) => {
            let names: Vec<String> = several.iter().map(|(bits, group)| format!("mlx-affine {bits}/{group}")).collect();
            return Err(Refusal::Ambiguous(names.join(" or ")));
        }
    };
    let ones = SmallShape::ones(outer.len() + 1);
    let small = u32::try_from(bits).unwrap_or_default();
    let mut form = Form::new(&MLX_AFFINE, small, with(&outer, &[rows, columns * group]), with(&ones, &[group]));
    form.recipe.scale_type = super::draft::scale_type(scales);
    Ok(form.step_along_in(group))
}
