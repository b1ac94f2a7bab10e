// SPDX-License-Identifier: Apache-2.0
//
// Every call that can fail, fails: with the shim preloaded, the first, second,
// third, ... call of each kind fails in each plausible way, until a run needs
// no more such calls. Each time the library has to give the right result or the
// right error, and nothing may be left: no descriptor, no thread, no memory, no
// temporary file; and an older file is as it was.
//
//     driver FOLDER WHAT      with tests/support/shim.c preloaded
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <safetensors.h>

#include "shim.h"

#define SIZE(array) (sizeof(array) / sizeof *(array))

// -------------------------------------------------------------------- the world

enum { TENSORS = 900, WIDTH = 100, LAST = 300000 };

static char folder[512], model[600], target[600];
static unsigned char *buffer;
static size_t buffer_size;
static int failures;

static void complain(const char *what, const char *call, long number, int fault, const st_error *error) {
    fprintf(stderr, "%s with %s:%ld:%d: %s (%s, errno %d: %.504s)\n", what, call, number, fault,
            "is not as it should be", error != NULL ? st_status_name(error->code) : "-",
            error != NULL ? error->os_errno : 0, error != NULL ? error->message : "-");
    if (++failures > 20)
        exit(1);
}

static size_t entries(const char *path) {
    size_t count = 0;
    DIR *opened = opendir(path);
    if (opened == NULL)
        abort();
    while (readdir(opened) != NULL)
        count++;
    closedir(opened);
    return count;
}

static size_t threads(void) {
    // A thread that has been joined may take a moment to be gone. Two are "." and "..".
    size_t count = entries("/proc/self/task") - 2;
    for (int tries = 0; count > 1 && tries < 200; tries++) {
        usleep(1000);
        count = entries("/proc/self/task") - 2;
    }
    return count;
}

// Many tensors, so that names, records and hashes are large allocations: F32 of
// WIDTH elements that count, and one that is larger than any buffer.
static float value(size_t tensor, size_t element) { return (float)((tensor * 7 + element) % 1000); }

static void save_model(const char *path, uint64_t shard_size) {
    static char names[TENSORS][24];
    static int64_t shapes[2][1] = {{WIDTH}, {LAST}};
    st_tensor *tensors = calloc(TENSORS, sizeof *tensors);
    float *data = malloc(sizeof(float) * (TENSORS * WIDTH + LAST));
    for (size_t i = 0; i < TENSORS; i++) {
        int last = i == TENSORS - 1;
        snprintf(names[i], sizeof names[i], "layer.%04zu.weight", i);
        tensors[i].name = names[i];
        tensors[i].dtype = ST_DTYPE_F32;
        tensors[i].rank = 1;
        tensors[i].shape = shapes[last];
        tensors[i].data = data + i * WIDTH;
        for (size_t element = 0; element < (size_t)shapes[last][0]; element++)
            data[i * WIDTH + element] = value(i, element);
    }
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.max_shard_size = shard_size;
    options.sync = ST_SYNC_NONE;
    st_error error;
    if (st_save(path, tensors, TENSORS, NULL, 0, &options, &error) != ST_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(2);
    }
    free(data);
    free(tensors);
}

static int holds(const void *data, size_t tensor, size_t count) {
    const float *found = data;
    for (size_t element = 0; element < count; element++)
        if (found[element] != value(tensor, element))
            return 0;
    return 1;
}

// The small file that saves replace: one tensor, all of one byte.
static st_tensor small_tensor(unsigned char version) {
    static const int64_t shape[] = {300000};
    static unsigned char bytes[300000];
    memset(bytes, version, sizeof bytes);
    st_tensor tensor = {0};
    tensor.name = "t";
    tensor.dtype = ST_DTYPE_U8;
    tensor.rank = 1;
    tensor.shape = shape;
    tensor.data = bytes;
    return tensor;
}

static int version_of(const char *path) {
    st_checkpoint *opened = st_open(path, NULL);
    const st_tensor *tensor = st_get_tensor(opened, "t", NULL);
    int version = tensor != NULL && tensor->size == 300000 ? ((const unsigned char *)tensor->data)[0] : -1;
    for (uint64_t i = 0; version >= 0 && i < tensor->size; i++)
        if (((const unsigned char *)tensor->data)[i] != version)
            version = -2;
    st_free(opened);
    return version;
}

