// SPDX-License-Identifier: Apache-2.0

#include "safetensors-cxx/examples/inspect.h"
#include "safetensors-cxx/src/lib.rs.h"

#include <algorithm>
#include <cctype>
#include <iostream>
#include <string>

namespace inspect {

namespace {

// A name is a stranger's text: nothing of it may reach the terminal as a command.
std::string shown(rust::Str text)
{
    std::string plain(text.begin(), text.end());
    std::replace_if(plain.begin(), plain.end(), [](unsigned char c) { return c < 0x20 || c >= 0x7F; }, '?');
    return plain;
}

} // namespace

std::int32_t run(rust::Vec<rust::String> arguments)
{
    if (arguments.size() != 1) {
        std::cerr << "usage: inspect CHECKPOINT\n";
        return 2;
    }
    try {
        const auto model = safetensors::embedded::open(arguments[0]);
        for (std::size_t i = 0; i < model->len(); i++) {
            const auto tensor = model->at(i);
            const rust::Slice<const std::uint8_t> bytes = model->bytes(tensor.name); // not copied
            std::cout << shown(tensor.name) << ": " << shown(tensor.dtype) << " [";
            for (std::size_t d = 0; d < tensor.shape.size(); d++)
                std::cout << (d != 0 ? ", " : "") << tensor.shape[d];
            std::cout << "], " << bytes.size() << " bytes\n";
        }
        return 0;
    } catch (const rust::Error &error) {
        std::cerr << "inspect: " << error.what() << '\n';
        return 1;
    }
}

} // namespace inspect
