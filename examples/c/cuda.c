// SPDX-License-Identifier: Apache-2.0
//
// cuda: loads a model into the memory of an NVIDIA GPU.
//
//     cuda MODEL [--decode] [--to DTYPE] [--mapped] [--threads N] [--buffers N]
//          [--buffer-mb N] [--rounds N] [--check]
//
// MODEL is a .safetensors file, a .safetensors.index.json, or a folder that
// holds either. The library fills page-locked buffers, many tensors in one, and
// while the GPU's copy engine takes them over, it fills the next. With --decode
// quantised groups arrive decoded to BF16, with --to tensors that can be converted
// arrive as DTYPE (F32, F16 or BF16). --mapped copies out of the mapping, which is
// fastest where the files are in the page cache already. --rounds loads N times and shows the median
// beside the same number of bytes copied from page-locked memory, which nothing
// can outdo. --check copies everything back and compares it with a load into
// plain memory.
//
// The driver is opened as the program runs, so building needs no CUDA toolkit.

#define _POSIX_C_SOURCE 200809L                    // for clock_gettime

#include <dlfcn.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <safetensors_model.h>

enum { MOST_BUFFERS = 64, ALIGNMENT = 256 };

// ------------------------------------------------------------------- the driver

// What is used of the driver's interface, under the names that cuda.h gives it.
typedef unsigned long long address;                // CUdeviceptr
static struct {
    int (*init)(unsigned);
    int (*error)(int, const char **);
    int (*device)(int *, int);
    int (*name)(char *, int, int);
    int (*retain)(void **, int);
    int (*release)(int);
    int (*current)(void *);
    int (*alloc)(address *, size_t);
    int (*free)(address);
    int (*alloc_host)(void **, size_t);
    int (*free_host)(void *);
    int (*stream)(void **, unsigned);
    int (*end_stream)(void *);
    int (*to_device)(address, const void *, size_t, void *);
    int (*to_host)(void *, address, size_t);
    int (*event)(void **, unsigned);
    int (*record)(void *, void *);
    int (*wait)(void *);
    int (*end_event)(void *);
} cu;

static const struct { const char *name; void *to; } DRIVER[] = {
    {"cuInit", &cu.init},
    {"cuGetErrorString", &cu.error},
    {"cuDeviceGet", &cu.device},
    {"cuDeviceGetName", &cu.name},
    {"cuDevicePrimaryCtxRetain", &cu.retain},
    {"cuDevicePrimaryCtxRelease_v2", &cu.release},
    {"cuCtxSetCurrent", &cu.current},
    {"cuMemAlloc_v2", &cu.alloc},
    {"cuMemFree_v2", &cu.free},
    {"cuMemAllocHost_v2", &cu.alloc_host},
    {"cuMemFreeHost", &cu.free_host},
    {"cuStreamCreate", &cu.stream},
    {"cuStreamDestroy_v2", &cu.end_stream},
    {"cuMemcpyHtoDAsync_v2", &cu.to_device},
    {"cuMemcpyDtoH_v2", &cu.to_host},
    {"cuEventCreate", &cu.event},
    {"cuEventRecord", &cu.record},
    {"cuEventSynchronize", &cu.wait},
    {"cuEventDestroy_v2", &cu.end_event},
};

static bool fail(st_error *error, st_status code, const char *what, const char *why) {
    error->code = code;
    error->os_errno = 0;
    snprintf(error->message, sizeof error->message, "%s: %s", what, why);
    return false;
}

// Whether a call of the driver went well; what is its name.
static bool ok(int result, const char *what, st_error *error) {
    const char *why = NULL;
    if (result == 0)
        return true;
    if (cu.error(result, &why) != 0 || why == NULL)
        why = "an unknown error";
    return fail(error, result == 2 ? ST_ERROR_OUT_OF_MEMORY : ST_ERROR_IO, what, why);
}

static bool open_driver(st_error *error) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == NULL)
        return fail(error, ST_ERROR_UNSUPPORTED, "no NVIDIA driver", dlerror());
    for (size_t i = 0; i < sizeof DRIVER / sizeof *DRIVER; i++) {
        void *found = dlsym(library, DRIVER[i].name);
        if (found == NULL)
            return fail(error, ST_ERROR_UNSUPPORTED, "the NVIDIA driver is too old", dlerror());
        memcpy(DRIVER[i].to, &found, sizeof found);
    }
    return true;
}

