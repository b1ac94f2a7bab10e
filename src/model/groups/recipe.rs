// SPDX-License-Identifier: Apache-2.0
//! How codes, scales and zero points become values. Every layout is one
//! combination, a row of the table below; the decoder knows recipes, and no layout.
#![forbid(unsafe_code)]

use std::ffi::CStr;

/// What a code stands for. The numbers are the C constants `ST_CODE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// An unsigned integer.
    Unsigned = 1,
    /// A signed byte.
    Signed = 2,
    /// FP4.
    E2M1 = 3,
    /// FP6.
    E2M3 = 4,
    /// FP8.
    E4M3 = 5,
    /// FP8 with more exponent.
    E5M2 = 6,
    /// An index into a map of 16 values.
    Map = 7,
}

/// Where codes lie. The numbers are the C constants `ST_PACKING_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Packing {
    /// One a byte.
    Bytes = 1,
    /// A stream along in, least significant bit first.
    Stream = 2,
    /// Two a byte along in, the high nibble first.
    HighNibbles = 3,
    /// As many as fit in each word of 32 bits, along in.
    PaddedWords = 4,
    /// A stream down dimension 0 of what is stored [in, out].
    Columns = 5,
    /// Words of eight columns, in AWQ's order, of what is stored [in, out].
    AwqColumns = 6,
    /// Two a byte over the whole matrix, the high nibble first.
    FlatNibbles = 7,
}

/// Which nibble of a word of AWQ's, from the low end, is that of a column.
pub(super) fn nibble_of_awq(column: u64) -> Option<u32> {
    [0, 4, 1, 5, 2, 6, 3, 7].get(usize::try_from(column % 8).ok()?).copied()
}

/// The type of scales. The numbers are the C constants `ST_SCALE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ScaleType {
    /// F32.
    F32 = 1,
    /// F16.
    F16 = 2,
    /// BF16.
    Bf16 = 3,
    /// Powers of two, as F8_E8M0 or U8.
    E8M0 = 4,
    /// F8_E4M3.
    E4M3 = 5,
    /// Indices into a map, scaled themselves.
    Nested = 6,
}

/// What a scale is for. The numbers are the C constants `ST_SCALES_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ScaleLayout {
    /// All elements.
    Tensor = 1,
    /// A row.
    Rows = 2,
    /// A group along in: [out, G].
    Groups = 3,
    /// A group along in: [G, out].
    GroupsTransposed = 4,
    /// A block of rows and columns.
    Grid = 5,
    /// A group along in, in tiles of 128 rows and 4 groups.
    Swizzled = 6,
    /// A block of elements in C order.
    Flat = 7,
}

/// What is taken from a code, or added to its product. The numbers are the C constants `ST_ZERO_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Zero {
    /// Nothing.
    None = 0,
    /// 2^(bits-1).
    Middle = 1,
    /// A signed byte for each scale.
    Signed = 2,
    /// A stream down out of what is stored [out, G].
    Rows = 3,
    /// The same, as many as fit in each word.
    PaddedRows = 4,
    /// A stream along out of what is stored [G, out].
    Columns = 5,
    /// The same, and stored one less, modulo 2^bits.
    ColumnsLessOne = 6,
    /// [G, out] in AWQ's order.
    AwqColumns = 7,
    /// A stream along G of what is stored [out, G].
    Groups = 8,
    /// A number of the scales' type is added to code × scale.
    Offset = 9,
}

/// What comes last. The numbers are the C constants `ST_GLOBAL_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Global {
    /// Nothing.
    None = 0,
    /// Times one number.
    Multiply = 1,
    /// Divided by one number.
    Divide = 2,
    /// Times 1/127.
    Over127 = 3,
}

/// Which group a column belongs to. The numbers are the C constants `ST_ORDER_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ColumnOrder {
    /// Columns in order.
    Sequential = 0,
    /// An index says.
    Index = 1,
}

/// The combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each type says it")]
pub struct Recipe {
    pub code: Code,
    pub packing: Packing,
    pub scale_type: ScaleType,
    pub scale_layout: ScaleLayout,
    pub zero: Zero,
    pub global: Global,
    pub order: ColumnOrder,
}

/// A layout's names and its recipe; a recogniser adds what differs from file to file.
#[derive(Debug, PartialEq)]
pub struct Layout {
    /// The exact layout: "gptq-v1".
    pub name: &'static CStr,
    /// The family: "gptq".
    pub kind: &'static CStr,
    /// How it is decoded.
    pub recipe: Recipe,
}

