// SPDX-License-Identifier: Apache-2.0
// One program of two units, each with the whole header in it, of the same or of
// different standards: compiled once with UNIT_MAIN and once without.

#include <safetensors.hpp>

#include <cstdio>

// Types of the header may be arguments between units of one standard; Error and
// Result between any two.
safetensors::Result<int> fails_elsewhere();
[[noreturn]] void throws_elsewhere();

namespace {

// All of the header's templates that a program is likely to use.
safetensors::Result<int> use()
{
    const float values[] = {1, 2};
    const auto bytes = safetensors::serialize({{"x", {2}, values}}, safetensors::Metadata{{"k", "v"}});
    const auto model = safetensors::Checkpoint::open_memory(bytes.data(), bytes.size());
    float sum = 0;
    for (const safetensors::Tensor tensor : model.tensors())
        for (const float value : tensor.as<float>())
            sum += value;
    return static_cast<int>(sum) + static_cast<int>(model.read<float>(model.get("x")).size());
}

} // namespace

#ifdef UNIT_MAIN
int main()
{
    int good = use().value() == 5 && !fails_elsewhere() ? 1 : 0;
    try {
        throws_elsewhere();
    } catch (const safetensors::Error &error) {
        good += error.code() == safetensors::Status::not_found;
    }
    std::printf("%d\n", good);
    return good == 2 ? 0 : 1;
}
#else
safetensors::Result<int> fails_elsewhere()
{
    return use().value() == 5 ? safetensors::Error(safetensors::Status::io, "elsewhere") : use();
}

void throws_elsewhere() { safetensors::Error(safetensors::Status::not_found, "elsewhere").raise(); }
#endif
