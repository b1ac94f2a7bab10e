// SPDX-License-Identifier: Apache-2.0
#include "failure.h"

#include <algorithm>
#include <cstdio>

namespace bridge {

void set_error(st_error *error, st_status code, const char *message) {
    if (!error) return;
    error->code = code;
    error->os_errno = 0;
    std::snprintf(error->message, sizeof error->message, "%s", message);
}

void fail(st_status code, const std::string &message) {
    Failure failure;
    set_error(&failure.error, code, message.c_str());
    throw failure;
}

void pass_on(const st_error &error) { throw Failure{error}; }

void fail_errno(const std::string &message, int number) {
    Failure failure;
    set_error(&failure.error, ST_ERROR_IO, (message + ": " + std::strerror(number)).c_str());
    failure.error.os_errno = number;
    throw failure;
}

std::string in_quotes(std::string_view text) {
    // A name may be as long as a header: a message has room for 503 bytes.
    constexpr size_t longest = 120;
    std::string out = "\"";
    for (char c : text.substr(0, longest)) {
        auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte >= 0x7f || c == '"' || c == '\\') {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\x%02x", byte);
            out += escape;
        } else {
            out += c;
        }
    }
    if (text.size() > longest) out += "...";
    return out + "\"";
}

std::string shape_text(const int64_t *shape, size_t rank) {
    std::string out = "[";
    for (size_t i = 0; i < std::min<size_t>(rank, 8); i++)
        out += (i ? ", " : "") + std::to_string(shape[i]);
    return out + (rank > 8 ? ", ...]" : "]");
}

} // namespace bridge
