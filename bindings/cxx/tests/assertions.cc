// SPDX-License-Identifier: Apache-2.0

#include "safetensors-cxx/tests/assertions.h"
#include "safetensors-cxx/src/lib.rs.h"

#include "../../cpp/tests/check.hpp"

#include <map>

namespace assertions {

std::int32_t run(rust::Str name, rust::Str corpus, rust::Str scratch)
{
    static const std::map<std::string, int (*)(const char *, const char *)> all = {
        {"callbacks", check_callbacks}, {"contract", check_contract}, {"corpus", check_corpus},
        {"loading", check_loading},     {"threads", check_threads},   {"writing", check_writing},
    };
    return all.at(std::string(name))(std::string(corpus).c_str(), std::string(scratch).c_str());
}

// The same file through the bridge and through the C++ header.
std::int32_t bridge(rust::Str path)
{
    const std::string text(path);
    const auto through_header = st::Checkpoint::open(text);
    for (const auto &embedded : {safetensors::embedded::open(path), safetensors::embedded::open_unmapped(path)}) {
        CHECK(embedded->len() == through_header.tensors().size());
        for (std::size_t i = 0; i < embedded->len(); i++) {
            const auto tensor = embedded->at(i);
            const st::Tensor wanted = through_header.tensors()[i];
            CHECK(std::string_view(tensor.name.data(), tensor.name.size()) == wanted.name());
            CHECK(std::string_view(tensor.dtype.data(), tensor.dtype.size()) == wanted.dtype_name());
            CHECK(std::equal(tensor.shape.begin(), tensor.shape.end(), wanted.shape().begin(), wanted.shape().end()));
            CHECK(tensor.offset == wanted.offset() && tensor.size == wanted.size() && tensor.shard == wanted.shard());
            const auto bytes = embedded->bytes(tensor.name), again = embedded->bytes(tensor.name);
            CHECK(bytes.data() == again.data() && bytes.size() == wanted.size());
            CHECK(std::memcmp(bytes.data(), through_header.get(wanted.name()).data(), bytes.size()) == 0);
        }
        CHECK(embedded->metadata("no such key").empty());
        const auto throws = [](auto work, std::string_view part) {
            try {
                work();
                return false;
            } catch (const rust::Error &error) {
                return std::string_view(error.what()).find(part) != std::string_view::npos;
            }
        };
        CHECK(throws([&] { embedded->bytes("nope"); }, "\"nope\""));
        CHECK(throws([&] { embedded->at(embedded->len()); }, "no tensor"));
        CHECK(throws([&] { safetensors::embedded::open(text + ".gone"); }, "No such file"));
    }
    return check::result();
}

} // namespace assertions
