// SPDX-License-Identifier: Apache-2.0
//
// A program of version 0.1: compiled with the header beside it, run with the
// library of today.

#include <safetensors.h>

#include <errno.h>
#include <string.h>

#include "../check.h"

static int released, waited;
static unsigned char staged[4096];
static const st_buffer arrived = {staged, sizeof staged};

static st_status read_at(void *user_data, uint64_t offset, void *dst, size_t len, size_t *done, st_error *error) {
    (void)error;
    memcpy(dst, (const char *)user_data + offset, len);
    *done = len;
    return ST_OK;
}

static void release(void *user_data) {
    (void)user_data;
    released++;
}

static st_status resolve(void *user_data, const char *name, st_io *out, st_error *error) {
    (void)error;
    CHECK(out->struct_size == sizeof *out && strcmp(name, "model.safetensors") == 0);
    *out = *(const st_io *)user_data;
    return ST_OK;
}

static void check_contents(st_checkpoint *checkpoint, int32_t access) {
    size_t tensors = 0, entries = 0, shards = 0, length = 0;
    const st_tensor *all = st_tensors(checkpoint, &tensors);
    const st_metadata *metadata = st_metadata_entries(checkpoint, &entries);
    const st_shard *shard = st_shards(checkpoint, &shards);
    CHECK(tensors == 1 && entries == 1 && shards == 1);
    CHECK(all == st_find_tensor(checkpoint, "x") && all == st_find_tensor_n(checkpoint, "x", 1));
    CHECK(strcmp(metadata->key, "key") == 0 && strcmp(st_get_metadata(checkpoint, "key", &length), "value") == 0);
    CHECK(length == metadata->value_len && length == 5);
    CHECK(shard->access == access && shard->size == file_size && shard->data_offset == DATA_OFFSET);

    st_error error;
    unsigned char copy[3];
    const st_tensor *x = st_get_tensor(checkpoint, "x", &error);
    CHECK(x != NULL && x == st_get_tensor_n(checkpoint, "x", 1, &error));
    CHECK(x->dtype == ST_DTYPE_U8 && x->rank == 1 && x->shape[0] == 3 && x->size == 3 && x->element_count == 3);
    CHECK(x->offset == DATA_OFFSET && strcmp(x->dtype_name, st_dtype_name(ST_DTYPE_U8)) == 0);
    CHECK(memcmp(x->data, file + DATA_OFFSET, 3) == 0);
    CHECK(st_read_tensor(checkpoint, x, copy, sizeof copy, &error) == ST_OK);
    CHECK(memcmp(copy, file + DATA_OFFSET, 3) == 0);
    CHECK(st_read_tensor(checkpoint, x, copy, 2, &error) == ST_ERROR_BUFFER_SIZE && error.code == ST_ERROR_BUFFER_SIZE);

    st_range range = ST_RANGE_ALL;
    int64_t shape = 0;
    uint64_t size = 0;
    range.start = -2;
    CHECK(st_slice_shape(x, &range, 1, &shape, &size, &error) == ST_OK && shape == 2 && size == 2);
    CHECK(st_read_slice(checkpoint, x, &range, 1, copy, sizeof copy, &error) == ST_OK);
    CHECK(memcmp(copy, file + DATA_OFFSET + 1, 2) == 0);
    CHECK(st_get_tensor(checkpoint, "y", &error) == NULL && error.code == ST_ERROR_NOT_FOUND);

    CHECK(st_retain(checkpoint) == checkpoint);
    st_free(checkpoint);
    CHECK(st_find_tensor(checkpoint, "x") == all);
    st_free(checkpoint);
}

static int32_t progress(void *user_data, uint64_t done, uint64_t total) {
    CHECK(done <= total && total == 3);
    ++*(int *)user_data;
    return 0;
}

static int32_t loading(void *user_data, uint64_t done, uint64_t total) {
    CHECK(done <= total && total == 14);
    ++*(int *)user_data;
    return 0;
}

static st_status chunk(void *user_data, size_t buffer, size_t item, uint64_t offset, size_t size, st_error *error) {
    (void)error;
    CHECK(buffer == 0 && item == 0 && offset == 0 && size == 3);
    memcpy(user_data, arrived.data, size);
    return ST_OK;
}

static st_status wait(void *user_data, size_t buffer, st_error *error) {
    (void)user_data, (void)error;
    CHECK(buffer == 0);
    waited++;
    return ST_OK;
}

