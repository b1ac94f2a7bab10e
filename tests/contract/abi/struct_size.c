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
    st_save_options save;
    st_metadata_options metadata;
    st_load_options load;
    st_sink sink;
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

// Where options are read before the file is: it is not there, so that this is
// what comes where they are fine.
#define NOWHERE "/no/such/folder/file.safetensors"
static st_status past(st_status status) {
    return status == ST_ERROR_IO ? ST_OK : status;
}

static st_status with_options(const grown *given) {
    return done(st_open_memory(file, file_size, &given->options, &error));
}

static st_status with_options_for_a_path(const grown *given) {
    return past(done(st_open_with(NOWHERE, &given->options, &error)));
}

static st_status with_options_for_io(const grown *given) {
    st_io io = ST_IO_INIT;
    io.size = file_size;
    io.read_at = read_at;
    return done(st_open_io(&io, &given->options, &error));
}

static st_status with_options_for_a_resolver(const grown *given) {
    st_resolver resolver = ST_RESOLVER_INIT;
    resolver.open = resolve;
    return done(st_open_resolved(&resolver, "model.safetensors", &given->options, &error));
}

static int32_t report(void *user_data, const st_problem *problem) {
    (void)user_data, (void)problem;
    return 0;
}

static st_status with_options_to_validate(const grown *given) {
    return past(st_validate(NOWHERE, &given->options, report, NULL, &error));
}

static st_status with_io(const grown *given) {
    return done(st_open_io(&given->io, NULL, &error));
}

// As an older or newer caller's resolver assigns its own st_io.
static st_status assign(void *user_data, const char *name, st_io *out, st_error *failed) {
    (void)name, (void)failed;
    const grown *given = (const grown *)user_data;
    size_t size = given->struct_size;
    memcpy((void *)out, given, size >= sizeof size && size <= 4096 ? size : sizeof size);
    return ST_OK;
}

static st_status with_io_of_a_resolver(const grown *given) {
    st_resolver resolver = ST_RESOLVER_INIT;
    resolver.open = assign;
    resolver.user_data = (void *)(uintptr_t)given;
    return done(st_open_resolved(&resolver, "model.safetensors", NULL, &error));
}

static st_status with_resolver(const grown *given) {
    return done(st_open_resolved(&given->resolver, "model.safetensors", NULL, &error));
}

// One U8 tensor of three bytes.
static st_tensor tensor(void) {
    static const int64_t shape[] = {3};
    st_tensor x;
    memset(&x, 0, sizeof x);
    x.name = "x";
    x.dtype = ST_DTYPE_U8;
    x.rank = 1;
    x.shape = shape;
    x.data = file + DATA_OFFSET;
    return x;
}

static st_status with_save(const grown *given) {
    st_tensor x = tensor();
    st_buffer out = {NULL, 0};
    st_status status = st_serialize(&x, 1, NULL, 0, &given->save, &out, &error);
    st_buffer_free(&out);
    return status;
}

static st_status with_save_to_a_path(const grown *given) {
    st_tensor x = tensor();
    return past(st_save(NOWHERE, &x, 1, NULL, 0, &given->save, &error));
}

static st_status with_save_for_a_writer(const grown *given) {
    st_tensor x = tensor();
    st_writer *writer = st_writer_open(NOWHERE, &x, 1, NULL, 0, &given->save, &error);
    CHECK(writer == NULL);
    return past(error.code);
}

// A load of nothing: all there is to fail is the structs.
static st_status loaded(const st_load_options *options) {
    st_checkpoint *checkpoint = st_open_memory(file, file_size, NULL, &error);
    st_status status = st_load(checkpoint, NULL, 0, options, &error);
    st_free(checkpoint);
    return status;
}

static st_status with_load(const grown *given) {
    return loaded(&given->load);
}

static st_status with_load_to_plan(const grown *given) {
    st_checkpoint *checkpoint = st_open_memory(file, file_size, NULL, &error);
    st_plan plan;
    st_status status = st_load_plan(checkpoint, NULL, 0, &given->load, &plan, &error);
    st_free(checkpoint);
    return status;
}

static st_status with_sink(const grown *given) {
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.sink = &given->sink;
    return loaded(&options);
}

