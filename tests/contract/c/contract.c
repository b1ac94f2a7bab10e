// SPDX-License-Identifier: Apache-2.0
// The header's rules from C: NULL everywhere, errors written on failure only,
// struct sizes, callbacks and their release, owners.

#include "check.h"

#include <errno.h>

// Fails with this code, fills the error, and does the same without an error.
#define REFUSES(code, call)                                                                                            \
    do {                                                                                                               \
        st_error filled, *error = &filled;                                                                             \
        error_mark(error);                                                                                             \
        CHECK(!(call));                                                                                                \
        CHECK(error_is(error, code));                                                                                  \
        error = NULL;                                                                                                  \
        CHECK(!(call));                                                                                                \
    } while (0)

static void nulls(void)
{
    bytes file = file_of(2, 5);
    st_error unused;
    error_mark(&unused);
    st_checkpoint *c = st_open_memory(file.data, file.size, NULL, &unused);
    const st_tensor *tensor = st_find_tensor(c, "t1");
    unsigned char place[8];
    size_t count;
    st_io io = ST_IO_INIT;
    st_resolver resolver = ST_RESOLVER_INIT;
    CHECK(c != NULL && tensor != NULL && error_untouched(&unused));

    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open(NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open_with(NULL, NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open_memory(NULL, 8, NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open_memory(NULL, 0, NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open_io(NULL, NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open_io(&io, NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open_resolved(NULL, "m", NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open_resolved(&resolver, "m", NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_open_resolved(&resolver, NULL, NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_get_tensor(NULL, "t0", error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_get_tensor(c, NULL, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_get_tensor_n(NULL, "t0", 2, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_get_tensor_n(c, NULL, 2, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, !st_read_tensor(NULL, tensor, place, sizeof place, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, !st_read_tensor(c, NULL, place, sizeof place, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, !st_read_tensor(c, tensor, NULL, sizeof place, error));
    REFUSES(ST_ERROR_BUFFER_SIZE, !st_read_tensor(c, tensor, place, 4, error));
    REFUSES(ST_ERROR_NOT_FOUND, st_get_tensor(c, "t2", error));
    REFUSES(ST_ERROR_NOT_FOUND, st_get_tensor_n(c, NULL, 0, error));

    CHECK(st_tensors(NULL, NULL) == NULL && st_shards(NULL, NULL) == NULL && st_metadata_entries(NULL, NULL) == NULL);
    count = 7;
    CHECK(st_tensors(NULL, &count) == NULL && count == 0);
    count = 7;
    CHECK(st_shards(NULL, &count) == NULL && count == 0);
    count = 7;
    CHECK(st_metadata_entries(NULL, &count) == NULL && count == 0);
    count = 7;
    CHECK(st_get_metadata(NULL, "k", &count) == NULL && count == 0);
    CHECK(st_get_metadata(c, NULL, NULL) == NULL && st_get_metadata(c, "k", NULL) == NULL);
    CHECK(st_find_tensor(NULL, "t0") == NULL && st_find_tensor(c, NULL) == NULL);
    CHECK(st_find_tensor_n(NULL, "t0", 2) == NULL && st_find_tensor_n(c, NULL, 2) == NULL);
    CHECK(st_retain(NULL) == NULL && st_dtype_from_name(NULL) == 0);
    st_free(NULL);
    st_free(c);
    free(file.data);
}

static void lookups(void)
{
    bytes file = file_of(12, 3);
    st_checkpoint *c = st_open_memory(file.data, file.size, NULL, NULL);
    CHECK(st_find_tensor(c, "t1") != NULL && st_find_tensor(c, "t") == NULL && st_find_tensor(c, "") == NULL);
    CHECK(st_find_tensor_n(c, "t11 and more", 3) == st_find_tensor(c, "t11"));
    CHECK(st_find_tensor_n(c, "t11 and more", 2) == st_find_tensor(c, "t1"));
    // A name on the heap without NUL: nothing after it may be read.
    bytes name = bytes_copy("t7", 2);
    CHECK(st_find_tensor_n(c, (const char *)name.data, 2) == st_find_tensor(c, "t7"));
    CHECK(st_get_tensor_n(c, (const char *)name.data, 2, NULL) == st_find_tensor(c, "t7"));
    free(name.data);
    // A copy of a record is as good as the record; its pointers mean nothing.
    st_tensor copy = *st_find_tensor(c, "t5");
    copy.name = NULL;
    copy.data = NULL;
    unsigned char place[4] = {0, 0, 0, 99};
    CHECK(st_read_tensor(c, &copy, place, 4, NULL) == ST_OK && place[3] == 99);
    CHECK(place[0] == (unsigned char)(15 * 31 + 7));
    st_error error;
    copy.offset++;
    CHECK(st_read_tensor(c, &copy, place, 4, &error) == ST_ERROR_INVALID_ARGUMENT && error_is(&error, ST_ERROR_INVALID_ARGUMENT));
    copy.offset = UINT64_MAX;
    copy.size = UINT64_MAX;
    copy.shard = UINT32_MAX;
    CHECK(st_read_tensor(c, &copy, place, 4, &error) == ST_ERROR_INVALID_ARGUMENT && error_is(&error, ST_ERROR_INVALID_ARGUMENT));
    st_free(c);
    free(file.data);
}

// A caller of another version: its struct on the heap, of just its size.
static void sizes(void)
{
    bytes file = file_of(1, 4);
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    st_checkpoint *c;
    for (size_t size = 0; size <= sizeof options + 8; size++) {
        unsigned char *given = calloc(1, size > sizeof(size_t) ? size : sizeof(size_t));
        memcpy(given, &size, sizeof size);
        st_error error;
        error_mark(&error);
        c = st_open_memory(file.data, file.size, (const st_open_options *)(void *)given, &error);
        if (size < sizeof(size_t)) {
            CHECK(c == NULL && error_is(&error, ST_ERROR_INVALID_ARGUMENT));
        } else {
            CHECK(c != NULL && error_untouched(&error));
        }
        st_free(c);
        if (size > sizeof options) {
            given[size - 1] = 1;
            CHECK(st_open_memory(file.data, file.size, (const st_open_options *)(void *)given, &error) == NULL);
            CHECK(error_is(&error, ST_ERROR_UNSUPPORTED));
        }
        free(given);
    }
    free(file.data);
}

static void callbacks(void)
{
    memory_io memory = {file_of(3, 100), 33, 0, 0, ST_OK};
    st_io io = memory_io_of(&memory);
    st_error error;
    st_checkpoint *c = st_open_io(&io, NULL, &error);
    CHECK(c != NULL && memory.releases == 0);
    size_t count;
    const st_shard *shard = st_shards(c, &count);
    CHECK(count == 1 && shard->access == ST_ACCESS_CALLBACK && shard->path == NULL && shard->size == memory.file.size);
    CHECK(strlen(shard->reason) > 0 && shard->data_size == 300 && shard->data_offset + 300 == shard->size);
    CHECK(st_find_tensor(c, "t1")->data == NULL);
    const st_tensor *tensor = st_get_tensor(c, "t1", &error);
    CHECK(tensor != NULL && memcmp(tensor->data, memory.file.data + tensor->offset, 100) == 0);
    int reads = memory.reads;
    CHECK(st_get_tensor(c, "t1", &error) == tensor && memory.reads == reads);

    memory.fails = ST_ERROR_CANCELLED;
    error_mark(&error);
    CHECK(st_get_tensor(c, "t2", &error) == NULL && error_is(&error, ST_ERROR_CANCELLED));
    CHECK(error.os_errno == 121 && strstr(error.message, "remote says 503") != NULL && strstr(error.message, "\"t2\"") != NULL);
    CHECK(st_get_tensor(c, "t1", &error) == tensor);
    memory.fails = ST_OK;
    CHECK(st_get_tensor(c, "t2", &error) != NULL);
    CHECK(st_retain(c) == c);
    st_free(c);
    CHECK(memory.releases == 0);
    st_free(c);
    CHECK(memory.releases == 1);

    memory.fails = ST_ERROR_IO;
    memory.releases = 0;
    CHECK(st_open_io(&io, NULL, &error) == NULL && error_is(&error, ST_ERROR_IO) && memory.releases == 1);
    free(memory.file.data);
}

static int resolver_releases;
static memory_io resolved[3];

static st_status resolve(void *user_data, const char *name, st_io *out, st_error *error)
{
    CHECK(user_data == (void *)resolved && out->struct_size == sizeof *out);
    size_t which = strcmp(name, "k/x.index.json") == 0 ? 0 : strcmp(name, "k/a") == 0 ? 1 : strcmp(name, "k/b") == 0 ? 2 : 3;
    if (which == 3) {
        error->os_errno = ENOENT;
        snprintf(error->message, sizeof error->message, "404");
        return ST_ERROR_IO;
    }
    *out = memory_io_of(&resolved[which]);
    return ST_OK;
}

static void resolver_release(void *user_data)
{
    CHECK(user_data == (void *)resolved);
    resolver_releases++;
}

static void resolvers(void)
{
    const char *indexes[] = {"{\"weight_map\":{\"t0\":\"a\",\"t1\":\"b\"}}", "{\"weight_map\":{\"t0\":\"a\",\"t1\":\"gone\"}}"};
    for (int i = 0; i < 2; i++) {
        memory_io fresh[] = {{bytes_copy(indexes[i], strlen(indexes[i])), 0, 0, 0, ST_OK}, {file_of(1, 9), 0, 0, 0, ST_OK}, {file_of(2, 9), 0, 0, 0, ST_OK}};
        memcpy(resolved, fresh, sizeof fresh);
        resolver_releases = 0;
        st_resolver resolver = ST_RESOLVER_INIT;
        resolver.open = resolve;
        resolver.release = resolver_release;
        resolver.user_data = resolved;
        st_error error;
        error_mark(&error);
        st_checkpoint *c = st_open_resolved(&resolver, "k/x.index.json", NULL, &error);
        CHECK(resolver_releases == 1);
        if (i == 0) {
            size_t count;
            const st_shard *shards = st_shards(c, &count);
            CHECK(c != NULL && error_untouched(&error) && count == 2);
            CHECK(strcmp(shards[1].path, "k/b") == 0 && shards[1].path_len == 3);
            st_tensors(c, &count);
            CHECK(count == 2 && st_find_tensor(c, "t1")->shard == 1);
        } else {
            CHECK(c == NULL && error_is(&error, ST_ERROR_SHARD) && error.os_errno == ENOENT && strstr(error.message, "404") != NULL);
        }
        st_free(c);
        CHECK(resolved[0].releases == 1 && resolved[1].releases == 1 && resolved[2].releases == (i == 0));
        for (size_t k = 0; k < 3; k++) {
            free(resolved[k].file.data);
        }
    }
}

static void names(void)
{
    CHECK(strcmp(st_version(), "0.1.0") == 0 && SAFETENSORS_VERSION == 1000 && st_abi_version() == SAFETENSORS_ABI_VERSION);
    CHECK(strcmp(st_status_name(ST_ERROR_IO), "ST_ERROR_IO") == 0 && strcmp(st_status_name(ST_OK), "ST_OK") == 0);
    CHECK(st_status_name(-1) != NULL && st_status_name(99999) != NULL && st_dtype_name(-1) != NULL && st_dtype_name(0) != NULL);
    CHECK(st_dtype_from_name("BF16") == ST_DTYPE_BF16 && strcmp(st_dtype_name(ST_DTYPE_F8_E4M3FNUZ), "F8_E4M3FNUZ") == 0);
    CHECK(st_dtype_bits(ST_DTYPE_F4) == 4 && st_dtype_bits(ST_DTYPE_F6_E2M3) == 6 && st_dtype_bits(ST_DTYPE_C64) == 64);
    CHECK(st_dtype_bits(ST_DTYPE_UNKNOWN) == 0 && st_dtype_bits(ST_DTYPE_AS_STORED) == 0);
}

int main(void)
{
    CHECK(sizeof(st_error) == 512);
    nulls();
    lookups();
    sizes();
    callbacks();
    resolvers();
    names();
    return check_result();
}
