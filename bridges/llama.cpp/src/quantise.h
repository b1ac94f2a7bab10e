// SPDX-License-Identifier: Apache-2.0
// Quantising rows on the loader's threads: the one place that calls ggml_quantize_chunk.
#pragma once

#include <ggml.h>
#include <safetensors.h>

#include <cstdint>

namespace bridge {

// Where an item's rows go, and as what.
struct RowSink {
    ggml_type type;
    int64_t columns;
    uint8_t *dst;  // of the item's first row
    int64_t every; // 1: rows follow one another; 2: every second place
    st_transform transform;
};

// Sets sink.transform; the sink has to stay where it is until the load is over.
void prepare(RowSink &sink);

} // namespace bridge
