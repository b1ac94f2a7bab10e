// SPDX-License-Identifier: Apache-2.0
// What a GGUF file says of itself beside the model: its name and the parts of it, its size in words, how its
// makers sample. Nothing computes with it; llama.cpp's converter writes it, and so it is the same here.
#pragma once

#include "metadata.h"
#include "outputs.h"

namespace bridge {

// Parts of a name in the hub's manner, "org/Name-7B-Instruct"; empty: none.
struct NameParts {
    std::string name, organization, basename, finetune, version, size_label;
};

// parameters: of the model, to tell a size from a length of context.
NameParts split_name(const std::string &id, uint64_t parameters);

// "135M", or with experts "8x7B".
std::string size_in_words(const std::vector<Output> &outputs);

// The keys before those of the architecture. folder: its name; empty: none. generation: generation_config.json; null:
// no such file.
void write_description(const std::string &folder, const Config &config, const Json &generation, const std::vector<Output> &outputs, Metadata &metadata);

} // namespace bridge
