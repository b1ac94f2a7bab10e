// SPDX-License-Identifier: Apache-2.0

#include "glue.h"
#include "_cgo_export.h"

const st_tensor *cst_tensors(const st_checkpoint *checkpoint, size_t *count)
{
    const st_tensor *first = st_tensors(checkpoint, count);
    return *count != 0 ? first : NULL;
}

const st_metadata *cst_metadata(const st_checkpoint *checkpoint, size_t *count, int *present)
{
    const st_metadata *first = st_metadata_entries(checkpoint, count);
    *present = first != NULL;
    return *count != 0 ? first : NULL;
}

// Callbacks: each hands its call to the Go function of its name.

static st_status read_at(void *user, uint64_t offset, void *dst, size_t len, size_t *done, st_error *error)
{
    return cstReadAt((uintptr_t)user, offset, dst, len, done, error);
}

static void release(void *user)
{
    cstRelease((uintptr_t)user);
}

static st_status open_source(void *user, const char *name, st_io *out, st_error *error)
{
    return cstOpen((uintptr_t)user, (char *)name, out, error);
}

static int32_t progress(void *user, uint64_t done, uint64_t total)
{
    return cstProgress((uintptr_t)user, done, total);
}

static st_status chunk(void *user, size_t buffer, size_t item, uint64_t item_offset, size_t size, st_error *error)
{
    return cstChunk((uintptr_t)user, buffer, item, item_offset, size, error);
}

static st_status wait_for(void *user, size_t buffer, st_error *error)
{
    return cstWait((uintptr_t)user, buffer, error);
}

static int32_t report(void *user, const st_problem *problem)
{
    return cstReport((uintptr_t)user, (st_problem *)problem);
}

void cst_io_init(st_io *io, uintptr_t user)
{
    io->read_at = read_at;
    io->release = release;
    io->user_data = (void *)user;
}

void cst_resolver_init(st_resolver *resolver, uintptr_t user)
{
    resolver->open = open_source;
    resolver->release = release;
    resolver->user_data = (void *)user;
}

void cst_save_progress(st_save_options *options, uintptr_t user)
{
    options->progress = progress;
    options->user_data = (void *)user;
}

void cst_load_progress(st_load_options *options, uintptr_t user)
{
    options->progress = progress;
    options->user_data = (void *)user;
}

void cst_sink_init(st_sink *sink, uintptr_t user, int wait)
{
    sink->chunk = chunk;
    sink->wait = wait ? wait_for : NULL;
    sink->user_data = (void *)user;
}

st_status cst_validate(const char *path, const st_open_options *options, uintptr_t user, st_error *error)
{
    return st_validate(path, options, report, (void *)user, error);
}
