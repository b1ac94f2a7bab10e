// SPDX-License-Identifier: Apache-2.0
#include "layout.h"

#include <gguf.h>

#include <algorithm>
#include <cstring>

namespace bridge {

static uint64_t aligned(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

Layout::Layout(const Metadata &metadata, const std::vector<Output> &outputs, uint64_t alignment) : entries(metadata.bytes()) {
    const bool says_alignment = alignment != GGUF_DEFAULT_ALIGNMENT;
    Bytes front;
    front.append(GGUF_MAGIC);
    front.u32(GGUF_VERSION);
    front.u64(outputs.size());
    front.u64(metadata.count() + (says_alignment ? 1 : 0));
    head = front.str();

    Bytes table;
    if (says_alignment) {
        Metadata more("");
        more.u32(GGUF_KEY_GENERAL_ALIGNMENT, alignment);
        table.append(more.bytes());
    }
    uint64_t offset = 0;
    for (const Output &output : outputs) {
        table.string(output.name);
        table.u32(uint32_t(output.dimensions));
        table.u64(uint64_t(output.columns));
        if (output.dimensions > 1) table.u64(uint64_t(output.rows));
        if (output.dimensions > 2) table.u64(uint64_t(output.experts));
        table.u32(uint32_t(output.type));
        table.u64(offset);
        offsets.push_back(offset);
        offset += aligned(output.size(), alignment);
    }
    tail = table.str();
    data_begin = aligned(head.size() + entries.size() + tail.size(), alignment);
    for (uint64_t &each : offsets) each += data_begin;
    total = data_begin + offset;
}

size_t Layout::output_at(uint64_t offset) const {
    return size_t(std::upper_bound(offsets.begin(), offsets.end(), offset) - offsets.begin()) - 1;
}

void Layout::read_front(uint64_t offset, uint8_t *dst, size_t size) const {
    for (const std::string *part : {&head, &entries, &tail}) {
        if (offset < part->size()) {
            size_t count = std::min<uint64_t>(size, part->size() - offset);
            std::memcpy(dst, part->data() + offset, count);
            dst += count;
            size -= count;
            offset += count;
        }
        offset -= part->size();
    }
    std::memset(dst, 0, size);
}

} // namespace bridge
