// SPDX-License-Identifier: Apache-2.0
// Bench.java in C: what the same work costs without the binding.
//
//     bench FOLDER
//
// The files are those that Bench.java made.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <safetensors.h>

enum { LOADS = 7, MOST = 100000, MOST_ROUNDS = 501 };

static size_t rounds(size_t count)
{
    return count < 1000 ? MOST_ROUNDS : 15;
}

static double now(void)
{
    struct timespec time;
    timespec_get(&time, TIME_UTC);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static st_checkpoint *opened(const char *folder, const char *name)
{
    char path[4096];
    st_error error;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    st_checkpoint *checkpoint = st_open(path, &error);
    if (checkpoint == NULL) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    return checkpoint;
}

static double open_and_list(const char *folder, const char *name, size_t wanted)
{
    double took[MOST_ROUNDS];
    uint64_t bytes = 0;
    for (size_t round = 0; round < rounds(wanted); round++) {
        double began = now();
        size_t count;
        st_checkpoint *checkpoint = opened(folder, name);
        const st_tensor *tensors = st_tensors(checkpoint, &count);
        for (size_t i = 0; i < count; i++) {
            bytes += tensors[i].size + tensors[i].name_len + tensors[i].rank;
        }
        st_free(checkpoint);
        took[round] = now() - began;
    }
    return bytes > rounds(wanted) * wanted ? median(took, rounds(wanted)) : 0;
}

// The first lookup after opening; each name once, the first among them, per
// lookup; the same again. The names are copies: nothing of theirs is in a cache
// because the record is.
static void lookups(const char *folder, const char *name, size_t wanted, double result[3])
{
    static char *names[MOST];
    static double took[3][MOST_ROUNDS];
    size_t count;
    uint64_t bytes = 0;
    st_checkpoint *checkpoint = opened(folder, name);
    const st_tensor *tensors = st_tensors(checkpoint, &count);
    for (size_t i = 0; i < MOST && i < count; i++) {
        size_t other = (size_t)rand() % (i + 1);
        names[i] = names[other];
        names[other] = strdup(tensors[i].name);
    }
    st_free(checkpoint);
    for (size_t round = 0; round < rounds(wanted); round++) {
        checkpoint = opened(folder, name);
        double began = now();
        bytes += st_find_tensor(checkpoint, names[0])->size;
        took[0][round] = now() - began;
        for (size_t i = 1; i < wanted; i++) {
            bytes += st_find_tensor(checkpoint, names[i])->size;
        }
        took[1][round] = (now() - began) / (double)wanted;
        began = now();
        for (size_t i = 0; i < wanted; i++) {
            bytes += st_find_tensor(checkpoint, names[i])->size;
        }
        took[2][round] = (now() - began) / (double)wanted;
        st_free(checkpoint);
    }
    for (size_t i = 0; i < wanted; i++) {
        free(names[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        result[i] = bytes == 2 * rounds(wanted) * wanted ? median(took[i], rounds(wanted)) : 0;
    }
}

static double load(const char *folder)
{
    double took[LOADS];
    size_t count;
    st_checkpoint *checkpoint = opened(folder, "large.safetensors");
    const st_tensor *tensors = st_tensors(checkpoint, &count);
    st_load_item *items = calloc(count, sizeof *items);
    void **buffers = calloc(count, sizeof *buffers);
    st_status status = items == NULL || buffers == NULL ? ST_ERROR_OUT_OF_MEMORY : ST_OK;
    for (size_t i = 0; i < count && status == ST_OK; i++) {
        buffers[i] = aligned_alloc(64, (size_t)tensors[i].size); // a multiple of 64, as Bench.java made it
        status = buffers[i] == NULL ? ST_ERROR_OUT_OF_MEMORY : ST_OK;
        items[i].tensor = &tensors[i];
        items[i].dst = buffers[i];
        items[i].dst_size = (size_t)tensors[i].size;
    }
    for (size_t round = 0; round <= LOADS && status == ST_OK; round++) {
        double began = now();
        status = st_load(checkpoint, items, count, NULL, NULL);
        if (round > 0) { // the page cache and the memory, once
            took[round - 1] = now() - began;
        }
    }
    for (size_t i = 0; i < count && buffers != NULL; i++) {
        free(buffers[i]);
    }
    free(buffers);
    free(items);
    st_free(checkpoint);
    return status == ST_OK ? median(took, LOADS) : 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: bench FOLDER\n");
        return 2;
    }
    const char *names[] = {"300.safetensors", "100000.safetensors"};
    const size_t counts[] = {300, 100000};
    for (size_t i = 0; i < 2; i++) {
        double opening = open_and_list(argv[1], names[i], counts[i]), found[3];
        lookups(argv[1], names[i], counts[i], found);
        printf("C:    %6zu tensors: open and list %8.3f ms, first lookup %8.1f us, each name once %5.0f ns, again %5.0f ns\n",
               counts[i], opening / 1e6, found[0] / 1e3, found[1], found[2]);
    }
    printf("C:    load 1 GiB %6.1f ms\n", load(argv[1]) / 1e6);
    return 0;
}
