// SPDX-License-Identifier: Apache-2.0
//
// inspect: shows what is in a safetensors file or a sharded model.
//
//     inspect [--check] [--groups] [--read] [--tolerate] PATH
//
// PATH is a .safetensors file, a .safetensors.index.json, or a folder that
// holds either. Quantised groups are one line each, and --groups lists their
// members too. --check lists everything that is wrong with it instead. --read
// opens without mapping; --tolerate accepts bytes after the last tensor, and
// dtypes that the library doesn't know.

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <safetensors_model.h>

// ----------------------------------------------- text that somebody else wrote

// Decodes one UTF-8 character: its length in bytes, or 0 where it is malformed.
static size_t decode(const unsigned char *s, size_t len, uint32_t *character) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xC0 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (n == 0 || n > len || s[0] > 0xF4)
        return 0;
    uint32_t c = n == 1 ? s[0] : s[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3F);
    }
    if (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return 0;
    *character = c;
    return n;
}

// Characters that move the cursor, start a terminal command, turn the writing
// direction, or can't be seen.
static bool is_deceptive(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0xAD || c == 0x61C ||
           (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
           (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) ||
           (c >= 0xE0000 && c <= 0xE007F);
}

// Writes text from a file so that it can do nothing to a terminal, and returns
// how many characters that took. With `out` NULL it only counts.
static size_t put_text(FILE *out, const char *text, size_t len) {
    const unsigned char *s = (const unsigned char *)text;
    size_t columns = 0;
    for (size_t i = 0, n; i < len; i += n) {
        char escape[16] = "";
        uint32_t c = 0;
        n = decode(s + i, len - i, &c);
        if (n == 0) {
            n = 1;
            snprintf(escape, sizeof escape, "\\x%02x", s[i]);
        } else if (c == '\\') {
            strcpy(escape, "\\\\");
        } else if (c == '\n') {
            strcpy(escape, "\\n");
        } else if (is_deceptive(c)) {
            snprintf(escape, sizeof escape, "\\u{%" PRIx32 "}", c);
        }
        columns += escape[0] ? strlen(escape) : 1;
        if (out != NULL && escape[0])
            fputs(escape, out);
        else if (out != NULL)
            fwrite(s + i, 1, n, out);
    }
    return columns;
}

// --------------------------------------------------------------- numbers, cells

typedef struct { char text[32]; } number;

static number human(uint64_t bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    number out;
    if (bytes < 1024) {
        snprintf(out.text, sizeof out.text, "%" PRIu64 " B", bytes);
        return out;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    for (; value >= 1023.95; unit++)               // what would print as 1024.0
        value /= 1024;
    snprintf(out.text, sizeof out.text, "%.1f %s", value, units[unit]);
    return out;
}

static number grouped(uint64_t value) {            // 1234567 as 1,234,567
    number out;
    char *at = out.text + sizeof out.text;
    *--at = '\0';
    for (int digits = 0; digits == 0 || value > 0; digits++, value /= 10) {
        if (digits > 0 && digits % 3 == 0)
            *--at = ',';
        *--at = (char)('0' + value % 10);
    }
    memmove(out.text, at, (size_t)(out.text + sizeof out.text - at));
    return out;
}

static size_t put_shape(FILE *out, const st_tensor *tensor) {
    size_t columns = 2;
    if (out != NULL)
        fputc('[', out);
    for (size_t d = 0; d < tensor->rank; d++) {
        char size[32];
        const char *comma = d > 0 ? ", " : "";
        columns += (size_t)snprintf(size, sizeof size, "%s%" PRId64, comma, tensor->shape[d]);
        if (out != NULL)
            fputs(size, out);
    }
    if (out != NULL)
        fputc(']', out);
    return columns;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// Ends a cell: up to the column's width, and two spaces to the next one.
static void end_cell(size_t written, size_t width) {
    printf("%*s", (int)(larger(written, width) - written) + 2, "");
}

// -------------------------------------------------------------------- the parts

static size_t put_dtype(FILE *out, const st_tensor *tensor) {
    return put_text(out, tensor->dtype_name, strlen(tensor->dtype_name));
}

static void show_tensors(const st_tensor *tensors, size_t count) {
    // A column is as wide as its widest cell, within reason: a longer cell is
    // printed whole, and moves the rest of its own line only.
    size_t name = 4, dtype = 5, shape = 5;
    for (size_t i = 0; i < count; i++) {
        const st_tensor *t = &tensors[i];
        name = larger(name, smaller(72, put_text(NULL, t->name, t->name_len)));
        dtype = larger(dtype, smaller(12, put_dtype(NULL, t)));
        shape = larger(shape, smaller(32, put_shape(NULL, t)));
    }
    printf("\n%-*s  %-*s  %-*s  %10s  shard\n", (int)name, "name", (int)dtype, "dtype",
           (int)shape, "shape", "size");
    for (size_t i = 0; i < count; i++) {
        const st_tensor *t = &tensors[i];
        end_cell(put_text(stdout, t->name, t->name_len), name);
        end_cell(put_dtype(stdout, t), dtype);
        end_cell(put_shape(stdout, t), shape);
        printf("%10s  %5" PRIu32 "\n", human(t->size).text, t->shard);
    }
}

static size_t put_sizes(FILE *out, const int64_t *sizes, size_t count) {
    const st_tensor like = {.rank = count, .shape = sizes};
    return put_shape(out, &like);
}

// What a weight takes for each of its values, with all that decoding needs.
static double effective_bits(const st_group *group) {
    double bytes = 0, elements = 1;
    for (size_t i = 0; i < group->member_count; i++)
        bytes += (double)group->members[i].tensor->size;
    for (size_t d = 0; d < group->rank; d++)
        elements *= (double)group->shape[d];
    return bytes * 8 / elements;
}

// A group as one line, as "layers.0.mlp.up_proj.weight  gptq-v1 4 bit g128  [14336, 4096]
// effective 4.16 bit", and with its members below it where they are wanted.
static void show_groups(const st_group *groups, size_t count, bool with_members) {
    size_t name = 4;
    for (size_t i = 0; i < count; i++)
        name = larger(name, smaller(72, put_text(NULL, groups[i].name, groups[i].name_len)));
    printf("\n%zu quantised group%s\n", count, count == 1 ? "" : "s");
    for (size_t i = 0; i < count; i++) {
        const st_group *g = &groups[i];
        end_cell(put_text(stdout, g->name, g->name_len), name);
        if (g->status == ST_OK) {
            size_t written = (size_t)printf("%s %" PRIu32 " bit", g->layout, g->bits);
            if (g->block[g->rank - 1] < g->shape[g->rank - 1])
                written += (size_t)printf(" g%" PRId64, g->block[g->rank - 1]);
            end_cell(written, 24);
            end_cell(put_sizes(stdout, g->shape, g->rank), 16);
            printf("effective %.2f bit\n", effective_bits(g));
        } else {
            printf("%s: ", st_status_name(g->status));
            put_text(stdout, g->problem, strlen(g->problem));
            putchar('\n');
        }
        for (size_t m = 0; with_members && m < g->member_count; m++) {
            const st_tensor *t = g->members[m].tensor;
            printf("    %-14s", g->members[m].role);
            end_cell(put_text(stdout, t->name, t->name_len), name);
            end_cell(put_dtype(stdout, t), 8);
            put_shape(stdout, t);
            putchar('\n');
        }
    }
}

static int by_dtype(const void *a, const void *b) {
    const st_tensor *x = *(const st_tensor *const *)a, *y = *(const st_tensor *const *)b;
    return x->dtype != y->dtype ? (x->dtype > y->dtype) - (x->dtype < y->dtype)
                                : strcmp(x->dtype_name, y->dtype_name);
}

static void put_total(size_t tensors, uint64_t elements, uint64_t bytes) {
    printf("%9s  %19s  %23s  %s\n", grouped(tensors).text, grouped(elements).text,
           grouped(bytes).text, human(bytes).text);
}

// Sums per dtype. By sorting, since a file may hold as many unknown dtypes as
// tensors.
static bool show_totals(const st_tensor *tensors, size_t count) {
    const st_tensor **sorted = malloc((count + 1) * sizeof *sorted);
    if (sorted == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        sorted[i] = &tensors[i];
    qsort(sorted, count, sizeof *sorted, by_dtype);

    printf("\n%-12s  %9s  %19s  %23s\n", "dtype", "tensors", "elements", "bytes");
    uint64_t all_elements = 0, all_bytes = 0;
    for (size_t i = 0, n; i < count; i += n) {
        uint64_t elements = 0, bytes = 0;
        for (n = 0; i + n < count && by_dtype(&sorted[i], &sorted[i + n]) == 0; n++) {
            elements += sorted[i + n]->element_count;
            bytes += sorted[i + n]->size;
        }
        end_cell(put_dtype(stdout, sorted[i]), 12);
        put_total(n, elements, bytes);
        all_elements += elements;
        all_bytes += bytes;
    }
    end_cell((size_t)printf("all"), 12);
    put_total(count, all_elements, all_bytes);
    free(sorted);
    return true;
}

static void show_metadata(const st_metadata *entries, size_t count) {
    puts(entries == NULL ? "\nno metadata" : count == 0 ? "\nempty metadata" : "\nmetadata");
    for (size_t i = 0; i < count; i++) {
        fputs("  ", stdout);
        put_text(stdout, entries[i].key, entries[i].key_len);
        fputs(" = ", stdout);
        put_text(stdout, entries[i].value, entries[i].value_len);
        putchar('\n');
    }
}

static const char *access_name(int32_t access) {
    switch (access) {
    case ST_ACCESS_MAP: return "map";
    case ST_ACCESS_READ: return "read";
    case ST_ACCESS_MEMORY: return "memory";
    case ST_ACCESS_CALLBACK: return "callback";
    default: return "other";
    }
}

static void show_shards(const st_shard *shards, size_t count) {
    size_t path = 4;
    for (size_t i = 0; i < count; i++)
        path = larger(path, smaller(72, put_text(NULL, shards[i].path, shards[i].path_len)));
    printf("\nshard        size  %-*s  access\n", (int)path, "path");
    for (size_t i = 0; i < count; i++) {
        printf("%5zu  %10s  ", i, human(shards[i].size).text);
        end_cell(put_text(stdout, shards[i].path, shards[i].path_len), path);
        printf("%-8s  %s\n", access_name(shards[i].access), shards[i].reason);
    }
}

// One line for a problem: file:byte, severity, rule, what is wrong.
static int32_t show_problem(void *user_data, const st_problem *problem) {
    size_t *count = user_data;
    ++*count;
    put_text(stdout, problem->file, problem->file_len);
    printf(":%" PRIu64 ": %s: %s: %s\n", problem->position,
           problem->fatal & ST_FATAL_TOLERANT ? "fatal"
           : problem->fatal                   ? "fatal unless tolerated"
                                              : "worth knowing",
           st_status_name(problem->code), problem->text);
    return 0;
}

static int check(const char *path, const st_open_options *options) {
    st_error error;
    size_t count = 0;
    st_status status = st_validate(path, options, show_problem, &count, &error);
    if (status != ST_OK && count == 0) {
        fprintf(stderr, "inspect: %s: %s\n", st_status_name(status), error.message);
        return 1;
    }
    put_text(stdout, path, strlen(path));
    printf(": %s problem%s: %s\n", grouped(count).text, count == 1 ? "" : "s",
           status == ST_OK ? "opens" : "does not open");
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("inspect: can't write the output\n", stderr);
        return 1;
    }
    return status != ST_OK;
}

int main(int argc, char **argv) {
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    const char *path = NULL;
    bool usage = false, checking = false, with_members = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--check") == 0)
            checking = true;
        else if (strcmp(argv[i], "--groups") == 0)
            with_members = true;
        else if (strcmp(argv[i], "--read") == 0)
            options.access = ST_ACCESS_READ;
        else if (strcmp(argv[i], "--tolerate") == 0)
            options.tolerate = ST_TOLERATE_TRAILING_BYTES | ST_TOLERATE_UNKNOWN_DTYPE;
        else if (path != NULL || strncmp(argv[i], "--", 2) == 0)
            usage = true;
        else
            path = argv[i];
    }
    if (path == NULL || usage) {
        fputs("usage: inspect [--check] [--groups] [--read] [--tolerate] PATH\n", stderr);
        return 2;
    }
    if (checking)
        return check(path, &options);

    st_error error;
    st_checkpoint *checkpoint = st_open_with(path, &options, &error);
    if (checkpoint == NULL) {
        fprintf(stderr, "inspect: %s: %s\n", st_status_name(error.code), error.message);
        return 1;
    }
    size_t tensor_count, metadata_count, shard_count;
    const st_tensor *tensors = st_tensors(checkpoint, &tensor_count);
    const st_metadata *metadata = st_metadata_entries(checkpoint, &metadata_count);
    const st_shard *shards = st_shards(checkpoint, &shard_count);

    put_text(stdout, path, strlen(path));
    printf(": %s tensor%s in %s file%s\n", grouped(tensor_count).text, tensor_count == 1 ? "" : "s",
           grouped(shard_count).text, shard_count == 1 ? "" : "s");
    bool good = true;
    if (tensor_count > 0) {
        show_tensors(tensors, tensor_count);
        good = show_totals(tensors, tensor_count);
    }
    // Where groups can't be looked for, all tensors have been shown as they are.
    size_t group_count = 0;
    st_groups *groups = st_groups_open(checkpoint, NULL, &error);
    if (groups == NULL)
        printf("\nquantised groups: %s: %s\n", st_status_name(error.code), error.message);
    const st_group *list = st_groups_list(groups, &group_count);
    if (group_count > 0)
        show_groups(list, group_count, with_members);
    st_groups_free(groups);
    show_metadata(metadata, metadata_count);
    show_shards(shards, shard_count);
    st_free(checkpoint);
    if (fflush(stdout) != 0 || ferror(stdout) || !good) {
        fputs(good ? "inspect: can't write the output\n" : "inspect: out of memory\n", stderr);
        return 1;
    }
    return 0;
}
