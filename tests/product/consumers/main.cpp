// SPDX-License-Identifier: Apache-2.0
//
// main.c in C++.

#include <safetensors.hpp>

#include <iostream>

int main()
{
    const unsigned char data[] = {1, 2, 3};
    const auto file = safetensors::serialize({{"x", {3}, data}});
    const auto model = safetensors::Checkpoint::open_memory(file.data(), file.size());
    const auto x = model.get("x");
    std::cout << "libsafetensors " << safetensors::version() << ": " << x.name() << " is " << x.dtype_name() << " of "
              << x.shape()[0] << '\n';
}
