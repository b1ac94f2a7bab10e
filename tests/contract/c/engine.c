// SPDX-License-Identifier: Apache-2.0
// A checkpoint as an inference engine uses it: walk all records, find each by
// name, then fetch the bytes three ways: from the record, through the library,
// and with I/O of its own by shard path, offset and size.

#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

enum { SHARDS = 3, TENSORS = 4, EACH = 1000 };

// Shards with the tensors t0 to t3 each; the index maps one in turn, t3 to the last.
static void write_model(const char *folder)
{
    char path[4096], index[2048] = "{\"metadata\":{\"total_size\":4000},\"weight_map\":{";
    bytes file = file_of(TENSORS, EACH);
    for (int i = 0; i < SHARDS; i++) {
        snprintf(path, sizeof path, "%s/model-%d.safetensors", folder, i);
        write_file(path, file.data, file.size);
    }
    for (int i = 0; i < TENSORS; i++) {
        size_t at = strlen(index);
        int shard = i < SHARDS ? i : SHARDS - 1;
        snprintf(index + at, sizeof index - at, "%s\"t%d\":\"model-%d.safetensors\"", i != 0 ? "," : "", i, shard);
    }
    strcat(index, "}}");
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    write_file(path, index, strlen(index));
    free(file.data);
}

static void remove_model(const char *folder)
{
    char path[4096];
    for (int i = 0; i < SHARDS; i++) {
        snprintf(path, sizeof path, "%s/model-%d.safetensors", folder, i);
        remove(path);
    }
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    remove(path);
    rmdir(folder);
}

static void load(const char *folder, int32_t access)
{
    st_error error;
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    options.access = access;
    options.prefetch = ST_PREFETCH_ADVISE;
    st_checkpoint *model = st_open_with(folder, &options, &error);
    if (!CHECK(model != NULL)) {
        fprintf(stderr, "%s\n", error.message);
        return;
    }
    size_t count, shard_count, length;
    const st_tensor *tensors = st_tensors(model, &count);
    const st_shard *shards = st_shards(model, &shard_count);
    CHECK(count == TENSORS && shard_count == SHARDS);
    const char *total = st_get_metadata(model, "total_size", &length);
    CHECK(total != NULL && strcmp(total, "4000") == 0 && length == 4);
    unsigned char *arena = malloc(TENSORS * EACH);
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const st_tensor *tensor = &tensors[i];
        const st_shard *shard = &shards[tensor->shard];
        CHECK(st_find_tensor(model, tensor->name) == tensor && st_find_tensor_n(model, tensor->name, tensor->name_len) == tensor);
        CHECK(tensor->dtype == ST_DTYPE_U8 && tensor->rank == 1 && tensor->shape[0] == EACH && tensor->size == EACH);
        CHECK(strlen(shard->path) == shard->path_len && strncmp(shard->path, folder, strlen(folder)) == 0);
        CHECK(tensor->offset >= shard->data_offset && tensor->offset + tensor->size <= shard->data_offset + shard->data_size);
        CHECK(shard->data_offset + shard->data_size == shard->size && shard->reserved0 == 0 && shard->reserved[0] == 0);
        CHECK(access == ST_ACCESS_AUTO || shard->access == access);

        // A window of the engine's own buffer, then its own read of the file.
        CHECK(st_read_tensor(model, tensor, arena + used, TENSORS * EACH - used, &error) == ST_OK);
        FILE *file = fopen(shard->path, "rb");
        unsigned char own[EACH];
        if (CHECK(file != NULL)) {
            CHECK(fseek(file, (long)tensor->offset, SEEK_SET) == 0 && fread(own, 1, EACH, file) == EACH);
            CHECK(memcmp(own, arena + used, EACH) == 0);
            fclose(file);
        }
        const st_tensor *loaded = st_get_tensor(model, tensor->name, &error);
        CHECK(loaded != NULL && memcmp(loaded->data, own, EACH) == 0 && loaded->size == EACH);
        used += (size_t)tensor->size;
    }
    free(arena);
    st_free(model);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: engine CORPUS SCRATCH\n");
        return 2;
    }
    char folder[3000];
    snprintf(folder, sizeof folder, "%s/engine-%ld", argv[2], (long)getpid());
    mkdir(folder, 0700);
    write_model(folder);
    load(folder, ST_ACCESS_AUTO);
    load(folder, ST_ACCESS_MAP);
    load(folder, ST_ACCESS_READ);
    remove_model(folder);
    return check_result();
}
