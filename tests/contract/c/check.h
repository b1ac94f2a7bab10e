// SPDX-License-Identifier: Apache-2.0
// What the C tests share: checks that count, an st_io over memory, files, FNV-1a.
#ifndef CHECK_H
#define CHECK_H

#include <safetensors.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failures;

#define CHECK(condition) check_that((condition) != 0, #condition, __FILE__, __LINE__)

static inline int check_that(int holds, const char *text, const char *file, int line)
{
    if (!holds) {
        fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, text);
        check_failures++;
    }
    return holds;
}

static inline int check_result(void)
{
    if (check_failures != 0) {
        fprintf(stderr, "%d checks failed\n", check_failures);
    }
    return check_failures == 0 ? 0 : 1;
}

// An error filled with a pattern, to see whether it is written.
static inline void error_mark(st_error *error)
{
    memset(error, 0x5A, sizeof *error);
}

static inline int error_untouched(const st_error *error)
{
    st_error marked;
    error_mark(&marked);
    return memcmp(error, &marked, sizeof marked) == 0;
}

// A filled error: a known code, and a message that is whole and safe to print.
static inline int error_is(const st_error *error, st_status code)
{
    const char *end = memchr(error->message, 0, sizeof error->message);
    int safe = end != NULL && end != error->message;
    for (const char *c = error->message; safe && c < end; c++) {
        safe = (unsigned char)*c >= 0x20 && *c != 0x7F;
    }
    if (!safe || error->code != code) {
        fprintf(stderr, "wanted %s, found %s: %.504s\n", st_status_name(code), st_status_name(error->code), error->message);
    }
    return safe && error->code == code;
}

static inline uint64_t fnv1a(const void *data, size_t size)
{
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ ((const unsigned char *)data)[i]) * UINT64_C(0x100000001B3);
    }
    return hash;
}

// Bytes on the heap, of just their size, so that a sanitizer sees an over-read.
typedef struct bytes {
    unsigned char *data;
    size_t size;
} bytes;

static inline bytes bytes_copy(const void *data, size_t size)
{
    bytes copy = {malloc(size != 0 ? size : 1), size};
    if (copy.data == NULL) {
        abort();
    }
    if (size != 0) {
        memcpy(copy.data, data, size);
    }
    return copy;
}

// A whole file; its text is followed by NUL where `text` says so.
static inline bytes bytes_of_file(const char *path, int text)
{
    bytes all = {NULL, 0};
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    size_t room = 0;
    for (;;) {
        if (all.size == room) {
            room = room * 2 + 4096;
            all.data = realloc(all.data, room);
            if (all.data == NULL) {
                abort();
            }
        }
        size_t done = fread(all.data + all.size, 1, room - all.size, file);
        all.size += done;
        if (done == 0) {
            break;
        }
    }
    fclose(file);
    bytes exact = {malloc(all.size + 1), all.size};
    if (exact.data == NULL) {
        abort();
    }
    memcpy(exact.data, all.data, all.size);
    exact.data[all.size] = 0;
    free(all.data);
    if (!text) {
        bytes copy = bytes_copy(exact.data, exact.size);
        free(exact.data);
        return copy;
    }
    return exact;
}

// A file of the format with U8 tensors "t0", "t1", ... of `each` bytes.
static inline bytes file_of(size_t count, size_t each)
{
    size_t room = 8 + 2 + count * (96 + each);
    unsigned char *file = malloc(room);
    if (file == NULL) {
        abort();
    }
    size_t at = 8;
    file[at++] = '{';
    for (size_t i = 0; i < count; i++) {
        at += (size_t)snprintf((char *)file + at, room - at,
                               "%s\"t%zu\":{\"dtype\":\"U8\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}",
                               i != 0 ? "," : "", i, each, i * each, (i + 1) * each);
    }
    file[at++] = '}';
    for (size_t i = 0; i < 8; i++) {
        file[i] = (unsigned char)((at - 8) >> (8 * i));
    }
    for (size_t i = 0; i < count * each; i++) {
        file[at++] = (unsigned char)(i * 31 + 7);
    }
    bytes exact = bytes_copy(file, at);
    free(file);
    return exact;
}

static inline void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) {
        perror(path);
        exit(2);
    }
}

// Memory behind an st_io: at most `most` bytes a call, 0 for any number.
typedef struct memory_io {
    bytes file;
    size_t most;
    int reads;
    int releases;
    st_status fails; // ST_OK: does not
} memory_io;

static inline st_status memory_read_at(void *user_data, uint64_t offset, void *dst, size_t len, size_t *done, st_error *error)
{
    memory_io *io = user_data;
    io->reads++;
    if (io->fails != ST_OK) {
        error->os_errno = 121;
        snprintf(error->message, sizeof error->message, "remote says %d", 503);
        return io->fails;
    }
    if (!CHECK(len > 0 && offset <= io->file.size && len <= io->file.size - offset)) {
        return ST_ERROR_IO;
    }
    if (io->most != 0 && len > io->most) {
        len = io->most;
    }
    memcpy(dst, io->file.data + offset, len);
    *done = len;
    return ST_OK;
}

static inline void memory_release(void *user_data)
{
    ((memory_io *)user_data)->releases++;
}

static inline st_io memory_io_of(memory_io *memory)
{
    st_io io = ST_IO_INIT;
    io.size = memory->file.size;
    io.read_at = memory_read_at;
    io.release = memory_release;
    io.user_data = memory;
    return io;
}

#endif
