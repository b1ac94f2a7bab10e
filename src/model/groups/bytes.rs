// SPDX-License-Identifier: Apache-2.0
//! `weight` of I8 and U8: integers with scales, and four-bit floats in pairs.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "members have 2^48 elements at most, divisors are above 0")]

use super::draft::{
    ambiguous, broken, config, opaque, require_dtype, require_shape, shape, sound, stack, with, Draft, Form, Found,
    Refusal, FLOATS,
};
use super::group::{Break, Flags, Role};
use super::packed::{group_size, no_whole_groups, single};
use super::recipe::{ScaleLayout, Zero, BNB_INT8, CT_INT8, DEEPSEEK_V4_FP4, INT8_COMFY, NVFP4_COMFY, NVFP4_MODELOPT};
use super::sizes::SmallShape;
use super::wording::Word::{All, Given, Is, Name, Number, Text};
use crate::dtype::Dtype;
use crate::record::Tensor;

/// I8.
pub(super) fn signed(draft: &mut Draft<'_>) -> Found {
    draft.add(Role::Codes, draft.codes);
    if let Some(scales) = draft.optional(Role::Scales, ".scale") {
        return deepseek(draft, scales);
    }
    if draft.find(".SCB").is_some() || draft.find(".weight_format").is_some() {
        return bitsandbytes(draft);
    }
    let Some(scales) = draft.optional(Role::Scales, ".weight_scale") else {
        return match draft.marker()? {
            Some(_) => Err(draft.missing(".weight_scale")),
            None => Err(Refusal::Plain),
        };
    };
    let zeros = draft.optional(Role::Zeros, ".weight_zero_point");
    draft.optional(Role::InputScale, ".input_scale");
    require_dtype(scales, FLOATS)?;
    match draft.marker()? {
        Some(marker) if marker.format != "int8_tensorwise" => {
            let given = Given(marker.format.as_bytes());
            Err(if marker.format.starts_with("float8") || marker.format == "nvfp4" {
                broken(Break::Dtype, &[Name(draft.codes), Text(" is I8, and its marker says "), given])
            } else {
                opaque(&[Text("its marker says "), given])
            })
        }
        Some(marker) if marker.rotated => Err(opaque(&[Text("its weight is rotated (convrot)")])),
        Some(_) => integers(draft, scales, None, true),
        None => integers(draft, scales, zeros, false),
    }
}

fn integers(draft: &Draft<'_>, scales: &Tensor, zeros: Option<&Tensor>, comfy: bool) -> Found {
    let (outer, rows, columns) = stack(draft.codes)?;
    let group = draft.config_group().filter(|_| !comfy);
    if !comfy {
        if let Some(method) = draft.method().filter(|method| *method != "compressed-tensors") {
            let says = " is I8, and the configuration says ";
            return Err(config(&[Name(draft.codes), Text(says), Given(method.as_bytes())]));
        }
        if group.and_then(|group| group.float) == Some(true) {
            return Err(config(&[Name(draft.codes), Text(" is I8, and the configuration says floats")]));
        }
        if zeros.is_none() && group.and_then(|group| group.symmetric) == Some(false) {
            return Err(draft.missing(".weight_zero_point"));
        }
    }
    let of_scales = sound(scales)?;
    let layout = if comfy { &INT8_COMFY } else { &CT_INT8 };
    let sizes = with(&outer, &[rows, columns]);
    let mut form = match &*of_scales {
        [] if comfy => Form::new(layout, 8, sizes, sizes),
        [1] => Form::new(layout, 8, sizes, sizes),
        _ => {
            let wrong = || shape(&[Is(scales), Text(", which is no scale for each row")]);
            let groups = match of_scales.split_last() {
                Some((groups, leading)) if *leading == *with(&outer, &[rows]) => *groups,
                _ => return Err(wrong()),
            };
            if comfy && groups != 1 {
                return Err(wrong());
            }
            let size = if comfy { columns } else { group_size(draft, group, scales, columns, groups)? };
            let ones = SmallShape::ones(outer.len() + 1);
            let mut form = Form::new(layout, 8, sizes, with(&ones, &[size]));
            form.recipe.scale_layout = ScaleLayout::Groups;
            form
        }
    };
    if of_scales.len() <= 1 {
        form.recipe.scale_layout = ScaleLayout::Tensor;
    }
    form.recipe.scale_type = super::draft::scale_type(scales);
    if let Some(zeros) = zeros {
        require_dtype(zeros, &[Dtype::I8])?;
        require_shape(zeros, &of_scales)?;
        form.recipe.zero = Zero::Signed;
        form.flags = form.flags.and(Flags::ASYMMETRIC);
    }
    Ok(form)
}

