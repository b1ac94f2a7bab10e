// SPDX-License-Identifier: Apache-2.0
// Many items at once, to destinations and through sinks: any sizes, order, threads, staging,
// buffers and ways to read, from files whose data begins anywhere. Each byte of each result is
// held against the file's, and comes once. MANY_ROUNDS makes it longer, MANY_SEED another run.

#include "check.h"

enum { MOST_TENSORS = 1200, MOST_BUFFERS = 4, LOADS = 6 };

static uint64_t state;

static size_t below(size_t most)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return most == 0 ? 0 : (size_t)(state % most);
}

static void *room_for(size_t size)
{
    void *room = malloc(size + 1);
    if (room == NULL) {
        abort();
    }
    return room;
}

// What an item should become, and what has come of it.
typedef struct result {
    unsigned char *wanted, *found;
    unsigned char *seen;
    size_t size;
    int done;
} result;

typedef struct keeper {
    result *results;
    st_buffer buffers[MOST_BUFFERS];
    int away[MOST_BUFFERS];
} keeper;

static void keep(keeper *to, size_t buffer, size_t at, size_t item, uint64_t offset, size_t size)
{
    result *one = &to->results[item];
    if (!CHECK(size != 0 && offset + size <= one->size && at + size <= to->buffers[buffer].size)) {
        return;
    }
    memcpy(one->found + offset, (unsigned char *)to->buffers[buffer].data + at, size);
    for (size_t i = 0; i < size; i++) {
        one->seen[offset + i]++;
    }
}

static st_status keep_chunk(void *user_data, size_t buffer, size_t item, uint64_t offset, size_t size, st_error *error)
{
    keeper *to = user_data;
    (void)error;
    CHECK(!to->away[buffer]);
    to->away[buffer] = 1;
    keep(to, buffer, 0, item, offset, size);
    return ST_OK;
}

static st_status keep_pieces(void *user_data, size_t buffer, const st_piece *pieces, size_t count, st_error *error)
{
    keeper *to = user_data;
    (void)error;
    CHECK(!to->away[buffer] && count != 0);
    to->away[buffer] = 1;
    size_t end = 0;
    for (size_t i = 0; i < count; i++) {
        CHECK(pieces[i].buffer_offset == end);
        end = (end + pieces[i].size + 15) / 16 * 16;
        keep(to, buffer, pieces[i].buffer_offset, pieces[i].item, pieces[i].item_offset, pieces[i].size);
    }
    return ST_OK;
}

static st_status get_back(void *user_data, size_t buffer, st_error *error)
{
    keeper *to = user_data;
    (void)error;
    CHECK(to->away[buffer]);
    to->away[buffer] = 0;
    memset(to->buffers[buffer].data, 0xEE, to->buffers[buffer].size);
    return ST_OK;
}

static st_status invert(void *user_data, size_t item, uint64_t element, size_t count, const void *src, void *dst,
                        st_error *error)
{
    (void)user_data, (void)item, (void)element, (void)error;
    CHECK((uintptr_t)src % 64 == 0);
    for (size_t i = 0; i < 2 * count; i++) {
        ((unsigned char *)dst)[i] = (unsigned char)~((const unsigned char *)src)[i];
    }
    return ST_OK;
}

static void note_done(void *user_data, size_t item)
{
    ((keeper *)user_data)->results[item].done++;
}

// A file of BF16 tensors of one of several kinds of sizes, whose data begins at `*data`.
static bytes file_of_any(size_t *data)
{
    size_t count = 1 + below(MOST_TENSORS), kind = below(4), at = 9, offset = 0;
    char *header = room_for(16 + count * 120 + 64);
    header[8] = '{';
    for (size_t i = 0; i < count; i++) {
        size_t size = kind == 0 ? 512 : kind == 1 ? 16 * below(64) : 2 * below(600);
        if (kind == 3) {
            size = below(100) == 0 ? 2 * below(300000) : 64 * (1 + below(30));
        }
        at += (size_t)sprintf(header + at, "%s\"t%zu\":{\"dtype\":\"BF16\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}",
                              i == 0 ? "" : ",", i, size / 2, offset, offset + size);
        offset += size;
    }
    header[at++] = '}';
    while (at % 64 != 0 && below(2) == 0) {
        header[at++] = ' ';
    }
    for (size_t i = 0; i < 8; i++) {
        header[i] = (char)((at - 8) >> (8 * i));
    }
    bytes file = {room_for(at + offset + 8), at + offset};
    memcpy(file.data, header, at);
    free(header);
    for (size_t i = 0; i < offset; i += 8) {
        below(1);
        memcpy(file.data + at + i, &state, 8);
    }
    *data = at;
    return file;
}

