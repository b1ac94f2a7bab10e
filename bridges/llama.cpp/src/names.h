// SPDX-License-Identifier: Apache-2.0
// Names: which tensors of the hub an architecture has, what they are called in GGUF, and what has
// to happen to them on the way.
#pragma once

#include "architecture.h"

#include <string>
#include <vector>

namespace bridge {

enum class Step {
    copy,
    permute_queries, // rows of each head from [2][d/2] to [d/2][2]
    permute_keys,
    plus_one, // Gemma's norms, whose weight counts from 1 in GGUF
};

// How matrices are typed.
enum class Kind {
    matrix, // the type asked for
    exact,  // F32 always: vectors, and matrices that llama.cpp wants so
};

// A tensor that the model has, with the shape that config.json implies.
struct Expected {
    std::string hub;  // with "#" for an expert's number where experts > 0
    std::string gguf;
    int64_t rows;     // 0: a vector
    int64_t columns;
    int64_t experts;  // 0: one tensor
    const char *rows_from;    // the keys of config.json that imply it, for messages
    const char *columns_from;
    Step step;
    Kind kind;
};

// Tensors outside the layers.
std::vector<Expected> expected_outside(const Hyper &hyper, bool head_stored);

// Tensors of one layer.
std::vector<Expected> expected_in_layer(const Hyper &hyper, int64_t layer);

// Tensors that some files have and the model has no use for.
bool is_skipped(const Hyper &hyper, std::string_view name);

} // namespace bridge
