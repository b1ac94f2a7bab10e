// SPDX-License-Identifier: Apache-2.0
// config.json as GGUF keys, the ones that llama.cpp's converter writes and in its order.
#pragma once

#include "architecture.h"
#include "metadata.h"

namespace bridge {

struct FileKind {
    int64_t file_type; // general.file_type; below 0: none
    uint32_t pooling;  // of an encoder: 1 mean, 2 first token, 3 last token; 0: not known
};

// The architecture's keys and general.file_type; what describes the file comes before them.
void write_keys(const Hyper &hyper, const FileKind &kind, Metadata &metadata);

} // namespace bridge
