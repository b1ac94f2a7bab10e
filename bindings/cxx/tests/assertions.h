// SPDX-License-Identifier: Apache-2.0
// The C++ header's tests as functions that may throw, and a few of the bridge's
// own. Each returns how many of its checks failed, or 1.
#pragma once

#include "rust/cxx.h"

namespace assertions {

std::int32_t run(rust::Str name, rust::Str corpus, rust::Str scratch);
std::int32_t bridge(rust::Str path);

} // namespace assertions
