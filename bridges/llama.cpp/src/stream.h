// SPDX-License-Identifier: Apache-2.0
// The virtual file as a FILE, where the system lets a program make its own.
#pragma once

#include "virtual_file.h"

#include <cstdio>

namespace bridge {

// Whether there are such streams here.
bool has_streams();

// gguf has to outlive the stream. Reads that fail leave their error in gguf.stream_error.
std::FILE *open_stream(Gguf &gguf);

} // namespace bridge
