/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults on demand, for tests/crash.rs: preloaded, it makes a call fail that
 * FAULT names ("fsync:5", the errno behind the colon; "fsync:5:2": from its
 * second call on; "fsync:5:2:1": only the second one). CLONE=1 copies where the file system can't share blocks.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(const char *call) {
    static atomic_int calls;
    const char *fault = getenv("FAULT");
    size_t length = strlen(call);
    int number = 0, first = 1, count = 1 << 30;
    if (!fault || strncmp(fault, call, length) || fault[length] != ':') return 0;
    sscanf(fault + length + 1, "%d:%d:%d", &number, &first, &count);
    int call_number = atomic_fetch_add(&calls, 1) + 1;
    if (call_number < first || call_number - first >= count) return 0;
    errno = number;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) { return fails("fsync") ? -1 : REAL(fsync)(fd); }

int rename(const char *from, const char *to) { return fails("rename") ? -1 : REAL(rename)(from, to); }

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fails("pwrite") ? -1 : REAL(pwrite64)(fd, data, size, at);
}

int flock(int fd, int how);
int flock(int fd, int how) { return fails("flock") ? -1 : REAL(flock)(fd, how); }

int fallocate64(int fd, int mode, off64_t at, off64_t size);
int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    return fails("fallocate") ? -1 : REAL(fallocate64)(fd, mode, at, size);
}

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    return fails("copy_file_range") ? -1 : REAL(copy_file_range)(in, in_at, out, out_at, size, flags);
}

int close(int fd) {
    int result = REAL(close)(fd);
    return fails("close") ? -1 : result;
}

struct clone_range {
    int64_t from;
    uint64_t offset, length, to_offset;
};

int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request != 0x4020940DUL || !getenv("CLONE")) return REAL(ioctl)(fd, request, argument);
    const struct clone_range *range = argument;
    char block[4096];
    uint64_t done = 0;
    /* As a file system would: whole blocks, to the end of the file. */
    if (range->length || range->offset % 4096 || range->to_offset % 4096) return errno = EINVAL, -1;
    for (ssize_t got; (got = pread64((int)range->from, block, sizeof block, (off64_t)(range->offset + done))) > 0; done += (uint64_t)got)
        if (REAL(pwrite64)(fd, block, (size_t)got, (off64_t)(range->to_offset + done)) != got) return -1;
    return 0;
}
