// SPDX-License-Identifier: Apache-2.0
// A library that is of another interface than the header: this program has an
// st_abi_version of its own, which is found before the library's.

#include "check.hpp"

extern "C" std::uint32_t st_abi_version(void) { return SAFETENSORS_ABI_VERSION + 1; }

int main()
{
    const auto refuses = [](auto work) {
        return check::throws(st::Status::unsupported, work, "(ABI " + std::to_string(SAFETENSORS_ABI_VERSION + 1) + ")") &&
               check::throws(st::Status::unsupported, work, "(ABI " + std::to_string(SAFETENSORS_ABI_VERSION) + ")");
    };
    CHECK(refuses([] { st::check_version(); }));
    CHECK(refuses([] { st::Checkpoint::open("x"); }) && refuses([] { st::Checkpoint::open_memory("", 0); }));
    CHECK(refuses([] { st::Checkpoint::open_io({}); }) && refuses([] { st::Checkpoint::open_resolved(nullptr, "x"); }));
    CHECK(refuses([] { st::save("x", {}); }) && refuses([] { st::serialize({}); }) && refuses([] { st::Writer::open("x", {}); }));
    CHECK(refuses([] { st::set_metadata("x", {}); }) && refuses([] { st::validate("x"); }));
    CHECK(refuses([] { st::convert(st::Dtype::F32, {}, st::Dtype::F16, {}); }));
    return check::result();
}
