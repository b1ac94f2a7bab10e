// SPDX-License-Identifier: Apache-2.0
//
// A program of version 0.2: compiled with the headers beside it, run with the
// library of today. It calls every function that is new in 0.2.

#include <safetensors_model.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../check.h"

static void check_rank_plans(const st_checkpoint *checkpoint)
{
    static const char rules[] = "{\"format\":1,\"rules\":[{\"match\":\"x\",\"axis\":\"tp\",\"cut\":0}]}";
    st_error error;
    size_t count = 7;
    CHECK(st_rank_plan_builtin("no such model", &count) == NULL && count == 0);

    const st_text text = {rules, sizeof rules - 1};
    st_rank_plan_options options = ST_RANK_PLAN_OPTIONS_INIT;
    options.plans = &text;
    options.plan_count = 1;
    st_rank_plan *plan = st_rank_plan_open(checkpoint, &options, &error);
    const st_axis axes[1] = {{"tp", 2, 3, {0, 0}}};
    const st_part *parts = st_rank_plan_parts(plan, axes, 1, &count, &error);
    CHECK(parts != NULL && count == 1 && parts->tensor == st_find_tensor(checkpoint, "x") && parts->group == NULL);
    CHECK(parts->rank == 1 && parts->shape[0] == 1 && parts->size == 1 && parts->read_size == 1);
    CHECK(parts->interval_counts[0] == 1 && parts->intervals[0]->start == 2 && parts->intervals[0]->stop == 3);
    CHECK(parts->intervals[0]->zeros == 0 && parts->intervals[0]->skip == 0);
    st_rank_plan_free(plan);
}

static st_status halve(void *user_data, size_t item, uint64_t element, size_t count, const void *src, void *dst,
                       st_error *error)
{
    (void)user_data, (void)item, (void)element, (void)error;
    for (size_t i = 0; i < count; i++)
        ((unsigned char *)dst)[i] = (unsigned char)(((const unsigned char *)src)[i] / 2);
    return ST_OK;
}

static void note(void *user_data, size_t item)
{
    *(size_t *)user_data += 1 + item;
}

static st_status pieces(void *user_data, size_t buffer, const st_piece *all, size_t count, st_error *error)
{
    (void)buffer, (void)error;
    CHECK(count == 1 && all[0].item == 0 && all[0].item_offset == 0 && all[0].buffer_offset == 0);
    *(size_t *)user_data += all[0].size;
    return ST_OK;
}

static void check_loading(const st_checkpoint *checkpoint)
{
    static unsigned char room[4096];
    st_error error;
    const int64_t shape[1] = {-1};
    const st_tensor *x = st_require(checkpoint, "x", ST_DTYPE_AS_STORED, shape, 1, &error);
    CHECK(x != NULL && x == st_find_tensor(checkpoint, "x"));
    CHECK(st_require(checkpoint, "x", ST_DTYPE_F64, NULL, SIZE_MAX, &error) == NULL);
    CHECK(error.code == ST_ERROR_DTYPE && strstr(error.message, "expected F64 any, found ") != NULL);
    CHECK(st_can_convert(ST_DTYPE_BF16, ST_DTYPE_F32) == 1 && st_can_convert(ST_DTYPE_F32, ST_DTYPE_I8) == 0);

    st_transform transform = ST_TRANSFORM_INIT;
    transform.unit = transform.unit_size = 1;
    transform.run = halve;
    st_load_item item = ST_LOAD_ITEM_INIT;
    item.tensor = x;
    item.transform = &transform;
    uint64_t size = 0, total = 0;
    CHECK(st_load_size(&item, &size, &error) == ST_OK && size == x->size);
    CHECK(st_arrange(&item, 1, NULL, 0, 0, &total, &error) == ST_OK && total == x->offset % 64 + size);
    CHECK(st_arrange(&item, 1, room, sizeof room, 16, &total, &error) == ST_OK);
    CHECK((uintptr_t)item.dst % 16 == 0 && item.dst_size == size);

    st_load_options options = ST_LOAD_OPTIONS_INIT;
    const int32_t cancel = 0;
    size_t done = 0;
    options.io = ST_IO_MAPPED;
    options.item_done = note;
    options.user_data = &done;
    options.cancel = &cancel;
    options.max_gap = 1;
    CHECK(st_load(checkpoint, &item, 1, &options, &error) == ST_OK && done == 1);
    CHECK(*(unsigned char *)item.dst == *(const unsigned char *)x->data / 2);

    const st_buffer buffer = {room, sizeof room};
    st_sink sink = ST_SINK_INIT;
    sink.buffers = &buffer;
    sink.buffer_count = 1;
    sink.pieces = pieces;
    done = 0;
    sink.user_data = &done;
    options.sink = &sink;
    CHECK(st_load(checkpoint, &item, 1, &options, &error) == ST_ERROR_INVALID_ARGUMENT && done == 0);
    item.dst = NULL; // the sink's buffer lay over it
    CHECK(st_load(checkpoint, &item, 1, &options, &error) == ST_OK && done == size);
    CHECK(st_evict(checkpoint, &x, 1, &error) == ST_OK);
}

