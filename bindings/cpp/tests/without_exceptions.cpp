// SPDX-License-Identifier: Apache-2.0
// Compiled with -fno-exceptions and -fno-rtti: the try_ functions are all that
// a program needs.

#include <safetensors.hpp>

#include <cstdio>

#if SAFETENSORS_EXCEPTIONS
#error "this is to be compiled without exceptions"
#endif

namespace st = safetensors;

static int run()
{
    const float values[] = {1, 2};
    const auto bytes = st::try_serialize({{"x", {2}, values}}, st::Metadata{{"k", "v"}});
    if (!bytes)
        return 1;
    const auto model = st::Checkpoint::try_open_memory(bytes->data(), bytes->size());
    if (!model || model->tensors().size() != 1 || model->try_get("y"))
        return 2;
    const auto tensor = model->try_get("x");
    if (!tensor || tensor->try_as<int>() || (*tensor->try_as<float>())[1] != 2)
        return 3;
    const auto copy = model->try_read<float>(*tensor);
    if (!copy || copy->size() != 2 || model->try_read_slice<float>(*tensor, {{0, 3}}))
        return 4;

    // Callbacks return what went wrong.
    st::Io io;
    io.size = 100;
    io.read_at = [](std::uint64_t, st::span<std::byte>) -> st::Result<std::size_t> {
        return st::Error(st::Status::io, "remote says 503", 121);
    };
    const auto remote = st::Checkpoint::try_open_io(std::move(io));
    if (remote || remote.error().os_errno() != 121)
        return 5;
    st::SaveOptions options;
    options.progress = [](std::uint64_t, std::uint64_t) { return false; };
    const auto cancelled = st::try_serialize({*tensor}, {}, options);
    return !cancelled && cancelled.error().code() == st::Status::cancelled ? 0 : 6;
}

int main()
{
    const int failed = run();
    if (failed != 0)
        std::fprintf(stderr, "step %d failed\n", failed);
    return failed;
}