impl Layout {
    /// Its name as text.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.to_str().unwrap_or_default()
    }
}

macro_rules! layouts {
    ($($id:ident = $name:literal, $kind:literal: $code:ident $packing:ident $type:ident $layout:ident $zero:ident $global:ident;)*) => {
        $(pub(super) static $id: Layout = Layout {
            name: $name,
            kind: $kind,
            recipe: Recipe {
                code: Code::$code,
                packing: Packing::$packing,
                scale_type: ScaleType::$type,
                scale_layout: ScaleLayout::$layout,
                zero: Zero::$zero,
                global: Global::$global,
                order: ColumnOrder::Sequential,
            },
        };)*
    };
}

// Scale types that files choose (F32, BF16 or F16) and layouts that shapes choose are the recogniser's.
layouts! {
    FP8_BLOCK = c"fp8-block", c"fp8_block": E4M3 Bytes F32 Grid None None;
    FP8_BLOCK_E8M0 = c"fp8-block-e8m0", c"fp8_block": E4M3 Bytes E8M0 Grid None None;
    FP8_TENSOR = c"fp8-tensor", c"fp8": E4M3 Bytes F32 Tensor None None;
    FP8_CHANNEL = c"fp8-channel", c"fp8": E4M3 Bytes F32 Rows None None;
    FP8_COMFY = c"fp8-comfy", c"fp8": E4M3 Bytes F32 Tensor None None;
    MXFP8_CT = c"mxfp8-ct", c"mxfp8": E4M3 Bytes E8M0 Groups None None;
    MXFP4_CT = c"mxfp4-ct", c"mxfp4": E2M1 Stream E8M0 Groups None None;
    MXFP6_CT = c"mxfp6-ct", c"mxfp6": E2M3 Stream E8M0 Groups None None;
    DEEPSEEK_V4_FP4 = c"deepseek-v4-fp4", c"mxfp4": E2M1 Stream E8M0 Groups None None;
    MXFP4_GPT_OSS = c"mxfp4-gpt-oss", c"mxfp4": E2M1 Stream E8M0 Groups None None;
    NVFP4_MODELOPT = c"nvfp4-modelopt", c"nvfp4": E2M1 Stream E4M3 Groups None Multiply;
    NVFP4_CT = c"nvfp4-ct", c"nvfp4": E2M1 Stream E4M3 Groups None Divide;
    NVFP4_COMFY = c"nvfp4-comfy", c"nvfp4": E2M1 HighNibbles E4M3 Swizzled None Multiply;
    CT_PACK = c"ct-pack", c"int_packed": Unsigned Stream F32 Groups Middle None;
    CT_PACK_OLD = c"ct-pack-old", c"int_packed": Unsigned PaddedWords F32 Groups Middle None;
    CT_INT8 = c"ct-int8", c"int8": Signed Bytes F32 Groups None None;
    INT8_COMFY = c"int8-comfy", c"int8": Signed Bytes F32 Groups None None;
    GPTQ_V1 = c"gptq-v1", c"gptq": Unsigned Columns F16 GroupsTransposed ColumnsLessOne None;
    GPTQ_V2 = c"gptq-v2", c"gptq": Unsigned Columns F16 GroupsTransposed Columns None;
    AWQ_GEMM = c"awq-gemm", c"awq": Unsigned AwqColumns F16 GroupsTransposed AwqColumns None;
    AWQ_GEMV = c"awq-gemv", c"awq": Unsigned Stream F16 Groups Groups None;
    MLX_AFFINE = c"mlx-affine", c"mlx": Unsigned Stream F16 Groups Offset None;
    MLX_MXFP4 = c"mlx-mxfp4", c"mxfp4": E2M1 Stream E8M0 Groups None None;
    MLX_MXFP8 = c"mlx-mxfp8", c"mxfp8": E4M3 Stream E8M0 Groups None None;
    MLX_NVFP4 = c"mlx-nvfp4", c"nvfp4": E2M1 Stream E4M3 Groups None None;
    BNB_NF4 = c"bnb-nf4", c"bnb4": Map FlatNibbles F32 Flat None None;
    BNB_NF4_NESTED = c"bnb-nf4-nested", c"bnb4": Map FlatNibbles Nested Flat None None;
    BNB_FP4 = c"bnb-fp4", c"bnb4": Map FlatNibbles F32 Flat None None;
    BNB_FP4_NESTED = c"bnb-fp4-nested", c"bnb4": Map FlatNibbles Nested Flat None None;
    BNB_INT8 = c"bnb-int8", c"int8": Signed Bytes F32 Rows None Over127;
}
