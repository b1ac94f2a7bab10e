// SPDX-License-Identifier: Apache-2.0
// A bar on the terminal while a model loads.
#pragma once

#include <cstdint>

// An st_gguf_options.progress; draws on standard error where that is a terminal.
int32_t draw_progress(void *, uint64_t done, uint64_t total);

// Takes the bar away.
void clear_progress();
