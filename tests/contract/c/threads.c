// SPDX-License-Identifier: Apache-2.0
// One checkpoint, eight threads: lookups, reads, retain and free at once; what
// one thread got is what all get.

#include "check.h"

#include <pthread.h>
#include <unistd.h>

enum { THREADS = 8, TENSORS = 64, EACH = 3000, ROUNDS = 20 };

static st_checkpoint *shared;
static const st_tensor *got[THREADS][TENSORS];
static pthread_barrier_t start;

static void *work(void *argument)
{
    size_t me = *(size_t *)argument;
    unsigned char *copy = malloc(EACH);
    pthread_barrier_wait(&start);
    for (size_t round = 0; round < ROUNDS; round++) {
        st_checkpoint *mine = st_retain(shared);
        for (size_t i = 0; i < TENSORS; i++) {
            size_t number = (i * 5 + me * 11 + round) % TENSORS;
            char name[16];
            snprintf(name, sizeof name, "t%zu", number);
            st_error error;
            const st_tensor *tensor = st_get_tensor(mine, name, &error);
            if (tensor == NULL || (got[me][number] != NULL && got[me][number] != tensor)) {
                free(copy);
                return "another record, or none";
            }
            got[me][number] = tensor;
            if (st_read_tensor(mine, tensor, copy, EACH, &error) != ST_OK || memcmp(copy, tensor->data, EACH) != 0) {
                free(copy);
                return "other bytes";
            }
            if (st_find_tensor(mine, "nope") != NULL || st_get_tensor(mine, "nope", &error) != NULL) {
                free(copy);
                return "a tensor that is not there";
            }
        }
        st_free(mine);
    }
    free(copy);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: threads CORPUS SCRATCH\n");
        return 2;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/threads-%ld.safetensors", argv[2], (long)getpid());
    bytes file = file_of(TENSORS, EACH);
    write_file(path, file.data, file.size);
    const int32_t accesses[] = {ST_ACCESS_MAP, ST_ACCESS_READ};
    for (size_t way = 0; way < 2; way++) {
        st_open_options options = ST_OPEN_OPTIONS_INIT;
        options.access = accesses[way];
        shared = st_open_with(path, &options, NULL);
        CHECK(shared != NULL);
        memset(got, 0, sizeof got);
        pthread_barrier_init(&start, NULL, THREADS);
        pthread_t threads[THREADS];
        size_t numbers[THREADS];
        for (size_t i = 0; i < THREADS; i++) {
            numbers[i] = i;
            CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
        }
        for (size_t i = 0; i < THREADS; i++) {
            void *fault;
            pthread_join(threads[i], &fault);
            if (!CHECK(fault == NULL)) {
                fprintf(stderr, "%s\n", (const char *)fault);
            }
            CHECK(memcmp(got[i], got[0], sizeof got[0]) == 0);
        }
        for (size_t i = 0; i < TENSORS; i++) {
            CHECK(memcmp(got[0][i]->data, file.data + got[0][i]->offset, EACH) == 0);
        }
        pthread_barrier_destroy(&start);
        st_free(shared);
    }
    remove(path);
    free(file.data);
    return check_result();
}
