// SPDX-License-Identifier: Apache-2.0
// Loading as an engine in C does it: into a buffer of its own, converted,
// interleaved, through a device's queue that a thread empties; what is refused,
// cancelled or fails leaves nothing behind, which the sanitizers and valgrind see.

#include "check.h"

#include <pthread.h>
#include <unistd.h>

enum { TENSORS = 40, EACH = 20000, RING = 3, BUFFER = 8192 };

static const st_checkpoint *from;
static const st_tensor *tensors;
static bytes file;

// A device: one thread that copies what is in its queue.
typedef struct job {
    size_t buffer, item, size;
    uint64_t offset;
} job;

typedef struct device {
    unsigned char *buffers[RING];
    unsigned char *results;
    job queue[RING];
    size_t queued, done;
    size_t jobs_of[RING], copied[RING]; // chunks given, and copied, for each buffer
    size_t chunks, waits, fail_at;      // fail_at: the chunk that is refused
    int over;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t caller;
} device;

static void *copy_jobs(void *argument)
{
    device *to = argument;
    pthread_mutex_lock(&to->lock);
    for (;;) {
        while (to->done == to->queued && !to->over) {
            pthread_cond_wait(&to->changed, &to->lock);
        }
        if (to->done == to->queued) {
            break;
        }
        job next = to->queue[to->done++ % RING];
        pthread_mutex_unlock(&to->lock);
        usleep((useconds_t)(next.offset % 3 * 30));
        memcpy(to->results + next.item * EACH + next.offset, to->buffers[next.buffer], next.size);
        memset(to->buffers[next.buffer], 0xEE, BUFFER);
        pthread_mutex_lock(&to->lock);
        to->copied[next.buffer]++;
        pthread_cond_broadcast(&to->changed);
    }
    pthread_mutex_unlock(&to->lock);
    return NULL;
}

static st_status take_chunk(void *user_data, size_t buffer, size_t item, uint64_t offset, size_t size, st_error *error)
{
    device *to = user_data;
    pthread_mutex_lock(&to->lock);
    CHECK(pthread_equal(pthread_self(), to->caller));
    CHECK(buffer < RING && item < TENSORS && size > 0 && size <= BUFFER && offset + size <= EACH);
    CHECK(to->copied[buffer] == to->jobs_of[buffer]);
    st_status status = ST_OK;
    if (to->chunks++ == to->fail_at) {
        snprintf(error->message, sizeof error->message, "no such stream");
        status = ST_ERROR_UNSUPPORTED;
    } else {
        to->queue[to->queued++ % RING] = (job){buffer, item, size, offset};
        to->jobs_of[buffer]++;
        pthread_cond_broadcast(&to->changed);
    }
    pthread_mutex_unlock(&to->lock);
    return status;
}

static st_status wait_for(void *user_data, size_t buffer, st_error *error)
{
    device *to = user_data;
    (void)error;
    pthread_mutex_lock(&to->lock);
    CHECK(pthread_equal(pthread_self(), to->caller));
    while (to->copied[buffer] != to->jobs_of[buffer]) {
        pthread_cond_wait(&to->changed, &to->lock);
    }
    to->waits++;
    pthread_mutex_unlock(&to->lock);
    return ST_OK;
}

static void through_a_device(uint32_t threads, size_t fail_at)
{
    device to = {.results = malloc(TENSORS * EACH), .fail_at = fail_at, .caller = pthread_self()};
    st_buffer buffers[RING];
    for (size_t i = 0; i < RING; i++) {
        to.buffers[i] = malloc(BUFFER);
        buffers[i] = (st_buffer){to.buffers[i], BUFFER};
    }
    pthread_mutex_init(&to.lock, NULL);
    pthread_cond_init(&to.changed, NULL);
    pthread_t copier;
    CHECK(pthread_create(&copier, NULL, copy_jobs, &to) == 0);

    st_load_item items[TENSORS];
    memset(items, 0, sizeof items);
    for (size_t i = 0; i < TENSORS; i++) {
        items[i].tensor = &tensors[i];
    }
    st_sink sink = ST_SINK_INIT;
    sink.buffers = buffers;
    sink.buffer_count = RING;
    sink.chunk = take_chunk;
    sink.wait = wait_for;
    sink.user_data = &to;
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.threads = threads;
    options.sink = &sink;
    st_error error;
    error_mark(&error);
    st_status status = st_load(from, items, TENSORS, &options, &error);
    if (fail_at == SIZE_MAX) {
        CHECK(status == ST_OK && error_untouched(&error));
        CHECK(to.waits == to.chunks);
    } else {
        CHECK(status == ST_ERROR_UNSUPPORTED && error_is(&error, status) && strstr(error.message, "no such stream") != NULL);
        CHECK(to.chunks == fail_at + 1 && to.waits == fail_at);
    }
    for (size_t i = 0; i < RING; i++) {
        CHECK(to.copied[i] == to.jobs_of[i]);
    }
    pthread_mutex_lock(&to.lock);
    to.over = 1;
    pthread_cond_broadcast(&to.changed);
    pthread_mutex_unlock(&to.lock);
    pthread_join(copier, NULL);
    if (status == ST_OK) {
        CHECK(memcmp(to.results, file.data + tensors[0].offset, TENSORS * EACH) == 0);
    }
    for (size_t i = 0; i < RING; i++) {
        free(to.buffers[i]);
    }
    free(to.results);
    pthread_mutex_destroy(&to.lock);
    pthread_cond_destroy(&to.changed);
}

typedef struct heard {
    uint64_t last;
    int calls, cancel_at;
} heard;

