// SPDX-License-Identifier: Apache-2.0
// llama.cpp's other way in, for systems without streams: it makes the tensors and asks for their data.
#pragma once

#include "virtual_file.h"

#include <llama.h>

namespace bridge {

// NULL where it fails; what a read failed with is in gguf.stream_error.
llama_model *load_by_user(Gguf &gguf, llama_model_params params);

} // namespace bridge
