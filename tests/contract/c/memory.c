// SPDX-License-Identifier: Apache-2.0
// Opens one path again and again, with a little more memory each time, until
// that succeeds (or gives the status it is to end with). Every failure before
// must say that it was memory: nothing may abort.
//
//     memory PATH STATUS STEP    step in bytes; 0 grows by a twelfth each time

#include "check.h"

#include <malloc.h>
#include <sys/resource.h>

// Writable memory that this process has, in bytes.
static rlim_t in_use(void)
{
    unsigned long pages[6] = {0};
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu %lu %lu %lu %lu %lu", pages, pages + 1, pages + 2, pages + 3, pages + 4, pages + 5) != 6) {
        exit(2);
    }
    fclose(file);
    return (rlim_t)pages[5] * 4096;
}

static void allow(rlim_t limit)
{
    struct rlimit rlimit = {limit, RLIM_INFINITY};
    if (setrlimit(RLIMIT_DATA, &rlimit) != 0) {
        perror("setrlimit");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: memory PATH STATUS STEP\n");
        return 2;
    }
    // Else memory once freed stays with the process, and none is ever short.
    mallopt(M_MMAP_THRESHOLD, 64 << 10);
    mallopt(M_ARENA_MAX, 1);
    rlim_t more = 64 << 10, step = strtoul(argv[3], NULL, 10);
    int failures = 0;
    for (;;) {
        st_error error;
        st_open_options options = ST_OPEN_OPTIONS_INIT;
        options.access = ST_ACCESS_READ;
        malloc_trim(0);
        rlim_t used = in_use();
        allow(used + more);
        st_checkpoint *found = st_open_with(argv[1], &options, &error);
        allow(RLIM_INFINITY);
        st_status status = found != NULL ? ST_OK : error.code;
        st_free(found);
        if (strcmp(st_status_name(status), argv[2]) == 0) {
            break;
        }
        if (!CHECK(error_is(&error, ST_ERROR_OUT_OF_MEMORY)) || !CHECK(more < (rlim_t)4 << 30)) {
            break;
        }
        failures++;
        more += step != 0 ? step : more / 12;
    }
    printf("%d failures, success with %lu bytes more\n", failures, (unsigned long)more);
    CHECK(failures > 3);
    return check_result();
}
