// SPDX-License-Identifier: Apache-2.0
//
// ranks: shows what each rank of a parallel job would hold of a model.
//
//     ranks PATH [--plan FILE]... [--strict] [AXIS=SIZE]...
//
// PATH is what st_open takes: a file, an index, or a folder. Plans are JSON
// files, or names of built-in ones, in order; without any it is the built-in one
// for the model_type of the config.json beside PATH. `ranks model tp=4 ep=2` deals
// the model to 8 ranks. Nothing but headers and the config is read.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <safetensors_model.h>

enum { MOST_AXES = 8, MOST_PLANS = 16, MOST_RANKS = 4096, SHOWN = 8, BAR = 40 };

static void fail(const char *what, const st_error *error) {
    fprintf(stderr, "%s: %s: %s\n", what, st_status_name(error->code), error->message);
    exit(1);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (memory == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return memory;
}

// A built-in plan's text, or a file's.
static st_text plan_text(const char *name) {
    st_text text = {NULL, 0};
    text.data = st_rank_plan_builtin(name, &text.size);
    if (text.data != NULL)
        return text;
    FILE *file = fopen(name, "rb");
    if (file == NULL) {
        perror(name);
        exit(1);
    }
    char *data = NULL;
    size_t room = 0;
    for (;;) {
        if (text.size == room) {
            room = room ? room * 2 : 4096;
            char *larger = realloc(data, room);
            if (larger == NULL)
                exit(1);
            data = larger;
        }
        size_t got = fread(data + text.size, 1, room - text.size, file);
        if (got == 0)
            break;
        text.size += got;
    }
    fclose(file);
    text.data = data;
    return text;
}

// 1536 as "1.5 KiB".
static const char *bytes(uint64_t size, char text[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)size;
    size_t unit = 0;
    for (; value >= 1024 && unit < 6; unit++)
        value /= 1024;
    snprintf(text, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

// A name that can do nothing to a terminal.
static void print_name(const st_tensor *tensor) {
    for (size_t i = 0; i < tensor->name_len; i++) {
        unsigned char c = (unsigned char)tensor->name[i];
        if (c >= 0x20 && c < 0x7F)
            putchar(c);
        else
            printf("\\x%02x", c);
    }
}

static int is_whole(const st_part *part) {
    for (size_t dim = 0; dim < part->rank; dim++) {
        if (part->intervals[dim] != NULL)
            return 0;
    }
    return 1;
}

// One rank's sums.
typedef struct held {
    uint64_t size, read, whole, zeros;
    size_t parts;
} held;

static int larger(const void *a, const void *b) {
    const st_part *one = *(const st_part *const *)a, *other = *(const st_part *const *)b;
    return (one->size < other->size) - (one->size > other->size);
}

static void print_largest(const st_part *parts, size_t count) {
    const st_part **sorted = allocate(count, sizeof *sorted);
    for (size_t i = 0; i < count; i++)
        sorted[i] = &parts[i];
    qsort(sorted, count, sizeof *sorted, larger);
    printf("\nlargest parts of the first rank\n");
    for (size_t i = 0; i < count && i < SHOWN; i++) {
        char text[32];
        printf("%12s  ", bytes(sorted[i]->size, text));
        print_name(sorted[i]->tensor);
        printf(" [");
        for (size_t dim = 0; dim < sorted[i]->rank; dim++)
            printf("%s%" PRId64 "%s", dim ? ", " : "", sorted[i]->shape[dim], sorted[i]->intervals[dim] ? "*" : "");
        printf("] of [");
        for (size_t dim = 0; dim < sorted[i]->tensor->rank; dim++)
            printf("%s%" PRId64, dim ? ", " : "", sorted[i]->tensor->shape[dim]);
        printf("]\n");
    }
    free(sorted);
}

int main(int argc, char **argv) {
    const char *path = NULL;
    st_text plans[MOST_PLANS];
    st_axis axes[MOST_AXES];
    char names[MOST_AXES][32];
    size_t plan_count = 0, axis_count = 0, ranks = 1;
    st_rank_plan_options options = ST_RANK_PLAN_OPTIONS_INIT;
    memset(axes, 0, sizeof axes);
    for (int i = 1; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        if (strcmp(argv[i], "--strict") == 0) {
            options.strict = 1;
        } else if (strcmp(argv[i], "--plan") == 0 && i + 1 < argc && plan_count < MOST_PLANS) {
            plans[plan_count++] = plan_text(argv[++i]);
        } else if (path == NULL) {
            path = argv[i];
        } else if (equals != NULL && axis_count < MOST_AXES && (size_t)(equals - argv[i]) < sizeof names[0]) {
            int64_t size = strtoll(equals + 1, NULL, 10);
            memcpy(names[axis_count], argv[i], (size_t)(equals - argv[i]));
            names[axis_count][equals - argv[i]] = '\0';
            axes[axis_count].name = names[axis_count];
            axes[axis_count++].size = size;
            if (size < 1 || (uint64_t)size > MOST_RANKS / ranks) {
                fprintf(stderr, "%s: from 1 to %d ranks in all\n", argv[i], MOST_RANKS);
                return 2;
            }
            ranks *= (size_t)size;
        } else {
            path = NULL;
            break;
        }
    }
    if (path == NULL) {
        fprintf(stderr, "usage: ranks PATH [--plan FILE]... [--strict] [AXIS=SIZE]...\n");
        return 2;
    }
    st_error error;
    st_checkpoint *checkpoint = st_open(path, &error);
    if (checkpoint == NULL)
        fail(path, &error);
    options.plans = plans;
    options.plan_count = plan_count;
    st_rank_plan *plan = st_rank_plan_open(checkpoint, &options, &error);
    if (plan == NULL)
        fail("plan", &error);

    size_t tensor_count = 0;
    const st_tensor *tensors = st_tensors(checkpoint, &tensor_count);
    uint64_t total = 0, most = 0, all = 0, everywhere = 0;
    size_t *on = allocate(tensor_count, sizeof *on);
    held *sums = allocate(ranks, sizeof *sums);
    const st_part *first = NULL;
    size_t first_count = 0;
    for (size_t i = 0; i < tensor_count; i++)
        total += tensors[i].size;
    for (size_t rank = 0; rank < ranks; rank++) {
        // The last axis counts fastest.
        size_t rest = rank, count = 0;
        for (size_t axis = axis_count; axis-- > 0; rest /= (size_t)axes[axis].size)
            axes[axis].rank = (int64_t)(rest % (size_t)axes[axis].size);
        const st_part *parts = st_rank_plan_parts(plan, axes, axis_count, &count, &error);
        if (parts == NULL)
            fail("plan", &error);
        if (rank == 0) {
            first = parts;
            first_count = count;
        }
        held *sum = &sums[rank];
        sum->parts = count;
        for (size_t i = 0; i < count; i++) {
            sum->size += parts[i].size;
            sum->read += parts[i].read_size;
            sum->zeros += parts[i].size - parts[i].read_size;
            if (is_whole(&parts[i])) {
                sum->whole += parts[i].size;
                on[parts[i].tensor - tensors]++;
            }
        }
        all += sum->size;
        most = sum->size > most ? sum->size : most;
    }
    size_t copied = 0;
    for (size_t i = 0; i < tensor_count; i++) {
        if (on[i] == ranks) {
            everywhere += tensors[i].size;
            copied++;
        }
    }

    char a[32], b[32], c[32], d[32];
    printf("%zu tensors, %s, on %zu rank%s\n\n", tensor_count, bytes(total, a), ranks, ranks == 1 ? "" : "s");
    for (size_t axis = 0; axis < axis_count; axis++)
        printf("%4s ", axes[axis].name);
    printf("%6s %11s %11s %11s %11s\n", "parts", "holds", "reads", "whole", "padding");
    for (size_t rank = 0; rank < ranks; rank++) {
        size_t rest = rank;
        for (size_t axis = axis_count; axis-- > 0; rest /= (size_t)axes[axis].size)
            axes[axis].rank = (int64_t)(rest % (size_t)axes[axis].size);
        for (size_t axis = 0; axis < axis_count; axis++)
            printf("%4" PRId64 " ", axes[axis].rank);
        printf("%6zu %11s %11s %11s %11s  ", sums[rank].parts, bytes(sums[rank].size, a), bytes(sums[rank].read, b),
               bytes(sums[rank].whole, c), bytes(sums[rank].zeros, d));
        int bar = most == 0 ? 0 : (int)((double)sums[rank].size / (double)most * BAR + 0.5);
        for (int i = 0; i < bar; i++)
            printf("█");
        printf("\n");
    }
    printf("\n%s in all; %zu tensors of %s are whole on every rank\n", bytes(all, a), copied, bytes(everywhere, b));
    print_largest(first, first_count);

    free(sums);
    free(on);
    st_rank_plan_free(plan);
    st_free(checkpoint);
    return 0;
}