// One load of some of the tensors, in some order, records or copies of them.
static void load_some(const st_checkpoint *from, const unsigned char *file)
{
    size_t count, items = 0, total = 0;
    const st_tensor *tensors = st_tensors(from, &count);
    st_tensor *copies = room_for(count * sizeof *copies);
    st_load_item *all = room_for(count * sizeof *all);
    keeper to = {room_for(count * sizeof *to.results), {{NULL, 0}}, {0}};
    st_transform inverts = ST_TRANSFORM_INIT;
    inverts.unit = 1;
    inverts.unit_size = 2;
    inverts.run = invert;
    size_t plain = below(2), backwards = below(3);
    for (size_t i = 0; i < count; i++) {
        const st_tensor *tensor = &tensors[backwards == 0 ? count - 1 - i : i];
        if (below(7) == 0 && !plain) {
            continue;
        }
        size_t way = plain ? 0 : below(30), size = (size_t)tensor->size;
        const unsigned char *source = file + tensor->offset;
        result one = {room_for(2 * size), NULL, NULL, way == 1 ? 2 * size : size, 0};
        st_load_item item = {0};
        copies[i] = *tensor;
        item.tensor = below(3) == 0 ? &copies[i] : tensor;
        if (way == 1) {
            // A BF16 is the upper half of its F32.
            item.dtype = ST_DTYPE_F32;
            memset(one.wanted, 0, 2 * size);
            for (size_t byte = 0; byte < size; byte++) {
                one.wanted[byte / 2 * 4 + 2 + byte % 2] = source[byte];
            }
        } else {
            item.transform = way == 2 ? &inverts : NULL;
            for (size_t byte = 0; byte < size; byte++) {
                one.wanted[byte] = way == 2 ? (unsigned char)~source[byte] : source[byte];
            }
        }
        one.found = room_for(one.size);
        one.seen = room_for(one.size);
        memset(one.seen, 0, one.size);
        total += one.size;
        to.results[items] = one;
        all[items++] = item;
    }

    st_load_options options = ST_LOAD_OPTIONS_INIT;
    options.threads = (uint32_t)below(5);
    options.io = (int32_t)below(4);
    options.drop_cache = below(4) == 0;
    options.staging_bytes = below(3) == 0 ? 65536 + below(1 << 20) : 0;
    unsigned char *memory[MOST_BUFFERS] = {NULL}, *slab = NULL;
    st_sink sink = ST_SINK_INIT;
    size_t kind = below(3);
    if (kind == 0) {
        // To places, right behind one another or with gaps.
        size_t at = below(64), gaps = below(2);
        slab = room_for(total + 64 * items + 64);
        for (size_t i = 0; i < items; i++) {
            all[i].dst = slab + at;
            all[i].dst_size = to.results[i].size;
            at += to.results[i].size + (gaps ? below(64) : 0);
        }
        options.item_done = note_done;
        options.user_data = &to;
    } else {
        sink.buffers = to.buffers;
        sink.buffer_count = 1 + below(MOST_BUFFERS);
        for (size_t i = 0; i < sink.buffer_count; i++) {
            size_t skew = below(2) * below(64), scale = below(3);
            size_t size = 4096 + below(scale == 0 ? 64 : scale == 1 ? 200000 : 1 << 20);
            memory[i] = room_for(size + 128);
            to.buffers[i].data = memory[i] + (64 - (uintptr_t)memory[i] % 64) + skew;
            to.buffers[i].size = size;
        }
        sink.chunk = kind == 1 ? keep_chunk : NULL;
        sink.pieces = kind == 2 ? keep_pieces : NULL;
        sink.wait = get_back;
        sink.user_data = &to;
        options.sink = &sink;
    }

    st_error error;
    if (!CHECK(st_load(from, all, items, &options, &error) == ST_OK)) {
        fprintf(stderr, "%s\n", error.message);
    }
    for (size_t i = 0; i < items; i++) {
        result *one = &to.results[i];
        CHECK(one->size == 0 || memcmp(kind == 0 ? all[i].dst : one->found, one->wanted, one->size) == 0);
        for (size_t byte = 0; kind != 0 && byte < one->size; byte++) {
            if (one->seen[byte] != 1) {
                CHECK(one->seen[byte] == 1);
                break;
            }
        }
        CHECK(one->done == (kind == 0));
        free(one->wanted);
        free(one->found);
        free(one->seen);
    }
    for (size_t i = 0; i < MOST_BUFFERS; i++) {
        CHECK(!to.away[i]);
        free(memory[i]);
    }
    free(slab);
    free(to.results);
    free(all);
    free(copies);
}

int main(int argc, char **argv)
{
    const char *rounds = getenv("MANY_ROUNDS"), *seed = getenv("MANY_SEED");
    state = UINT64_C(88172645463325252) + (seed == NULL ? 0 : strtoull(seed, NULL, 10)) * UINT64_C(0x9E3779B97F4A7C15);
    if (argc < 3) {
        return 2;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/many-%p.safetensors", argv[2], (void *)&rounds);
    for (long round = rounds == NULL ? 8 : strtol(rounds, NULL, 10); round > 0 && check_failures == 0; round--) {
        size_t data;
        bytes file = file_of_any(&data);
        write_file(path, file.data, file.size);
        st_checkpoint *from = st_open(path, NULL);
        if (CHECK(from != NULL)) {
            for (size_t i = 0; i < LOADS; i++) {
                load_some(from, file.data);
            }
        }
        st_free(from);
        free(file.data);
    }
    remove(path);
    return check_result();
}
