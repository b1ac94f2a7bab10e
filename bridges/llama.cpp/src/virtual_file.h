// SPDX-License-Identifier: Apache-2.0
// The file that exists only while it is read.
#pragma once

#include "folder.h"
#include "layout.h"
#include "rows.h"

#include <st_gguf.h>

#include <memory>
#include <optional>

namespace bridge {

struct FreeCheckpoint {
    void operator()(st_checkpoint *checkpoint) const { st_free(checkpoint); }
};
using Checkpoint = std::unique_ptr<st_checkpoint, FreeCheckpoint>;

// The caller's options as this version knows them; refuses what it does not know.
st_gguf_options read_options(const st_gguf_options *options);

class Gguf {
  public:
    Gguf(Checkpoint checkpoint, const ModelFiles &files, const st_gguf_options &options);

    Gguf(const Gguf &) = delete; // the layout points into the metadata

    const Layout &layout() const { return stream; }
    const std::vector<Output> &outputs() const { return tensors; }
    const Metadata &metadata() const { return keys; }
    const Hyper &hyper() const { return sizes; }
    const st_gguf_options &options() const { return settings; }
    const char *tokenizer_problem() const { return problem.empty() ? nullptr : problem.c_str(); }
    uint64_t tensor_bytes() const;

    // Bytes of the virtual file; within its size.
    void read(uint64_t offset, uint8_t *dst, size_t size);

    // Bytes of one tensor.
    void read_tensor(size_t output, uint64_t offset, uint8_t *dst, size_t size);

    // What the stream failed with, as a stream itself can only say errno.
    std::optional<st_error> stream_error;

  private:
    Gguf(Checkpoint checkpoint, const ModelFiles &files, const Json &config, const st_gguf_options &options);
    void write_metadata(const ModelFiles &files, const Json &config);
    void read_small();
    // Some of a tensor's bytes, one or more; how many.
    size_t read_part(size_t output, uint64_t offset, uint8_t *dst, size_t size);
    // Rows around a byte that can be made without others: `most` bytes of them, or one unit.
    Rows rows_at(size_t output, uint64_t offset, uint64_t most) const;

    // Rows of one tensor, ready to be copied.
    struct Window {
        size_t output = SIZE_MAX;
        uint64_t begin = 0, end = 0; // bytes of the tensor
        std::vector<uint8_t> bytes;
    };

    Checkpoint checkpoint;
    st_gguf_options settings;
    Hyper sizes;
    Groups groups;
    std::vector<Output> tensors;
    Metadata keys;
    std::string problem;
    Layout stream;
    RowReader reader;
    Window window;
    std::vector<uint8_t> small;          // all small tensors, one after the other
    std::vector<uint64_t> small_offsets; // UINT64_MAX: not among them
};

} // namespace bridge

// The C interface's opaque type.
struct st_gguf {
    bridge::Gguf gguf;
};
