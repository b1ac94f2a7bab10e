// SPDX-License-Identifier: Apache-2.0
// Opens one path in processes with less and less address space: each opens it, or
// says that there is no memory. None aborts.
//
//     address_space PATH

#include "check.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static rlim_t in_use(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu", &pages) != 1) {
        exit(2);
    }
    fclose(file);
    return (rlim_t)pages * 4096;
}

// Opens it in a child; its exit status, or what killed it plus 128.
static int open_within(const char *path, rlim_t more)
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {in_use() + more, RLIM_INFINITY};
        if (setrlimit(RLIMIT_AS, &limit) != 0) {
            _exit(3);
        }
        st_error error;
        st_checkpoint *found = st_open(path, &error);
        if (found != NULL) {
            st_free(found);
            _exit(0);
        }
        _exit(error.code == ST_ERROR_OUT_OF_MEMORY ? 1 : 4);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        exit(2);
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: address_space PATH\n");
        return 2;
    }
    int opened = 0, refused = 0;
    for (rlim_t more = 64 << 10; more < (rlim_t)1 << 30; more += more < (4 << 20) ? 96 << 10 : more / 9) {
        int status = open_within(argv[1], more);
        opened += status == 0;
        refused += status == 1;
        if (!CHECK(status <= 1)) {
            fprintf(stderr, "status %d with %lu bytes more\n", status, (unsigned long)more);
        }
    }
    printf("%d opened, %d refused\n", opened, refused);
    CHECK(opened > 10 && refused > 3);
    return check_result();
}
