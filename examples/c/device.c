// SPDX-License-Identifier: Apache-2.0
//
// device: loads a model into the memory of a device, quantised on the way.
//
//     device MODEL [MB_PER_SECOND]
//
// The device is a thread that copies at a bounded bandwidth, as a queue of
// asynchronous copies would. Floating-point matrices become blocks of 32 weights of
// 8 bits with a scale, on the library's threads, while their bytes are still in
// the cache; everything else is loaded as it is. Results go through three staging
// buffers, many tensors in one; the library fills one while the device copies out
// of the others. Ctrl-C ends the load within some milliseconds.

#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <safetensors.h>

enum { BUFFERS = 3, BUFFER_SIZE = 4 << 20, BLOCK = 32, QUEUE = 1 << 16 };

// ------------------------------------------------------------------- the device

typedef struct {
    const void *from;
    void *to;
    size_t size;
    int buffer;
} copy;

typedef struct {
    st_load_item *items;                           // dst: where each result is on the device
    st_buffer buffers[BUFFERS];
    double bytes_per_second;
    copy *queue;
    size_t head, tail;                             // copies begun, and queued
    size_t left[BUFFERS];                          // copies out of a buffer that are not over
    int closing;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
} device;

static void rest(double seconds) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

static void *copy_engine(void *given) {
    device *dev = given;
    double owed = 0;                               // a sleep for each small copy would be too long
    pthread_mutex_lock(&dev->lock);
    for (;;) {
        while (dev->head == dev->tail && !dev->closing)
            pthread_cond_wait(&dev->changed, &dev->lock);
        if (dev->head == dev->tail)
            break;
        copy job = dev->queue[dev->head++ % QUEUE];
        pthread_mutex_unlock(&dev->lock);
        memcpy(job.to, job.from, job.size);
        owed += (double)job.size / dev->bytes_per_second;
        if (owed > 1e-3) {
            rest(owed);
            owed = 0;
        }
        pthread_mutex_lock(&dev->lock);
        dev->left[job.buffer]--;
        pthread_cond_broadcast(&dev->changed);
    }
    pthread_mutex_unlock(&dev->lock);
    return NULL;
}

// st_sink.pieces: queues a copy for each piece, and returns at once.
static st_status queue_copies(void *given, size_t buffer, const st_piece *pieces, size_t count,
                              st_error *error) {
    device *dev = given;
    (void)error;
    pthread_mutex_lock(&dev->lock);
    for (size_t i = 0; i < count; i++) {
        while (dev->tail - dev->head == QUEUE)
            pthread_cond_wait(&dev->changed, &dev->lock);
        dev->queue[dev->tail++ % QUEUE] = (copy){
            (char *)dev->buffers[buffer].data + pieces[i].buffer_offset,
            (char *)dev->items[pieces[i].item].dst + pieces[i].item_offset,
            pieces[i].size,
            (int)buffer,
        };
        dev->left[buffer]++;
        pthread_cond_broadcast(&dev->changed);
    }
    pthread_mutex_unlock(&dev->lock);
    return ST_OK;
}

// st_sink.wait: returns when the buffer may be filled again.
static st_status wait_for_copies(void *given, size_t buffer, st_error *error) {
    device *dev = given;
    (void)error;
    pthread_mutex_lock(&dev->lock);
    while (dev->left[buffer] != 0)
        pthread_cond_wait(&dev->changed, &dev->lock);
    pthread_mutex_unlock(&dev->lock);
    return ST_OK;
}

// ---------------------------------------------------------------- the last step

// What a block of 32 weights becomes.
typedef struct {
    float scale;
    int8_t weights[BLOCK];
} block;

// st_transform.run: called on several threads at once, each time for other blocks.
static st_status quantise(void *given, size_t item, uint64_t element, size_t count, const void *src,
                          void *dst, st_error *error) {
    (void)given, (void)item, (void)element, (void)error;
    const float *weights = src;
    unsigned char *out = dst;                      // need not be aligned for floats
    for (size_t at = 0; at < count; at += BLOCK, out += sizeof(block)) {
        float largest = 0;
        for (int i = 0; i < BLOCK; i++)
            largest = fmaxf(largest, fabsf(weights[at + (size_t)i]));
        block made = {.scale = largest / 127};
        const float inverse = largest > 0 ? 127 / largest : 0;
        for (int i = 0; i < BLOCK; i++)
            made.weights[i] = (int8_t)lrintf(weights[at + (size_t)i] * inverse);
        memcpy(out, &made, sizeof made);
    }
    return ST_OK;
}

