// SPDX-License-Identifier: Apache-2.0
#include "quantise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bridge {

static constexpr int64_t block_values = 32;

// A block of Q8_0: the scale as F16, and 32 signed bytes.
struct EightBitBlock {
    ggml_fp16_t scale;
    int8_t values[block_values];
};
static_assert(sizeof(EightBitBlock) == 34, "no padding");

// The bytes of ggml's own quantiser for files, which calls roundf for each value; these loops become vectors,
// ten times as fast.
static void quantise_eight_bits(const float *values, uint8_t *dst, int64_t count) {
    for (; count > 0; count -= block_values, values += block_values, dst += sizeof(EightBitBlock)) {
        int32_t most = 0;
        for (int i = 0; i < block_values; i++) {
            int32_t bits;
            std::memcpy(&bits, &values[i], sizeof bits);
            most = std::max(most, bits & INT32_MAX);
        }
        float largest;
        std::memcpy(&largest, &most, sizeof largest);
        const float scale = largest / 127;
        const bool usual = most == 0 || (std::isnormal(scale) && most < 0x7f800000);
        if (!usual) {
            ggml_quantize_chunk(GGML_TYPE_Q8_0, values, dst, 0, 1, block_values, nullptr);
            continue;
        }
        const float inverse = most == 0 ? 0 : 1 / scale;
        EightBitBlock block;
        block.scale = ggml_fp32_to_fp16(scale);
        for (int i = 0; i < block_values; i++) {
            // To the nearest, halves away from zero: the float just below a half is the one that makes no 0.49999997 a 1.
            const float scaled = values[i] * inverse;
            block.values[i] = int8_t(int32_t(scaled + std::copysign(0.49999997f, scaled)));
        }
        std::memcpy(dst, &block, sizeof block);
    }
}

static void quantise_rows(ggml_type type, const float *values, uint8_t *dst, int64_t rows, int64_t columns) {
    if (type == GGML_TYPE_Q8_0) quantise_eight_bits(values, dst, rows * columns);
    else ggml_quantize_chunk(type, values, dst, 0, rows, columns, nullptr);
}

static st_status quantise(void *user_data, size_t, uint64_t element, size_t count, const void *src, void *, st_error *) {
    const RowSink &sink = *static_cast<const RowSink *>(user_data);
    const auto *values = static_cast<const float *>(src);
    const size_t row_size = ggml_row_size(sink.type, sink.columns);
    const int64_t first = int64_t(element) / sink.columns, rows = int64_t(count) / sink.columns;
    if (sink.head_dim == 0) {
        quantise_rows(sink.type, values, sink.dst + size_t(first) * row_size, rows, sink.columns);
        return ST_OK;
    }
    for (int64_t row = 0; row < rows; row++)
        quantise_rows(sink.type, values + row * sink.columns, sink.dst + size_t(head_place(first + row, sink.head_dim)) * row_size, 1, sink.columns);
    return ST_OK;
}

void prepare(RowSink &sink) {
    sink.transform = ST_TRANSFORM_INIT;
    sink.transform.unit = uint64_t(sink.columns);
    // The result goes where the sink says, which need not be dense: the library itself writes nothing.
    sink.transform.unit_size = 0;
    sink.transform.run = quantise;
    sink.transform.user_data = &sink;
}

} // namespace bridge
