// SPDX-License-Identifier: Apache-2.0
#include "rows.h"

#include "quantise.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <numeric>

namespace bridge {

// Memory that conversion takes on the way, at most. Enough for cores to be busy with a window.
static constexpr uint64_t staging_bytes = uint64_t(256) << 10;

// Bytes below which a read that computes nothing is one thread's: another would cost more than it does.
static constexpr uint64_t alone_bytes = uint64_t(4) << 20;

static bool is_permuted(const Output &output) { return output.step == Step::permute_queries || output.step == Step::permute_keys; }

int64_t row_unit(const Output &output) {
    int64_t unit = is_permuted(output) && output.dimensions > 1 ? output.head_dim : 1;
    // A group is cut at multiples of its step alone.
    for (const Source &source : output.sources)
        if (source.group) unit = std::min(output.rows, std::lcm(unit, std::min(output.rows, std::max<int64_t>(1, source.group->step[0]))));
    return unit;
}

namespace {

// The items of one st_load, and what they point to.
class Items {
  public:
    std::vector<st_load_item> items;

    void add(const Rows &rows);

  private:
    // Rows of one source, to every `every`th place from dst on.
    void add_part(const Output &output, const Source &source, int64_t first, int64_t count, int64_t every, uint8_t *dst);
    void add_heads(const Output &output, const Source &source, int64_t first, int64_t count, uint8_t *dst);

    std::deque<st_range> ranges;
    std::deque<std::array<int64_t, 2>> strides;
    std::deque<RowSink> sinks;
};

void Items::add_part(const Output &output, const Source &source, int64_t first, int64_t count, int64_t every, uint8_t *dst) {
    st_load_item item = ST_LOAD_ITEM_INIT;
    item.tensor = source.tensor;
    item.group = source.group;
    if (first != 0 || count != source.shape()[0]) {
        ranges.push_back({first, first + count, 1});
        item.ranges = &ranges.back();
        item.range_count = 1;
    }
    item.dtype = dtype_for(output.type);
    if (ggml_is_quantized(output.type)) {
        sinks.push_back({output.type, output.columns, dst, is_permuted(output) ? output.head_dim : 0, {}});
        prepare(sinks.back());
        item.transform = &sinks.back().transform;
    } else {
        // A vector's rows are its elements.
        const size_t element = st_dtype_bits(item.dtype) / 8;
        const size_t row_size = source.rank() > 1 ? output.row_size : element;
        item.dst = dst;
        item.dst_size = size_t((count - 1) * every + 1) * row_size;
        if (every != 1) {
            strides.push_back({int64_t(size_t(every) * row_size), int64_t(element)});
            item.dst_strides = strides.back().data();
        }
    }
    items.push_back(item);
}

// Whole heads: each half of one goes to every second row. What is quantised finds its places by itself,
// and a group, which can't be cut anywhere, is put in order when it is there.
void Items::add_heads(const Output &output, const Source &source, int64_t first, int64_t count, uint8_t *dst) {
    if (ggml_is_quantized(output.type) || source.group) return add_part(output, source, first, count, 1, dst);
    const size_t row_size = source.rank() > 1 ? output.row_size : sizeof(float);
    const int64_t half = output.head_dim / 2;
    for (int64_t done = 0; done < count; done += half) add_part(output, source, first + done, half, 2, dst + size_t(head_place(done, output.head_dim)) * row_size);
}

void Items::add(const Rows &rows) {
    const Output &output = *rows.output;
    uint8_t *dst = rows.dst;
    if (output.dimensions == 1) {
        const Source &source = output.sources[0];
        if (is_permuted(output)) add_heads(output, source, 0, output.columns, dst);
        else add_part(output, source, 0, output.columns, 1, dst);
        return;
    }
    for (int64_t row = rows.first, end = rows.first + rows.count; row < end;) {
        const Source &source = output.sources[size_t(row / output.rows)];
        const int64_t local = row % output.rows;
        const int64_t count = std::min(end - row, output.rows - local);
        if (is_permuted(output)) add_heads(output, source, local, count, dst);
        else add_part(output, source, local, count, 1, dst);
        dst += size_t(count) * output.row_size;
        row += count;
    }
}

// Rows of heads that a group was decoded to, brought to their places.
void put_in_order(const Rows &rows) {
    const Output &output = *rows.output;
    if (!is_permuted(output) || !output.sources[0].group || ggml_is_quantized(output.type)) return;
    std::vector<uint8_t> head(size_t(output.head_dim) * output.row_size);
    for (int64_t row = 0; row < rows.count; row += output.head_dim) {
        uint8_t *place = rows.dst + size_t(row) * output.row_size;
        std::memcpy(head.data(), place, head.size());
        for (int64_t i = 0; i < output.head_dim; i++)
            std::memcpy(place + size_t(head_place(i, output.head_dim)) * output.row_size, head.data() + size_t(i) * output.row_size, output.row_size);
    }
}

// dst of a vector may be at any address.
void add_one(uint8_t *place, int64_t count) {
    for (int64_t i = 0; i < count; i++, place += sizeof(float)) {
        float value;
        std::memcpy(&value, place, sizeof value);
        value += 1;
        std::memcpy(place, &value, sizeof value);
    }
}

} // namespace

void RowReader::read(const std::vector<Rows> &rows) const {
    Items items;
    for (const Rows &each : rows) {
        const std::vector<float> &constant = each.output->constant;
        if (constant.empty()) items.add(each);
        else std::memcpy(each.dst, constant.data(), constant.size() * sizeof(float));
    }
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.threads = threads;
    uint64_t bytes = 0;
    bool computes = false;
    for (const Rows &each : rows) {
        const Output &output = *each.output;
        bytes += uint64_t(each.count) * output.row_size;
        computes = computes || ggml_is_quantized(output.type) || (!output.sources.empty() && output.sources[0].group);
    }
    if (!computes && bytes < alone_bytes) options.threads = 1;
    options.staging_bytes = staging_bytes;
    // Windows follow one another: the system reads ahead of them, which direct I/O would forgo.
    options.io = ST_IO_CACHED;
    for (const Rows &each : rows) // a quarter has to hold a row
        if (ggml_is_quantized(each.output->type)) options.staging_bytes = std::max<uint64_t>(options.staging_bytes, uint64_t(each.output->columns) * sizeof(float) * 4);
    st_error error;
    if (st_load(checkpoint, items.items.data(), items.items.size(), &options, &error) != ST_OK) pass_on(error);
    for (const Rows &each : rows) {
        put_in_order(each);
        if (each.output->step == Step::plus_one) add_one(each.dst, each.output->columns);
    }
}

} // namespace bridge