// --------------------------------------------------------------------- the sink

typedef struct {
    const st_load_item *items;                     // dst: the address on the GPU
    st_buffer buffers[MOST_BUFFERS];
    void *copied[MOST_BUFFERS];                    // events: the copies out of a buffer are over
    void *stream;
    size_t count;
} gpu;

// st_sink.pieces: begins the copies, and returns. Results lie on the GPU as they
// do in the buffer, so that most pieces are copied together with their neighbours.
static st_status begin_copies(void *user_data, size_t buffer, const st_piece *pieces, size_t count,
                              st_error *error) {
    gpu *it = user_data;
    const char *from = it->buffers[buffer].data;
    for (size_t first = 0, last; first < count; first = last + 1) {
        const address base = (address)(uintptr_t)it->items[pieces[first].item].dst + pieces[first].item_offset;
        const address shift = base - pieces[first].buffer_offset;
        for (last = first; last + 1 < count; last++) {
            const st_piece *next = &pieces[last + 1];
            if ((address)(uintptr_t)it->items[next->item].dst + next->item_offset - next->buffer_offset != shift)
                break;
        }
        const size_t begin = pieces[first].buffer_offset;
        const size_t size = pieces[last].buffer_offset + pieces[last].size - begin;
        if (!ok(cu.to_device(base, from + begin, size, it->stream), "cuMemcpyHtoDAsync", error))
            return error->code;
    }
    return ok(cu.record(it->copied[buffer], it->stream), "cuEventRecord", error) ? ST_OK : error->code;
}

// st_sink.wait: returns when the buffer may be filled again.
static st_status end_copies(void *user_data, size_t buffer, st_error *error) {
    gpu *it = user_data;
    return ok(cu.wait(it->copied[buffer]), "cuEventSynchronize", error) ? ST_OK : error->code;
}

static bool open_gpu(gpu *it, size_t count, size_t size, st_error *error) {
    if (!ok(cu.stream(&it->stream, 1), "cuStreamCreate", error))
        return false;
    for (; it->count < count; it->count++) {
        st_buffer *buffer = &it->buffers[it->count];
        if (!ok(cu.alloc_host(&buffer->data, size), "cuMemAllocHost", error))
            return false;
        buffer->size = size;
        if (!ok(cu.event(&it->copied[it->count], 2), "cuEventCreate", error)) {
            cu.free_host(buffer->data);
            return false;
        }
    }
    return true;
}

static void close_gpu(gpu *it) {
    for (size_t i = 0; i < it->count; i++) {
        cu.end_event(it->copied[i]);
        cu.free_host(it->buffers[i].data);
    }
    if (it->stream != NULL)
        cu.end_stream(it->stream);
}

// ---------------------------------------------------------------- what is loaded

typedef struct {
    const char *model;
    st_dtype to;
    bool decode, mapped, check;
    size_t threads, buffers, buffer_size, rounds;
} wish;

static st_load_item *make_items(const st_checkpoint *model, const st_groups *groups, const wish *wanted,
                                size_t *count, st_error *error) {
    size_t group_count = 0, plain_count;
    const st_group *list = groups == NULL ? NULL : st_groups_list(groups, &group_count);
    const st_tensor *all = st_tensors(model, &plain_count);
    const st_tensor *const *plain = groups == NULL ? NULL : st_groups_plain(groups, &plain_count);
    st_load_item *items = calloc(group_count + plain_count + 1, sizeof *items);
    if (items == NULL) {
        fail(error, ST_ERROR_OUT_OF_MEMORY, wanted->model, "no memory for the list of tensors");
        return NULL;
    }
    for (size_t i = 0; i < group_count; i++) {
        items[i].group = &list[i];
        items[i].dtype = wanted->to == ST_DTYPE_AS_STORED ? ST_DTYPE_BF16 : wanted->to;
    }
    for (size_t i = 0; i < plain_count; i++) {
        st_load_item *item = &items[group_count + i];
        item->tensor = plain == NULL ? &all[i] : plain[i];
        if (wanted->to != ST_DTYPE_AS_STORED && st_can_convert(item->tensor->dtype, wanted->to))
            item->dtype = wanted->to;
    }
    *count = group_count + plain_count;
    return items;
}

