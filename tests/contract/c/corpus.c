// SPDX-License-Identifier: Apache-2.0
// The conformance table through the C functions: every file and folder, opened
// in every way, gives the status and holds the contents that the table says.

#include "check.h"

#define STATUS(name) {#name, name}
static const struct {
    const char *name;
    st_status status;
} statuses[] = {
    STATUS(ST_OK), STATUS(ST_ERROR_IO), STATUS(ST_ERROR_TRUNCATED), STATUS(ST_ERROR_HEADER_TOO_LARGE),
    STATUS(ST_ERROR_HEADER_LENGTH), STATUS(ST_ERROR_HEADER_START), STATUS(ST_ERROR_HEADER_UTF8),
    STATUS(ST_ERROR_HEADER_JSON), STATUS(ST_ERROR_DUPLICATE_KEY), STATUS(ST_ERROR_METADATA), STATUS(ST_ERROR_DTYPE),
    STATUS(ST_ERROR_SHAPE), STATUS(ST_ERROR_OFFSETS), STATUS(ST_ERROR_SIZE_MISMATCH), STATUS(ST_ERROR_DATA_NOT_COVERED),
    STATUS(ST_ERROR_SUB_BYTE), STATUS(ST_ERROR_INDEX), STATUS(ST_ERROR_SHARD),
    STATUS(ST_ERROR_NOT_FOUND),
};

static st_status status_of(const char *name)
{
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        if (strcmp(statuses[i].name, name) == 0) {
            CHECK(strcmp(st_status_name(statuses[i].status), name) == 0);
            return statuses[i].status;
        }
    }
    fprintf(stderr, "no such status: %s\n", name);
    exit(2);
}

// Splits a line at its tabs, in place; returns the number of cells.
static size_t split(char *line, char **cells, size_t most)
{
    size_t count = 0;
    for (char *cell = line; cell != NULL && count < most; count++) {
        cells[count] = cell;
        cell = strchr(cell, '\t');
        if (cell != NULL) {
            *cell++ = 0;
        }
    }
    return count;
}

// Percent-encoded text in place; "-" is none. Returns its length.
static size_t decode(char *text)
{
    if (strcmp(text, "-") == 0) {
        return 0;
    }
    char *to = text;
    for (const char *from = text; *from != 0; from++) {
        unsigned byte = (unsigned char)*from;
        if (byte == '%') {
            sscanf(from + 1, "%2x", &byte);
            from += 2;
        }
        *to++ = (char)byte;
    }
    return (size_t)(to - text);
}

static st_open_options options_of(char *text)
{
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    for (char *option = strtok(text, ","); option != NULL; option = strtok(NULL, ",")) {
        unsigned long long value = 0;
        if (strcmp(option, "trailing_bytes") == 0) {
            options.tolerate |= ST_TOLERATE_TRAILING_BYTES;
        } else if (strcmp(option, "unknown_dtype") == 0) {
            options.tolerate |= ST_TOLERATE_UNKNOWN_DTYPE;
        } else if (sscanf(option, "max_header_size=%llu", &value) == 1) {
            options.max_header_size = value;
        } else if (sscanf(option, "max_tensors=%llu", &value) == 1) {
            options.max_tensors = value;
        } else if (sscanf(option, "max_name_length=%llu", &value) == 1) {
            options.max_name_length = value;
        } else if (strncmp(option, "variant=", 8) == 0) {
            options.variant = option + 8;
        } else if (strcmp(option, "-") != 0) {
            fprintf(stderr, "no such option: %s\n", option);
            exit(2);
        }
    }
    return options;
}

// One line of contents.tsv, decoded.
typedef struct row {
    const char *name; // of the tensor, or the key
    size_t name_len;
    const char *text; // the dtype, or the value
    size_t text_len;
    const char *shape;
    unsigned long shard;
    unsigned long long offset, size, hash;
} row;

// What a case holds, as found in contents.tsv.
typedef struct contents {
    row *tensors, *entries;
    size_t tensor_count, entry_count;
} contents;

