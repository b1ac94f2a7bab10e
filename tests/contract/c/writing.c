// SPDX-License-Identifier: Apache-2.0
// The half that writes, from C: NULL everywhere, what is refused and what that
// leaves behind, round trips, and a file written from several threads.

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

// Fails with this code, fills the error, and does the same without an error.
#define REFUSES(wanted, call)                                                                                          \
    do {                                                                                                               \
        st_error filled, *error = &filled;                                                                             \
        error_mark(error);                                                                                             \
        CHECK((call) == (wanted));                                                                                     \
        CHECK(error_is(error, wanted));                                                                                \
        error = NULL;                                                                                                  \
        CHECK((call) == (wanted));                                                                                     \
    } while (0)

#define WORKS(call)                                                                                                    \
    do {                                                                                                               \
        st_error untouched, *error = &untouched;                                                                       \
        error_mark(error);                                                                                             \
        if (!CHECK(call)) {                                                                                            \
            fprintf(stderr, "%.504s\n", error->message);                                                               \
        } else {                                                                                                       \
            CHECK(error_untouched(error));                                                                             \
        }                                                                                                              \
    } while (0)

static char folder[4096];
static char path[4200];

// How many files are in the folder, whatever their names.
static int files(void)
{
    int count = 0;
    DIR *entries = opendir(folder);
    if (entries == NULL) {
        perror(folder);
        exit(2);
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(entries);
    return count;
}

static st_tensor tensor_of(const char *name, st_dtype dtype, const int64_t *shape, size_t rank, const void *data)
{
    st_tensor tensor;
    memset(&tensor, 0xA5, sizeof tensor); // what writing does not use
    tensor.name = name;
    tensor.name_len = 0;
    tensor.dtype = dtype;
    tensor.rank = rank;
    tensor.shape = shape;
    tensor.size = 0;
    tensor.data = data;
    tensor.dtype_name = NULL;
    return tensor;
}

static st_metadata entry_of(const char *key, const char *value)
{
    st_metadata entry = {key, 0, value, 0, {7, 7}};
    return entry;
}

static const int64_t six[] = {2, 3};
static const unsigned char numbers[] = {1, 2, 3, 4, 5, 6};

// st_writer_open as a status.
static st_status writer_opens(const char *to, const st_tensor *tensors, size_t count, const st_metadata *metadata,
                              size_t entries, const st_save_options *options, st_error *error)
{
    st_error own;
    st_writer *writer = st_writer_open(to, tensors, count, metadata, entries, options, error != NULL ? error : &own);
    st_status status = writer != NULL ? ST_OK : error != NULL ? error->code : own.code;
    if (error == NULL && status != ST_OK) {
        CHECK(st_writer_open(to, tensors, count, metadata, entries, options, NULL) == NULL);
    }
    st_writer_free(writer);
    return status;
}

// All that write refuse this alike, and leave nothing.
static void refused(st_status wanted, const st_tensor *tensors, size_t count, const st_metadata *metadata,
                    size_t entries, const st_save_options *options)
{
    int before = files();
    st_buffer out = {folder, 99};
    REFUSES(wanted, st_save(path, tensors, count, metadata, entries, options, error));
    REFUSES(wanted, st_serialize(tensors, count, metadata, entries, options, &out, error));
    REFUSES(wanted, writer_opens(path, tensors, count, metadata, entries, options, error));
    CHECK(out.data == folder && out.size == 99 && files() == before);
}

static void nulls(void)
{
    st_tensor tensor = tensor_of("x", ST_DTYPE_U8, six, 2, numbers);
    st_tensor nameless = tensor_of(NULL, ST_DTYPE_U8, six, 2, numbers);
    st_tensor shapeless = tensor_of("x", ST_DTYPE_U8, NULL, 2, numbers);
    st_tensor empty_handed = tensor_of("x", ST_DTYPE_U8, six, 2, NULL);
    st_metadata no_key = entry_of(NULL, "v"), no_value = entry_of("k", NULL);
    st_buffer out = {NULL, 0};
    uint16_t place[6];
    const st_status bad = ST_ERROR_INVALID_ARGUMENT;

    refused(bad, NULL, 1, NULL, 0, NULL);
    refused(bad, &tensor, 1, NULL, 1, NULL);
    refused(bad, &nameless, 1, NULL, 0, NULL);
    refused(bad, &shapeless, 1, NULL, 0, NULL);
    refused(bad, &tensor, 1, &no_key, 1, NULL);
    refused(bad, &tensor, 1, &no_value, 1, NULL);
    REFUSES(bad, st_save(NULL, &tensor, 1, NULL, 0, NULL, error));
    REFUSES(bad, st_save(path, &empty_handed, 1, NULL, 0, NULL, error));
    REFUSES(bad, st_serialize(&tensor, 1, NULL, 0, NULL, NULL, error));
    REFUSES(bad, st_serialize(&empty_handed, 1, NULL, 0, NULL, &out, error));
    REFUSES(bad, writer_opens(NULL, &tensor, 1, NULL, 0, NULL, error));
    REFUSES(bad, st_writer_write(NULL, 0, 0, numbers, 1, error));
    REFUSES(bad, st_writer_finish(NULL, error));
    REFUSES(bad, st_set_metadata(NULL, NULL, 0, NULL, error));
    REFUSES(bad, st_set_metadata(path, NULL, 1, NULL, error));
    REFUSES(bad, st_set_metadata(path, &no_key, 1, NULL, error));
    REFUSES(bad, st_convert(ST_DTYPE_U8, NULL, ST_DTYPE_BF16, place, 6, error));
    REFUSES(bad, st_convert(ST_DTYPE_U8, numbers, ST_DTYPE_BF16, NULL, 6, error));
    REFUSES(bad, st_convert(ST_DTYPE_AS_STORED, numbers, ST_DTYPE_BF16, place, 6, error));
    REFUSES(bad, st_convert(ST_DTYPE_U8, place, ST_DTYPE_BF16, place, 6, error));
    REFUSES(ST_ERROR_SUB_BYTE, st_convert(ST_DTYPE_F4, numbers, ST_DTYPE_BF16, place, 5, error));
    REFUSES(ST_ERROR_UNSUPPORTED, st_convert(ST_DTYPE_C64, numbers, ST_DTYPE_BF16, place, 1, error));
    WORKS(st_convert(ST_DTYPE_U8, NULL, ST_DTYPE_BF16, NULL, 0, error) == ST_OK);
    WORKS(st_convert(ST_DTYPE_U8, numbers, ST_DTYPE_BF16, place, 6, error) == ST_OK && place[5] == 0x40C0);
    st_writer_free(NULL);
    st_buffer_free(NULL);
    st_buffer_free(&out);
    CHECK(out.data == NULL && out.size == 0 && files() == 0);
}

static void refusals(void)
{
    const int64_t seven[] = {7}, negative[] = {-1}, vast[] = {INT64_MAX, INT64_MAX};
    st_tensor good = tensor_of("x", ST_DTYPE_U8, six, 2, numbers);
    st_tensor twins[] = {good, good};
    refused(ST_ERROR_DUPLICATE_KEY, twins, 2, NULL, 0, NULL);
    st_metadata keys[] = {entry_of("k", "1"), entry_of("k", "2")};
    refused(ST_ERROR_DUPLICATE_KEY, &good, 1, keys, 2, NULL);

    st_tensor tensor = tensor_of("__metadata__", ST_DTYPE_U8, six, 2, numbers);
    refused(ST_ERROR_INVALID_ARGUMENT, &tensor, 1, NULL, 0, NULL);
    tensor = tensor_of("\xFF", ST_DTYPE_U8, six, 2, numbers);
    refused(ST_ERROR_INVALID_ARGUMENT, &tensor, 1, NULL, 0, NULL);
    tensor = good;
    for (tensor.size = 5; tensor.size <= 7; tensor.size += 2) {
        refused(ST_ERROR_SIZE_MISMATCH, &tensor, 1, NULL, 0, NULL);
    }
    tensor = tensor_of("x", ST_DTYPE_F4, seven, 1, numbers);
    refused(ST_ERROR_SUB_BYTE, &tensor, 1, NULL, 0, NULL);
    tensor = tensor_of("x", ST_DTYPE_F6_E3M2, six, 2, numbers);
    refused(ST_ERROR_SUB_BYTE, &tensor, 1, NULL, 0, NULL);
    tensor = tensor_of("x", ST_DTYPE_U8, negative, 1, numbers);
    refused(ST_ERROR_SHAPE, &tensor, 1, NULL, 0, NULL);
    tensor = tensor_of("x", ST_DTYPE_U8, vast, 2, numbers);
    refused(ST_ERROR_SHAPE, &tensor, 1, NULL, 0, NULL);
    tensor = tensor_of("x", ST_DTYPE_U8, six, SIZE_MAX, numbers);
    refused(ST_ERROR_INVALID_ARGUMENT, &tensor, 1, NULL, 0, NULL);
    const int32_t no_dtypes[] = {-1, 0, 23, 254, INT32_MAX};
    for (size_t i = 0; i < sizeof no_dtypes / sizeof *no_dtypes; i++) {
        tensor = tensor_of("x", no_dtypes[i], six, 2, numbers);
        refused(ST_ERROR_INVALID_ARGUMENT, &tensor, 1, NULL, 0, NULL);
    }
    tensor = tensor_of("x", ST_DTYPE_UNKNOWN, six, 2, numbers);
    refused(ST_ERROR_UNSUPPORTED, &tensor, 1, NULL, 0, NULL);

    // Options: sizes, and numbers that are no constants.
    const st_save_options defaults = ST_SAVE_OPTIONS_INIT;
    const int32_t unknown[] = {-1, 3, INT32_MIN};
    st_save_options options;
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        options = defaults, options.order = unknown[i];
        refused(ST_ERROR_INVALID_ARGUMENT, &good, 1, NULL, 0, &options);
        options = defaults, options.sync = unknown[i];
        refused(ST_ERROR_INVALID_ARGUMENT, &good, 1, NULL, 0, &options);
        options = defaults, options.overwrite = unknown[i];
        refused(ST_ERROR_INVALID_ARGUMENT, &good, 1, NULL, 0, &options);
        st_metadata_options edit = ST_METADATA_OPTIONS_INIT;
        edit.sync = unknown[i];
        REFUSES(ST_ERROR_INVALID_ARGUMENT, st_set_metadata(path, NULL, 0, &edit, error));
    }
    const uint32_t alignments[] = {1, 4, 12, 4194304, UINT32_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        options = defaults, options.alignment = alignments[i];
        refused(ST_ERROR_INVALID_ARGUMENT, &good, 1, NULL, 0, &options);
    }
    options = defaults, options.header_reserve = UINT64_MAX;
    refused(ST_ERROR_HEADER_TOO_LARGE, &good, 1, NULL, 0, &options);
}

