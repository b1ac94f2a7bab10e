// SPDX-License-Identifier: Apache-2.0
#include "quantise.h"

#include <algorithm>
#include <thread>
#include <vector>

namespace bridge {

Quantised::Quantised(ggml_type type, int64_t columns, int64_t rows, uint8_t *dst)
    : type(type), columns(columns), rows(rows), dst(dst), values(new float[size_t(columns) * size_t(rows)]) {}

void Quantised::run(uint32_t threads) {
    const size_t row_size = ggml_row_size(type, columns);
    auto part = [&](int64_t first, int64_t end) {
        if (first < end) ggml_quantize_chunk(type, values.get() + first * columns, dst + size_t(first) * row_size, 0, end - first, columns, nullptr);
    };
    int64_t workers = threads ? threads : std::max(1u, std::thread::hardware_concurrency());
    workers = std::min(workers, rows);
    const int64_t share = (rows + workers - 1) / workers;
    std::vector<std::thread> others;
    int64_t next = share;
    try {
        for (; next < rows; next += share) others.emplace_back(part, next, std::min(rows, next + share));
    } catch (const std::exception &) {
        // No more threads in the system: the rest is done here.
    }
    part(0, std::min(share, rows));
    if (next < rows) part(next, rows);
    for (std::thread &thread : others) thread.join();
}

} // namespace bridge
