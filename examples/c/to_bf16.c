// SPDX-License-Identifier: Apache-2.0
//
// to_bf16: converts a checkpoint's floating-point tensors to BF16.
//
//     to_bf16 INPUT OUTPUT.safetensors [--max-shard-size BYTES[K|M|G]]
//
// INPUT is a .safetensors file, a .safetensors.index.json, or a folder that
// holds either. Integers, BOOL, C64 and BF16 stay as they are, and so does the
// metadata. With --max-shard-size the result becomes several files and an index
// where one of that many bytes is not enough (K is 1024 bytes, and so on).
//
// The output appears whole or not at all, and may be the input itself: it gets
// its name when all has been written.

#define _POSIX_C_SOURCE 200809L                    // for isatty

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <safetensors.h>

// What the library reads and converts at once, on several threads, before it is written.
enum { BUFFERS = 2, BUFFER_SIZE = 4 << 20 };

typedef struct {
    const st_checkpoint *from;
    st_writer *to;
    st_buffer buffers[BUFFERS];
    int percent;                                   // shown last; -1: no bar
} conversion;

// --------------------------------------------------------------- what people see

static int32_t show_progress(void *given, uint64_t done, uint64_t total) {
    conversion *job = given;
    int percent = total == 0 ? 100 : (int)((double)done / (double)total * 100);
    if (job->percent < 0 || job->percent == percent)
        return 0;
    job->percent = percent;
    fprintf(stderr, "\r[%-50.*s] %3d %%", percent / 2,
            "##################################################", percent);
    return 0;
}

static void end_progress(const conversion *job) {
    if (job->percent > 0)
        fputc('\n', stderr);
}

// An error of ours, in the form that the library's have.
static bool out_of_memory(st_error *error, uint64_t bytes) {
    error->code = ST_ERROR_OUT_OF_MEMORY;
    error->os_errno = 0;
    snprintf(error->message, sizeof error->message, "no memory for %" PRIu64 " bytes", bytes);
    return false;
}

// ------------------------------------------------------------------ one tensor

static bool is_converted(int32_t dtype) {
    switch (dtype) {
    case ST_DTYPE_F64:
    case ST_DTYPE_F32:
    case ST_DTYPE_F16:
    case ST_DTYPE_F8_E5M2:
    case ST_DTYPE_F8_E4M3:
    case ST_DTYPE_F8_E8M0:
    case ST_DTYPE_F8_E4M3FNUZ:
    case ST_DTYPE_F8_E5M2FNUZ:
    case ST_DTYPE_F6_E2M3:
    case ST_DTYPE_F6_E3M2:
    case ST_DTYPE_F4:
        return true;
    default:
        return false;
    }
}

// st_sink.pieces: writes what the library has read and converted.
static st_status write_pieces(void *given, size_t buffer, const st_piece *pieces, size_t count,
                              st_error *error) {
    conversion *job = given;
    const char *bytes = job->buffers[buffer].data;
    for (size_t i = 0; i < count; i++) {
        st_status status = st_writer_write(job->to, pieces[i].item, pieces[i].item_offset,
                                           bytes + pieces[i].buffer_offset, pieces[i].size, error);
        if (status != ST_OK)
            return status;
    }
    return ST_OK;
}

// Memory for the buffers is all that this takes, however large the tensors are.
static bool write_tensors(conversion *job, st_error *error) {
    size_t count;
    const st_tensor *tensors = st_tensors(job->from, &count);
    st_load_item *items = calloc(count + 1, sizeof *items);
    bool good = items != NULL;
    for (size_t i = 0; i < BUFFERS && good; i++) {
        job->buffers[i].size = BUFFER_SIZE;
        good = (job->buffers[i].data = malloc(BUFFER_SIZE)) != NULL;
    }
    if (!good) {
        out_of_memory(error, (count + 1) * sizeof *items + BUFFERS * (size_t)BUFFER_SIZE);
    } else {
        for (size_t i = 0; i < count; i++) {
            items[i].tensor = &tensors[i];
            items[i].dtype = is_converted(tensors[i].dtype) ? ST_DTYPE_BF16 : ST_DTYPE_AS_STORED;
        }
        st_sink sink = ST_SINK_INIT;
        sink.buffers = job->buffers;
        sink.buffer_count = BUFFERS;
        sink.pieces = write_pieces;
        sink.user_data = job;
        st_load_options options = ST_LOAD_OPTIONS_INIT;
        options.sink = &sink;
        options.progress = show_progress;
        options.user_data = job;
        good = st_load(job->from, items, count, &options, error) == ST_OK;
    }
    for (size_t i = 0; i < BUFFERS; i++)
        free(job->buffers[i].data);
    free(items);
    return good;
}