// ---------------------------------------------------------------- what people see

static volatile int32_t stop;                      // st_load_options.cancel

static void on_signal(int number) {
    (void)number;
    stop = 1;
}

static int32_t show_progress(void *given, uint64_t done, uint64_t total) {
    (void)given;
    int percent = total == 0 ? 100 : (int)((double)done / (double)total * 100);
    fprintf(stderr, "\r[%-50.*s] %3d %%", percent / 2, "##################################################",
            percent);
    return 0;
}

// ----------------------------------------------------------------------- the load

static int load_model(const st_checkpoint *model, double bytes_per_second, st_error *error) {
    size_t count;
    const st_tensor *tensors = st_tensors(model, &count);
    device dev = {.bytes_per_second = bytes_per_second, .lock = PTHREAD_MUTEX_INITIALIZER,
                  .changed = PTHREAD_COND_INITIALIZER};
    st_transform to_blocks = ST_TRANSFORM_INIT;
    to_blocks.unit = BLOCK;
    to_blocks.unit_size = sizeof(block);
    to_blocks.run = quantise;

    dev.items = calloc(count + 1, sizeof *dev.items);
    dev.queue = calloc(QUEUE, sizeof *dev.queue);
    size_t quantised = 0;
    for (size_t i = 0; dev.items != NULL && i < count; i++) {
        dev.items[i].tensor = &tensors[i];
        if (tensors[i].rank > 1 && tensors[i].shape[tensors[i].rank - 1] % BLOCK == 0 &&
            st_can_convert(tensors[i].dtype, ST_DTYPE_F32) && st_dtype_bits(tensors[i].dtype) >= 16) {
            dev.items[i].dtype = ST_DTYPE_F32;
            dev.items[i].transform = &to_blocks;
            quantised++;
        }
    }
    // The library says how much memory that takes, and where in it each result goes.
    uint64_t total = 0;
    char *memory = NULL;
    int good = dev.items != NULL && dev.queue != NULL &&
               st_arrange(dev.items, count, NULL, 0, 256, &total, error) == ST_OK;
    if (good)
        good = total < SIZE_MAX - 256 && (memory = aligned_alloc(256, (size_t)(total + 511) / 256 * 256)) != NULL &&
               st_arrange(dev.items, count, memory, (size_t)total, 256, NULL, error) == ST_OK;
    for (int i = 0; i < BUFFERS && good; i++) {
        dev.buffers[i].size = BUFFER_SIZE;
        good = (dev.buffers[i].data = aligned_alloc(4096, BUFFER_SIZE)) != NULL;
    }
    if (good && pthread_create(&dev.thread, NULL, copy_engine, &dev) == 0) {
        st_sink sink = ST_SINK_INIT;
        sink.buffers = dev.buffers;
        sink.buffer_count = BUFFERS;
        sink.pieces = queue_copies;
        sink.wait = wait_for_copies;
        sink.user_data = &dev;
        st_load_options options = ST_LOAD_OPTIONS_INIT;
        options.sink = &sink;
        options.progress = show_progress;
        options.cancel = (const int32_t *)&stop;
        good = st_load(model, dev.items, count, &options, error) == ST_OK;
        fputc('\n', stderr);
        // Whatever happened: the library has waited for every buffer.
        pthread_mutex_lock(&dev.lock);
        dev.closing = 1;
        pthread_cond_broadcast(&dev.changed);
        pthread_mutex_unlock(&dev.lock);
        pthread_join(dev.thread, NULL);
        if (good)
            printf("%zu tensors, %zu of them quantised: %" PRIu64 " bytes on the device\n", count, quantised,
                   total);
    } else {
        good = 0;
    }
    for (int i = 0; i < BUFFERS; i++)
        free(dev.buffers[i].data);
    free(memory);
    free(dev.queue);
    free(dev.items);
    return good;
}

int main(int argc, char **argv) {
    const double mb = argc > 2 ? strtod(argv[2], NULL) : 2000;
    if (argc < 2 || !(mb > 0)) {
        fputs("usage: device MODEL [MB_PER_SECOND]\n", stderr);
        return 2;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    st_error error = {.code = ST_ERROR_OUT_OF_MEMORY, .message = "no memory or no thread"};
    st_checkpoint *model = st_open(argv[1], &error);
    int good = model != NULL && load_model(model, mb * 1e6, &error);
    st_free(model);
    if (!good)
        fprintf(stderr, "device: %s: %s\n", st_status_name(error.code), error.message);
    return good ? 0 : 1;
}
