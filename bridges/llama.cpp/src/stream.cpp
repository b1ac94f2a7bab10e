// SPDX-License-Identifier: Apache-2.0
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE // fopencookie
#endif

#include "stream.h"

#include <cerrno>
#include <memory>

#if defined(__linux__)
#define BRIDGE_FOPENCOOKIE
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__)
#define BRIDGE_FUNOPEN
#endif

namespace bridge {

bool has_streams() {
#if defined(BRIDGE_FOPENCOOKIE) || defined(BRIDGE_FUNOPEN)
    return true;
#else
    return false;
#endif
}

namespace {

struct Position {
    Gguf &gguf;
    uint64_t offset = 0;
    std::vector<char> buffer = std::vector<char>(stream_alignment); // stdio's
};

int64_t read_some(Position &at, char *dst, size_t size) {
    uint64_t end = at.gguf.layout().size();
    size_t count = size_t(std::min<uint64_t>(size, end - std::min(at.offset, end)));
    st_error error;
    st_status status = guard_status(&error, [&] { at.gguf.read(at.offset, reinterpret_cast<uint8_t *>(dst), count); });
    if (status != ST_OK) {
        // The first failure is the cause: llama.cpp may try on.
        if (!at.gguf.stream_error) at.gguf.stream_error = error;
        errno = error.os_errno ? error.os_errno : EIO;
        return -1;
    }
    at.offset += count;
    return int64_t(count);
}

int64_t seek_to(Position &at, int64_t offset, int whence) {
    int64_t from = whence == SEEK_SET ? 0 : int64_t(whence == SEEK_CUR ? at.offset : at.gguf.layout().size());
    if (offset < -from || offset > INT64_MAX - from) {
        errno = EINVAL;
        return -1;
    }
    at.offset = uint64_t(from + offset);
    return int64_t(at.offset);
}

} // namespace

std::FILE *open_stream(Gguf &gguf) {
    auto position = std::make_unique<Position>(Position{gguf});
    std::FILE *file = nullptr;
#if defined(BRIDGE_FOPENCOOKIE)
    cookie_io_functions_t functions{};
    functions.read = [](void *cookie, char *dst, size_t size) -> ssize_t { return ssize_t(read_some(*static_cast<Position *>(cookie), dst, size)); };
    functions.seek = [](void *cookie, off64_t *offset, int whence) -> int {
        int64_t to = seek_to(*static_cast<Position *>(cookie), *offset, whence);
        if (to < 0) return -1;
        *offset = to;
        return 0;
    };
    functions.close = [](void *cookie) -> int {
        delete static_cast<Position *>(cookie);
        return 0;
    };
    file = fopencookie(position.get(), "rb", functions);
#elif defined(BRIDGE_FUNOPEN)
    file = funopen(
        position.get(), [](void *cookie, char *dst, int size) -> int { return int(read_some(*static_cast<Position *>(cookie), dst, size_t(size))); }, nullptr,
        [](void *cookie, fpos_t offset, int whence) -> fpos_t { return fpos_t(seek_to(*static_cast<Position *>(cookie), int64_t(offset), whence)); },
        [](void *cookie) -> int {
            delete static_cast<Position *>(cookie);
            return 0;
        });
#else
    fail(ST_ERROR_UNSUPPORTED, "this system has no streams of a program's own (fopencookie, funopen)");
#endif
    if (!file) fail_errno("a stream can't be opened", errno);
    // glibc reads through its buffer whatever is asked for, and takes a size only with a buffer.
    std::setvbuf(file, position->buffer.data(), _IOFBF, position->buffer.size());
    position.release();
    return file;
}

} // namespace bridge