// --------------------------------------------------------------- the checkpoint

// Opens the output: the same names and shapes, and the new dtypes.
static st_writer *open_output(const char *path, const st_checkpoint *from,
                              const st_save_options *options, st_error *error) {
    size_t count, entry_count, kept = 0;
    const st_tensor *tensors = st_tensors(from, &count);
    const st_metadata *entries = st_metadata_entries(from, &entry_count);
    st_tensor *wanted = calloc(count + 1, sizeof *wanted);
    st_metadata *metadata = calloc(entry_count + 1, sizeof *metadata);
    st_writer *writer = NULL;
    if (wanted == NULL || metadata == NULL) {
        out_of_memory(error, (count + 1) * sizeof *wanted + (entry_count + 1) * sizeof *metadata);
        goto end;
    }
    for (size_t i = 0; i < count; i++) {
        wanted[i] = tensors[i];
        if (is_converted(tensors[i].dtype)) {
            wanted[i].dtype = ST_DTYPE_BF16;
            wanted[i].size = 0;                    // what dtype and shape take
        }
    }
    // total_size is an index's: no longer true, and the writer says it anew.
    for (size_t i = 0; i < entry_count; i++) {
        if (strcmp(entries[i].key, "total_size") != 0)
            metadata[kept++] = entries[i];
    }
    // No metadata is not the same as metadata without entries: NULL.
    bool any = kept > 0 || (entries != NULL && entry_count == 0);
    writer = st_writer_open(path, wanted, count, any ? metadata : NULL, kept, options, error);
end:
    free(metadata);
    free(wanted);
    return writer;
}

static bool convert(conversion *job, const char *output, const st_save_options *options,
                    st_error *error) {
    job->to = open_output(output, job->from, options, error);
    bool good = job->to != NULL && write_tensors(job, error);
    end_progress(job);
    good = good && st_writer_finish(job->to, error) == ST_OK;
    st_writer_free(job->to);                       // unfinished, it leaves nothing behind
    return good;
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
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    const char *paths[2] = {NULL, NULL};
    int path_count = 0;
    bool usage = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--max-shard-size") == 0) {
            options.max_shard_size = i + 1 < argc ? parse_size(argv[++i]) : 0;
            usage = usage || options.max_shard_size == 0;
        } else if (path_count == 2 || strncmp(argv[i], "--", 2) == 0) {
            usage = true;
        } else {
            paths[path_count++] = argv[i];
        }
    }
    if (path_count < 2 || usage) {
        fputs("usage: to_bf16 INPUT OUTPUT.safetensors [--max-shard-size BYTES[K|M|G]]\n", stderr);
        return 2;
    }

    st_error error;
    st_checkpoint *checkpoint = st_open(paths[0], &error);
    bool good = checkpoint != NULL;
    if (good) {
        conversion job = {.from = checkpoint, .percent = isatty(STDERR_FILENO) ? 0 : -1};
        size_t count, converted = 0;
        const st_tensor *tensors = st_tensors(checkpoint, &count);
        for (size_t i = 0; i < count; i++)
            converted += is_converted(tensors[i].dtype);
        good = convert(&job, paths[1], &options, &error);
        st_free(checkpoint);
        if (good)
            printf("converted %zu of %zu tensors\n", converted, count);
    }
    if (!good)
        fprintf(stderr, "to_bf16: %s: %s\n", st_status_name(error.code), error.message);
    return good ? 0 : 1;
}