static int hear(void *user_data, uint64_t done, uint64_t total)
{
    heard *said = user_data;
    CHECK(done >= said->last && done <= total && total == (uint64_t)TENSORS * EACH);
    said->last = done;
    return said->calls++ == said->cancel_at;
}

// Each tensor on the heap by itself, of just its size.
static void into_memory(uint32_t threads, int32_t io, int cancel_at)
{
    st_load_item items[TENSORS];
    memset(items, 0, sizeof items);
    for (size_t i = 0; i < TENSORS; i++) {
        items[i].tensor = &tensors[i];
        items[i].dst = malloc(EACH);
        items[i].dst_size = EACH;
    }
    heard said = {0, 0, cancel_at};
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.threads = threads;
    options.io = io;
    options.staging_bytes = 65536;
    options.drop_cache = 1;
    options.progress = hear;
    options.user_data = &said;
    st_error error;
    error_mark(&error);
    st_status status = st_load(from, items, TENSORS, &options, &error);
    if (said.calls <= cancel_at || cancel_at < 0) {
        CHECK(status == ST_OK && error_untouched(&error) && said.last == (uint64_t)TENSORS * EACH);
        for (size_t i = 0; i < TENSORS; i++) {
            CHECK(memcmp(items[i].dst, file.data + tensors[i].offset, EACH) == 0);
        }
    } else {
        CHECK(status == ST_ERROR_CANCELLED && error_is(&error, status) && said.calls == cancel_at + 1);
    }
    for (size_t i = 0; i < TENSORS; i++) {
        free(items[i].dst);
    }
}

// All even and all odd bytes of one tensor as F32, into the columns of a matrix.
static void interleaved_and_converted(void)
{
    float *matrix = malloc(EACH * sizeof(float));
    const st_range even = {0, INT64_MAX, 2}, odd = {1, INT64_MAX, 2};
    const int64_t stride = 2 * sizeof(float);
    st_load_item items[2];
    memset(items, 0, sizeof items);
    items[0] = (st_load_item){.tensor = &tensors[3], .ranges = &even, .range_count = 1, .dtype = ST_DTYPE_F32,
                              .dst = matrix, .dst_size = EACH * sizeof(float), .dst_strides = &stride};
    items[1] = items[0];
    items[1].ranges = &odd;
    items[1].dst = matrix + 1;
    items[1].dst_size -= sizeof(float);
    st_plan plan;
    st_error error;
    CHECK(st_load_plan(from, items, 2, NULL, &plan, &error) == ST_OK);
    CHECK(plan.bytes == EACH * sizeof(float) && plan.shards == 1 && plan.threads >= 1);
    CHECK(st_load(from, items, 2, NULL, &error) == ST_OK);
    int same = 1;
    for (size_t i = 0; i < EACH; i++) {
        same &= matrix[i] == (float)file.data[tensors[3].offset + i];
    }
    CHECK(same);
    // Out of room by a byte; on top of one another.
    items[1].dst_size--;
    CHECK(st_load(from, items, 2, NULL, &error) == ST_ERROR_BUFFER_SIZE && error_is(&error, ST_ERROR_BUFFER_SIZE));
    items[1].dst = matrix;
    items[1].dst_size += 5;
    CHECK(st_load(from, items, 2, NULL, &error) == ST_ERROR_INVALID_ARGUMENT && strstr(error.message, "overlap") != NULL);
    free(matrix);
}

static void each_form(void)
{
    tensors = st_tensors(from, NULL);
    for (uint32_t threads = 0; threads <= 4; threads += 2) {
        through_a_device(threads, SIZE_MAX);
        through_a_device(threads, 0);
        through_a_device(threads, 17);
        for (int32_t io = ST_IO_AUTO; io <= ST_IO_DIRECT; io++) {
            into_memory(threads, io, -1);
        }
        into_memory(threads, ST_IO_CACHED, 0);
        into_memory(threads, ST_IO_CACHED, 2);
    }
    interleaved_and_converted();
    CHECK(st_prefetch(from, NULL, 0, NULL) == ST_OK);
    const st_tensor *some[] = {&tensors[2], &tensors[7]};
    CHECK(st_prefetch(from, some, 2, NULL) == ST_OK);
}

// Called by several threads at once, so it counts nothing.
static st_status read_some(void *user_data, uint64_t offset, void *dst, size_t len, size_t *done, st_error *error)
{
    const bytes *all = user_data;
    (void)error;
    if (!CHECK(len > 0 && offset <= all->size && len <= all->size - offset)) {
        return ST_ERROR_IO;
    }
    *done = len < 7000 ? len : 7000;
    memcpy(dst, all->data + offset, *done);
    return ST_OK;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: load CORPUS SCRATCH\n");
        return 2;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/load-%ld.safetensors", argv[2], (long)getpid());
    file = file_of(TENSORS, EACH);
    write_file(path, file.data, file.size);
    st_open_options read = ST_OPEN_OPTIONS_INIT;
    read.access = ST_ACCESS_READ;
    st_io io = ST_IO_INIT;
    io.size = file.size;
    io.read_at = read_some;
    io.user_data = &file;
    st_checkpoint *opened[] = {st_open(path, NULL), st_open_with(path, &read, NULL),
                               st_open_memory(file.data, file.size, NULL, NULL), st_open_io(&io, NULL, NULL)};
    for (size_t i = 0; i < sizeof opened / sizeof *opened; i++) {
        if (CHECK(opened[i] != NULL)) {
            from = opened[i];
            each_form();
            st_free(opened[i]);
        }
    }
    remove(path);
    free(file.data);
    return check_result();
}
