// SPDX-License-Identifier: Apache-2.0
// The virtual file as a real one.
#pragma once

#include "virtual_file.h"

namespace bridge {

// The file at path is the whole new one or what it was before.
void write_file(Gguf &gguf, const std::string &path);

} // namespace bridge
