// SPDX-License-Identifier: Apache-2.0
#include "types.h"

#include <strings.h>

#include <string>

namespace bridge {

static bool can_make(ggml_type type) {
    const ggml_type_traits *traits = ggml_get_type_traits(type);
    if (!traits || !traits->type_name || traits->blck_size == 0) return false;
    if (type == GGML_TYPE_F32) return true;
    // For intermediate results only: ggml has no quantize_chunk for these.
    if (type == GGML_TYPE_Q8_1 || type == GGML_TYPE_Q8_K) return false;
    return traits->from_float_ref && !ggml_quantize_requires_imatrix(type);
}

Choice parse_type(const char *name) {
    if (!name || strcasecmp(name, "stored") == 0) return std::nullopt;
    std::string allowed = "stored";
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        auto type = ggml_type(i);
        if (!can_make(type)) continue;
        if (strcasecmp(name, ggml_type_name(type)) == 0) return type;
        allowed += ", " + std::string(ggml_type_name(type));
    }
    fail(ST_ERROR_INVALID_ARGUMENT, "type " + in_quotes(name) + " is not one that can be made without an importance matrix (allowed: " + allowed + ")");
}

static ggml_type type_as_stored(st_dtype stored) {
    switch (stored) {
    case ST_DTYPE_F16: return GGML_TYPE_F16;
    case ST_DTYPE_BF16: return GGML_TYPE_BF16;
    default: return GGML_TYPE_F32;
    }
}

ggml_type type_of_matrix(Choice choice, st_dtype stored, int64_t columns) {
    ggml_type type = choice ? *choice : type_as_stored(stored);
    if (columns % ggml_blck_size(type) == 0) return type;
    return columns % ggml_blck_size(GGML_TYPE_Q8_0) == 0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
}

st_dtype dtype_for(ggml_type type) {
    switch (type) {
    case GGML_TYPE_F16: return ST_DTYPE_F16;
    case GGML_TYPE_BF16: return ST_DTYPE_BF16;
    default: return ST_DTYPE_F32;
    }
}

int64_t file_type_of(ggml_type type) {
    switch (type) {
    case GGML_TYPE_F32: return 0;
    case GGML_TYPE_F16: return 1;
    case GGML_TYPE_Q4_0: return 2;
    case GGML_TYPE_Q4_1: return 3;
    case GGML_TYPE_Q8_0: return 7;
    case GGML_TYPE_Q5_0: return 8;
    case GGML_TYPE_Q5_1: return 9;
    case GGML_TYPE_Q2_K: return 10;
    case GGML_TYPE_Q3_K: return 11;
    case GGML_TYPE_Q4_K: return 14;
    case GGML_TYPE_Q5_K: return 16;
    case GGML_TYPE_Q6_K: return 18;
    case GGML_TYPE_IQ3_XXS: return 23;
    case GGML_TYPE_IQ4_NL: return 25;
    case GGML_TYPE_IQ3_S: return 26;
    case GGML_TYPE_IQ2_S: return 28;
    case GGML_TYPE_IQ4_XS: return 30;
    case GGML_TYPE_BF16: return 32;
    case GGML_TYPE_TQ1_0: return 36;
    case GGML_TYPE_TQ2_0: return 37;
    default: return -1;
    }
}

} // namespace bridge
