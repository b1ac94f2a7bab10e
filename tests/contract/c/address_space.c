// SPDX-License-Identifier: Apache-2.0
// Does the same work in processes with less and less address space: each does it, or
// says that there is no memory. None aborts.
//
//     address_space open PATH             opens it
//     address_space write FOLDER          arrays of 20,000 that the caller gives, written in each way

#include "check.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MANY = 20000 };

static const char *place;
static st_tensor tensors[MANY];
static st_metadata entries[MANY];
static char names[MANY][12];

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

static st_status open_path(st_error *error)
{
    st_checkpoint *found = st_open(place, error);
    if (found == NULL) {
        return error->code;
    }
    st_free(found);
    return ST_OK;
}

static st_status serialize_tensors(st_error *error)
{
    st_buffer out = {NULL, 0};
    st_status status = st_serialize(tensors, MANY, NULL, 0, NULL, &out, error);
    st_buffer_free(&out);
    return status;
}

static st_status serialize_metadata(st_error *error)
{
    st_buffer out = {NULL, 0};
    st_status status = st_serialize(NULL, 0, entries, MANY, NULL, &out, error);
    st_buffer_free(&out);
    return status;
}

static st_status open_writer(st_error *error)
{
    st_writer *writer = st_writer_open(place, tensors, MANY, NULL, 0, NULL, error);
    if (writer == NULL) {
        return error->code;
    }
    st_writer_free(writer);
    return ST_OK;
}

// Every other byte, so that none touches another.
static st_status write_pieces(st_error *error)
{
    int64_t size = 2 * MANY;
    st_tensor tensor = tensors[0];
    tensor.shape = &size;
    st_writer *writer = st_writer_open(place, &tensor, 1, NULL, 0, NULL, error);
    if (writer == NULL) {
        return error->code;
    }
    st_status status = ST_OK;
    for (uint64_t i = 0; i < MANY && status == ST_OK; i++) {
        status = st_writer_write(writer, 0, 2 * i, "x", 1, error);
    }
    st_writer_free(writer);
    return status;
}

// Does it in a child; its exit status, or what killed it plus 128.
static int within(st_status (*work)(st_error *error), rlim_t more)
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {in_use() + more, RLIM_INFINITY};
        if (setrlimit(RLIMIT_AS, &limit) != 0) {
            _exit(3);
        }
        st_error error;
        st_status status = work(&error);
        _exit(status == ST_OK ? 0 : status == ST_ERROR_OUT_OF_MEMORY ? 1 : 4);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        exit(2);
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void in_less_and_less(const char *what, st_status (*work)(st_error *error), rlim_t part)
{
    int done = 0, refused = 0;
    for (rlim_t more = 64 << 10; more < (rlim_t)1 << 30; more += more < (4 << 20) ? 96 << 10 : more / part) {
        int status = within(work, more);
        done += status == 0;
        refused += status == 1;
        if (!CHECK(status <= 1)) {
            fprintf(stderr, "%s: status %d with %lu bytes more\n", what, status, (unsigned long)more);
        }
        // More room changes nothing any more.
        if (part > 9 && done > 10) {
            break;
        }
    }
    printf("%s: %d done, %d refused\n", what, done, refused);
    CHECK(done > 10 && refused > 3);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: address_space open|write PATH\n");
        return 2;
    }
    place = argv[2];
    if (strcmp(argv[1], "open") == 0) {
        in_less_and_less("open", open_path, 9);
        return check_result();
    }
    static const int64_t none = 0;
    for (size_t i = 0; i < MANY; i++) {
        // In no order, so that they have to be sorted.
        snprintf(names[i], sizeof names[i], "%zu", i * 7919 % MANY);
        tensors[i].name = names[i];
        tensors[i].dtype = ST_DTYPE_U8;
        tensors[i].rank = 1;
        tensors[i].shape = &none;
        entries[i].key = names[i];
        entries[i].value = "v";
    }
    in_less_and_less("serialize tensors", serialize_tensors, 20);
    in_less_and_less("serialize metadata", serialize_metadata, 20);
    char path[4096];
    snprintf(path, sizeof path, "%s/writer.safetensors", place);
    place = path;
    in_less_and_less("open a writer", open_writer, 20);
    in_less_and_less("write pieces", write_pieces, 20);
    return check_result();
}
