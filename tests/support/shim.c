/* SPDX-License-Identifier: Apache-2.0 */
/* Makes calls of the C library fail on demand: shim.h says how. */
#define _GNU_SOURCE
#include "shim.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define CALLS(call)                                                                                              \
    call(close) call(copy_file_range) call(fadvise) call(fallocate) call(fchmod) call(fchown) call(fcntl)        \
    call(flock) call(fstat) call(fstatfs) call(fsync) call(ioctl) call(link) call(madvise) call(malloc)          \
    call(mmap) call(open) call(opendir) call(pread) call(preadv2) call(pwrite) call(read) call(readdir)          \
    call(rename) call(renameat2) call(stat) call(sync_file_range) call(thread) call(unlink) call(write)
#define NUMBER(call) CALL_##call,
#define NAME(call) #call,
enum { CALLS(NUMBER) COUNT };
static const char *const names[] = {CALLS(NAME)};

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* glibc's own allocator, under names that can't be taken over. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

struct rule {
    struct rule *next;
    uint64_t calls;
    const char *in, *words, *swap;
    long least, nth, from, one_in, fails, nothing, kill, half, most, wait, type, clone;
    atomic_long met;
};

/* The words that are numbers, or stand for 1. */
#define WORD(word) {#word, offsetof(struct rule, word)}
static const struct {
    const char *name;
    size_t at;
} numbers[] = {WORD(least), WORD(nth), WORD(from), WORD(one_in), WORD(fails), WORD(nothing),
               WORD(kill), WORD(half), WORD(most), WORD(wait), WORD(type), WORD(clone)};

static struct rule *_Atomic rules;
static atomic_long met, blocks;
static atomic_ulong seed;
/* What the last call that was asked about is to do beyond being made. */
static __thread struct {
    long wait, type, clone;
} now __attribute__((tls_model("initial-exec")));

/* -------------------------------------------------------------------- the log */

/* Shared with forks, or a file's. */
static struct log {
    char text[1 << 20];
    atomic_size_t end;
} *log_now;

/* Not in its caller's frame, as the library's threads have small stacks. */
__attribute__((noinline)) static void note(int call, const char *path, const char *more, const char *words) {
    char line[2500];
    const char *shape = "%s\t%.1000s\t%.1000s\t%.300s\t%d\n";
    int size = snprintf(line, sizeof line, shape, names[call], path, more, words, gettid());
    size_t at = atomic_fetch_add(&log_now->end, (size_t)size);
    if (at + (size_t)size < sizeof log_now->text) memcpy(log_now->text + at, line, (size_t)size);
}

const char *faults_log(void) { return log_now->text; }

/* ------------------------------------------------------------------ the rules */

static void unknown(const char *word) {
    dprintf(2, "shim: what is \"%s\"?\n", word);
    abort();
}

static char *copy(const char *of) { return strcpy(__libc_malloc(strlen(of) + 1), of); }

static void take_word(struct rule *rule, char *word) {
    char *value = word, *name = strsep(&value, "=");
    if (!strcmp(name, "swap") && value && strchr(value, ',')) {
        rule->swap = value;
        return;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(name, numbers[i].name)) continue;
        *(long *)((char *)rule + numbers[i].at) = value ? strtol(value, &value, 0) : 1;
        if (value && *value) unknown(value);
        return;
    }
    unknown(name);
}

static struct rule *rule_of(char *words) {
    struct rule *rule = __libc_calloc(1, sizeof *rule);
    char *in = strsep(&words, ":"), *list = strsep(&in, "@");
    rule->in = in;
    rule->words = copy(words ? words : "");
    for (char *name; (name = strsep(&list, ","));) {
        int call = 0;
        while (call < COUNT && strcmp(names[call], name)) call++;
        if (call == COUNT) unknown(name);
        rule->calls |= (uint64_t)1 << call;
    }
    while (words) take_word(rule, strsep(&words, ":"));
    return rule;
}

long faults(const char *given) {
    /* Never freed: another thread may be going by the earlier ones. */
    struct rule *first = NULL, **last = &first;
    for (char *rest = given ? copy(given) : NULL, *one; (one = strsep(&rest, ";"));) {
        one += strspn(one, " ");
        if (*one) last = &(*last = rule_of(one))->next;
    }
    atomic_store(&rules, NULL);
    size_t used = atomic_exchange(&log_now->end, 0);
    memset(log_now->text, 0, used < sizeof log_now->text ? used : sizeof log_now->text);
    atomic_store(&rules, first);
    return atomic_exchange(&met, 0);
}

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULTS_LOG");
    int fd = file ? REAL(open64)(file, O_RDWR | O_CREAT, 0600) : -1, how = MAP_SHARED | (file ? 0 : MAP_ANONYMOUS);
    if (file && (fd < 0 || ftruncate(fd, sizeof *log_now))) unknown(file);
    log_now = REAL(mmap)(NULL, sizeof *log_now, PROT_READ | PROT_WRITE, how, fd, 0);
    if (log_now == MAP_FAILED) unknown("memory");
    if (file) REAL(close)(fd);
    faults(getenv("FAULTS"));
}