// From the file at the path: whole and converted, every other element, and through a sink.
static void check_loading(const char *path) {
    st_error error;
    st_checkpoint *checkpoint = st_open(path, &error);
    const st_tensor *x = st_find_tensor(checkpoint, "x");
    CHECK(x != NULL && strcmp(st_shards(checkpoint, NULL)->path, path) == 0);
    CHECK(st_prefetch(checkpoint, &x, 1, &error) == ST_OK && st_prefetch(checkpoint, NULL, 0, &error) == ST_OK);

    static const float converted[] = {1.0f, 2.0f, 3.0f};
    float whole[3] = {0};
    unsigned char strided[5] = {9, 9, 9, 9, 9};
    static const unsigned char spread[] = {1, 9, 9, 3, 9};
    static const int64_t stride = 3;
    st_range odd = ST_RANGE_ALL;
    odd.step = 2;
    st_load_item all = ST_LOAD_ITEM_INIT, some = ST_LOAD_ITEM_INIT;
    all.tensor = some.tensor = x;
    all.dtype = ST_DTYPE_F32;
    all.dst = whole;
    all.dst_size = sizeof whole;
    some.ranges = &odd;
    some.range_count = 1;
    some.dst = strided;
    some.dst_size = sizeof strided;
    some.dst_strides = &stride;
    const st_load_item items[] = {all, some};

    int told = 0;
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.threads = 2;
    options.io = ST_IO_CACHED;
    options.staging_bytes = 1 << 20;
    options.drop_cache = 1;
    options.progress = loading;
    options.user_data = &told;
    st_plan plan;
    CHECK(st_load_plan(checkpoint, items, 2, &options, &plan, &error) == ST_OK);
    CHECK(plan.bytes == 14 && plan.read_bytes >= 3 && plan.requests >= 1 && plan.shards == 1);
    CHECK(plan.threads >= 1 && plan.threads <= 2 && plan.staging_bytes <= options.staging_bytes);
    CHECK(st_load(checkpoint, items, 2, &options, &error) == ST_OK && told > 0);
    CHECK(memcmp(whole, converted, sizeof whole) == 0 && memcmp(strided, spread, sizeof strided) == 0);

    unsigned char copy[3] = {0};
    st_load_item item = ST_LOAD_ITEM_INIT;
    st_sink sink = ST_SINK_INIT;
    item.tensor = x;
    sink.buffers = &arrived;
    sink.buffer_count = 1;
    sink.chunk = chunk;
    sink.wait = wait;
    sink.user_data = copy;
    st_load_options through = ST_LOAD_OPTIONS_INIT;
    through.sink = &sink;
    CHECK(st_load(checkpoint, &item, 1, &through, &error) == ST_OK && waited == 1);
    CHECK(memcmp(copy, file + DATA_OFFSET, 3) == 0);
    st_free(checkpoint);
}

static int32_t report(void *user_data, const st_problem *problem) {
    CHECK(problem->code == ST_ERROR_DATA_NOT_COVERED && problem->fatal == ST_FATAL_STRICT);
    CHECK(problem->position == file_size && problem->tensor == NULL && problem->tensor_len == 0);
    CHECK(strlen(problem->file) == problem->file_len && problem->text[0] != '\0');
    ++*(int *)user_data;
    return 0;
}

// A file with bytes behind its last tensor: one problem, which may be tolerated.
static void check_validation(const char *path) {
    FILE *out = fopen(path, "wb");
    CHECK(out != NULL && fwrite(file, 1, file_size, out) == file_size && fputc(0, out) == 0 && fclose(out) == 0);
    st_error error;
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    int problems = 0;
    CHECK(st_validate(path, &options, report, &problems, &error) == ST_ERROR_DATA_NOT_COVERED && problems == 1);
    CHECK(error.code == ST_ERROR_DATA_NOT_COVERED);
    options.tolerate = ST_TOLERATE_TRAILING_BYTES;
    CHECK(st_validate(path, &options, report, &problems, &error) == ST_OK && problems == 2);
    CHECK(remove(path) == 0);
}