fn deepseek(draft: &Draft<'_>, scales: &Tensor) -> Found {
    require_dtype(scales, &[Dtype::F8E8M0])?;
    let (outer, rows, columns) = stack(draft.codes)?;
    require_shape(scales, &with(&outer, &[rows, columns / 16]))?;
    if columns % 16 != 0 {
        return Err(no_whole_groups(draft.codes, 32));
    }
    let ones = SmallShape::ones(outer.len() + 1);
    let form = Form::new(&DEEPSEEK_V4_FP4, 4, with(&outer, &[rows, 2 * columns]), with(&ones, &[32]));
    Ok(form.step_along_in(32))
}

fn bitsandbytes(draft: &mut Draft<'_>) -> Found {
    let scales = draft.required(Role::Scales, ".SCB");
    let format = draft.optional(Role::Format, ".weight_format");
    let (scales, codes) = (scales?, draft.codes);
    require_dtype(scales, &[Dtype::F32])?;
    let (rows, columns) = super::draft::matrix(codes)?;
    require_shape(scales, &[rows])?;
    if let Some(format) = format {
        require_dtype(format, &[Dtype::U8])?;
        single(format)?;
        let found = draft.read_small(format)?;
        if found != [0] {
            let number = found.first().copied().map_or(0, u64::from);
            return Err(opaque(&[Name(format), Text(" is "), Number(number), Text(", a tiled layout")]));
        }
    }
    Ok(Form::new(&BNB_INT8, 8, with(&[rows], &[columns]), with(&[1], &[columns])))
}

/// U8.
pub(super) fn unsigned(draft: &mut Draft<'_>) -> Found {
    draft.add(Role::Codes, draft.codes);
    if let Some(found) = super::bnb::recognise(draft) {
        return found;
    }
    let scales = draft.optional(Role::Scales, ".weight_scale");
    let global = draft.optional(Role::Global, ".weight_scale_2");
    let marker = draft.marker()?;
    if scales.is_none() && global.is_none() && marker.is_none() {
        return Err(Refusal::Plain);
    }
    draft.optional(Role::InputScale, ".input_scale");
    draft.optional(Role::PreScale, ".pre_quant_scale");
    let scales = scales.ok_or_else(|| draft.missing(".weight_scale"))?;
    require_dtype(scales, &[Dtype::F8E4M3])?;
    let global = global.ok_or_else(|| draft.missing(".weight_scale_2"))?;
    require_dtype(global, &[Dtype::F32])?;
    single(global)?;
    let marked = match marker {
        Some(marker) if marker.format == "nvfp4" => true,
        Some(marker) => return Err(opaque(&[Text("its marker says "), Given(marker.format.as_bytes())])),
        None => false,
    };
    let (outer, rows, columns) = stack(draft.codes)?;
    if columns % 8 != 0 {
        return Err(no_whole_groups(draft.codes, 16));
    }
    let of_scales = sound(scales)?;
    let plain = with(&outer, &[rows, columns / 8]);
    let padded = with(&[rows.div_ceil(128) * 128], &[(columns / 8).div_ceil(4) * 4]);
    let swizzled = match draft.layout() {
        Some("nvfp4-comfy") => true,
        Some("nvfp4-modelopt") => false,
        _ if marked => true,
        _ if draft.method() == Some("modelopt") => false,
        _ if of_scales == plain && of_scales == padded => {
            return Err(ambiguous(&[Text("nvfp4-comfy or nvfp4-modelopt: the scales' shapes are the same")]));
        }
        _ => of_scales == padded,
    };
    let expected = if swizzled { &padded } else { &plain };
    if of_scales != *expected || swizzled && !outer.is_empty() {
        return Err(shape(&[Is(scales), Text(", expected "), All(expected)]));
    }
    let layout = if swizzled { &NVFP4_COMFY } else { &NVFP4_MODELOPT };
    let ones = SmallShape::ones(outer.len() + 1);
    let mut form = Form::new(layout, 4, with(&outer, &[rows, 2 * columns]), with(&ones, &[16])).step_along_in(16);
    if swizzled {
        form.flags = Flags::HIGH_NIBBLE_FIRST.and(Flags::SWIZZLED);
    }
    Ok(form)
}
