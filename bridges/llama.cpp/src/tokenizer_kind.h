// SPDX-License-Identifier: Apache-2.0
// Which of llama.cpp's tokenizers a tokenizer.json describes.
#pragma once

#include "tokenizer_json.h"

#include <optional>

namespace bridge {

struct TokenizerKind {
    const char *model; // tokenizer.ggml.model
    const char *pre;   // tokenizer.ggml.pre
    std::optional<bool> lowercase, strip_accents; // of a BertNormalizer
};

// Throws a TokenizerProblem where it is none that is known to be equal.
TokenizerKind find_tokenizer_kind(const Json &tokenizer);

} // namespace bridge