// --------------------------------------------------- what is done under faults
// Each returns the status, and sets *right to whether its result is what it should be.

static int32_t access_now;

static st_checkpoint *open_now(st_error *error) {
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    options.access = access_now;
    options.prefetch = ST_PREFETCH_ADVISE;
    return st_open_with(model, &options, error);
}

static st_status do_open(int *right, st_error *error) {
    st_checkpoint *opened = open_now(error);
    size_t count = 0;
    st_tensors(opened, &count);
    *right = count == TENSORS && st_find_tensor(opened, "layer.0123.weight") != NULL;
    st_free(opened);
    return opened != NULL ? ST_OK : error->code;
}

static st_status do_get(int *right, st_error *error) {
    st_checkpoint *opened = open_now(error);
    if (opened == NULL)
        return error->code;
    st_status status = ST_OK;
    const size_t wanted[] = {0, 7, TENSORS - 1};
    *right = 1;
    for (size_t i = 0; i < SIZE(wanted) && status == ST_OK; i++) {
        char name[24];
        snprintf(name, sizeof name, "layer.%04zu.weight", wanted[i]);
        const st_tensor *got = st_get_tensor(opened, name, error);
        status = got != NULL ? ST_OK : error->code;
        if (got != NULL)
            *right &= holds(got->data, wanted[i], (size_t)got->element_count);
    }
    const st_tensor *last = st_find_tensor(opened, "layer.0899.weight");
    if (status == ST_OK) {
        status = st_read_tensor(opened, last, buffer, buffer_size, error);
        *right &= status != ST_OK || holds(buffer, TENSORS - 1, LAST);
    }
    st_range range = {1, LAST, 3};
    if (status == ST_OK) {
        status = st_read_slice(opened, last, &range, 1, buffer, buffer_size, error);
        for (size_t i = 0; status == ST_OK && i < LAST / 3; i++)
            *right &= ((float *)buffer)[i] == value(TENSORS - 1, 1 + 3 * i);
    }
    st_free(opened);
    return status;
}

static int32_t io_now;
static unsigned char *stages[3];
static const st_load_item *items_now;

static st_status take(void *user_data, size_t stage, size_t item, uint64_t offset, size_t size, st_error *error) {
    (void)user_data, (void)error;
    memcpy((char *)items_now[item].user_data + offset, stages[stage], size);
    return ST_OK;
}

static st_status load(int with_sink, int *right, st_error *error) {
    st_checkpoint *opened = open_now(error);
    if (opened == NULL)
        return error->code;
    size_t count;
    const st_tensor *tensors = st_tensors(opened, &count);
    // Not from the heap, where a fault would be this program's.
    static st_load_item items[TENSORS];
    static char *places[TENSORS];
    memset(items, 0, sizeof items);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        places[i] = (char *)buffer + at;
        items[i].tensor = &tensors[i];
        items[i].dst = with_sink ? NULL : places[i];
        items[i].dst_size = with_sink ? 0 : (size_t)tensors[i].size;
        items[i].user_data = places[i];
        at += (size_t)tensors[i].size;
    }
    items_now = items;
    st_buffer buffers[3];
    for (size_t i = 0; i < 3; i++)
        buffers[i] = (st_buffer){stages[i], 100000};
    st_sink sink = ST_SINK_INIT;
    sink.buffers = buffers;
    sink.buffer_count = 3;
    sink.chunk = take;
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.io = io_now;
    options.threads = 3;
    options.drop_cache = 1;
    options.sink = with_sink ? &sink : NULL;
    memset(buffer, 0xEE, at);
    st_status status = st_load(opened, items, count, &options, error);
    *right = 1;
    for (size_t i = 0; status == ST_OK && i < count; i++) {
        size_t number = (size_t)strtoul(tensors[i].name + 6, NULL, 10);
        *right &= holds(places[i], number, (size_t)tensors[i].element_count);
    }
    st_free(opened);
    return status;
}

static st_status do_load(int *right, st_error *error) { return load(0, right, error); }
static st_status do_sink(int *right, st_error *error) { return load(1, right, error); }

static int32_t sync_now;

