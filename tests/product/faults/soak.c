// SPDX-License-Identifier: Apache-2.0
//
// For a given time eight threads open, load, save, cancel and free, while one
// system call in a few dozen fails: whatever succeeds is right, and in the
// pauses between rounds nothing is left over: no descriptor, no thread, no
// temporary file, no more memory than before.
//
//     soak FOLDER SECONDS ROUND_SECONDS      with tests/support/shim.c preloaded
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <safetensors.h>

#include "shim.h"

enum { THREADS = 8, TENSORS = 300, EACH = 5000, KINDS = 7 };

static char folder[512], model[600];
static st_checkpoint *shared;
static atomic_int pause_now, over, wrong;
static atomic_long counts[KINDS][2];
static pthread_barrier_t gate;

// One in that many calls fails, each as it might; 0: none.
static void storm(int one_in) {
    static const struct {
        const char *calls;
        int fault;
    } weather[] = {
        {"open,opendir,fcntl", EMFILE},
        {"stat,fstat,fstatfs,pread,sync_file_range,fsync,readdir,close", EIO},
        {"mmap", ENOMEM},
        {"malloc:least=32768", ENOMEM},
        {"madvise,fadvise", EINVAL},
        {"read", EINTR},
        {"preadv2", EAGAIN},
        {"pwrite,write,fallocate", ENOSPC},
        {"copy_file_range", EXDEV},
        {"rename", EACCES},
        {"fchmod,fchown", EPERM},
        {"flock", ENOLCK},
    };
    char rules[1000] = "";
    for (size_t i = 0, size = 0; one_in != 0 && i < sizeof weather / sizeof *weather; i++)
        size += (size_t)snprintf(rules + size, sizeof rules - size, "%s:one_in=%d:fails=%d;", weather[i].calls, one_in,
                                 weather[i].fault);
    faults(rules);
}

static unsigned next(unsigned long *state) {
    *state = *state * 6364136223846793005UL + 1442695040888963407UL;
    return (unsigned)(*state >> 33);
}

static void must(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        atomic_store(&wrong, 1);
    }
}

static unsigned char byte_of(size_t tensor, size_t at) { return (unsigned char)(tensor * 31 + at); }

static int holds(const unsigned char *data, size_t tensor) {
    for (size_t at = 0; at < EACH; at += 97)
        if (data[at] != byte_of(tensor, at))
            return 0;
    return 1;
}

static st_status save_all(const char *path, const unsigned char *data, int32_t (*progress)(void *, uint64_t, uint64_t)) {
    static const int64_t shape[] = {EACH};
    st_tensor tensors[TENSORS];
    char names[TENSORS][8];
    memset(tensors, 0, sizeof tensors);
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof names[i], "t%zu", i);
        tensors[i].name = names[i];
        tensors[i].dtype = ST_DTYPE_U8;
        tensors[i].rank = 1;
        tensors[i].shape = shape;
        tensors[i].data = data + i * EACH;
    }
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.sync = ST_SYNC_NONE;
    options.progress = progress;
    return st_save(path, tensors, TENSORS, NULL, 0, &options, NULL);
}

static int32_t cancel(void *user_data, uint64_t done, uint64_t total) {
    (void)user_data;
    return done * 2 > total;
}

static st_status take(void *user_data, size_t buffer, size_t item, uint64_t offset, size_t size, st_error *error) {
    (void)buffer, (void)item, (void)offset, (void)size, (void)error;
    unsigned *chunks = user_data;
    return --*chunks == 0 ? ST_ERROR_CANCELLED : ST_OK;
}

static int32_t ignore(void *user_data, const st_problem *problem) {
    (void)user_data, (void)problem;
    return 0;
}

static st_status once(int kind, unsigned long *state, const char *target, unsigned char *data, unsigned char *room) {
    st_open_options how = ST_OPEN_OPTIONS_INIT;
    how.access = (int32_t)(next(state) % 3);
    st_status status = ST_ERROR_IO;
    st_error error;
    size_t number = next(state) % TENSORS;
    char name[8];
    snprintf(name, sizeof name, "t%zu", number);
    switch (kind) {
    case 0: { // a handle of its own
        st_checkpoint *opened = st_open_with(model, &how, &error);
        const st_tensor *got = st_get_tensor(opened, name, &error);
        if (got != NULL) {
            must(holds(got->data, number), "what st_get_tensor gives");
            status = ST_OK;
        }
        st_free(opened);
        break;
    }
    case 1: { // the handle of all
        st_checkpoint *mine = st_retain(shared);
        const st_tensor *tensor = st_find_tensor(mine, name);
        must(tensor != NULL, "a lookup");
        status = st_read_tensor(mine, tensor, room, EACH, &error);
        if (status == ST_OK)
            must(holds(room, number), "what st_read_tensor gives");
        st_free(mine);
        break;
    }
    case 2: // loads, also cancelled ones
    case 3: {
        st_load_item items[TENSORS];
        memset(items, 0, sizeof items);
        size_t count;
        const st_tensor *tensors = st_tensors(shared, &count);
        for (size_t i = 0; i < count; i++) {
            items[i].tensor = &tensors[i];
            items[i].dst = kind == 2 ? room + i * EACH : NULL;
            items[i].dst_size = kind == 2 ? EACH : 0;
        }
        unsigned chunks = next(state) % 600;
        st_buffer buffers[2] = {{room, 70000}, {room + 70000, 70000}};
        st_sink sink = ST_SINK_INIT;
        sink.buffers = buffers;
        sink.buffer_count = 2;
        sink.chunk = take;
        sink.user_data = &chunks;
        st_load_options options = ST_LOAD_OPTIONS_INIT;
        options.threads = 1 + next(state) % 4;
        options.io = (int32_t)(next(state) % 3);
        options.progress = next(state) % 4 == 0 ? cancel : NULL;
        options.sink = kind == 3 ? &sink : NULL;
        status = st_load(shared, items, count, &options, &error);
        for (size_t i = 0; status == ST_OK && kind == 2 && i < count; i++)
            must(holds(room + i * EACH, strtoul(tensors[i].name + 1, NULL, 10)), "what st_load gives");
        break;
    }
    case 4: // saves, also cancelled ones
        status = save_all(target, data, next(state) % 3 == 0 ? cancel : NULL);
        break;
    case 5: { // a writer that may be given up
        static const int64_t shape[] = {EACH};
        st_tensor tensor = {0};
        tensor.name = "t0";
        tensor.dtype = ST_DTYPE_U8;
        tensor.rank = 1;
        tensor.shape = shape;
        st_writer *writer = st_writer_open(target, &tensor, 1, NULL, 0, NULL, &error);
        if (writer != NULL) {
            status = st_writer_write(writer, 0, 0, data, EACH, &error);
            if (status == ST_OK && next(state) % 2 == 0)
                status = st_writer_finish(writer, &error);
        }
        st_writer_free(writer);
        break;
    }
    default:
        status = st_validate(model, NULL, ignore, NULL, &error);
    }
    return status;
}