static volatile int32_t stop;                      // st_load_options.cancel

static void on_signal(int number) {
    (void)number;
    stop = 1;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int by_size(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

// The same bytes out of one page-locked buffer after another.
static bool bare_copy(gpu *it, address to, uint64_t total, st_error *error) {
    size_t buffer = 0;
    for (uint64_t at = 0; at < total; buffer = (buffer + 1) % it->count) {
        const uint64_t left = total - at, most = it->buffers[buffer].size;
        const size_t size = (size_t)(left < most ? left : most);
        if (!ok(cu.to_device(to + at, it->buffers[buffer].data, size, it->stream), "cuMemcpyHtoDAsync", error))
            return false;
        at += size;
    }
    return ok(cu.record(it->copied[0], it->stream), "cuEventRecord", error) &&
           ok(cu.wait(it->copied[0]), "cuEventSynchronize", error);
}

// Copies each result back, and compares it with a load of that item alone.
static bool check(const st_checkpoint *model, const st_load_item *items, size_t count, st_error *error) {
    bool good = true;
    for (size_t i = 0; i < count && good; i++) {
        st_load_item plain = items[i];
        plain.dst_size = items[i].dst_size;
        char *expected = malloc(plain.dst_size + 1), *found = malloc(plain.dst_size + 1);
        plain.dst = expected;
        good = (expected != NULL && found != NULL) || fail(error, ST_ERROR_OUT_OF_MEMORY, "--check", "no memory");
        good = good && st_load(model, &plain, 1, NULL, error) == ST_OK;
        if (good && plain.dst_size != 0)
            good = ok(cu.to_host(found, (address)(uintptr_t)items[i].dst, plain.dst_size), "cuMemcpyDtoH", error);
        if (good && memcmp(expected, found, plain.dst_size) != 0)
            good = fail(error, ST_ERROR_INTERNAL, items[i].tensor != NULL ? items[i].tensor->name : items[i].group->name,
                        "other bytes on the GPU than in the file");
        free(expected);
        free(found);
    }
    return good;
}

static bool load(const st_checkpoint *model, st_load_item *items, size_t count, const wish *wanted, gpu *it,
                 st_error *error) {
    uint64_t total;
    address memory = 0;
    double *loads = calloc(2 * wanted->rounds, sizeof *loads), *copies = loads + wanted->rounds;
    st_sink sink = ST_SINK_INIT;
    sink.buffers = it->buffers;
    sink.buffer_count = it->count;
    sink.pieces = begin_copies;
    sink.wait = end_copies;
    sink.user_data = it;
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.sink = &sink;
    options.threads = (uint32_t)wanted->threads;
    options.io = wanted->mapped ? ST_IO_MAPPED : ST_IO_AUTO;
    options.staging_bytes = 64 << 20;
    options.cancel = (const int32_t *)&stop;
    // The library says how much memory that takes, and where each result goes; with a
    // sink it does not touch those addresses itself.
    bool good = (loads != NULL || fail(error, ST_ERROR_OUT_OF_MEMORY, "--rounds", "no memory")) &&
                st_arrange(items, count, NULL, 0, ALIGNMENT, &total, error) == ST_OK &&
                ok(cu.alloc(&memory, (size_t)total + ALIGNMENT), "cuMemAlloc", error) &&
                st_arrange(items, count, (void *)(uintptr_t)memory, (size_t)total, ALIGNMENT, NULL, error) == ST_OK;
    for (size_t i = 0; i < wanted->rounds && good; i++) {
        double start = now();
        good = st_load(model, items, count, &options, error) == ST_OK;
        loads[i] = now() - start;
    }
    if (good && wanted->check && (good = check(model, items, count, error)))
        puts("every result on the GPU is right");
    for (size_t i = 0; i < wanted->rounds && good; i++) {
        double start = now();
        good = bare_copy(it, memory, total, error);
        copies[i] = now() - start;
    }
    if (good) {
        qsort(loads, wanted->rounds, sizeof *loads, by_size);
        qsort(copies, wanted->rounds, sizeof *copies, by_size);
        const double took = loads[wanted->rounds / 2], bare = copies[wanted->rounds / 2];
        printf("%zu results, %" PRIu64 " bytes on the GPU\n", count, total);
        printf("loaded in %.1f ms, %.2f GB/s; bare copies of page-locked memory %.1f ms, %.2f GB/s: %.2f times\n",
               took * 1e3, (double)total / took / 1e9, bare * 1e3, (double)total / bare / 1e9, took / bare);
    }
    if (memory != 0)
        cu.free(memory);
    free(loads);
    return good;
}

static bool run(const wish *wanted, st_error *error) {
    int device;
    char name[128] = "";
    void *context = NULL;
    if (!open_driver(error) || !ok(cu.init(0), "cuInit", error) || !ok(cu.device(&device, 0), "cuDeviceGet", error) ||
        !ok(cu.name(name, (int)sizeof name, device), "cuDeviceGetName", error) ||
        !ok(cu.retain(&context, device), "cuDevicePrimaryCtxRetain", error))
        return false;
    gpu it = {0};
    size_t count = 0;
    st_checkpoint *model = NULL;
    st_groups *groups = NULL;
    bool good = ok(cu.current(context), "cuCtxSetCurrent", error) &&
                (model = st_open(wanted->model, error)) != NULL &&
                (!wanted->decode || (groups = st_groups_open(model, NULL, error)) != NULL);
    st_load_item *items = good ? make_items(model, groups, wanted, &count, error) : NULL;
    good = items != NULL && open_gpu(&it, wanted->buffers, wanted->buffer_size, error);
    it.items = items;
    if (good) {
        puts(name);
        good = load(model, items, count, wanted, &it, error);
    }
    close_gpu(&it);
    free(items);
    st_groups_free(groups);
    st_free(model);
    cu.release(device);
    return good;
}

// A number from 1 to most, or 0.
static size_t number(const char *text, unsigned long most) {
    char *end;
    if (text == NULL || *text < '0' || *text > '9')
        return 0;
    const unsigned long value = strtoul(text, &end, 10);
    return *end == 0 && value <= most ? value : 0;
}

static bool read_wish(int argc, char **argv, wish *wanted) {
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i];
        if (strcmp(flag, "--decode") == 0)
            wanted->decode = true;
        else if (strcmp(flag, "--mapped") == 0)
            wanted->mapped = true;
        else if (strcmp(flag, "--check") == 0)
            wanted->check = true;
        else if (strcmp(flag, "--to") == 0 && i + 1 < argc)
            wanted->to = st_dtype_from_name(argv[++i]);
        else if (strcmp(flag, "--threads") == 0)
            wanted->threads = number(argv[++i], 1024);
        else if (strcmp(flag, "--buffers") == 0)
            wanted->buffers = number(argv[++i], MOST_BUFFERS);
        else if (strcmp(flag, "--buffer-mb") == 0)
            wanted->buffer_size = number(argv[++i], 1024) << 20;
        else if (strcmp(flag, "--rounds") == 0)
            wanted->rounds = number(argv[++i], 1000);
        else if (flag[0] == '-' || wanted->model != NULL)
            return false;
        else
            wanted->model = flag;
        if (i >= argc)
            return false;
    }
    return wanted->model != NULL && wanted->buffers != 0 && wanted->buffer_size != 0 && wanted->rounds != 0 &&
           (wanted->to == ST_DTYPE_AS_STORED || wanted->to == ST_DTYPE_F32 || wanted->to == ST_DTYPE_F16 ||
            wanted->to == ST_DTYPE_BF16);
}

int main(int argc, char **argv) {
    wish wanted = {.to = ST_DTYPE_AS_STORED, .buffers = 24, .buffer_size = 8 << 20, .rounds = 1};
    if (!read_wish(argc, argv, &wanted)) {
        fputs("usage: cuda MODEL [--decode] [--to F32 | F16 | BF16] [--mapped] [--threads N] [--buffers N]\n"
              "            [--buffer-mb N] [--rounds N] [--check]\n",
              stderr);
        return 2;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    st_error error = {0};
    const bool good = run(&wanted, &error);
    if (!good)
        fprintf(stderr, "cuda: %s: %s\n", st_status_name(error.code), error.message);
    return good ? 0 : 1;
}
