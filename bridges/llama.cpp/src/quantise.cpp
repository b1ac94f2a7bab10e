// SPDX-License-Identifier: Apache-2.0
#include "quantise.h"

namespace bridge {

static st_status quantise(void *user_data, size_t, uint64_t element, size_t count, const void *src, void *, st_error *) {
    const RowSink &sink = *static_cast<const RowSink *>(user_data);
    const auto *values = static_cast<const float *>(src);
    const size_t row_size = ggml_row_size(sink.type, sink.columns);
    const int64_t first = int64_t(element) / sink.columns, rows = int64_t(count) / sink.columns;
    if (sink.head_dim == 0) {
        ggml_quantize_chunk(sink.type, values, sink.dst + size_t(first) * row_size, 0, rows, sink.columns, nullptr);
        return ST_OK;
    }
    for (int64_t row = 0; row < rows; row++)
        ggml_quantize_chunk(sink.type, values + row * sink.columns, sink.dst + size_t(head_place(first + row, sink.head_dim)) * row_size, 0, 1, sink.columns, nullptr);
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