static contents contents_of(const char *table, const char *name)
{
    contents found = {calloc(64, sizeof(row)), calloc(64, sizeof(row)), 0, 0};
    size_t name_len = strlen(name);
    for (const char *line = table; *line != 0; line = strchr(line, '\n') + 1) {
        if (strncmp(line, name, name_len) != 0 || line[name_len] != '\t') {
            continue;
        }
        size_t len = strcspn(line, "\n");
        char *copy = calloc(1, len + 1), *cells[9];
        memcpy(copy, line, len);
        size_t count = split(copy, cells, 9);
        int tensor = strcmp(cells[1], "tensor") == 0;
        row *to = tensor ? &found.tensors[found.tensor_count++] : &found.entries[found.entry_count++];
        to->name = cells[2];
        to->name_len = decode(cells[2]);
        to->text = cells[3];
        to->text_len = decode(cells[3]);
        if (tensor && CHECK(count == 9)) {
            to->shape = cells[4];
            to->shard = strtoul(cells[5], NULL, 10);
            to->offset = strtoull(cells[6], NULL, 10);
            to->size = strtoull(cells[7], NULL, 10);
            to->hash = strtoull(cells[8], NULL, 16);
        }
        CHECK(found.tensor_count < 64 && found.entry_count < 64);
    }
    return found;
}

static void contents_free(contents *found, const char *name)
{
    // Each row's first cell, the case's name and a tab, begins its copy.
    size_t before[] = {strlen(name) + sizeof "\ttensor", strlen(name) + sizeof "\tmetadata"};
    for (size_t i = 0; i < found->tensor_count; i++) {
        free((char *)(uintptr_t)(found->tensors[i].name - before[0]));
    }
    for (size_t i = 0; i < found->entry_count; i++) {
        free((char *)(uintptr_t)(found->entries[i].name - before[1]));
    }
    free(found->tensors);
    free(found->entries);
}

static int same_shape(const st_tensor *tensor, const char *shape)
{
    uint64_t elements = 1;
    for (size_t i = 0; i < tensor->rank; i++) {
        char *end;
        if (strtoll(shape, &end, 10) != tensor->shape[i]) {
            return 0;
        }
        elements *= (uint64_t)tensor->shape[i];
        shape = *end == 'x' ? end + 1 : end;
    }
    return elements == tensor->element_count && (*shape == 0 || (tensor->rank == 0 && strcmp(shape, "-") == 0));
}

static void check_tensor(const st_checkpoint *checkpoint, const row *wanted)
{
    st_error error;
    error_mark(&error);
    const st_tensor *tensor = st_find_tensor_n(checkpoint, wanted->name, wanted->name_len);
    const st_tensor *got = st_get_tensor_n(checkpoint, wanted->name, wanted->name_len, &error);
    if (!CHECK(tensor != NULL) || !CHECK(got != NULL)) {
        return;
    }
    CHECK(tensor->name_len == wanted->name_len && memcmp(tensor->name, wanted->name, wanted->name_len) == 0);
    CHECK(tensor->name[tensor->name_len] == 0);
    CHECK(strlen(tensor->dtype_name) == wanted->text_len && memcmp(tensor->dtype_name, wanted->text, wanted->text_len) == 0);
    CHECK(tensor->dtype == ST_DTYPE_UNKNOWN ? st_dtype_from_name(tensor->dtype_name) == 0
                                            : strcmp(tensor->dtype_name, st_dtype_name(tensor->dtype)) == 0);
    CHECK(same_shape(tensor, wanted->shape));
    CHECK(tensor->shard == wanted->shard && tensor->offset == wanted->offset && tensor->size == wanted->size);
    CHECK(tensor->source == 0 && tensor->reserved[0] == 0);
    CHECK(got->data != NULL && fnv1a(got->data, (size_t)got->size) == wanted->hash);
    CHECK(tensor->data == NULL ? (uintptr_t)got->data % 64 == 0 : got == tensor);
    bytes copy = {malloc((size_t)tensor->size + 1), (size_t)tensor->size};
    CHECK(st_read_tensor(checkpoint, tensor, copy.data, copy.size, &error) == ST_OK);
    CHECK(fnv1a(copy.data, copy.size) == wanted->hash);
    CHECK(error_untouched(&error));
    free(copy.data);
}

