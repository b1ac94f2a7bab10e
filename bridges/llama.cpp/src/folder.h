// SPDX-License-Identifier: Apache-2.0
// The small files beside a checkpoint.
#pragma once

#include "tokenizer.h"

namespace bridge {

struct ModelFiles {
    std::string name; // the folder's own
    std::string config;
    std::string generation; // generation_config.json; empty: no such file
    TokenizerFiles tokenizer;
    uint32_t pooling = 0; // of an encoder, by modules.json: 1 mean, 2 first token, 3 last token; 0: it does not say
};

// with_tokenizer: whether the tokenizer's files are read.
ModelFiles read_folder(const std::string &folder, bool with_tokenizer);

} // namespace bridge