// What is written is what was read, in memory, in a file, and in pieces.
static void check_writing(const char *path) {
    st_error error;
    st_open_options open = ST_OPEN_OPTIONS_INIT;
    open.access = ST_ACCESS_READ;
    st_checkpoint *checkpoint = st_open_memory(file, file_size, NULL, &error);
    size_t tensors = 0, entries = 0;
    const st_tensor *all = st_tensors(checkpoint, &tensors);
    const st_metadata *metadata = st_metadata_entries(checkpoint, &entries);

    int told = 0;
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.order = ST_ORDER_REFERENCE;
    options.sync = ST_SYNC_NONE;
    options.overwrite = ST_OVERWRITE_REPLACE;
    options.progress = progress;
    options.user_data = &told;
    options.source = checkpoint;
    st_buffer buffer = {NULL, 0};
    CHECK(st_serialize(all, tensors, metadata, entries, NULL, &buffer, &error) == ST_OK);
    st_checkpoint *again = st_open_memory(buffer.data, buffer.size, NULL, &error);
    const st_tensor *x = st_find_tensor(again, "x");
    CHECK(x != NULL && x->size == 3 && memcmp(x->data, file + DATA_OFFSET, 3) == 0);
    CHECK(strcmp(st_get_metadata(again, "key", NULL), "value") == 0);
    st_free(again);

    CHECK(st_save(path, all, tensors, metadata, entries, &options, &error) == ST_OK && told > 0);
    check_loading(path);
    again = st_open_with(path, &open, &error);
    x = st_get_tensor(again, "x", &error);
    CHECK(x != NULL && memcmp(x->data, file + DATA_OFFSET, 3) == 0 && st_shards(again, NULL)->size == buffer.size);
    st_free(again);
    st_buffer_free(&buffer);
    CHECK(buffer.data == NULL && buffer.size == 0);
    options.overwrite = ST_OVERWRITE_REFUSE;
    CHECK(st_save(path, all, tensors, NULL, 0, &options, &error) == ST_ERROR_IO && error.os_errno == EEXIST);

    st_writer *writer = st_writer_open(path, all, tensors, NULL, 0, NULL, &error);
    CHECK(writer != NULL && st_writer_write(writer, 0, 1, file + DATA_OFFSET + 1, 2, &error) == ST_OK);
    CHECK(st_writer_finish(writer, &error) == ST_ERROR_DATA_NOT_COVERED);
    CHECK(st_writer_write(writer, 0, 0, file + DATA_OFFSET, 1, &error) == ST_OK);
    CHECK(st_writer_finish(writer, &error) == ST_OK);
    st_writer_free(writer);
    again = st_open_with(path, &open, &error);
    x = st_get_tensor(again, "x", &error);
    CHECK(x != NULL && memcmp(x->data, file + DATA_OFFSET, 3) == 0 && st_metadata_entries(again, NULL) == NULL);
    st_free(again);

    // Where blocks can't be shared, the header has no room for it.
    st_metadata_options edit = ST_METADATA_OPTIONS_INIT;
    edit.in_place = 1;
    edit.sync = ST_SYNC_NONE;
    st_status edited = st_set_metadata(path, metadata, entries, &edit, &error);
    CHECK(edited == ST_OK || (edited == ST_ERROR_BUFFER_SIZE && error.code == edited));
    CHECK(remove(path) == 0);
    st_free(checkpoint);
}

static void check_conversion(void) {
    static const float from[] = {1.0f, -2.5f, 1.00390625f};
    static const uint16_t to[] = {0x3F80, 0xC020, 0x3F80};
    uint16_t got[3];
    st_error error;
    CHECK(st_convert(ST_DTYPE_F32, from, ST_DTYPE_BF16, got, 3, &error) == ST_OK && memcmp(got, to, sizeof to) == 0);
    CHECK(st_convert(ST_DTYPE_F32, from, ST_DTYPE_I8, got, 3, &error) == ST_ERROR_UNSUPPORTED);
}

int main(int argc, char **argv) {
    CHECK(argc == 2); // a path to write to
    CHECK(st_abi_version() == SAFETENSORS_ABI_VERSION && st_version()[0] != '\0');
    CHECK(st_dtype_from_name("BF16") == ST_DTYPE_BF16 && st_dtype_bits(ST_DTYPE_BF16) == 16);
    CHECK(strcmp(st_status_name(ST_ERROR_SHARD), "ST_ERROR_SHARD") == 0);

    st_error error;
    CHECK(st_open("/no/such/file.safetensors", &error) == NULL && error.code == ST_ERROR_IO && error.os_errno != 0);

    st_open_options options = ST_OPEN_OPTIONS_INIT;
    CHECK(st_open_with("/no/such/file.safetensors", &options, NULL) == NULL);
    check_contents(st_open_memory(file, file_size, &options, &error), ST_ACCESS_MEMORY);

    st_io io = ST_IO_INIT;
    io.size = file_size;
    io.read_at = read_at;
    io.release = release;
    io.user_data = (void *)(uintptr_t)file;
    check_contents(st_open_io(&io, NULL, &error), ST_ACCESS_CALLBACK);
    CHECK(released == 1);

    st_resolver resolver = ST_RESOLVER_INIT;
    resolver.open = resolve;
    resolver.release = release;
    resolver.user_data = &io;
    check_contents(st_open_resolved(&resolver, "model.safetensors", NULL, &error), ST_ACCESS_CALLBACK);
    CHECK(released == 3);

    check_writing(argv[1]);
    check_validation(argv[1]);
    check_conversion();
    return 0;
}
