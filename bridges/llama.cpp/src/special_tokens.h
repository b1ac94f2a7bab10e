// SPDX-License-Identifier: Apache-2.0
// Tokens with a meaning (begin, end, unknown, ...) and which of them frame a text.
#pragma once

#include "tokenizer_json.h"

#include <utility>
#include <vector>

namespace bridge {

struct SpecialTokens {
    // By role ("bos"), in the order in which llama.cpp's converter writes them.
    std::vector<std::pair<std::string, int64_t>> ids;
    std::vector<std::pair<std::string, bool>> added;
};

// tokenizer, tokenizer_config, config: the files' trees; null: no such file. Throws a
// TokenizerProblem where the frame is not one token before and one after the text at most.
SpecialTokens find_special_tokens(const Json &tokenizer, const Json &tokenizer_config, const Config &config, int64_t vocab_size);

} // namespace bridge
