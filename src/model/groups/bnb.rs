// SPDX-License-Identifier: Apache-2.0
//! bitsandbytes' four bits: a whole matrix as one run of codes, and a state in JSON.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "members have 2^48 elements at most, divisors are above 0")]

use super::draft::{gcd, require_dtype, require_shape, shape, state, Draft, Form, Found, Refusal, SMALL};
use super::group::{Flags, Nested, Role};
use super::recipe::{ScaleType, BNB_FP4, BNB_FP4_NESTED, BNB_NF4, BNB_NF4_NESTED};
use super::sizes::{SmallShape, MOST_RANK};
use super::wording::Word::{All, Is, Name, Number, Text};
use crate::dtype::Dtype;
use crate::model::json::Json;

const NF4: &str = ".weight.quant_state.bitsandbytes__nf4";
const FP4: &str = ".weight.quant_state.bitsandbytes__fp4";

/// What the state says.
struct State {
    block: u64,
    shape: SmallShape,
    nested: Option<Nested>,
}

/// `None` where the module has nothing of bitsandbytes.
pub(super) fn recognise(draft: &mut Draft<'_>) -> Option<Found> {
    let scales = draft.optional(Role::Scales, ".weight.absmax");
    let map = draft.optional(Role::Map, ".weight.quant_map");
    let nf4 = draft.optional(Role::State, NF4);
    let fp4 = draft.optional(Role::State, FP4);
    if scales.is_none() && map.is_none() && nf4.is_none() && fp4.is_none() {
        return None;
    }
    draft.optional(Role::NestedScales, ".weight.nested_absmax");
    draft.optional(Role::NestedMap, ".weight.nested_quant_map");
    Some(group(draft))
}

fn group(draft: &Draft<'_>) -> Found {
    let needed = |suffix: &str| draft.find(suffix).ok_or_else(|| draft.missing(suffix));
    let (scales, map) = (needed(".weight.absmax")?, needed(".weight.quant_map")?);
    let (text, kind) = match (draft.find(NF4), draft.find(FP4)) {
        (Some(_), Some(_)) => return Err(Refusal::Ambiguous("bnb-nf4 or bnb-fp4: it has a state of both".to_owned())),
        (Some(text), None) => (text, "nf4"),
        (None, Some(text)) => (text, "fp4"),
        (None, None) => return Err(draft.missing(NF4)),
    };
    require_dtype(text, &[Dtype::U8])?;
    let wrong = |fault: &str| state(&[Name(text), Text(": "), Text(fault)]);
    let bytes = draft.read_small(text)?;
    let json = Json::parse(&bytes, usize::try_from(SMALL).unwrap_or_default()).map_err(|fault| wrong(&fault))?;
    let State { block, shape: sizes, nested } = State::read(&json, kind).map_err(wrong)?;
    require_dtype(map, &[Dtype::F32])?;
    require_shape(map, &[16])?;
    let count = sizes.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
    let count = count.filter(|count| *count <= 1 << 48).ok_or_else(|| wrong("its shape is too large"))?;
    let codes = draft.codes;
    if require_shape(codes, &[count.div_ceil(2), 1]).is_err() {
        let codes =
            [Is(codes), Text(", and "), Name(text), Text(" says "), All(&sizes), Text(": codes "), Number(count)];
        return Err(shape(&codes));
    }
    let blocks = count.div_ceil(block);
    require_shape(scales, &[blocks])?;
    match nested {
        None => require_dtype(scales, &[Dtype::F32])?,
        Some(nested) => {
            require_dtype(scales, &[Dtype::U8])?;
            let (scales, map) = (needed(".weight.nested_absmax")?, needed(".weight.nested_quant_map")?);
            require_dtype(scales, &[Dtype::F32])?;
            require_shape(scales, &[blocks.div_ceil(nested.block)])?;
            require_dtype(map, &[Dtype::F32])?;
            require_shape(map, &[256])?;
        }
    }
    let layout = match (kind, nested.is_some()) {
        ("nf4", false) => &BNB_NF4,
        ("nf4", true) => &BNB_NF4_NESTED,
        (_, false) => &BNB_FP4,
        (_, true) => &BNB_FP4_NESTED,
    };
    let (rows, inner) = match sizes.split_first() {
        Some((rows, inner)) => (*rows, inner),
        None => return Err(wrong("its shape is that of a single number")),
    };
    let row: u64 = inner.iter().product();
    let mut along = SmallShape::ones(inner.len());
    along.push(block);
    let mut form = Form::new(layout, 4, sizes, along);
    form.step = SmallShape::join(&[(block / gcd(row, block)).min(rows)], inner);
    form.flags = Flags::FLAT.and(Flags::HIGH_NIBBLE_FIRST);
    form.nested = nested;
    if nested.is_some() {
        form.recipe.scale_type = ScaleType::Nested;
    }
    Ok(form)
}

impl State {
    fn read(json: &Json, kind: &str) -> Result<Self, &'static str> {
        if json.get("quant_type").and_then(Json::text) != Some(kind) {
            return Err("its quant_type is not that of its name");
        }
        let block = json.get("blocksize").and_then(Json::positive).ok_or("it has no blocksize")?;
        let list = json.list("shape");
        if list.is_empty() || list.len() > MOST_RANK {
            return Err("it has no shape");
        }
        let mut shape = SmallShape::default();
        for size in list {
            shape.push(size.positive().ok_or("it has no shape")?);
        }
        let nested = match (json.get("nested_blocksize"), json.get("nested_offset")) {
            (None, None) => None,
            (Some(block), Some(offset)) => Some(Nested {
                block: block.positive().ok_or("its nested_blocksize is no size")?,
                #[allow(clippy::cast_possible_truncation, reason = "F32 written as a decimal")]
                offset: offset.number().ok_or("its nested_offset is no number")? as f32,
            }),
            _ => return Err("it has one of nested_blocksize and nested_offset"),
        };
        Ok(Self { block, shape, nested })
    }
}
