// SPDX-License-Identifier: Apache-2.0
// Tokenizers that llama.cpp computes as the tokenizers library does, as GGUF keys. What is not known
// to be equal is never guessed: the model then takes and gives ids only.
#pragma once

#include "architecture.h"
#include "metadata.h"

#include <string>

namespace bridge {

// Largest tokenizer.json, in bytes.
constexpr size_t max_tokenizer_bytes = size_t(256) << 20;

// Texts beside a checkpoint; empty: no such file.
struct TokenizerFiles {
    std::string tokenizer;        // tokenizer.json
    std::string tokenizer_config; // tokenizer_config.json
    std::string chat_template;    // chat_template.jinja
};

// Writes the keys of a tokenizer with text. Throws a TokenizerProblem before it has written any.
void write_tokenizer(const TokenizerFiles &files, const Config &config, const Hyper &hyper, Metadata &metadata);

// Writes the keys of a model of ids only.
void write_ids_only(const Hyper &hyper, Metadata &metadata);

} // namespace bridge
