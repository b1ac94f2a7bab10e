// SPDX-License-Identifier: Apache-2.0
//
// load: brings a checkpoint into one block of memory, as an engine does.
//
//     load MODEL [--to DTYPE] [--threads N] [--cached | --direct] [--device]
//
// MODEL is a .safetensors file, a .safetensors.index.json, or a folder that
// holds either. With --to, tensors that can be converted are, on the way. With
// --device the block plays the memory of a device that only a copy engine of its
// own can write: the library fills four staging buffers in turn, and while one
// is copied the next is filled.

#define _POSIX_C_SOURCE 200809L                    // for clock_gettime, posix_memalign, threads

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <safetensors.h>

// --------------------------------------------------------------------- a device

enum { BUFFERS = 4, BUFFER_SIZE = 8 << 20 };

// A thread that copies what it is told to, one after another, as a GPU's copy
// engine does. A buffer's number is its slot: it has one copy under way at most.
typedef struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const st_load_item *items;
    unsigned char *buffers[BUFFERS];
    struct { unsigned char *to; size_t size; } copies[BUFFERS];   // size 0: none
    size_t queue[BUFFERS], begun, told;            // slots in the order they were told
    bool over;
} device;

static void *run_device(void *argument) {
    device *it = argument;
    pthread_mutex_lock(&it->lock);
    for (;;) {
        while (it->begun == it->told && !it->over)
            pthread_cond_wait(&it->changed, &it->lock);
        if (it->begun == it->told)
            break;
        size_t slot = it->queue[it->begun % BUFFERS];
        pthread_mutex_unlock(&it->lock);
        memcpy(it->copies[slot].to, it->buffers[slot], it->copies[slot].size);
        pthread_mutex_lock(&it->lock);
        it->copies[slot].size = 0;
        it->begun++;
        pthread_cond_broadcast(&it->changed);
    }
    pthread_mutex_unlock(&it->lock);
    return NULL;
}

// The library: a buffer is full. Starts the copy and returns.
static st_status begin_copy(void *user_data, size_t buffer, size_t item, uint64_t item_offset, size_t size,
                            st_error *error) {
    device *it = user_data;
    (void)error;
    pthread_mutex_lock(&it->lock);
    it->copies[buffer].to = (unsigned char *)it->items[item].user_data + item_offset;
    it->copies[buffer].size = size;
    it->queue[it->told++ % BUFFERS] = buffer;
    pthread_cond_broadcast(&it->changed);
    pthread_mutex_unlock(&it->lock);
    return ST_OK;
}

// The library: the buffer is wanted again.
static st_status wait_for_copy(void *user_data, size_t buffer, st_error *error) {
    device *it = user_data;
    (void)error;
    pthread_mutex_lock(&it->lock);
    while (it->copies[buffer].size != 0)
        pthread_cond_wait(&it->changed, &it->lock);
    pthread_mutex_unlock(&it->lock);
    return ST_OK;
}

// ------------------------------------------------------------------------- main

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int show_progress(void *user_data, uint64_t done, uint64_t total) {
    int *shown = user_data, percent = total == 0 ? 100 : (int)((double)done / (double)total * 100);
    if (percent != *shown)
        fprintf(stderr, "\r[%-50.*s] %3d %%%s", percent / 2, "##################################################",
                percent, done == total ? "\n" : "");
    *shown = percent;
    return 0;                                      // another result would end the load
}

static int fail(const st_error *error) {
    fprintf(stderr, "%s: %s\n", st_status_name(error->code), error->message);
    return 1;
}

// The dtype that tensors of this one are loaded as.
static st_dtype loaded_as(st_dtype stored, st_dtype wanted) {
    return st_can_convert(stored, wanted) ? wanted : ST_DTYPE_AS_STORED;
}