static unsigned long at_random(void) {
    uint64_t number = (atomic_fetch_add(&seed, 0x9E3779B97F4A7C15) + 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9;
    return number >> 33;
}

__attribute__((noinline)) static void swap(const char *files) {
    char both[2048], *to = both;
    snprintf(both, sizeof both, "%s", files);
    const char *from = strsep(&to, ",");
    if (REAL(rename)(from, to)) unknown(from);
}

/*
 * What becomes of a call: 1, it is made, with what is now left of *size; 0, it
 * says 0; -1, it fails with errno. A path or a descriptor says what it is about.
 */
static int ask(int call, const char *path, int fd, size_t *size, const char *more) {
    char link[64], found[1024], *direct = "";
    now.wait = now.type = now.clone = 0;
    for (struct rule *rule = atomic_load(&rules); rule; rule = rule->next) {
        if (!(rule->calls >> call & 1) || (size ? *size : 0) < (size_t)rule->least) continue;
        if (!path) {
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t length = fd < 0 ? 0 : readlink(link, found, sizeof found - 1);
            found[length < 0 ? 0 : length] = 0;
            path = found;
            if (fd >= 0 && REAL(fcntl)(fd, F_GETFL) & O_DIRECT) direct = "direct";
        }
        if (rule->in && !strstr(path, rule->in)) continue;
        long number = atomic_fetch_add(&rule->met, 1) + 1;
        if (number < rule->from || (rule->nth && number != rule->nth)) continue;
        if (rule->one_in && at_random() % (unsigned long)rule->one_in) continue;
        atomic_fetch_add(&met, 1);
        note(call, path, more ? more : direct, rule->words);
        if (rule->swap) swap(rule->swap);
        if (rule->kill) raise(SIGKILL);
        if (rule->fails) return errno = (int)rule->fails, -1;
        if (rule->nothing) return 0;
        if (!size && (rule->most || rule->half)) unknown(rule->words);
        if (rule->most && *size > (size_t)rule->most) *size = (size_t)rule->most;
        if (rule->half && *size > 1) *size /= 2;
        if (rule->wait) now.wait = rule->wait;
        if (rule->type) now.type = rule->type;
        if (rule->clone) now.clone = rule->clone;
    }
    return 1;
}

/* ------------------------------------------------------------------ the calls */

#define ANSWER(asked, call)                      \
    long answer = (asked), wait = now.wait;      \
    if (answer > 0) answer = (call);             \
    if (wait) usleep((unsigned)wait);            \
    return answer

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    const char *how = !(flags & O_CREAT) ? "" : !(flags & O_EXCL) ? "shared" : mode & 077 ? "readable" : "private";
    ANSWER(ask(CALL_open, path, -1, NULL, how), REAL(open64)(path, flags, mode));
}

int close(int fd) {
    int asked = ask(CALL_close, NULL, fd, NULL, NULL), error = errno, result = REAL(close)(fd);
    return asked < 0 ? errno = error, -1 : result;
}

int statx(int fd, const char *restrict path, int flags, unsigned mask, struct statx *restrict out) {
    int opened = flags & AT_EMPTY_PATH, call = opened ? CALL_fstat : CALL_stat;
    ANSWER(ask(call, opened ? NULL : path, fd, NULL, ""), REAL(statx)(fd, path, flags, mask, out));
}

int fstatfs(int fd, struct statfs *out) {
    int asked = ask(CALL_fstatfs, NULL, fd, NULL, NULL);
    long type = now.type;
    int result = asked > 0 ? REAL(fstatfs)(fd, out) : asked;
    if (type) out->f_type = type;
    return result;
}

ssize_t pread64(int fd, void *out, size_t size, off64_t at) {
    ANSWER(ask(CALL_pread, NULL, fd, &size, NULL), REAL(pread64)(fd, out, size, at));
}

ssize_t preadv(int fd, const struct iovec *places, int count, off_t at) {
    struct iovec some[IOV_MAX];
    size_t size = 0, left;
    for (int i = 0; i < count; i++) size += (some[i] = places[i]).iov_len;
    int asked = ask(CALL_pread, NULL, fd, &size, NULL);
    left = size;
    for (int i = 0; i < count; left -= some[i++].iov_len)
        if (some[i].iov_len > left) some[i].iov_len = left;
    return asked > 0 ? REAL(preadv)(fd, some, count, at) : asked;
}

ssize_t read(int fd, void *out, size_t size) {
    ANSWER(ask(CALL_read, NULL, fd, &size, NULL), REAL(read)(fd, out, size));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    ANSWER(ask(CALL_pwrite, NULL, fd, &size, NULL), REAL(pwrite64)(fd, data, size, at));
}

ssize_t write(int fd, const void *data, size_t size) {
    ANSWER(fd > 2 ? ask(CALL_write, NULL, fd, &size, NULL) : 1, REAL(write)(fd, data, size));
}