static st_status do_save(int *right, st_error *error) {
    st_tensor tensor = small_tensor(2);
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.sync = sync_now;
    *right = 1;
    return st_save(target, &tensor, 1, NULL, 0, &options, error);
}

static st_status do_write(int *right, st_error *error) {
    st_tensor tensor = small_tensor(2);
    const char *data = tensor.data;
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.sync = sync_now;
    *right = 1;
    st_writer *writer = st_writer_open(target, &tensor, 1, NULL, 0, &options, error);
    if (writer == NULL)
        return error->code;
    st_status status = st_writer_write(writer, 0, 100000, data, 200000, error);
    if (status == ST_OK)
        status = st_writer_write(writer, 0, 0, data, 100000, error);
    if (status == ST_OK)
        status = st_writer_finish(writer, error);
    st_writer_free(writer);
    return status;
}

// From file to file.
static st_status do_copy(int *right, st_error *error) {
    *right = 1;
    st_checkpoint *opened = open_now(error);
    if (opened == NULL)
        return error->code;
    st_tensor tensor = *st_find_tensor(opened, "layer.0899.weight");
    st_save_options options = ST_SAVE_OPTIONS_INIT;
    options.sync = sync_now;
    options.source = opened;
    st_status status = st_save(target, &tensor, 1, NULL, 0, &options, error);
    st_free(opened);
    return status;
}

static int32_t count_problem(void *user_data, const st_problem *problem) {
    (void)problem;
    ++*(int *)user_data;
    return 0;
}

static st_status do_validate(int *right, st_error *error) {
    int problems = 0;
    st_status status = st_validate(model, NULL, count_problem, &problems, error);
    *right = problems == 0;
    return status;
}

// ------------------------------------------------------------------- the faults

// Instead of an errno: the call does half of what it is asked for, or nothing.
enum { HALF = -1, NOTHING = -2 };

typedef struct way {
    const char *call;
    int fault;
    // Done without, or once more: not even a failure of every such call may be told.
    int harmless;
} way;

// Those whose size a file or a caller decides.
#define LARGE_BLOCKS "malloc:least=32768"

static const way WAYS[] = {
    {"open", EMFILE, 0}, {"open", EACCES, 0}, {"open", EIO, 0}, {"open", ENOMEM, 0}, {"open", EINTR, 1},
    {"stat,fstat", EIO, 0}, {"stat,fstat", EACCES, 0}, {"stat,fstat", ENOMEM, 0},
    {"fstatfs", EIO, 1}, {"fstatfs", ENOSYS, 1},
    {"mmap", ENOMEM, 0}, {"mmap", ENODEV, 0},
    {"madvise", EINVAL, 1}, {"madvise", ENOMEM, 1}, {"fadvise", EINVAL, 1}, {"sync_file_range", EIO, 1},
    {"pread", EIO, 0}, {"pread", ESTALE, 0}, {"pread", EINTR, 1}, {"pread", HALF, 1}, {"pread", NOTHING, 0},
    {"pread", ENOMEM, 0},
    {"preadv2", EAGAIN, 1}, {"preadv2", EOPNOTSUPP, 1}, {"preadv2", EIO, 1},
    {"opendir", EMFILE, 0}, {"opendir", EACCES, 0}, {"readdir", EIO, 0},
    {"pwrite", EIO, 0}, {"pwrite", ENOSPC, 0}, {"pwrite", EDQUOT, 0}, {"pwrite", EINTR, 1}, {"pwrite", HALF, 1},
    {"pwrite", NOTHING, 0}, {"write", ENOSPC, 0}, {"write", EINTR, 1}, {"write", HALF, 1},
    {"copy_file_range", EXDEV, 1}, {"copy_file_range", EINVAL, 1}, {"copy_file_range", EOPNOTSUPP, 1},
    {"copy_file_range", EIO, 0}, {"copy_file_range", HALF, 1}, {"copy_file_range", ENOSPC, 0},
    {"fallocate", ENOSPC, 0}, {"fallocate", EIO, 0}, {"fallocate", EOPNOTSUPP, 1}, {"fallocate", EINTR, 1},
    {"fsync", EIO, 0}, {"fsync", ENOSPC, 0}, {"fsync", EINTR, 1},
    {"rename", EACCES, 0}, {"rename", EIO, 0}, {"rename", ENOSPC, 0},
    {"fchmod", EPERM, 0}, {"fchown", EPERM, 0}, {"flock", ENOLCK, 1}, {"flock", EINTR, 1},
    {"fcntl", EMFILE, 0}, {"close", EIO, 0}, {"close", EINTR, 1},
    {"thread", EAGAIN, 1}, {LARGE_BLOCKS, ENOMEM, 0},
};

