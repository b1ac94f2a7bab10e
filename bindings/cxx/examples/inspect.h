// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "rust/cxx.h"

namespace inspect {

// Shows what is in the checkpoint that the only argument names.
std::int32_t run(rust::Vec<rust::String> arguments);

} // namespace inspect