/* What the library calls by number; all others with up to six arguments pass. */
long syscall(long number, ...) {
    va_list more;
    va_start(more, number);
    long given[6];
    for (int i = 0; i < 6; i++) given[i] = va_arg(more, long);
    va_end(more);
    int asked = 1;
    if (number == SYS_preadv2) asked = ask(CALL_preadv2, NULL, (int)given[0], NULL, NULL);
    if (number == SYS_renameat2) asked = ask(CALL_renameat2, (char *)given[1], -1, NULL, (char *)given[3]);
    if (number == SYS_copy_file_range)
        asked = ask(CALL_copy_file_range, NULL, (int)given[2], (size_t *)&given[4], NULL);
    return asked > 0 ? REAL(syscall)(number, given[0], given[1], given[2], given[3], given[4], given[5]) : asked;
}

int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    ANSWER(ask(CALL_fallocate, NULL, fd, NULL, NULL), REAL(fallocate64)(fd, mode, at, size));
}

int fsync(int fd) { ANSWER(ask(CALL_fsync, NULL, fd, NULL, NULL), REAL(fsync)(fd)); }
int fchmod(int fd, mode_t mode) { ANSWER(ask(CALL_fchmod, NULL, fd, NULL, NULL), REAL(fchmod)(fd, mode)); }
int flock(int fd, int how) { ANSWER(ask(CALL_flock, NULL, fd, NULL, NULL), REAL(flock)(fd, how)); }

int fchown(int fd, uid_t user, gid_t group) {
    ANSWER(ask(CALL_fchown, NULL, fd, NULL, NULL), REAL(fchown)(fd, user, group));
}

int rename(const char *from, const char *to) {
    ANSWER(ask(CALL_rename, from, -1, NULL, to), REAL(rename)(from, to));
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    ANSWER(ask(CALL_link, from, -1, NULL, to), REAL(linkat)(from_folder, from, to_folder, to, flags));
}

int unlink(const char *path) { ANSWER(ask(CALL_unlink, path, -1, NULL, ""), REAL(unlink)(path)); }

int sync_file_range(int fd, off64_t at, off64_t size, unsigned flags) {
    ANSWER(ask(CALL_sync_file_range, NULL, fd, NULL, NULL), REAL(sync_file_range)(fd, at, size, flags));
}

int posix_fadvise(int fd, off_t at, off_t size, int advice) {
    char dropped[64] = "";
    if (advice == POSIX_FADV_DONTNEED) snprintf(dropped, sizeof dropped, "%ld %ld", at, at + size);
    int asked = ask(CALL_fadvise, NULL, fd, NULL, dropped);
    return asked < 0 ? errno : asked > 0 ? REAL(posix_fadvise)(fd, at, size, advice) : 0;
}

int fcntl(int fd, int command, ...) {
    va_list more;
    va_start(more, command);
    long argument = va_arg(more, long);
    va_end(more);
    ANSWER(ask(CALL_fcntl, NULL, fd, NULL, NULL), REAL(fcntl)(fd, command, argument));
}

struct clone_range {
    int64_t from;
    uint64_t offset, length, to_offset;
};

/* As a file system would: whole blocks, to the end of the file. */
static int clone_blocks(int fd, const struct clone_range *range) {
    char block[4096];
    if (range->length || range->offset % 4096 || range->to_offset % 4096) return errno = EINVAL, -1;
    off64_t from = (off64_t)range->offset, to = (off64_t)range->to_offset;
    for (ssize_t got; (got = REAL(pread64)((int)range->from, block, sizeof block, from)) > 0; from += got, to += got)
        if (REAL(pwrite64)(fd, block, (size_t)got, to) != got) return -1;
    return 0;
}

int ioctl(int fd, unsigned long request, ...) {
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    int ficlonerange = request == 0x4020940DUL, asked = ficlonerange ? ask(CALL_ioctl, NULL, fd, NULL, NULL) : 1;
    if (asked <= 0) return asked;
    return ficlonerange && now.clone ? clone_blocks(fd, argument) : REAL(ioctl)(fd, request, argument);
}

DIR *opendir(const char *path) { return ask(CALL_opendir, path, -1, NULL, "") > 0 ? REAL(opendir)(path) : NULL; }

struct dirent64 *readdir64(DIR *folder) {
    return ask(CALL_readdir, NULL, dirfd(folder), NULL, NULL) > 0 ? REAL(readdir64)(folder) : NULL;
}

/* ----------------------------------------------------------- threads and memory */

int pthread_create(pthread_t *out, const pthread_attr_t *how, void *(*run)(void *), void *argument) {
    return ask(CALL_thread, "", -1, NULL, "") > 0 ? REAL(pthread_create)(out, how, run, argument) : errno;
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    size_t wanted = size;
    if (ask(CALL_mmap, NULL, fd, &wanted, NULL) <= 0) return MAP_FAILED;
    return REAL(mmap)(at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) {
    return mmap(at, size, protection, flags, fd, offset);
}

int madvise(void *at, size_t size, int advice) {
    ANSWER(ask(CALL_madvise, "", -1, NULL, ""), REAL(madvise)(at, size, advice));
}

static void *counted(void *block) {
    if (block != NULL) atomic_fetch_add(&blocks, 1);
    return block;
}

static int refused(size_t size) { return ask(CALL_malloc, "", -1, &size, "") <= 0; }

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

long faults_blocks(void) { return atomic_load(&blocks); }
