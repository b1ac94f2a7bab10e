// SPDX-License-Identifier: Apache-2.0
#include "rows.h"

#include "quantise.h"

#include <algorithm>
#include <array>
#include <deque>

namespace bridge {

// Memory that conversion takes on the way, at most.
static constexpr uint64_t staging_bytes = uint64_t(4) << 20;

int64_t row_unit(const Output &output) {
    bool permuted = output.step == Step::permute_queries || output.step == Step::permute_keys;
    return permuted && output.dimensions > 1 ? output.head_dim : 1;
}

namespace {

// The items of one st_load, and what their ranges and strides point to.
struct Items {
    std::vector<st_load_item> items;
    std::deque<st_range> ranges;
    std::deque<std::array<int64_t, 2>> strides;

    void add(const st_tensor *tensor, int64_t first, int64_t count, st_dtype dtype, uint8_t *dst, size_t dst_size) {
        st_load_item item = ST_LOAD_ITEM_INIT;
        item.tensor = tensor;
        item.dtype = dtype;
        item.dst = dst;
        item.dst_size = dst_size;
        if (first != 0 || count != tensor->shape[0]) {
            ranges.push_back({first, first + count, 1});
            item.ranges = &ranges.back();
            item.range_count = 1;
        }
        items.push_back(item);
    }

    // Rows from `first` on, which belong to one or more whole heads: each half of a head goes to
    // every second row. A vector's rows are its elements.
    void add_heads(const st_tensor *tensor, int64_t first, int64_t count, int64_t head_dim, st_dtype dtype, uint8_t *dst) {
        const size_t element = st_dtype_bits(dtype) / 8;
        const size_t row_size = tensor->rank > 1 ? size_t(tensor->shape[1]) * element : element;
        const int64_t half = head_dim / 2;
        for (int64_t done = 0; done < count; done += half) {
            int64_t to = done / head_dim * head_dim + done % head_dim / half;
            add(tensor, first + done, half, dtype, dst + size_t(to) * row_size, size_t(2 * half - 1) * row_size);
            strides.push_back({int64_t(2 * row_size), int64_t(element)});
            items.back().dst_strides = strides.back().data();
        }
    }
};

// The rows in llama.cpp's order, as dtype.
void add_rows(Items &items, const Rows &rows, st_dtype dtype, uint8_t *dst) {
    const Output &output = *rows.output;
    const bool permuted = output.step == Step::permute_queries || output.step == Step::permute_keys;
    const size_t row_size = size_t(output.columns) * (st_dtype_bits(dtype) / 8);
    if (output.dimensions == 1) {
        if (permuted) items.add_heads(output.sources[0], 0, output.columns, output.head_dim, dtype, dst);
        else items.add(output.sources[0], 0, output.columns, dtype, dst, row_size);
        return;
    }
    for (int64_t row = rows.first, end = rows.first + rows.count; row < end;) {
        const st_tensor *tensor = output.sources[size_t(row / output.rows)];
        const int64_t local = row % output.rows;
        const int64_t count = std::min(end - row, output.rows - local);
        if (permuted) items.add_heads(tensor, local, count, output.head_dim, dtype, dst);
        else items.add(tensor, local, count, dtype, dst, size_t(count) * row_size);
        dst += size_t(count) * row_size;
        row += count;
    }
}

} // namespace

void RowReader::read(const std::vector<Rows> &rows) const {
    Items items;
    std::vector<Quantised> quantised;
    for (const Rows &each : rows) {
        const Output &output = *each.output;
        if (!output.constant.empty()) {
            std::memcpy(each.dst, output.constant.data(), output.constant.size() * sizeof(float));
        } else if (ggml_is_quantized(output.type)) {
            quantised.emplace_back(output.type, output.columns, each.count, each.dst);
            add_rows(items, each, ST_DTYPE_F32, quantised.back().source());
        } else {
            add_rows(items, each, dtype_for(output.type), each.dst);
        }
    }
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.threads = threads;
    options.staging_bytes = staging_bytes;
    st_error error;
    if (st_load(checkpoint, items.items.data(), items.items.size(), &options, &error) != ST_OK) pass_on(error);
    for (Quantised &each : quantised) each.run(threads);
    for (const Rows &each : rows) {
        if (each.output->step != Step::plus_one) continue;
        // Such outputs are F32 vectors; dst of one may be at any address.
        for (int64_t i = 0; i < each.output->columns; i++) {
            float value;
            uint8_t *place = each.dst + size_t(i) * sizeof value;
            std::memcpy(&value, place, sizeof value);
            value += 1;
            std::memcpy(place, &value, sizeof value);
        }
    }
}

} // namespace bridge
