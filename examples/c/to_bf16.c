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

// Elements converted at once: 4 MiB of BF16. A multiple of 8, so that a piece
// of any dtype, be its elements of 4 or 6 bits, begins and ends with a byte.
enum { PIECE = 2 << 20 };

typedef struct {
    const st_checkpoint *from;
    st_writer *to;
    void *piece;                                   // PIECE elements of BF16
    uint64_t done, total;                          // bytes of the input
    int percent;                                   // shown last; -1: no bar
} conversion;

// --------------------------------------------------------------- what people see

static void show_progress(conversion *job) {
    int percent = job->total == 0 ? 100 : (int)((double)job->done / (double)job->total * 100);
    if (job->percent < 0 || job->percent == percent)
        return;
    job->percent = percent;
    fprintf(stderr, "\r[%-50.*s] %3d %%", percent / 2,
            "##################################################", percent);
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

// Converts and writes a tensor, piece by piece.
static bool write_pieces(conversion *job, const st_tensor *tensor, const void *data, size_t number,
                         st_error *error) {
    const unsigned char *bytes = data;
    const bool converted = is_converted(tensor->dtype);
    const uint64_t bits = st_dtype_bits(tensor->dtype);
    uint64_t written = 0;
    for (uint64_t at = 0; at < tensor->element_count; at += PIECE) {
        uint64_t left = tensor->element_count - at;
        size_t elements = left < PIECE ? (size_t)left : PIECE;
        // Within a piece bits can be counted; a whole tensor's might not fit
        // into 64 bits, but at is a multiple of 8.
        size_t size = (size_t)(elements * bits / 8);
        const void *piece = bytes + at / 8 * bits;
        job->done += size;
        if (converted) {
            if (st_convert(tensor->dtype, piece, ST_DTYPE_BF16, job->piece, elements, error))
                return false;
            piece = job->piece;
            size = elements * 2;
        }
        if (st_writer_write(job->to, number, written, piece, size, error))
            return false;
        written += size;
        show_progress(job);
    }
    return true;
}

// A mapped tensor's bytes are in memory as they are touched, and the system
// takes them away again when it needs the room. On file systems where nothing
// is mapped, data is NULL and the tensor is read whole: then the largest one
// says how much memory this takes. (st_get_tensor would keep each of them.)
static bool write_tensor(conversion *job, const st_tensor *tensor, size_t number, st_error *error) {
    if (tensor->data != NULL || tensor->size == 0)
        return write_pieces(job, tensor, tensor->data, number, error);
    void *whole = tensor->size <= SIZE_MAX ? malloc((size_t)tensor->size) : NULL;
    if (whole == NULL)
        return out_of_memory(error, tensor->size);
    bool good = st_read_tensor(job->from, tensor, whole, (size_t)tensor->size, error) == ST_OK &&
                write_pieces(job, tensor, whole, number, error);
    free(whole);
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
    size_t count;
    const st_tensor *tensors = st_tensors(job->from, &count);
    job->piece = malloc((size_t)PIECE * 2);
    if (job->piece == NULL)
        return out_of_memory(error, (uint64_t)PIECE * 2);
    job->to = open_output(output, job->from, options, error);
    bool good = job->to != NULL;
    for (size_t i = 0; good && i < count; i++)
        good = write_tensor(job, &tensors[i], i, error);
    end_progress(job);
    good = good && st_writer_finish(job->to, error) == ST_OK;
    st_writer_free(job->to);                       // unfinished, it leaves nothing behind
    free(job->piece);
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
        for (size_t i = 0; i < count; i++) {
            job.total += tensors[i].size;
            converted += is_converted(tensors[i].dtype);
        }
        good = convert(&job, paths[1], &options, &error);
        st_free(checkpoint);
        if (good)
            printf("converted %zu of %zu tensors\n", converted, count);
    }
    if (!good)
        fprintf(stderr, "to_bf16: %s: %s\n", st_status_name(error.code), error.message);
    return good ? 0 : 1;
}