// Whether an error is the one that this fault makes.
static int is_right(const way *how, st_status status, const st_error *error) {
    const char *end = memchr(error->message, 0, sizeof error->message);
    if (error->code != status || end == NULL || end == error->message)
        return 0;
    // A mapping may also be memory that is asked for.
    // Only who insists on a mapping is told that there can't be one.
    int memory = status == ST_ERROR_OUT_OF_MEMORY || access_now != ST_ACCESS_MAP;
    if (how->fault == ENOMEM || (strcmp(how->call, "mmap") == 0 && memory))
        return status == ST_ERROR_OUT_OF_MEMORY;
    return (status == ST_ERROR_IO || status == ST_ERROR_SHARD) && error->os_errno == (how->fault > 0 ? how->fault : 0);
}

static long rounds;

static void with_every_fault(const char *name, st_status (*run)(int *, st_error *), int writes) {
    st_error error;
    int right = 0;
    // Twice, so that what is kept for the process's life is there.
    for (int i = 0; i < 2; i++)
        if (run(&right, &error) != ST_OK || !right)
            complain(name, "none", 0, 0, &error);
    if (writes)
        save_model(model, 0);
    long blocks = faults_blocks();
    size_t descriptors = entries("/proc/self/fd"), names = entries(folder);
    for (size_t i = 0; i < SIZE(WAYS); i++) {
        const way *how = &WAYS[i];
        for (long number = 1, fired = 1; fired; number++, rounds++) {
            if (writes) {
                st_tensor old = small_tensor(1);
                st_save_options quickly = ST_SAVE_OPTIONS_INIT;
                quickly.sync = ST_SYNC_NONE;
                if (st_save(target, &old, 1, NULL, 0, &quickly, NULL) != ST_OK)
                    abort();
            }
            memset(&error, 0, sizeof error);
            char rule[100];
            int size = snprintf(rule, sizeof rule, "%s:nth=%ld:", how->call, number);
            const char *what = how->fault == HALF ? "half" : how->fault == NOTHING ? "nothing" : "fails=%d";
            snprintf(rule + size, sizeof rule - (size_t)size, what, how->fault);
            faults(rule);
            st_status status = run(&right, &error);
            fired = faults(NULL);
            int good = status == ST_OK ? right : fired && !how->harmless && is_right(how, status, &error);
            // Behind the renaming only the folder can fail to reach the disk.
            if (writes && run != do_copy)
                good &= version_of(target) == (status == ST_OK || strstr(error.message, "is in place") ? 2 : 1);
            if (writes && run == do_copy && status != ST_OK && !strstr(error.message, "is in place"))
                good &= version_of(target) == 1;
            if (!good || entries("/proc/self/fd") != descriptors || entries(folder) != names || threads() > 1) {
                fprintf(stderr, "descriptors %zu of %zu, names %zu of %zu, threads %zu\n", entries("/proc/self/fd"),
                        descriptors, entries(folder), names, threads());
                complain(name, how->call, number, how->fault, &error);
                if (!good)
                    break;
            }
        }
    }
    // A block lost in each way of failing would be dozens; threads keep a few for the next.
    if (faults_blocks() > blocks + 8) {
        fprintf(stderr, "%s: %ld blocks of memory are lost\n", name, faults_blocks() - blocks);
        failures++;
    }
}

