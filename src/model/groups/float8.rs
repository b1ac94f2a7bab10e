// SPDX-License-Identifier: Apache-2.0
//! `weight` of FP8: one scale, one a row, one a block, or one for 32 columns.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "members have 2^48 elements at most, divisors are above 0")]

use super::draft::{
    ambiguous, broken, config, opaque, require_dtype, require_shape, shape, sound, stack, with, Draft, Form, Found,
    Refusal, FLOATS,
};
use super::group::{Break, Role};
use super::recipe::{
    Code, Layout, ScaleLayout, FP8_BLOCK, FP8_BLOCK_E8M0, FP8_CHANNEL, FP8_COMFY, FP8_TENSOR, MXFP8_CT,
};
use super::sizes::SmallShape;
use super::wording::Word::{Given, Is, Name, Text};
use crate::dtype::Dtype;
use crate::record::Tensor;

/// The names of scales, and those of scales for the activations beside them.
const SCALES: [&str; 5] = [".weight_scale_inv", ".weight_scale", ".scale_weight", ".qscale_weight", ".scale"];
const INPUTS: [&str; 4] = [".input_scale", ".activation_scale", ".scale_input", ".qscale_act"];

pub(super) fn recognise(draft: &mut Draft<'_>) -> Found {
    draft.add(Role::Codes, draft.codes);
    let mut found = SCALES.iter().filter_map(|suffix| Some((*suffix, draft.find(suffix)?)));
    let (scale, second) = (found.next(), found.next());
    drop(found);
    let Some((suffix, scales)) = scale else {
        return without(draft);
    };
    draft.add(Role::Scales, scales);
    for input in INPUTS {
        draft.optional(Role::InputScale, input);
    }
    for scale in [".k_scale", ".v_scale"] {
        draft.optional(Role::KvScale, scale);
    }
    if let Some((_, second)) = second {
        return Err(ambiguous(&[Name(scales), Text(" or "), Name(second), Text(" scales it")]));
    }
    let marker = draft.marker()?;
    require_code(draft, marker.as_ref().map(|marker| marker.format.as_str()))?;
    // A marker in the metadata says what a group is, and not what its family calls it.
    if draft.find(".comfy_quant").is_some() || suffix == ".scale_weight" {
        return plain_scale(draft, scales, Some(&FP8_COMFY));
    }
    match (suffix, scales.dtype()) {
        (".scale", _) => {
            require_dtype(scales, &[Dtype::F8E8M0])?;
            blocks(draft, scales, &FP8_BLOCK_E8M0, draft.settings.weight_block)
        }
        (".weight_scale", Dtype::U8 | Dtype::F8E8M0) => groups(draft, scales),
        (".weight_scale_inv", _) => match sound(scales)?.len() {
            0 | 1 if draft.settings.weight_block.is_none() => plain_scale(draft, scales, None),
            _ => blocks(draft, scales, &FP8_BLOCK, draft.settings.weight_block),
        },
        _ => {
            let group = draft.config_group();
            let strategy = group.and_then(|group| group.strategy.as_deref());
            let block = group.and_then(|group| group.block).or(draft.settings.weight_block);
            let by_blocks = match strategy {
                Some("block") => true,
                Some("channel" | "tensor") => false,
                _ => !row_scales(draft, scales),
            };
            match by_blocks && sound(scales)?.len() > 1 {
                true => blocks(draft, scales, &FP8_BLOCK, block),
                false if strategy == Some("block") => Err(no_grid(draft, scales)),
                false => plain_scale(draft, scales, None),
            }
        }
    }
}

/// An FP8 weight without a scale is what it seems, unless something says that it is quantised.
fn without(draft: &mut Draft<'_>) -> Found {
    let marked = draft.marker()?.is_some();
    let demanded = draft.method() == Some("fp8") && draft.settings.weight_block.is_some();
    match marked || demanded {
        true => Err(draft.missing(if marked { ".weight_scale" } else { ".weight_scale_inv" })),
        false => Err(Refusal::Plain),
    }
}

