// SPDX-License-Identifier: Apache-2.0
// Rows of outputs: read from the checkpoint, put in llama.cpp's order, converted and quantised.
#pragma once

#include "outputs.h"

namespace bridge {

// Rows of one output and where their bytes go.
struct Rows {
    const Output *output;
    int64_t first;
    int64_t count;
    uint8_t *dst;
};

// The fewest rows that can be made at once, and of which `first` and `count` are multiples.
int64_t row_unit(const Output &output);

class RowReader {
  public:
    // checkpoint: stays open as long as the reader. threads: 0: as many as are useful.
    RowReader(const st_checkpoint *checkpoint, uint32_t threads) : checkpoint(checkpoint), threads(threads) {}

    // Makes rows of any number of outputs, with large reads and in parallel.
    void read(const std::vector<Rows> &rows) const;

  private:
    const st_checkpoint *checkpoint;
    uint32_t threads;
};

} // namespace bridge