// With less and less address space: an error, and never an end.
static void with_little_memory(st_status (*run)(int *, st_error *)) {
    // Small blocks come from what the heap has, so that the large ones are what fails.
    // Every second one is free, so that no large block fits between the others.
    enum { SMALL = 4096 };
    static void *small[SMALL];
    mallopt(M_MMAP_THRESHOLD, 16 << 10);
    for (size_t i = 0; i < SMALL; i++)
        small[i] = malloc(8192);
    for (size_t i = 0; i < SMALL; i += 2)
        free(small[i]);
    int succeeded = 0;
    for (size_t room = 0; !succeeded && room < (size_t)1 << 30; room += (size_t)1 << 20, rounds++) {
        long pages = 0;
        FILE *file = fopen("/proc/self/statm", "r");
        if (file == NULL || fscanf(file, "%ld", &pages) != 1)
            abort();
        fclose(file);
        struct rlimit before, now;
        getrlimit(RLIMIT_AS, &before);
        now = before;
        now.rlim_cur = (rlim_t)pages * 4096 + room;
        setrlimit(RLIMIT_AS, &now);
        st_error error;
        int right = 0;
        st_status status = run(&right, &error);
        setrlimit(RLIMIT_AS, &before);
        succeeded = status == ST_OK;
        if (succeeded ? !right : status != ST_ERROR_OUT_OF_MEMORY)
            complain("little memory", "limit", (long)(room >> 20), 0, &error);
    }
    if (!succeeded)
        failures++;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    const char *what = argv[2];
    snprintf(folder, sizeof folder, "%s", argv[1]);
    snprintf(model, sizeof model, "%s/model.safetensors", folder);
    snprintf(target, sizeof target, "%s/target.safetensors", folder);
    buffer_size = (size_t)12 << 20;
    buffer = malloc(buffer_size);
    for (size_t i = 0; i < 3; i++)
        stages[i] = malloc(100000);
    int reopened = strcmp(what, "reopened") == 0;
    save_model(model, reopened ? 70000 : strcmp(what, "shards") == 0 ? 1000000 : 0);

    if (strcmp(what, "open") == 0) {
        for (access_now = ST_ACCESS_AUTO; access_now <= ST_ACCESS_READ; access_now++)
            with_every_fault("open", do_open, 0);
        with_every_fault("validate", do_validate, 0);
    } else if (strcmp(what, "shards") == 0) {
        snprintf(model, sizeof model, "%s", folder);
        for (access_now = ST_ACCESS_AUTO; access_now <= ST_ACCESS_READ; access_now += 2)
            with_every_fault("open folder", do_open, 0);
        with_every_fault("validate folder", do_validate, 0);
    } else if (strcmp(what, "get") == 0) {
        for (access_now = ST_ACCESS_AUTO; access_now <= ST_ACCESS_READ; access_now += 2)
            with_every_fault("get, read, slice", do_get, 0);
    } else if (strcmp(what, "load") == 0) {
        access_now = ST_ACCESS_READ;
        for (io_now = ST_IO_CACHED; io_now <= ST_IO_DIRECT; io_now++)
            with_every_fault("load", do_load, 0);
        io_now = ST_IO_AUTO;
        with_every_fault("load to a sink", do_sink, 0);
    } else if (reopened) {
        // A quarter is less than there are shards: none is kept open.
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = 24;
        setrlimit(RLIMIT_NOFILE, &limit);
        snprintf(model, sizeof model, "%s", folder);
        size_t before = entries("/proc/self/fd");
        st_checkpoint *opened = open_now(NULL);
        if (opened == NULL || entries("/proc/self/fd") != before)
            complain("shards opened anew", "open", 0, 0, NULL);
        st_free(opened);
        with_every_fault("get from shards opened anew", do_get, 0);
        access_now = ST_ACCESS_READ;
        io_now = ST_IO_DIRECT;
        with_every_fault("load from shards opened anew", do_load, 0);
        io_now = ST_IO_AUTO;
        with_every_fault("load to a sink from shards opened anew", do_sink, 0);
    } else if (strcmp(what, "save") == 0) {
        for (sync_now = ST_SYNC_FULL; sync_now <= ST_SYNC_NONE; sync_now++) {
            with_every_fault("save", do_save, 1);
            with_every_fault("writer", do_write, 1);
            with_every_fault("copy", do_copy, 1);
        }
    } else if (strcmp(what, "memory") == 0) {
        with_little_memory(do_open);
        access_now = ST_ACCESS_READ;
        with_little_memory(do_get);
        with_little_memory(do_load);
        with_little_memory(do_sink);
        with_little_memory(do_save);
        with_little_memory(do_write);
        with_little_memory(do_validate);
    } else {
        return 2;
    }
    printf("%s: %ld rounds\n", what, rounds);
    free(buffer);
    for (size_t i = 0; i < 3; i++)
        free(stages[i]);
    return failures != 0;
}