static void *work(void *argument) {
    unsigned long state = (unsigned long)(size_t)argument;
    char target[700];
    snprintf(target, sizeof target, "%s/target-%zu.safetensors", folder, (size_t)argument);
    unsigned char *data = malloc(TENSORS * EACH), *room = malloc(TENSORS * EACH);
    for (size_t i = 0; i < TENSORS * EACH; i++)
        data[i] = byte_of(i / EACH, i % EACH);
    while (!atomic_load(&over)) {
        int kind = (int)(next(&state) % KINDS);
        st_status status = once(kind, &state, target, data, room);
        atomic_fetch_add(&counts[kind][status != ST_OK], 1);
        if (atomic_load(&pause_now)) {
            pthread_barrier_wait(&gate);
            pthread_barrier_wait(&gate);
        }
    }
    free(room);
    free(data);
    return NULL;
}

static size_t entries(const char *path, const char *suffix) {
    size_t count = 0;
    DIR *opened = opendir(path);
    if (opened == NULL)
        abort();
    for (const struct dirent *entry; (entry = readdir(opened)) != NULL;)
        count += suffix == NULL || strstr(entry->d_name, suffix) != NULL;
    closedir(opened);
    return count;
}

static long resident(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1)
        abort();
    fclose(file);
    return pages * 4;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    snprintf(folder, sizeof folder, "%s", argv[1]);
    snprintf(model, sizeof model, "%s/model.safetensors", folder);
    const long seconds = atol(argv[2]), each = atol(argv[3]);
    unsigned char *data = malloc(TENSORS * EACH);
    for (size_t i = 0; i < TENSORS * EACH; i++)
        data[i] = byte_of(i / EACH, i % EACH);
    if (save_all(model, data, NULL) != ST_OK)
        return 2;
    free(data);
    st_open_options how = ST_OPEN_OPTIONS_INIT;
    how.access = ST_ACCESS_READ;
    shared = st_open_with(model, &how, NULL);
    if (shared == NULL)
        return 2;

    pthread_t all[THREADS];
    pthread_barrier_init(&gate, NULL, THREADS + 1);
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&all[i], NULL, work, (void *)(i + 1));
    const time_t end = time(NULL) + seconds;
    long first_blocks = 0, first_resident = 0;
    size_t first_descriptors = 0;
    for (int round = 0; time(NULL) < end && !atomic_load(&wrong); round++) {
        // One round of fair weather, then one in 40 calls fails, or one in 7.
        storm(round % 3 == 0 ? 0 : round % 3 == 1 ? 40 : 7);
        sleep((unsigned)each);
        storm(0);
        atomic_store(&pause_now, 1);
        pthread_barrier_wait(&gate);
        atomic_store(&pause_now, 0);
        // Threads of the library that have been joined may take a moment to be gone.
        for (int tries = 0; tries < 200 && entries("/proc/self/task", NULL) > THREADS + 3; tries++)
            usleep(1000);
        malloc_trim(0);
        long blocks = faults_blocks(), memory = resident();
        size_t descriptors = entries("/proc/self/fd", NULL), left = entries(folder, "safetensors-tmp");
        if (round < 3) {
            first_blocks = blocks > first_blocks ? blocks : first_blocks;
            first_resident = memory > first_resident ? memory : first_resident;
            first_descriptors = descriptors;
        }
        printf("round %d: %ld blocks, %ld kB resident, %zu descriptors, %zu temporaries\n", round, blocks, memory,
               descriptors, left);
        fflush(stdout);
        must(entries("/proc/self/task", NULL) == THREADS + 3, "no thread is left");
        must(descriptors == first_descriptors, "no descriptor is left");
        must(left == 0, "no temporary file is left");
        must(blocks <= first_blocks + 100, "no memory is lost");
        must(memory <= first_resident + first_resident / 4 + 16384, "memory stays what it was");
        pthread_barrier_wait(&gate);
    }
    atomic_store(&over, 1);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(all[i], NULL);
    st_free(shared);
    static const char *const what[KINDS] = {"open and get", "read", "load", "load to a sink", "save", "writer", "validate"};
    for (size_t i = 0; i < KINDS; i++) {
        printf("%-16s %9ld done, %9ld failed or cancelled\n", what[i], counts[i][0], counts[i][1]);
        must(counts[i][0] > 0, "each kind succeeds now and then");
    }
    return atomic_load(&wrong);
}
