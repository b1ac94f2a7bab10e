/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults on demand, for tests/writing/crash.rs: preloaded, it makes a call fail that
 * FAULT names ("fsync:5", the errno behind the colon; "fsync:5:2": from its
 * second call on; "fsync:5:2:1": only the second one), and then makes the file
 * that FAULT_FIRED names. "short" is a pwrite or copy_file_range that does a
 * part. STEP=n:errno makes the n-th of all calls here fail that touch FAULT_FOLDER,
 * STEP=n:kill ends the process before it. SWAP=call:n:from:to renames a file just
 * before the n-th such call. FAST=1: nothing is brought to the disk. CLONE=1
 * copies where the file system can't share blocks. What is done to files and
 * folders is written down, line by line, in the file that FAULT_LOG names.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int fire(int number, const char *call) {
    const char *fired = getenv("FAULT_FIRED");
    if (fired) {
        int fd = creat(fired, 0600);
        if (write(fd, call, strlen(call)) < 0) abort();
        REAL(close)(fd);
    }
    if (number == -1) raise(SIGKILL);
    errno = number;
    return 1;
}

/* Whether this call is the one that is to fail. */
static int fails(const char *call) {
    static atomic_int calls, steps, swaps;
    const char *step = getenv("STEP"), *fault = getenv("FAULT"), *swap = getenv("SWAP");
    size_t length = strlen(call);
    int number = 0, first = 1, count = 1 << 30;
    if (swap && !strncmp(swap, call, length) && swap[length] == ':' &&
        atomic_fetch_add(&swaps, 1) + 1 == atoi(swap + length + 1)) {
        char text[8192], *rest = text, *from, *to;
        snprintf(text, sizeof text, "%s", swap + length + 1);
        strsep(&rest, ":");
        from = strsep(&rest, ":");
        to = strsep(&rest, ":");
        if (REAL(rename)(from, to)) abort();
    }
    if (step && strcmp(call, "short") && strcmp(call, "fcntl") && atomic_fetch_add(&steps, 1) + 1 == atoi(step)) {
        const char *how = strchr(step, ':') + 1;
        return fire(strcmp(how, "kill") ? atoi(how) : -1, call);
    }
    if (!fault || strncmp(fault, call, length) || fault[length] != ':') return 0;
    sscanf(fault + length + 1, "%d:%d:%d", &number, &first, &count);
    int call_number = atomic_fetch_add(&calls, 1) + 1;
    if (call_number < first || call_number - first >= count) return 0;
    errno = number;
    return step ? 1 : fire(number, call);
}

static int in_folder(const char *path) {
    const char *folder = getenv("FAULT_FOLDER");
    return folder && !strncmp(path, folder, strlen(folder));
}

static void note(const char *call, const char *path, const char *more) {
    const char *log = getenv("FAULT_LOG");
    if (!log) return;
    int error = errno, fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (dprintf(fd, "%s\t%s\t%s\n", call, path, more) < 0) abort();
    REAL(close)(fd);
    errno = error;
}

static void note_of(const char *call, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    note(call, path, "");
}

int fsync(int fd) {
    note_of("fsync", fd);
    return fails("fsync") ? -1 : getenv("FAST") ? 0 : REAL(fsync)(fd);
}

int rename(const char *from, const char *to) {
    note("rename", from, to);
    return fails("rename") ? -1 : REAL(rename)(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    note("link", from, to);
    return fails("link") ? -1 : REAL(linkat)(from_folder, from, to_folder, to, flags);
}

int unlink(const char *path) {
    note("unlink", path, "");
    return fails("unlink") ? -1 : REAL(unlink)(path);
}

/* Opening a checkpoint or making one; programs open much else. */
int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = va_arg(arguments, mode_t);
    va_end(arguments);
    if (flags & O_CREAT) note("create", path, !(flags & O_EXCL) ? "shared" : mode & 077 ? "readable" : "private");
    return (strstr(path, ".safetensors") || in_folder(path)) && fails("open") ? -1 : REAL(open64)(path, flags, mode);
}

int fchmod(int fd, mode_t mode) { return fails("fchmod") ? -1 : REAL(fchmod)(fd, mode); }

int fchown(int fd, uid_t owner, gid_t group) {
    note_of("fchown", fd);
    return fails("fchown") ? -1 : REAL(fchown)(fd, owner, group);
}

int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return fails("fcntl") ? -1 : REAL(fcntl)(fd, command, argument);
}

static size_t shortened(size_t size) { return size > 1 && fails("short") ? size > 4096 ? 4096 : size / 2 : size; }

/* renameat2 and copy_file_range, which are called so; all others with up to six arguments pass. */
long syscall(long number, ...) {
    va_list arguments;
    va_start(arguments, number);
    long given[6];
    for (int i = 0; i < 6; i++) given[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_renameat2 && fails("renameat2")) return -1;
    if (number == SYS_copy_file_range) {
        given[4] = (long)shortened((size_t)given[4]);
        if (fails("copy_file_range")) return -1;
    }
    return REAL(syscall)(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    size = shortened(size);
    note_of("pwrite", fd);
    return fails("pwrite") ? -1 : REAL(pwrite64)(fd, data, size, at);
}

int flock(int fd, int how);
int flock(int fd, int how) { return fails("flock") ? -1 : REAL(flock)(fd, how); }

int fallocate64(int fd, int mode, off64_t at, off64_t size);
int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    note_of("fallocate", fd);
    return fails("fallocate") ? -1 : REAL(fallocate64)(fd, mode, at, size);
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
    if (request == 0x4020940DUL && fails("ioctl")) return -1;
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
