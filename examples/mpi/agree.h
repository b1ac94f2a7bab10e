// SPDX-License-Identifier: Apache-2.0
//
// One verdict for all ranks of an MPI program: whatever one of them fails of,
// every rank says, and ends. And whether all ranks have the same files.

#ifndef AGREE_H
#define AGREE_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mpi.h>

#include <safetensors_model.h>

enum { MESSAGE = 1024 };

static int rank, ranks;

// What a rank has to say: "" where all is well.
typedef struct verdict {
    char host[MPI_MAX_PROCESSOR_NAME];
    char message[MESSAGE];
} verdict;

static verdict own;

// Notes the first thing that goes wrong on this rank; agree() makes it known.
static void wrong(const char *format, ...) {
    if (own.message[0] != '\0')
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(own.message, sizeof own.message, format, arguments);
    va_end(arguments);
}

// Returns if all ranks are well. Otherwise every rank says what is wrong with the
// first that is not, and ends: nobody waits for somebody who is gone.
static void agree(void) {
    verdict *all = calloc((size_t)ranks, sizeof *all);
    if (all == NULL)
        MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Allgather(&own, sizeof own, MPI_BYTE, all, sizeof own, MPI_BYTE, MPI_COMM_WORLD);
    int failed = 0;
    while (failed < ranks && all[failed].message[0] == '\0')
        failed++;
    if (failed < ranks) {
        fprintf(stderr, "llama: rank %d on %s: %s\n", failed, all[failed].host, all[failed].message);
        fflush(stderr);
        MPI_Barrier(MPI_COMM_WORLD);               // mpirun ends the others once one has failed
        MPI_Finalize();
        exit(1);
    }
    free(all);
}

static void *allocate(uint64_t count, size_t size) {
    void *memory = count > SIZE_MAX / size ? NULL : calloc(count ? (size_t)count : 1, size);
    if (memory == NULL)
        wrong("no memory for %" PRIu64 " x %zu bytes", count, size);
    agree();
    return memory;
}

// ------------------------------------------------------------------- the same files

static uint64_t digest(uint64_t hash, const void *data, size_t size) {   // FNV-1a
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3;
    return hash;
}

// A file's first bytes, or all of them, with a NUL after them; NULL where it can't be read.
static char *contents(const char *path, uint64_t most, size_t *size) {
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    size_t room = 0, got = 1;
    *size = 0;
    while (file != NULL && got != 0 && *size < most) {
        if (room < *size + 65537) {
            char *larger = realloc(data, room = room * 2 + 65537);
            if (larger == NULL)
                break;
            data = larger;
        }
        got = fread(data + *size, 1, most - *size < 65536 ? (size_t)(most - *size) : 65536, file);
        *size += got;
    }
    if (file != NULL)
        fclose(file);
    if (data != NULL)
        data[*size] = '\0';
    return data;
}

// One digest for each file and one for the config and the plans. Rank 0's are
// compared with everybody's.
static void compare(const st_checkpoint *model, const char *config, const st_text *plans, size_t plan_count) {
    size_t count = 0;
    const st_shard *shards = st_shards(model, &count);
    uint64_t *mine = allocate(count + 1, sizeof *mine);
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        char *header = contents(shards[i].path, shards[i].data_offset, &size);
        mine[i] = digest(digest(0xcbf29ce484222325, header, size), &shards[i].size, sizeof shards[i].size);
        free(header);
    }
    mine[count] = digest(0xcbf29ce484222325, config, strlen(config));
    for (size_t i = 0; i < plan_count; i++)
        mine[count] = digest(mine[count], plans[i].data, plans[i].size);

    uint64_t first = count;
    MPI_Bcast(&first, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    uint64_t *wanted = allocate(first + 1, sizeof *wanted);
    if (rank == 0)
        memcpy(wanted, mine, (count + 1) * sizeof *mine);
    MPI_Bcast(wanted, (int)(first + 1), MPI_UINT64_T, 0, MPI_COMM_WORLD);
    for (size_t i = 0; i < count && i < first; i++) {
        if (mine[i] != wanted[i])
            wrong("%s: another version than rank 0 has: its header or size differs", shards[i].path);
    }
    if (count != first)
        wrong("%s: one of %zu files, and rank 0 has %" PRIu64, shards[0].path, count, first);
    if (mine[count] != wanted[first])
        wrong("%s: config.json beside it or the plans differ from those of rank 0", shards[0].path);
    agree();
    free(wanted);
    free(mine);
}

#endif
