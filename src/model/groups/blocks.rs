// SPDX-License-Identifier: Apache-2.0
//! `n_blocks` and `n.blocks`: the expert stacks of gpt-oss.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "members have 2^48 elements at most")]

use super::draft::{require_dtype, require_shape, shape, sound, Draft, Form, Found};
use super::group::Role;
use super::recipe::MXFP4_GPT_OSS;
use super::sizes::SmallShape;
use super::wording::Word::{Is, Text};
use crate::dtype::Dtype;

/// `suffix` is that of the scales.
pub(super) fn recognise(draft: &mut Draft<'_>, suffix: &str) -> Found {
    draft.add(Role::Codes, draft.codes);
    let scales = draft.required(Role::Scales, suffix)?;
    require_dtype(draft.codes, &[Dtype::U8])?;
    require_dtype(scales, &[Dtype::U8])?;
    let sizes = sound(draft.codes)?;
    let [experts, rows, groups, 16] = *sizes else {
        return Err(shape(&[Is(draft.codes), Text(", expected four dimensions, the last of 16")]));
    };
    require_shape(scales, &[experts, rows, groups])?;
    let form = Form::new(
        &MXFP4_GPT_OSS,
        4,
        SmallShape::join(&[experts], &[rows, 32 * groups]),
        SmallShape::join(&[1, 1], &[32]),
    );
    Ok(form.step_along_in(32))
}