static st_status chunk(void *user_data, size_t buffer, size_t item, uint64_t offset, size_t size, st_error *failed) {
    (void)user_data, (void)buffer, (void)item, (void)offset, (void)size, (void)failed;
    return ST_OK;
}

static st_status with_metadata(const grown *given) {
    return past(st_set_metadata(NOWHERE, NULL, 0, &given->metadata, &error));
}

// least: where the last field ends that the call can't do without.
static void check(user use, grown given, size_t least, size_t size) {
    static const size_t garbage[] = {0, 1, sizeof(size_t) - 1, sizeof given.bytes, (size_t)-1};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        given.struct_size = garbage[i];
        CHECK(use(&given) == ST_ERROR_INVALID_ARGUMENT);
    }
    // Older callers of every size: what lies after their struct is not looked at.
    for (size_t older = least; older <= size; older += 8) {
        grown shorter = given;
        memset(shorter.bytes + older, 0xff, sizeof shorter.bytes - older);
        shorter.struct_size = older;
        CHECK(use(&shorter) == ST_OK);
    }

    given.struct_size = 4096; // the largest there will ever be
    CHECK(use(&given) == ST_OK);
    given.struct_size = 4097;
    CHECK(use(&given) == ST_ERROR_INVALID_ARGUMENT);
    given.struct_size = size + 24;
    CHECK(use(&given) == ST_OK);
    given.bytes[size + 24] = 1; // after what the caller has: not looked at
    CHECK(use(&given) == ST_OK);
    given.bytes[size + 23] = 1;
    CHECK(use(&given) == ST_ERROR_UNSUPPORTED);
    given.struct_size = size;
    CHECK(use(&given) == ST_OK);
}

int main(void) {
    grown given;

    memset(&given, 0, sizeof given);
    static const user opening[] = {with_options, with_options_for_a_path, with_options_for_io,
                                   with_options_for_a_resolver, with_options_to_validate};
    for (size_t i = 0; i < sizeof opening / sizeof *opening; i++)
        check(opening[i], given, sizeof(size_t), sizeof(st_open_options));

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
    check(with_io_of_a_resolver, given, offsetof(st_io, release), sizeof(st_io));

    memset(&given, 0, sizeof given);
    given.resolver.open = resolve;
    check(with_resolver, given, offsetof(st_resolver, release), sizeof(st_resolver));

    memset(&given, 0, sizeof given);
    static const user saving[] = {with_save, with_save_to_a_path, with_save_for_a_writer};
    for (size_t i = 0; i < sizeof saving / sizeof *saving; i++)
        check(saving[i], given, sizeof(size_t), sizeof(st_save_options));
    given.save.sync = 99;
    given.struct_size = offsetof(st_save_options, sync);
    CHECK(with_save(&given) == ST_OK);
    given.struct_size = sizeof(st_save_options);
    CHECK(with_save(&given) == ST_ERROR_INVALID_ARGUMENT);

    memset(&given, 0, sizeof given);
    check(with_load, given, sizeof(size_t), sizeof(st_load_options));
    check(with_load_to_plan, given, sizeof(size_t), sizeof(st_load_options));
    given.load.io = 99;
    given.struct_size = offsetof(st_load_options, io);
    CHECK(with_load(&given) == ST_OK);
    given.struct_size = sizeof(st_load_options);
    CHECK(with_load(&given) == ST_ERROR_INVALID_ARGUMENT);

    static unsigned char room[4096];
    st_buffer buffer = {room, sizeof room};
    memset(&given, 0, sizeof given);
    given.sink.buffers = &buffer;
    given.sink.buffer_count = 1;
    given.sink.chunk = chunk;
    check(with_sink, given, offsetof(st_sink, wait), sizeof(st_sink));

    memset(&given, 0, sizeof given);
    check(with_metadata, given, sizeof(size_t), sizeof(st_metadata_options));
    given.metadata.sync = 99;
    given.struct_size = offsetof(st_metadata_options, in_place);
    CHECK(with_metadata(&given) == ST_OK);
    given.struct_size = sizeof(st_metadata_options);
    CHECK(with_metadata(&given) == ST_ERROR_INVALID_ARGUMENT);
    return 0;
}
