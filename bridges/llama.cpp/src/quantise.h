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
    uint8_t *dst;     // of the item's first row
    int64_t head_dim; // not 0: rows of each head change places, as head_place says
    st_transform transform;
};

// Where a row of heads goes: halves of a head become pairs, [2][d/2] to [d/2][2].
inline int64_t head_place(int64_t row, int64_t head_dim) {
    const int64_t within = row % head_dim, half = head_dim / 2;
    return row - within + (within < half ? 2 * within : 2 * (within - half) + 1);
}

// Sets sink.transform; the sink has to stay where it is until the load is over.
void prepare(RowSink &sink);

} // namespace bridge