// A caller of another version: its options on the heap, of just their size.
static void sizes(void)
{
    st_tensor tensor = tensor_of("x", ST_DTYPE_U8, six, 2, numbers);
    for (size_t size = 0; size <= sizeof(st_save_options) + 8; size++) {
        unsigned char *given = calloc(1, size > sizeof size ? size : sizeof size);
        memcpy(given, &size, sizeof size);
        const st_save_options *options = (const st_save_options *)(void *)given;
        if (size < sizeof size) {
            refused(ST_ERROR_INVALID_ARGUMENT, &tensor, 1, NULL, 0, options);
        } else {
            st_buffer out = {NULL, 0};
            WORKS(st_serialize(&tensor, 1, NULL, 0, options, &out, error) == ST_OK);
            st_buffer_free(&out);
        }
        if (size > sizeof(st_save_options)) {
            given[size - 1] = 1;
            refused(ST_ERROR_UNSUPPORTED, &tensor, 1, NULL, 0, options);
        }
        free(given);
    }
    size_t small = sizeof small - 1;
    REFUSES(ST_ERROR_INVALID_ARGUMENT,
            st_set_metadata(path, NULL, 0, (const st_metadata_options *)(void *)&small, error));
}

static int32_t stop_at(void *user_data, uint64_t done, uint64_t total)
{
    CHECK(done <= total);
    return done >= *(uint64_t *)user_data;
}

