// SPDX-License-Identifier: Apache-2.0
// What a tensor becomes: names of ggml types, and which one a tensor gets.
#pragma once

#include "failure.h"

#include <ggml.h>

#include <optional>

namespace bridge {

// A type that was asked for; none: as stored.
using Choice = std::optional<ggml_type>;

// The choice that a name means, in either case; refuses what is no type, or needs an importance
// matrix, and lists what there is.
Choice parse_type(const char *name);

// The type for a matrix with rows of this many columns, stored with this dtype. Types whose blocks
// do not divide a row give way to Q8_0, then to F16.
ggml_type type_of_matrix(Choice choice, st_dtype stored, int64_t columns);

// What the library converts to on the way to the type: its own dtype, or F32 for quantising.
st_dtype dtype_for(ggml_type type);

// general.file_type of llama.h for a type; below 0 where there is none.
int64_t file_type_of(ggml_type type);

} // namespace bridge