static void check_opening(const char *path)
{
    st_error error;
    FILE *out = fopen(path, "wb");
    CHECK(out != NULL && fwrite(file, 1, file_size, out) == file_size && fclose(out) == 0);
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    options.variant = "fp16";
    options.max_set_bytes = 1000;
    st_checkpoint *files = st_open_files(&path, 1, &options, &error);
    CHECK(files != NULL);
    st_free(files);
    int fd = open(path, O_RDONLY);
    st_checkpoint *part = st_open_fd(fd, 0, file_size, &options, &error);
    CHECK(fd >= 0 && part != NULL && close(fd) == 0);
    st_free(part);
    CHECK(remove(path) == 0);
}

static void check_groups(const st_checkpoint *checkpoint)
{
    st_error error;
    size_t count = 7;
    st_groups_options options = ST_GROUPS_OPTIONS_INIT;
    options.ignore_config = 1;
    st_groups *groups = st_groups_open(checkpoint, &options, &error);
    CHECK(groups != NULL);
    CHECK(st_groups_list(groups, &count) != NULL && count == 0);
    CHECK(st_groups_plain(groups, &count) != NULL && count == 1);
    CHECK(st_find_group(groups, "x") == NULL);
    count = 0;
    CHECK(st_group_parts(groups, NULL, NULL, 0, NULL, &count, &error) == ST_ERROR_INVALID_ARGUMENT);
    st_groups_free(groups);
}

static st_status take(void *user_data, const void *data, size_t size, st_error *error)
{
    (void)error;
    CHECK(data != NULL);
    *(size_t *)user_data += size;
    return ST_OK;
}

static void check_saving(const st_checkpoint *checkpoint)
{
    size_t count = 0, taken = 0, entries = 0;
    const st_tensor *tensors = st_tensors(checkpoint, &count);
    const st_metadata *metadata = st_metadata_entries(checkpoint, &entries);
    st_output output = ST_OUTPUT_INIT;
    output.write = take;
    output.user_data = &taken;
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.sources = &checkpoint;
    options.source_count = 1;
    CHECK(st_save_to(&output, tensors, count, metadata, entries, &options, NULL) == ST_OK);
    CHECK(taken == (DATA_OFFSET + 7) / 8 * 8 + 3);
}

int main(int argc, char **argv)
{
    st_checkpoint *checkpoint = st_open_memory(file, file_size, NULL, NULL);
    CHECK(checkpoint != NULL && argc > 1);
    check_opening(argv[1]);
    check_loading(checkpoint);
    check_rank_plans(checkpoint);
    check_groups(checkpoint);
    check_saving(checkpoint);
    st_free(checkpoint);
    return 0;
}