static void round_trip(void)
{
    // Names on the heap without NUL, of which one has NUL within; an empty
    // tensor, a scalar, and elements of 4 bits.
    bytes name = bytes_copy("a\0b", 3), value = bytes_copy("v\0w", 3);
    const int64_t none[] = {0, INT64_MAX}, four[] = {4};
    st_tensor tensors[] = {
        tensor_of("plain", ST_DTYPE_U8, six, 2, numbers),
        tensor_of((const char *)name.data, ST_DTYPE_I16, six, 1, numbers),
        tensor_of("none", ST_DTYPE_F64, none, 2, NULL),
        tensor_of("scalar", ST_DTYPE_F32, NULL, 0, numbers + 1),
        tensor_of("", ST_DTYPE_F4, four, 1, numbers + 3),
    };
    tensors[1].name_len = name.size;
    tensors[1].size = 4;
    st_metadata entries[] = {entry_of("k", (const char *)value.data), entry_of("empty", "")};
    entries[0].value_len = value.size;
    st_buffer out = {NULL, 0};
    WORKS(st_serialize(tensors, 5, entries, 2, NULL, &out, error) == ST_OK);
    WORKS(st_save(path, tensors, 5, entries, 2, NULL, error) == ST_OK);
    bytes file = bytes_of_file(path, 0);
    CHECK(file.size == out.size && memcmp(file.data, out.data, out.size) == 0 && files() == 1);

    st_checkpoint *c = st_open_memory(out.data, out.size, NULL, NULL);
    size_t count, length;
    const st_tensor *read = st_tensors(c, &count);
    const char *text = st_get_metadata(c, "k", &length);
    CHECK(c != NULL && count == 5 && length == 3 && memcmp(text, "v\0w", 4) == 0);
    CHECK(strcmp(st_get_metadata(c, "empty", NULL), "") == 0);
    for (size_t i = 0; i < 5; i++) {
        size_t name_len = tensors[i].name_len != 0 ? tensors[i].name_len : strlen(tensors[i].name);
        const st_tensor *found = st_find_tensor_n(c, tensors[i].name, name_len);
        if (CHECK(found != NULL && found->dtype == tensors[i].dtype && found->rank == tensors[i].rank)) {
            CHECK(found->size == 0 || memcmp(found->data, tensors[i].data, found->size) == 0);
            CHECK(found->rank == 0 || memcmp(found->shape, tensors[i].shape, found->rank * sizeof *found->shape) == 0);
        }
    }
    // What was read is written as it was.
    st_buffer again = {NULL, 0};
    const st_metadata *metadata = st_metadata_entries(c, &length);
    WORKS(st_serialize(read, count, metadata, length, NULL, &again, error) == ST_OK);
    CHECK(again.size == out.size && memcmp(again.data, out.data, out.size) == 0);
    st_buffer_free(&again);
    st_free(c);
    st_buffer_free(&out);
    CHECK(out.data == NULL && out.size == 0);
    st_buffer_free(&out);

    // A file that exists stays where that is asked for, and where a save is stopped.
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.overwrite = ST_OVERWRITE_REFUSE;
    st_error failure;
    CHECK(st_save(path, tensors, 1, NULL, 0, &options, &failure) == ST_ERROR_IO);
    CHECK(error_is(&failure, ST_ERROR_IO) && failure.os_errno == EEXIST);
    CHECK(writer_opens(path, tensors, 1, NULL, 0, &options, &failure) == ST_ERROR_IO && failure.os_errno == EEXIST);
    options.overwrite = ST_OVERWRITE_REPLACE;
    uint64_t at = 0;
    options.progress = stop_at;
    options.user_data = &at;
    REFUSES(ST_ERROR_CANCELLED, st_save(path, tensors, 1, NULL, 0, &options, error));
    at = UINT64_MAX;
    bytes same = bytes_of_file(path, 0);
    CHECK(same.size == file.size && memcmp(same.data, file.data, file.size) == 0 && files() == 1);
    WORKS(st_save(path, tensors, 1, NULL, 0, &options, error) == ST_OK);
    CHECK(remove(path) == 0 && files() == 0);

    // The folder is not there; the name is none.
    CHECK(st_save("/no/such/folder/x", tensors, 1, NULL, 0, NULL, &failure) == ST_ERROR_IO && failure.os_errno == ENOENT);
    CHECK(st_save("", tensors, 1, NULL, 0, NULL, &failure) == ST_ERROR_IO && error_is(&failure, ST_ERROR_IO));
    CHECK(st_save(folder, tensors, 1, NULL, 0, NULL, &failure) == ST_ERROR_IO && error_is(&failure, ST_ERROR_IO));
    CHECK(files() == 0);
    free(same.data);
    free(file.data);
    free(name.data);
    free(value.data);
}