int main(int argc, char **argv) {
    const char *path = NULL;
    st_dtype wanted = ST_DTYPE_AS_STORED;
    bool on_device = false, usage = false;
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--to") == 0 && i + 1 < argc) {
            wanted = st_dtype_from_name(argv[++i]);
            usage |= wanted == 0;
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            options.threads = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--cached") == 0) {
            options.io = ST_IO_CACHED;
        } else if (strcmp(argv[i], "--direct") == 0) {
            options.io = ST_IO_DIRECT;
        } else if (strcmp(argv[i], "--device") == 0) {
            on_device = true;
        } else if (argv[i][0] == '-' || path) {
            usage = true;
        } else {
            path = argv[i];
        }
    }
    if (usage || !path) {
        fprintf(stderr, "usage: load MODEL [--to DTYPE] [--threads N] [--cached | --direct] [--device]\n");
        return 2;
    }

    st_error error;
    st_checkpoint *model = st_open(path, &error);
    if (!model)
        return fail(&error);
    size_t count;
    const st_tensor *tensors = st_tensors(model, &count);
    st_load_item *items = calloc(count + 1, sizeof *items);
    if (!items)
        return fprintf(stderr, "no memory for %zu items\n", count), 1;
    for (size_t i = 0; i < count; i++) {
        items[i].tensor = &tensors[i];
        items[i].dtype = loaded_as(tensors[i].dtype, wanted);
    }

    // One block for all, each tensor on a cache line of its own, where the kernel copies
    // faster and vector instructions find it aligned: how large it has to be, and then
    // where each tensor goes.
    uint64_t room = 0;
    void *block = NULL;
    if (st_arrange(items, count, NULL, 0, 64, &room, &error) != ST_OK)
        return fail(&error);
    if (room >= SIZE_MAX || posix_memalign(&block, 4096, (size_t)room + 1) != 0)
        return fprintf(stderr, "no memory for %" PRIu64 " bytes\n", room), 1;
    if (st_arrange(items, count, block, (size_t)room, 64, NULL, &error) != ST_OK)
        return fail(&error);
    for (size_t i = 0; i < count; i++)
        items[i].user_data = items[i].dst;         // with a sink the library does not look at dst

    device gpu = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .items = items};
    st_buffer buffers[BUFFERS];
    st_sink sink = ST_SINK_INIT;
    if (on_device) {
        for (size_t i = 0; i < BUFFERS; i++) {
            buffers[i].data = gpu.buffers[i] = malloc(BUFFER_SIZE);
            buffers[i].size = BUFFER_SIZE;
        }
        sink.buffers = buffers;
        sink.buffer_count = BUFFERS;
        sink.chunk = begin_copy;
        sink.wait = wait_for_copy;
        sink.user_data = &gpu;
        options.sink = &sink;
        if (pthread_create(&gpu.thread, NULL, run_device, &gpu) != 0)
            return fprintf(stderr, "no thread for the device\n"), 1;
    }

    st_plan plan;
    if (st_load_plan(model, items, count, &options, &plan, &error) != ST_OK)
        return fail(&error);
    printf("%zu tensors in %" PRIu32 " files: %" PRIu64 " bytes in memory, %" PRIu64 " to read (%" PRIu64
           " of them in gaps)\n%" PRIu64 " reads by up to %" PRIu32 " threads, with %" PRIu64 " kB of staging\n",
           count, plan.shards, plan.bytes, plan.read_bytes, plan.over_read_bytes, plan.requests, plan.threads,
           plan.staging_bytes / 1000);

    int shown = -1;
    if (isatty(STDERR_FILENO)) {
        options.progress = show_progress;
        options.user_data = &shown;
    }
    double start = now();
    st_status status = st_load(model, items, count, &options, &error);
    double taken = now() - start;
    if (on_device) {
        pthread_mutex_lock(&gpu.lock);
        gpu.over = true;
        pthread_cond_broadcast(&gpu.changed);
        pthread_mutex_unlock(&gpu.lock);
        pthread_join(gpu.thread, NULL);
        for (size_t i = 0; i < BUFFERS; i++)
            free(gpu.buffers[i]);
    }
    if (status == ST_OK)
        printf("loaded in %.1f ms: %.2f GB/s\n", taken * 1e3, (double)plan.bytes / taken / 1e9);
    else
        fail(&error);
    free(block);
    free(items);
    st_free(model);
    return status == ST_OK ? 0 : 1;
}
