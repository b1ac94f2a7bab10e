// SPDX-License-Identifier: Apache-2.0
// Quantising rows on several threads: the one place that calls ggml_quantize_chunk.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <memory>

namespace bridge {

// Rows in F32, to become rows of a quantised type.
class Quantised {
  public:
    Quantised(ggml_type type, int64_t columns, int64_t rows, uint8_t *dst);

    uint8_t *source() { return reinterpret_cast<uint8_t *>(values.get()); }

    // threads: 0: as many as there are processors.
    void run(uint32_t threads);

  private:
    ggml_type type;
    int64_t columns, rows;
    uint8_t *dst;
    std::unique_ptr<float[]> values;
};

} // namespace bridge
