// SPDX-License-Identifier: Apache-2.0
// Where everything of a GGUF file is: the bytes in front of the tensors, and each tensor's extent.
#pragma once

#include "metadata.h"
#include "outputs.h"

namespace bridge {

// Of the virtual file. It is the size of the stream's buffer: each tensor then begins where a
// buffer does, and a seek to it reads nothing twice. Padding costs nothing in a file that is not there.
constexpr uint64_t stream_alignment = 65536;

// Of files that are written, as llama.cpp's converter does.
constexpr uint64_t file_alignment = 32;

class Layout {
  public:
    Layout(const Metadata &metadata, const std::vector<Output> &outputs, uint64_t alignment);

    uint64_t size() const { return total; }
    uint64_t front_size() const { return data_begin; }
    uint64_t offset(size_t output) const { return offsets[output]; }

    // The last output that begins at or before the offset, which is not in front of the data.
    size_t output_at(uint64_t offset) const;

    // Copies bytes of what is in front of the tensors.
    void read_front(uint64_t offset, uint8_t *dst, size_t size) const;

  private:
    const std::string &entries; // the metadata's own: it may be long
    std::string head, tail;     // before and after it
    std::vector<uint64_t> offsets;
    uint64_t data_begin = 0, total = 0;
};

} // namespace bridge