static void check_contents(const st_checkpoint *checkpoint, const contents *wanted, int has_metadata)
{
    size_t count = 99, shards = 99;
    const st_tensor *tensors = st_tensors(checkpoint, &count);
    CHECK(tensors != NULL && count == wanted->tensor_count);
    CHECK(st_shards(checkpoint, &shards) != NULL);
    for (size_t i = 0; i + 1 < count; i++) {
        CHECK(tensors[i].shard < shards);
        CHECK(tensors[i].shard < tensors[i + 1].shard ||
              (tensors[i].shard == tensors[i + 1].shard && tensors[i].offset <= tensors[i + 1].offset));
    }
    for (size_t i = 0; i < wanted->tensor_count; i++) {
        check_tensor(checkpoint, &wanted->tensors[i]);
    }
    const st_metadata *entries = st_metadata_entries(checkpoint, &count);
    CHECK(count == wanted->entry_count && (entries != NULL) == has_metadata);
    for (size_t i = 0; i < count && i < wanted->entry_count; i++) {
        const row *entry = &wanted->entries[i];
        CHECK(entries[i].key_len == entry->name_len && memcmp(entries[i].key, entry->name, entry->name_len) == 0);
        CHECK(entries[i].value_len == entry->text_len && memcmp(entries[i].value, entry->text, entry->text_len) == 0);
        CHECK(entries[i].key[entry->name_len] == 0 && entries[i].value[entry->text_len] == 0);
        if (memchr(entries[i].key, 0, entries[i].key_len) == NULL) {
            size_t length = 0;
            CHECK(st_get_metadata(checkpoint, entries[i].key, &length) == entries[i].value && length == entry->text_len);
        }
    }
}

static void check_opened(st_checkpoint *checkpoint, const st_error *error, char *const *cells, const contents *wanted)
{
    st_status status = status_of(cells[3]);
    int failures = check_failures;
    if (status != ST_OK) {
        CHECK(checkpoint == NULL && error_is(error, status));
    } else if (CHECK(checkpoint != NULL)) {
        CHECK(error_untouched(error));
        check_contents(checkpoint, wanted, strcmp(cells[5], "-") != 0);
    } else {
        error_is(error, ST_OK);
    }
    if (failures != check_failures) {
        fprintf(stderr, "in the case %s\n", cells[0]);
    }
    st_free(checkpoint);
}

static void check_case(const char *root, char *const *cells, st_open_options options, const contents *wanted)
{
    st_error error;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, cells[1]);
    const int32_t accesses[] = {ST_ACCESS_AUTO, ST_ACCESS_MAP, ST_ACCESS_READ};
    for (size_t i = 0; i < 3; i++) {
        options.access = accesses[i];
        error_mark(&error);
        check_opened(st_open_with(path, &options, &error), &error, cells, wanted);
    }
    if (strcmp(cells[2], "-") == 0) {
        error_mark(&error);
        check_opened(st_open(path, &error), &error, cells, wanted);
    }
    if (strncmp(cells[1], "files/", 6) != 0) {
        return;
    }
    bytes file = bytes_of_file(path, 0);
    error_mark(&error);
    check_opened(st_open_memory(file.data, file.size, &options, &error), &error, cells, wanted);
    for (size_t most = 0; most < 20; most += 9) {
        memory_io memory = {file, most, 0, 0, ST_OK};
        st_io io = memory_io_of(&memory);
        error_mark(&error);
        check_opened(st_open_io(&io, &options, &error), &error, cells, wanted);
        CHECK(memory.releases == 1);
    }
    free(file.data);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: corpus CORPUS\n");
        return 2;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/corpus.tsv", argv[1]);
    bytes table = bytes_of_file(path, 1);
    snprintf(path, sizeof path, "%s/contents.tsv", argv[1]);
    bytes inside = bytes_of_file(path, 1);
    int cases = 0;
    char *next;
    for (char *line = (char *)table.data; *line != 0; line = next) {
        next = strchr(line, '\n');
        *next++ = 0;
        char *cells[7];
        if (*line == '#') {
            continue;
        }
        CHECK(split(line, cells, 7) == 7);
        contents wanted = contents_of((const char *)inside.data, cells[0]);
        char *options = (char *)bytes_copy(cells[2], strlen(cells[2]) + 1).data;
        check_case(argv[1], cells, options_of(options), &wanted);
        free(options);
        contents_free(&wanted, cells[0]);
        cases++;
    }
    CHECK(cases > 400);
    printf("%d cases\n", cases);
    free(table.data);
    free(inside.data);
    return check_result();
}