/// Whether the codes' dtype is the one that a marker or the configuration names.
fn require_code(draft: &Draft<'_>, marker: Option<&str>) -> Result<(), Refusal> {
    let expected = match marker {
        Some("float8_e4m3fn") => Some(Dtype::F8E4M3),
        Some("float8_e5m2") => Some(Dtype::F8E5M2),
        Some(other @ ("nvfp4" | "int8_tensorwise")) => {
            let found = draft.codes.dtype().name();
            let words = [Name(draft.codes), Text(" is "), Text(found), Text(", and its marker says "), Text(other)];
            return Err(broken(Break::Dtype, &words));
        }
        Some(other) => return Err(opaque(&[Text("its marker says "), Given(other.as_bytes())])),
        None => match (draft.method(), draft.settings.float.as_deref()) {
            (Some("fp8"), Some("e5m2")) => Some(Dtype::F8E5M2),
            (Some("fp8" | "compressed-tensors" | "modelopt"), _) => Some(Dtype::F8E4M3),
            _ => None,
        },
    };
    if draft.config_group().and_then(|group| group.float) == Some(false) {
        return Err(config(&[Name(draft.codes), Text(" is a float, and the configuration says integers")]));
    }
    expected.map_or(Ok(()), |dtype| require_dtype(draft.codes, &[dtype]))
}

/// Whether a scale's shape is that of one a row.
fn row_scales(draft: &Draft<'_>, scales: &Tensor) -> bool {
    match (draft.codes.shape(), scales.shape()) {
        ([rows, _], [count]) => rows == count,
        ([rows, _], [count, 1]) => rows == count,
        _ => false,
    }
}

/// One scale for all, or one a row.
fn plain_scale(draft: &Draft<'_>, scales: &Tensor, comfy: Option<&'static Layout>) -> Found {
    require_dtype(scales, FLOATS)?;
    let sizes = sound(draft.codes)?;
    let of_scales = sound(scales)?;
    if sizes.is_empty() {
        return Err(shape(&[Name(draft.codes), Text(" is a single number")]));
    }
    let single = matches!(&*of_scales, [] | [1]);
    if !single && !row_scales(draft, scales) {
        let rest = [Is(scales), Text(", which is neither one scale for "), Name(draft.codes), Text(" nor one a row")];
        return Err(shape(&rest));
    }
    let layout = comfy.unwrap_or(if single { &FP8_TENSOR } else { &FP8_CHANNEL });
    let block = match (single, sizes.last()) {
        (false, Some(last)) => with(&[1], &[*last]),
        _ => sizes,
    };
    let mut form = Form::new(layout, 8, sizes, block);
    form.recipe.scale_layout = if single { ScaleLayout::Tensor } else { ScaleLayout::Rows };
    Ok(finish(form, draft.codes, scales))
}

fn finish(mut form: Form, codes: &Tensor, scales: &Tensor) -> Form {
    form.recipe.scale_type = super::draft::scale_type(scales);
    if codes.dtype() == Dtype::F8E5M2 {
        form.recipe.code = Code::E5M2;
    }
    form
}

/// A scale for each block of a grid.
fn blocks(draft: &Draft<'_>, scales: &Tensor, layout: &'static Layout, said: Option<(u64, u64)>) -> Found {
    require_dtype(draft.codes, &[Dtype::F8E4M3])?;
    if layout == &FP8_BLOCK {
        require_dtype(scales, FLOATS)?;
    }
    let (outer, rows, columns) = stack(draft.codes)?;
    let of_scales = sound(scales)?;
    let fits = |block: (u64, u64)| of_scales == with(&outer, &[rows.div_ceil(block.0), columns.div_ceil(block.1)]);
    let said = match draft.overridden() {
        Some(over) => over.group_size.map(|size| (size, size)),
        None => said,
    };
    let block = match said {
        Some(block) if fits(block) => block,
        Some(_) => return Err(no_grid(draft, scales)),
        None if fits((128, 128)) => (128, 128),
        None => {
            let rest = Text(", and no size of blocks is said");
            return Err(ambiguous(&[Is(scales), Text(", "), Is(draft.codes), rest]));
        }
    };
    let ones = SmallShape::ones(outer.len());
    let form = Form::new(layout, 8, with(&outer, &[rows, columns]), with(&ones, &[block.0, block.1]));
    Ok(finish(form, draft.codes, scales))
}

fn no_grid(draft: &Draft<'_>, scales: &Tensor) -> Refusal {
    shape(&[Is(scales), Text(", which is no grid of the blocks that are said, as "), Is(draft.codes)])
}

/// A scale for 32 columns.
fn groups(draft: &Draft<'_>, scales: &Tensor) -> Found {
    require_dtype(draft.codes, &[Dtype::F8E4M3])?;
    let (outer, rows, columns) = stack(draft.codes)?;
    if columns % 32 != 0 {
        return Err(super::packed::no_whole_groups(draft.codes, 32));
    }
    require_shape(scales, &with(&outer, &[rows, columns / 32]))?;
    let ones = SmallShape::ones(outer.len() + 1);
    Ok(Form::new(&MXFP8_CT, 8, with(&outer, &[rows, columns]), with(&ones, &[32])).step_along_in(32))
}
