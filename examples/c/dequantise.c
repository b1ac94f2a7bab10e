// SPDX-License-Identifier: Apache-2.0
//
// dequantise: writes a quantised checkpoint with plain weights.
//
//     dequantise INPUT OUTPUT.safetensors [--f16 | --f32] [--max-shard-size BYTES[K|M|G]]
//
// INPUT is a .safetensors file, a .safetensors.index.json, or a folder that
// holds either, with its config.json beside it. Every quantised group becomes
// one tensor of BF16 (or F16, or F32); what belongs to no group stays as it is.
// A group that can't be decoded is an error, and nothing is written.
//
// Results stream from the reading threads through two buffers into the output:
// memory does not grow with the model. The output appears whole or not at all.

#define _POSIX_C_SOURCE 200809L                    // for isatty

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <safetensors_model.h>

enum { BUFFERS = 2, BUFFER_SIZE = 4 << 20 };

typedef struct {
    st_writer *to;
    void *buffers[BUFFERS];
    int percent;                                   // shown last; -1: no bar
} conversion;

// One result to come: what is loaded, and what it is called.
typedef struct {
    st_load_item *items;
    st_tensor *tensors;
    size_t count;
} plan;

// An error of ours, in the form that the library's have.
static bool fail(st_error *error, st_status code, const char *message) {
    error->code = code;
    error->os_errno = 0;
    snprintf(error->message, sizeof error->message, "%s", message);
    return false;
}

// ------------------------------------------------------------------ as it loads

static int32_t show_progress(void *user_data, uint64_t done, uint64_t total) {
    conversion *job = user_data;
    int percent = total == 0 ? 100 : (int)((double)done / (double)total * 100);
    if (job->percent >= 0 && job->percent != percent) {
        job->percent = percent;
        fprintf(stderr, "\r[%-50.*s] %3d %%", percent / 2,
                "##################################################", percent);
    }
    return 0;
}

// Item i of the load is tensor i of the output.
static st_status write_chunk(void *user_data, size_t buffer, size_t item, uint64_t item_offset,
                             size_t size, st_error *error) {
    conversion *job = user_data;
    return st_writer_write(job->to, item, item_offset, job->buffers[buffer], size, error);
}

// --------------------------------------------------------------------- the plan

static bool make_plan(plan *all, const st_groups *groups, int32_t dtype, st_error *error) {
    size_t group_count, plain_count;
    const st_group *list = st_groups_list(groups, &group_count);
    const st_tensor *const *plain = st_groups_plain(groups, &plain_count);
    all->items = calloc(group_count + plain_count + 1, sizeof *all->items);
    all->tensors = calloc(group_count + plain_count + 1, sizeof *all->tensors);
    if (all->items == NULL || all->tensors == NULL)
        return fail(error, ST_ERROR_OUT_OF_MEMORY, "no memory for the list of tensors");
    for (size_t i = 0; i < group_count; i++) {
        const st_group *group = &list[i];
        if (group->status != ST_OK) {
            snprintf(error->message, sizeof error->message, "%s: %s", group->name, group->problem);
            error->code = group->status;
            return false;
        }
        all->items[all->count].group = group;
        all->items[all->count].dtype = dtype;
        all->tensors[all->count++] = (st_tensor){.name = group->name,
                                                 .name_len = group->name_len,
                                                 .dtype = dtype,
                                                 .rank = group->rank,
                                                 .shape = group->shape};
    }
    for (size_t i = 0; i < plain_count; i++) {
        all->items[all->count].tensor = plain[i];
        all->tensors[all->count++] = *plain[i];
    }
    return true;
}

static bool convert(conversion *job, const st_checkpoint *from, const plan *all, const char *output,
                    const st_save_options *save, st_error *error) {
    st_buffer buffers[BUFFERS];
    for (size_t i = 0; i < BUFFERS; i++) {
        job->buffers[i] = malloc(BUFFER_SIZE);
        buffers[i] = (st_buffer){.data = job->buffers[i], .size = BUFFER_SIZE};
        if (job->buffers[i] == NULL)
            return fail(error, ST_ERROR_OUT_OF_MEMORY, "no memory for buffers");
    }
    size_t entry_count;
    const st_metadata *entries = st_metadata_entries(from, &entry_count);
    job->to = st_writer_open(output, all->tensors, all->count, entries, entry_count, save, error);
    if (job->to == NULL)
        return false;
    st_sink sink = ST_SINK_INIT;
    sink.buffers = buffers;
    sink.buffer_count = BUFFERS;
    sink.chunk = write_chunk;
    sink.user_data = job;
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.sink = &sink;
    options.progress = show_progress;
    options.user_data = job;
    bool good = st_load(from, all->items, all->count, &options, error) == ST_OK;
    if (job->percent > 0)
        fputc('\n', stderr);
    return good && st_writer_finish(job->to, error) == ST_OK;
}

// ---------------------------------------------------------------- the arguments

// "4096", "512M": bytes, or 0 where it is no such thing.
static uint64_t parse_size(const char *text) {
    uint64_t value = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (value > (UINT64_MAX - 9) / 10)
            return 0;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    unsigned shift = *text == 'K' ? 10 : *text == 'M' ? 20 : *text == 'G' ? 30 : 0;
    if (text[shift != 0] != '\0' || value > UINT64_MAX >> shift)
        return 0;
    return value << shift;
}

int main(int argc, char **argv) {
    st_save_options save = ST_SAVE_OPTIONS_INIT;
    int32_t dtype = ST_DTYPE_BF16;
    const char *paths[2] = {NULL, NULL};
    int path_count = 0;
    bool usage = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--max-shard-size") == 0) {
            save.max_shard_size = i + 1 < argc ? parse_size(argv[++i]) : 0;
            usage = usage || save.max_shard_size == 0;
        } else if (strcmp(argv[i], "--f16") == 0) {
            dtype = ST_DTYPE_F16;
        } else if (strcmp(argv[i], "--f32") == 0) {
            dtype = ST_DTYPE_F32;
        } else if (path_count == 2 || strncmp(argv[i], "--", 2) == 0) {
            usage = true;
        } else {
            paths[path_count++] = argv[i];
        }
    }
    if (path_count < 2 || usage) {
        fputs("usage: dequantise INPUT OUTPUT.safetensors [--f16 | --f32]"
              " [--max-shard-size BYTES[K|M|G]]\n", stderr);
        return 2;
    }

    st_error error;
    conversion job = {.percent = isatty(STDERR_FILENO) ? 0 : -1};
    plan all = {NULL, NULL, 0};
    st_checkpoint *checkpoint = st_open(paths[0], &error);
    st_groups *groups = checkpoint ? st_groups_open(checkpoint, NULL, &error) : NULL;
    bool good = groups != NULL && make_plan(&all, groups, dtype, &error) &&
                convert(&job, checkpoint, &all, paths[1], &save, &error);
    if (good) {
        size_t group_count;
        st_groups_list(groups, &group_count);
        printf("decoded %zu groups, kept %zu tensors\n", group_count, all.count - group_count);
    } else {
        fprintf(stderr, "dequantise: %s: %s\n", st_status_name(error.code), error.message);
    }
    st_writer_free(job.to);                        // unfinished, it leaves nothing behind
    for (size_t i = 0; i < BUFFERS; i++)
        free(job.buffers[i]);
    free(all.items);
    free(all.tensors);
    st_groups_free(groups);
    st_free(checkpoint);
    return good ? 0 : 1;
}