// ---- in pieces, from four threads ----

enum { THREADS = 4, TENSORS = 24, EACH = 40000, PIECE = 1013 };

static st_writer *shared;

// Bytes of a tensor, from its number and their place.
static unsigned char byte_of(size_t tensor, size_t at)
{
    return (unsigned char)((tensor + 1) * 37 + at * 11 + (at >> 8));
}

// Every fourth piece of every tensor, the last first.
static void *write_pieces(void *argument)
{
    size_t me = *(size_t *)argument;
    for (size_t tensor = 0; tensor < TENSORS; tensor++) {
        for (size_t piece = (EACH + PIECE - 1) / PIECE; piece-- > 0;) {
            size_t offset = piece * PIECE, size = EACH - offset < PIECE ? EACH - offset : PIECE;
            if ((piece + tensor) % THREADS != me) {
                continue;
            }
            // Of just its size, and gone right after: the library keeps nothing.
            unsigned char *data = malloc(size);
            if (data == NULL) {
                return "no memory";
            }
            for (size_t i = 0; i < size; i++) {
                data[i] = byte_of(tensor, offset + i);
            }
            st_status status = st_writer_write(shared, tensor, offset, data, size, NULL);
            free(data);
            if (status != ST_OK) {
                return "not written";
            }
        }
    }
    return NULL;
}

