// SPDX-License-Identifier: Apache-2.0
//
// Callers compiled against an older or a newer header: their structs are
// shorter or longer than the library's.

#include <safetensors.h>

#include <string.h>

#include "check.h"

// A struct that grew: the library must not look at the tail, but for whether it is zero.
typedef union {
    size_t struct_size;
    st_open_options options;
    st_io io;
    st_resolver resolver;
    unsigned char bytes[5000];
} grown;

typedef st_status (*user)(const grown *);

static st_error error;

static st_status done(st_checkpoint *checkpoint) {
    st_free(checkpoint);
    return checkpoint != NULL ? ST_OK : error.code;
}

static st_status read_at(void *user_data, uint64_t offset, void *dst, size_t len, size_t *read, st_error *failed) {
    (void)user_data, (void)failed;
    memcpy(dst, file + offset, len);
    *read = len;
    return ST_OK;
}

static st_status resolve(void *user_data, const char *name, st_io *out, st_error *failed) {
    (void)user_data, (void)name, (void)failed;
    out->size = file_size;
    out->read_at = read_at;
    return ST_OK;
}

static st_status with_options(const grown *given) {
    return done(st_open_memory(file, file_size, &given->options, &error));
}

static st_status with_io(const grown *given) {
    return done(st_open_io(&given->io, NULL, &error));
}

static st_status with_resolver(const grown *given) {
    return done(st_open_resolved(&given->resolver, "model.safetensors", NULL, &error));
}

// least: where the last field ends that the call can't do without.
static void check(user use, grown given, size_t least, size_t size) {
    static const size_t garbage[] = {0, 1, sizeof(size_t) - 1, sizeof given.bytes, (size_t)-1};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        given.struct_size = garbage[i];
        CHECK(use(&given) == ST_ERROR_INVALID_ARGUMENT);
    }
    for (given.struct_size = least; given.struct_size <= size; given.struct_size += 8)
        CHECK(use(&given) == ST_OK);

    given.struct_size = size + 24;
    CHECK(use(&given) == ST_OK);
    given.bytes[size + 24] = 1; // behind what the caller has: not looked at
    CHECK(use(&given) == ST_OK);
    given.bytes[size + 23] = 1;
    CHECK(use(&given) == ST_ERROR_UNSUPPORTED);
    given.struct_size = size;
    CHECK(use(&given) == ST_OK);
}

int main(void) {
    grown given;

    memset(&given, 0, sizeof given);
    check(with_options, given, sizeof(size_t), sizeof(st_open_options));

    // What an older caller does not have is not read.
    given.options.max_tensors = 1;
    given.options.max_name_length = (uint64_t)-1;
    given.options.access = 99;
    given.struct_size = offsetof(st_open_options, access);
    CHECK(with_options(&given) == ST_OK);
    given.struct_size = offsetof(st_open_options, max_tensors);
    CHECK(with_options(&given) == ST_ERROR_INVALID_ARGUMENT);

    memset(&given, 0, sizeof given);
    given.io.size = file_size;
    given.io.read_at = read_at;
    check(with_io, given, offsetof(st_io, release), sizeof(st_io));

    memset(&given, 0, sizeof given);
    given.resolver.open = resolve;
    check(with_resolver, given, offsetof(st_resolver, release), sizeof(st_resolver));
    return 0;
}
