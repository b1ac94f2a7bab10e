// SPDX-License-Identifier: Apache-2.0
//
// Plays libcuda.so.1 for examples/c/cuda.c on a machine without a GPU, as
// unkindly as the interface allows: a copy is done as late as it may be, when
// somebody waits for it, and the GPU's addresses can't be touched. The call that
// STAND_IN_FAILS names fails, from the STAND_IN_FROM-th time on.

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef unsigned long long address;
static struct { address to; const void *from; size_t size; } queue[1 << 16];
static size_t asked, done;
static char *memory, *shadow;                      // what is handed out, and where its bytes are
static size_t room;

static int fails(const char *call) {
    static int times;
    const char *which = getenv("STAND_IN_FAILS"), *from = getenv("STAND_IN_FROM");
    return which != NULL && strcmp(which, call) == 0 && ++times >= (from == NULL ? 1 : atoi(from)) ? 2 : 0;
}

#define FAIL_OR_DO(action) \
    if (fails(__func__)) \
        return 2; \
    action; \
    return 0

int cuInit(unsigned flags) { FAIL_OR_DO((void)flags); }
int cuGetErrorString(int code, const char **text) { return *text = code == 2 ? "out of memory" : "unknown", 0; }
int cuDeviceGet(int *device, int number) { FAIL_OR_DO(*device = number); }
int cuDeviceGetName(char *name, int size, int device) { FAIL_OR_DO((void)device; snprintf(name, (size_t)size, "Stand-in")); }
int cuDevicePrimaryCtxRetain(void **context, int device) { FAIL_OR_DO((void)device; *context = queue); }
int cuDevicePrimaryCtxRelease_v2(int device) { return device; }
int cuCtxSetCurrent(void *context) { FAIL_OR_DO((void)context); }

int cuMemAlloc_v2(address *at, size_t size) {
    FAIL_OR_DO({
        room = size;
        memory = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        shadow = calloc(1, size);
        *at = (address)(uintptr_t)memory;
    });
}

int cuMemFree_v2(address at) {
    free(shadow);
    return munmap((void *)(uintptr_t)at, room);
}

int cuMemAllocHost_v2(void **at, size_t size) { FAIL_OR_DO(*at = aligned_alloc(4096, size)); }
int cuMemFreeHost(void *at) { return free(at), 0; }
int cuStreamCreate(void **stream, unsigned flags) { FAIL_OR_DO((void)flags; *stream = queue); }
int cuStreamDestroy_v2(void *stream) { return stream != queue; }
int cuEventCreate(void **event, unsigned flags) { FAIL_OR_DO((void)flags; *event = calloc(1, sizeof(size_t))); }
int cuEventDestroy_v2(void *event) { return free(event), 0; }

int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t size, void *stream) {
    FAIL_OR_DO({
        (void)stream;
        if (to < (uintptr_t)memory || to + size > (uintptr_t)memory + room || asked - done == sizeof queue / sizeof *queue)
            return 1;
        queue[asked % (sizeof queue / sizeof *queue)].to = to;
        queue[asked % (sizeof queue / sizeof *queue)].from = from;
        queue[asked++ % (sizeof queue / sizeof *queue)].size = size;
    });
}

int cuEventRecord(void *event, void *stream) { FAIL_OR_DO((void)stream; *(size_t *)event = asked); }

int cuEventSynchronize(void *event) {
    FAIL_OR_DO(for (; done < *(size_t *)event; done++) {
        const size_t slot = done % (sizeof queue / sizeof *queue);
        memcpy(shadow + (queue[slot].to - (uintptr_t)memory), queue[slot].from, queue[slot].size);
    });
}

int cuMemcpyDtoH_v2(void *to, address from, size_t size) {
    FAIL_OR_DO(memcpy(to, shadow + (from - (uintptr_t)memory), size));
}