static void pieces(uint64_t max_shard_size, int expected_files)
{
    st_tensor tensors[TENSORS];
    char names[TENSORS][16];
    const int64_t shape[] = {EACH};
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof names[i], "t%zu", i);
        tensors[i] = tensor_of(names[i], ST_DTYPE_U8, shape, 1, NULL);
    }
    st_metadata entry = entry_of("k", "v");
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.max_shard_size = max_shard_size;
    options.alignment = 4096;
    WORKS((shared = st_writer_open(path, tensors, TENSORS, &entry, 1, &options, error)) != NULL);
    memset(tensors, 0xA5, sizeof tensors); // nothing of them is kept
    memset(names, 0xA5, sizeof names);

    pthread_t threads[THREADS];
    size_t number[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        number[i] = i;
        CHECK(pthread_create(&threads[i], NULL, write_pieces, &number[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *fault;
        pthread_join(threads[i], &fault);
        if (!CHECK(fault == NULL)) {
            fprintf(stderr, "%s\n", (const char *)fault);
        }
    }
    WORKS(st_writer_finish(shared, error) == ST_OK);
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_writer_finish(shared, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_writer_write(shared, 0, 0, numbers, 1, error));
    st_writer_free(shared);
    CHECK(files() == expected_files);

    st_error failure;
    st_open_options reading = ST_OPEN_OPTIONS_INIT;
    reading.access = ST_ACCESS_READ;
    st_checkpoint *c = st_open_with(folder, &reading, &failure);
    size_t count;
    CHECK(c != NULL && st_shards(c, &count)->data_offset % 4096 == 0 && strcmp(st_get_metadata(c, "k", NULL), "v") == 0);
    for (size_t i = 0; i < TENSORS; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%zu", i);
        const st_tensor *tensor = st_get_tensor(c, name, &failure);
        if (CHECK(tensor != NULL && tensor->size == EACH)) {
            size_t same = 0;
            while (same < EACH && ((const unsigned char *)tensor->data)[same] == byte_of(i, same)) {
                same++;
            }
            CHECK(same == EACH);
        }
    }
    const st_shard *shards = st_shards(c, &count);
    for (size_t i = 0; i < count; i++) {
        CHECK(remove(shards[i].path) == 0);
    }
    st_free(c);
    if (count > 1) {
        char index[4300];
        snprintf(index, sizeof index, "%s.index.json", path);
        CHECK(remove(index) == 0);
    }
    CHECK(files() == 0);
}

static void piece_rules(void)
{
    st_tensor tensors[] = {tensor_of("x", ST_DTYPE_U8, six, 2, NULL), tensor_of("y", ST_DTYPE_U8, six, 2, NULL)};
    write_file(path, "older", 5);
    st_writer *writer = NULL;
    WORKS((writer = st_writer_open(path, tensors, 2, NULL, 0, NULL, error)) != NULL);
    WORKS(st_writer_write(writer, 1, 2, numbers + 2, 2, error) == ST_OK);
    const st_status bad = ST_ERROR_INVALID_ARGUMENT;
    REFUSES(bad, st_writer_write(writer, 2, 0, numbers, 1, error));
    REFUSES(bad, st_writer_write(writer, SIZE_MAX, 0, numbers, 1, error));
    REFUSES(bad, st_writer_write(writer, 1, 5, numbers, 2, error));
    REFUSES(bad, st_writer_write(writer, 1, 7, numbers, 0, error));
    REFUSES(bad, st_writer_write(writer, 1, UINT64_MAX, numbers, 2, error));
    REFUSES(bad, st_writer_write(writer, 1, 0, numbers, SIZE_MAX, error));
    REFUSES(bad, st_writer_write(writer, 1, 1, numbers, 2, error));
    REFUSES(bad, st_writer_write(writer, 1, 3, numbers, 1, error));
    REFUSES(bad, st_writer_write(writer, 1, 0, NULL, 1, error));
    WORKS(st_writer_write(writer, 1, 6, NULL, 0, error) == ST_OK);
    REFUSES(ST_ERROR_DATA_NOT_COVERED, st_writer_finish(writer, error));
    st_writer_free(writer);
    bytes file = bytes_of_file(path, 0);
    CHECK(file.size == 5 && memcmp(file.data, "older", 5) == 0 && files() == 1);
    free(file.data);

    // Two files on their way to one name: the later one stays.
    st_writer *first = st_writer_open(path, tensors, 2, NULL, 0, NULL, NULL);
    st_writer *second = st_writer_open(path, tensors, 1, NULL, 0, NULL, NULL);
    for (size_t i = 0; i < 2; i++) {
        WORKS(st_writer_write(first, i, 0, numbers, 6, error) == ST_OK);
    }
    WORKS(st_writer_write(second, 0, 0, numbers, 6, error) == ST_OK);
    WORKS(st_writer_finish(second, error) == ST_OK);
    WORKS(st_writer_finish(first, error) == ST_OK);
    st_writer_free(first);
    st_writer_free(second);
    size_t count = 0;
    st_checkpoint *c = st_open(path, NULL);
    st_tensors(c, &count);
    CHECK(count == 2 && files() == 1);
    st_free(c);

    // No file when the writer began, one when it ends.
    CHECK(remove(path) == 0);
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.overwrite = ST_OVERWRITE_REFUSE;
    st_error failure;
    writer = st_writer_open(path, tensors, 1, NULL, 0, &options, &failure);
    CHECK(writer != NULL && st_writer_write(writer, 0, 0, numbers, 6, &failure) == ST_OK);
    write_file(path, "newer", 5);
    CHECK(st_writer_finish(writer, &failure) == ST_ERROR_IO && failure.os_errno == EEXIST);
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_writer_write(writer, 0, 0, numbers, 6, error));
    REFUSES(ST_ERROR_INVALID_ARGUMENT, st_writer_finish(writer, error));
    st_writer_free(writer);
    file = bytes_of_file(path, 0);
    CHECK(file.size == 5 && memcmp(file.data, "newer", 5) == 0 && files() == 1);
    free(file.data);
    CHECK(remove(path) == 0);

    // No tensors at all.
    WORKS((writer = st_writer_open(path, NULL, 0, NULL, 0, NULL, error)) != NULL && st_writer_finish(writer, error) == ST_OK);
    st_writer_free(writer);
    CHECK(remove(path) == 0 && files() == 0);
}

static void metadata_edits(void)
{
    st_tensor tensor = tensor_of("x", ST_DTYPE_U8, six, 2, numbers);
    st_metadata entry = entry_of("key", "value");
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.header_reserve = 64;
    WORKS(st_save(path, &tensor, 1, NULL, 0, &options, error) == ST_OK);
    st_metadata_options edit = ST_METADATA_OPTIONS_INIT;
    edit.in_place = 1;
    WORKS(st_set_metadata(path, &entry, 1, &edit, error) == ST_OK);
    st_checkpoint *c = st_open(path, NULL);
    const st_tensor *x = st_find_tensor(c, "x");
    CHECK(strcmp(st_get_metadata(c, "key", NULL), "value") == 0);
    CHECK(x != NULL && memcmp(x->data, numbers, 6) == 0);
    st_free(c);
    st_metadata twice[] = {entry, entry};
    REFUSES(ST_ERROR_DUPLICATE_KEY, st_set_metadata(path, twice, 2, &edit, error));
    WORKS(st_set_metadata(path, NULL, 0, &edit, error) == ST_OK);
    c = st_open(path, NULL);
    CHECK(c != NULL && st_metadata_entries(c, NULL) == NULL);
    st_free(c);
    CHECK(remove(path) == 0);
    REFUSES(ST_ERROR_IO, st_set_metadata(path, NULL, 0, &edit, error));
    write_file(path, "no such format", 14);
    st_error failure;
    CHECK(st_set_metadata(path, NULL, 0, &edit, &failure) >= ST_ERROR_TRUNCATED && error_is(&failure, failure.code));
    CHECK(remove(path) == 0 && files() == 0);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: writing CORPUS SCRATCH\n");
        return 2;
    }
    snprintf(folder, sizeof folder, "%s/writing-%ld", argv[2], (long)getpid());
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (mkdir(folder, 0700) != 0) {
        perror(folder);
        return 2;
    }
    nulls();
    refusals();
    sizes();
    round_trip();
    pieces(0, 1);
    pieces(5 * EACH, 6);
    piece_rules();
    metadata_edits();
    CHECK(rmdir(folder) == 0);
    return check_result();
}
