/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A library to preload: makes system calls and large allocations fail when the
 * program says so (shim.h), and counts blocks of memory.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Blocks from this size on are those whose size a file or a caller decides. */
#define LARGE ((size_t)32 << 10)

static const char *volatile armed;
static atomic_long countdown, blocks;
static atomic_int fault_now, fired;
static atomic_uint storm;
static atomic_ulong seed;

void faults_arm(const char *call, long number, int fault) {
    atomic_store(&countdown, number);
    atomic_store(&fault_now, fault);
    atomic_store(&fired, 0);
    armed = call;
}

int faults_disarm(void) {
    armed = NULL;
    return atomic_load(&fired);
}

long faults_blocks(void) { return atomic_load(&blocks); }

void faults_storm(unsigned one_in) { atomic_store(&storm, one_in); }

/* One in so many calls, in a storm. */
static int struck(void) {
    unsigned one_in = atomic_load(&storm);
    if (one_in == 0) return 0;
    uint64_t number = (atomic_fetch_add(&seed, 0x9E3779B97F4A7C15) + 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9;
    return (number >> 33) % one_in == 0;
}

/* 0, or what is to happen to this call; `usual` in a storm. */
static int fault(const char *call, int usual) {
    if (struck()) return usual;
    const char *now = armed;
    if (now == NULL || strcmp(now, call) != 0 || atomic_fetch_sub(&countdown, 1) != 1) return 0;
    atomic_store(&fired, 1);
    return atomic_load(&fault_now);
}

/* For calls that have no half: -1 where it fails. */
static int fails(const char *call, int usual) {
    int found = fault(call, usual);
    if (found == 0) return 0;
    errno = found > 0 ? found : EIO;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* How much of `size` is to be done, or -1. */
static ssize_t share(const char *call, int usual, size_t size) {
    int found = fault(call, usual);
    if (found > 0) return errno = found, -1;
    if (found == FAULT_ZERO) return 0;
    return (ssize_t)(found == FAULT_SHORT && size > 1 ? size / 2 : size);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    unsigned mode = va_arg(more, unsigned);
    va_end(more);
    return fails("open", EMFILE) ? -1 : REAL(open64)(path, flags, mode);
}

int statx(int fd, const char *restrict path, int flags, unsigned mask, struct statx *restrict out) {
    return fails("stat", EIO) ? -1 : REAL(statx)(fd, path, flags, mask, out);
}

int fstatfs(int fd, struct statfs *out) { return fails("fstatfs", EIO) ? -1 : REAL(fstatfs)(fd, out); }

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return fails("mmap", ENOMEM) ? MAP_FAILED : REAL(mmap)(at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) {
    return fails("mmap", ENOMEM) ? MAP_FAILED : REAL(mmap64)(at, size, protection, flags, fd, offset);
}

int madvise(void *at, size_t size, int advice) { return fails("madvise", EINVAL) ? -1 : REAL(madvise)(at, size, advice); }

ssize_t pread64(int fd, void *out, size_t size, off64_t at) {
    ssize_t some = share("pread", EIO, size);
    return some <= 0 && size != 0 ? some : REAL(pread64)(fd, out, (size_t)some, at);
}

ssize_t read(int fd, void *out, size_t size) {
    ssize_t some = share("read", EINTR, size);
    return some <= 0 && size != 0 ? some : REAL(read)(fd, out, (size_t)some);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    ssize_t some = share("pwrite", ENOSPC, size);
    return some <= 0 && size != 0 ? some : REAL(pwrite64)(fd, data, (size_t)some, at);
}

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t some = fd > 2 ? share("write", ENOSPC, size) : (ssize_t)size;
    return some <= 0 && size != 0 ? some : REAL(write)(fd, data, (size_t)some);
}

/* preadv2 and copy_file_range, which are called so; all others with up to six arguments pass. */
long syscall(long number, ...) {
    va_list more;
    va_start(more, number);
    long given[6];
    for (int i = 0; i < 6; i++) given[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_preadv2 && fails("preadv2", EAGAIN)) return -1;
    if (number == SYS_copy_file_range) {
        ssize_t some = share("copy_file_range", EXDEV, (size_t)given[4]);
        if (some <= 0 && given[4] != 0) return some;
        given[4] = some;
    }
    return REAL(syscall)(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    return fails("fallocate", ENOSPC) ? -1 : REAL(fallocate64)(fd, mode, at, size);
}

int fsync(int fd) { return fails("fsync", EIO) ? -1 : REAL(fsync)(fd); }
int rename(const char *from, const char *to) { return fails("rename", EACCES) ? -1 : REAL(rename)(from, to); }
int fchmod(int fd, mode_t mode) { return fails("fchmod", EPERM) ? -1 : REAL(fchmod)(fd, mode); }
int fchown(int fd, uid_t user, gid_t group) { return fails("fchown", EPERM) ? -1 : REAL(fchown)(fd, user, group); }
DIR *opendir(const char *path) { return fails("opendir", EMFILE) ? NULL : REAL(opendir)(path); }

int flock(int fd, int how);
int flock(int fd, int how) { return fails("flock", ENOLCK) ? -1 : REAL(flock)(fd, how); }

struct dirent64 *readdir64(DIR *folder) { return fails("readdir", EIO) ? NULL : REAL(readdir64)(folder); }

int sync_file_range(int fd, off64_t at, off64_t size, unsigned flags) {
    return fails("sync_file_range", EIO) ? -1 : REAL(sync_file_range)(fd, at, size, flags);
}

int posix_fadvise(int fd, off_t at, off_t size, int advice) {
    return fails("fadvise", EINVAL) ? EINVAL : REAL(posix_fadvise)(fd, at, size, advice);
}

int fcntl(int fd, int command, ...) {
    va_list more;
    va_start(more, command);
    long argument = va_arg(more, long);
    va_end(more);
    return command == F_DUPFD_CLOEXEC && fails("dup", EMFILE) ? -1 : REAL(fcntl)(fd, command, argument);
}

int close(int fd) {
    int result = REAL(close)(fd);
    return fails("close", EIO) ? -1 : result;
}

int pthread_create(pthread_t *out, const pthread_attr_t *how, void *(*run)(void *), void *argument) {
    /* A storm does not blow here: it would keep the program's own threads away. */
    const char *now = armed;
    int found = now != NULL && strcmp(now, "thread") == 0 ? fault("thread", 0) : 0;
    return found > 0 ? found : REAL(pthread_create)(out, how, run, argument);
}

/* glibc's own allocator, under names that can't be taken over. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

static void *counted(void *block) {
    if (block != NULL) atomic_fetch_add(&blocks, 1);
    return block;
}

static int refused(size_t size) { return size >= LARGE && fails("malloc", ENOMEM); }

void *malloc(size_t size) { return refused(size) ? NULL : counted(__libc_malloc(size)); }

void *calloc(size_t count, size_t size) {
    return refused(count * size) ? NULL : counted(__libc_calloc(count, size));
}

void *realloc(void *block, size_t size) {
    if (refused(size)) return NULL;
    void *moved = __libc_realloc(block, size);
    return block == NULL ? counted(moved) : moved;
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    if (refused(size)) return ENOMEM;
    *out = counted(__libc_memalign(alignment, size));
    return *out == NULL ? ENOMEM : 0;
}

void *aligned_alloc(size_t alignment, size_t size) {
    return refused(size) ? NULL : counted(__libc_memalign(alignment, size));
}

void free(void *block) {
    if (block != NULL) atomic_fetch_sub(&blocks, 1);
    __libc_free(block);
}
