// SPDX-License-Identifier: Apache-2.0
// Errors inside the bridge: thrown, and turned into an st_error by the one guard at the C
// interface.
#pragma once

#include <safetensors.h>

#include <cstring>
#include <new>
#include <string>
#include <string_view>

namespace bridge {

struct Failure {
    st_error error;
};

// Why a tokenizer can't be passed on; text for "ids only: ...".
struct TokenizerProblem {
    std::string text;
};

[[noreturn]] void fail(st_status code, const std::string &message);

// Throws what a function of safetensors.h reported.
[[noreturn]] void pass_on(const st_error &error);

// An I/O error of the system's, with errno.
[[noreturn]] void fail_errno(const std::string &message, int number);

// Text of a file's for a message: in quotes, without control characters, cut where it is long.
std::string in_quotes(std::string_view text);

// "[2, 3]"
std::string shape_text(const int64_t *shape, size_t rank);

inline void set_error(st_error *error, const st_error &value) {
    if (error) *error = value;
}

void set_error(st_error *error, st_status code, const char *message);

// Runs what may throw, so that no exception crosses to C.
template <typename Result, typename Action>
Result guard(st_error *error, Result failed, Action action) noexcept {
    try {
        return action();
    } catch (const Failure &failure) {
        set_error(error, failure.error);
    } catch (const std::bad_alloc &) {
        set_error(error, ST_ERROR_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception &exception) {
        set_error(error, ST_ERROR_INTERNAL, exception.what());
    } catch (...) {
        set_error(error, ST_ERROR_INTERNAL, "an unknown exception");
    }
    return failed;
}

// guard for functions whose result is a status.
template <typename Action> st_status guard_status(st_error *error, Action action) noexcept {
    st_error local;
    st_error *out = error ? error : &local;
    out->code = ST_OK;
    bool done = guard(out, false, [&] {
        action();
        return true;
    });
    return done ? ST_OK : out->code;
}

} // namespace bridge
