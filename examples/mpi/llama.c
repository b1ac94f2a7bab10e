// SPDX-License-Identifier: Apache-2.0
//
// llama: a Llama whose ranks, on one host or on several, each load only their
// part of the model by a rank plan, and add up what they compute with MPI.
//
//     mpirun -n 3 llama [--plan FILE]... [--expect FILE] [--save FILE] [--repeat N] MODEL [TOKEN]...
//
// MODEL is what st_open takes; its config.json is beside it. Without --plan it is
// the built-in plan for a Llama. The program computes the logits after every
// token (1 2 3 ... 8 where none are given) and says which token each makes the
// likeliest. --save writes tokens and logits to a safetensors file; --expect
// compares with such a file, whose tokens it takes, and fails if a logit differs
// by more than 1e-4. --repeat computes N times.
//
// Before anything is loaded the ranks compare digests of the files' headers,
// their sizes, the config and the plans. Whatever one rank fails of, every rank
// says so and ends.

#include <math.h>

#include "agree.h"

enum { MOST_PLANS = 8, MOST_TOKENS = 4096 };

// A number of config.json by its name, wherever it is; this is no JSON parser.
static double number(const char *config, const char *name, double otherwise) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    const char *found = strstr(config, quoted);
    found = found == NULL ? NULL : strchr(found + strlen(quoted), ':');
    char *end = NULL;
    double value = found == NULL ? 0 : strtod(found + 1, &end);
    return end == NULL || end == found + 1 ? otherwise : value;
}

// ------------------------------------------------------------- what this rank holds

// This rank's part of a matrix (a vector has one column), as F32.
typedef struct matrix {
    float *data;
    int64_t rows, columns;          // of the part
    int64_t all_rows, all_columns;  // of the whole
    int64_t first_row;              // the part's first row in the whole
    int64_t stored_rows;            // without the zeros of a padding
    int cut_rows, cut_columns;      // whether other ranks have others
} matrix;

static const st_part *parts;
static float **places;
static size_t part_count;

static int by_name(const void *name, const void *part) {
    return strcmp(name, ((const st_part *)part)->tensor->name);
}

// The part of this tensor; parts are in the order of names.
static matrix find(const char *format, ...) {
    char name[256];
    matrix found = {0};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    const st_part *part = bsearch(name, parts, part_count, sizeof *parts, by_name);
    if (part == NULL || part->rank < 1 || part->rank > 2) {
        wrong("no part of a matrix %s", name);
        return found;
    }
    found.data = places[part - parts];
    found.rows = found.stored_rows = part->shape[0];
    found.all_rows = part->tensor->shape[0];
    found.columns = part->rank == 2 ? part->shape[1] : 1;
    found.all_columns = part->rank == 2 ? part->tensor->shape[1] : 1;
    found.cut_rows = part->intervals[0] != NULL;
    found.cut_columns = part->rank == 2 && part->intervals[1] != NULL;
    for (size_t dim = 0; dim < part->rank; dim++) {
        if (part->intervals[dim] != NULL && part->interval_counts[dim] > 1)
            wrong("%s: a part of several runs, and this program takes one", name);
    }
    if (found.cut_rows && part->interval_counts[0] > 0) {
        found.first_row = part->intervals[0][0].start;
        found.stored_rows = part->intervals[0][0].stop - found.first_row;
    }
    return found;
}

// Loads all parts of this rank into one block, as F32. Returns what that takes.
static st_plan load(const st_checkpoint *model) {
    st_error error;
    st_plan plan = {0};
    st_load_options options = ST_LOAD_OPTIONS_INIT;
    st_load_item *items = allocate(part_count, sizeof *items);
    uint64_t total = 0;
    for (size_t i = 0; i < part_count; i++) {
        uint64_t elements = 1;
        for (size_t dim = 0; dim < parts[i].rank; dim++)
            elements *= (uint64_t)parts[i].shape[dim];
        items[i] = (st_load_item){.part = &parts[i], .dtype = ST_DTYPE_F32, .dst_size = elements * sizeof(float)};
        total += elements;
    }
    float *place = allocate(total, sizeof *place);
    places = allocate(part_count, sizeof *places);
    for (size_t i = 0; i < part_count; i++) {
        items[i].dst = places[i] = place;
        place += items[i].dst_size / sizeof *place;
    }
    if (st_load_plan(model, items, part_count, &options, &plan, &error) != ST_OK ||
        st_load(model, items, part_count, &options, &error) != ST_OK)
        wrong("%s", error.message);
    free(items);
    agree();
    return plan;
}

// ------------------------------------------------------------------------- a Llama

typedef struct layer {
    matrix before_attention, q, k, v, o, before_mlp, gate, up, down;
} layer;

typedef struct llama {
    int64_t hidden, vocabulary, layer_count, heads, kv_heads, head_size;
    double epsilon, theta;
    matrix embedding, norm, head;
    layer *layers;
} llama;

// out[t][r] = the sum over c of in[t][c] * weight[r][c]
static void multiply(float *out, const float *in, matrix weight, int64_t tokens) {
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t r = 0; r < weight.rows; r++) {
            const float *row = weight.data + r * weight.columns, *x = in + t * weight.columns;
            float sum = 0;
            for (int64_t c = 0; c < weight.columns; c++)
                sum += row[c] * x[c];
            out[t * weight.rows + r] = sum;
        }
    }
}

// Adds up what the ranks have of a sum; what every rank has whole is one already.
static void add_up(float *values, int64_t count, int is_cut) {
    if (is_cut)
        MPI_Allreduce(MPI_IN_PLACE, values, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static void normalise(float *out, const float *in, matrix weight, int64_t tokens, double epsilon) {
    for (int64_t t = 0; t < tokens; t++, in += weight.rows, out += weight.rows) {
        double squares = 0;
        for (int64_t i = 0; i < weight.rows; i++)
            squares += (double)in[i] * in[i];
        float scale = (float)(1 / sqrt(squares / (double)weight.rows + epsilon));
        for (int64_t i = 0; i < weight.rows; i++)
            out[i] = in[i] * scale * weight.data[i];
    }
}

// Turns the two halves of each head's vector by angles that grow with the position.
static void rotate(const llama *it, float *vectors, int64_t heads, int64_t tokens) {
    int64_t half = it->head_size / 2;
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)t * pow(it->theta, -(double)i / (double)half);
            float c = (float)cos(angle), s = (float)sin(angle);
            for (int64_t h = 0; h < heads; h++) {
                float *vector = vectors + (t * heads + h) * it->head_size;
                float a = vector[i], b = vector[i + half];
                vector[i] = a * c - b * s;
                vector[i + half] = b * c + a * s;
            }
        }
    }
}

// Of this rank's query heads, each with the key and value head of its group.
static void attend(const llama *it, const layer *at, float *out, const float *q, const float *k, const float *v,
                   float *scores, int64_t tokens) {
    int64_t size = it->head_size, heads = at->q.rows / size, kv_heads = at->k.rows / size;
    for (int64_t h = 0; h < heads; h++) {
        int64_t group = (at->q.first_row / size + h) / (it->heads / it->kv_heads) - at->k.first_row / size;
        for (int64_t t = 0; t < tokens; t++) {
            const float *query = q + (t * heads + h) * size;
            float *result = out + (t * heads + h) * size, most = -INFINITY, sum = 0;
            for (int64_t u = 0; u <= t; u++) {
                const float *key = k + (u * kv_heads + group) * size;
                float dot = 0;
                for (int64_t i = 0; i < size; i++)
                    dot += query[i] * key[i];
                scores[u] = dot / sqrtf((float)size);
                most = scores[u] > most ? scores[u] : most;
            }
            for (int64_t u = 0; u <= t; u++)
                sum += scores[u] = expf(scores[u] - most);
            memset(result, 0, (size_t)size * sizeof *result);
            for (int64_t u = 0; u <= t; u++) {
                for (int64_t i = 0; i < size; i++)
                    result[i] += scores[u] / sum * v[(u * kv_heads + group) * size + i];
            }
        }
    }
}

// The logits after each token: tokens x vocabulary.
static void compute(const llama *it, const int64_t *ids, int64_t tokens, float *logits) {
    int64_t hidden = it->hidden, widest = hidden;
    for (int64_t i = 0; i < it->layer_count; i++)
        widest = it->layers[i].gate.rows > widest ? it->layers[i].gate.rows : widest;
    widest = it->head.rows > widest ? it->head.rows : widest;
    widest = it->heads * it->head_size > widest ? it->heads * it->head_size : widest;
    uint64_t room = (uint64_t)tokens * (uint64_t)widest;
    float *block = allocate(6 * room + (uint64_t)tokens, sizeof *block);
    float *x = block, *y = x + room, *a = y + room, *b = a + room, *c = b + room, *d = c + room, *scores = d + room;

    for (int64_t t = 0; t < tokens; t++) {
        int64_t row = ids[t] - it->embedding.first_row;
        if (row >= 0 && row < it->embedding.stored_rows)
            memcpy(x + t * hidden, it->embedding.data + row * hidden, (size_t)hidden * sizeof *x);
    }
    add_up(x, tokens * hidden, it->embedding.cut_rows);
    for (int64_t i = 0; i < it->layer_count; i++) {
        const layer *at = &it->layers[i];
        normalise(y, x, at->before_attention, tokens, it->epsilon);
        multiply(a, y, at->q, tokens);
        multiply(b, y, at->k, tokens);
        multiply(c, y, at->v, tokens);
        rotate(it, a, at->q.rows / it->head_size, tokens);
        rotate(it, b, at->k.rows / it->head_size, tokens);
        attend(it, at, d, a, b, c, scores, tokens);
        multiply(y, d, at->o, tokens);
        add_up(y, tokens * hidden, at->o.cut_columns);
        for (int64_t j = 0; j < tokens * hidden; j++)
            x[j] += y[j];

        normalise(y, x, at->before_mlp, tokens, it->epsilon);
        multiply(a, y, at->gate, tokens);
        multiply(b, y, at->up, tokens);
        for (int64_t j = 0; j < tokens * at->gate.rows; j++)
            a[j] = a[j] / (1 + expf(-a[j])) * b[j];
        multiply(y, a, at->down, tokens);
        add_up(y, tokens * hidden, at->down.cut_columns);
        for (int64_t j = 0; j < tokens * hidden; j++)
            x[j] += y[j];
    }
    normalise(y, x, it->norm, tokens, it->epsilon);
    multiply(a, y, it->head, tokens);
    memset(logits, 0, (size_t)(tokens * it->vocabulary) * sizeof *logits);
    for (int64_t t = 0; t < tokens; t++)
        memcpy(logits + t * it->vocabulary + it->head.first_row, a + t * it->head.rows,
               (size_t)it->head.stored_rows * sizeof *logits);
    add_up(logits, tokens * it->vocabulary, it->head.cut_rows);
    free(block);
}

static llama assemble(const st_checkpoint *model, const char *config) {
    llama it = {0};
    it.heads = (int64_t)number(config, "num_attention_heads", 0);
    it.kv_heads = (int64_t)number(config, "num_key_value_heads", (double)it.heads);
    it.layer_count = (int64_t)number(config, "num_hidden_layers", 0);
    it.epsilon = number(config, "rms_norm_eps", 1e-6);
    it.theta = number(config, "rope_theta", 10000);
    if (it.heads < 1 || it.kv_heads < 1 || it.heads % it.kv_heads != 0 || it.layer_count < 1 || it.layer_count > 1000)
        wrong("config.json: %" PRId64 " heads, %" PRId64 " key heads, %" PRId64 " layers", it.heads, it.kv_heads,
              it.layer_count);
    agree();
    it.layers = allocate((uint64_t)it.layer_count, sizeof *it.layers);
    it.embedding = find("model.embed_tokens.weight");
    it.norm = find("model.norm.weight");
    it.head = st_find_tensor(model, "lm_head.weight") == NULL ? it.embedding : find("lm_head.weight");
    it.hidden = it.norm.rows;
    it.vocabulary = it.head.all_rows;
    for (int i = 0; i < it.layer_count; i++) {
        layer *at = &it.layers[i];
        at->before_attention = find("model.layers.%d.input_layernorm.weight", i);
        at->q = find("model.layers.%d.self_attn.q_proj.weight", i);
        at->k = find("model.layers.%d.self_attn.k_proj.weight", i);
        at->v = find("model.layers.%d.self_attn.v_proj.weight", i);
        at->o = find("model.layers.%d.self_attn.o_proj.weight", i);
        at->before_mlp = find("model.layers.%d.post_attention_layernorm.weight", i);
        at->gate = find("model.layers.%d.mlp.gate_proj.weight", i);
        at->up = find("model.layers.%d.mlp.up_proj.weight", i);
        at->down = find("model.layers.%d.mlp.down_proj.weight", i);
        it.head_size = at->q.all_rows / it.heads;
        if (it.hidden != it.embedding.columns || at->o.columns != at->q.rows || at->down.columns != at->gate.rows ||
            at->up.rows != at->gate.rows || at->v.rows != at->k.rows || at->o.rows != it.hidden || it.head_size < 2 ||
            at->k.all_rows != it.kv_heads * it.head_size)
            wrong("layer %d: its parts don't fit one another", i);
    }
    agree();
    return it;
}

// ------------------------------------------------------------------------ the program

// A line of /proc/self/status in bytes; 0 where there is none.
static uint64_t memory(const char *line) {
    size_t size = 0;
    char *status = contents("/proc/self/status", 65536, &size), *found = status == NULL ? NULL : strstr(status, line);
    uint64_t kilobytes = found == NULL ? 0 : strtoull(found + strlen(line), NULL, 10);
    free(status);
    return kilobytes * 1024;
}

typedef struct report {
    char host[MPI_MAX_PROCESSOR_NAME];
    uint64_t parts, held, read, staging, peak;
    double load, compute;
} report;

static void print_reports(report mine, const char *path) {
    report *all = allocate((uint64_t)ranks, sizeof *all);
    MPI_Gather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        printf("%s on %d rank%s\n%4s  %-16s %6s %12s %12s %12s %12s %9s %11s\n", path, ranks, ranks == 1 ? "" : "s", "rank",
               "host", "parts", "read KiB", "holds KiB", "staging KiB", "peak KiB", "load ms", "compute ms");
        for (int i = 0; i < ranks; i++)
            printf("%4d  %-16s %6" PRIu64 " %12.1f %12.1f %12.1f %12.1f %9.2f %11.2f\n", i, all[i].host, all[i].parts,
                   (double)all[i].read / 1024, (double)all[i].held / 1024, (double)all[i].staging / 1024,
                   (double)all[i].peak / 1024, all[i].load * 1e3, all[i].compute * 1e3);
    }
    free(all);
}

// The tokens and logits of a file that --save or make_model.py has written.
static float *expected(const char *path, int64_t *ids, int64_t *tokens, int64_t *vocabulary) {
    st_error error;
    float *logits = NULL;
    st_checkpoint *file = st_open(path, &error);
    if (file == NULL) {
        wrong("%s", error.message);
        return NULL;
    }
    const st_tensor *listed = st_find_tensor(file, "tokens"), *values = st_find_tensor(file, "logits");
    if (listed == NULL || values == NULL || listed->dtype != ST_DTYPE_I64 || values->dtype != ST_DTYPE_F32 ||
        values->rank != 2 || listed->element_count > MOST_TOKENS || values->shape[0] != (int64_t)listed->element_count) {
        wrong("%s: not tokens and logits", path);
    } else {
        *tokens = values->shape[0];
        *vocabulary = values->shape[1];
        logits = malloc(values->size);
        if (logits == NULL || st_read_tensor(file, listed, ids, MOST_TOKENS * sizeof *ids, &error) != ST_OK ||
            st_read_tensor(file, values, logits, values->size, &error) != ST_OK)
            wrong("%s: can't be read", path);
    }
    st_free(file);
    return logits;
}

static void save(const char *path, const int64_t *ids, const float *logits, int64_t tokens, int64_t vocabulary) {
    st_error error;
    int64_t shape[2] = {tokens, vocabulary};
    st_tensor tensors[2] = {
        {.name = "logits", .name_len = 6, .dtype = ST_DTYPE_F32, .rank = 2, .shape = shape, .data = logits,
         .size = (uint64_t)(tokens * vocabulary) * sizeof *logits},
        {.name = "tokens", .name_len = 6, .dtype = ST_DTYPE_I64, .rank = 1, .shape = shape, .data = ids,
         .size = (uint64_t)tokens * sizeof *ids},
    };
    if (st_save(path, tensors, 2, NULL, 0, NULL, &error) != ST_OK)
        wrong("%s", error.message);
}

int main(int argc, char **argv) {
    st_error error;
    st_text plans[MOST_PLANS];
    static int64_t ids[MOST_TOKENS] = {1, 2, 3, 4, 5, 6, 7, 8};
    const char *path = NULL, *expect = NULL, *saved = NULL;
    size_t plan_count = 0;
    int64_t tokens = 0, vocabulary = 0;
    int repeat = 1, length = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    MPI_Get_processor_name(own.host, &length);
    for (int i = 1; i < argc; i++) {
        int more = i + 1 < argc;
        if (strcmp(argv[i], "--plan") == 0 && more && plan_count < MOST_PLANS) {
            st_text *plan = &plans[plan_count++];
            plan->data = contents(argv[++i], UINT64_MAX, &plan->size);
            if (plan->data == NULL)
                wrong("%s: can't be read", argv[i]);
        } else if (strcmp(argv[i], "--expect") == 0 && more) {
            expect = argv[++i];
        } else if (strcmp(argv[i], "--save") == 0 && more) {
            saved = argv[++i];
        } else if (strcmp(argv[i], "--repeat") == 0 && more) {
            repeat = (int)strtol(argv[++i], NULL, 10);
        } else if (path == NULL && argv[i][0] != '-') {
            path = argv[i];
        } else if (argv[i][0] >= '0' && argv[i][0] <= '9' && tokens < MOST_TOKENS) {
            ids[tokens++] = strtoll(argv[i], NULL, 10);
        } else {
            path = NULL;
            break;
        }
    }
    if (path == NULL)
        wrong("usage: llama [--plan FILE]... [--expect FILE] [--save FILE] [--repeat N] MODEL [TOKEN]...");
    agree();
    tokens = tokens == 0 ? 8 : tokens;
    float *wanted = expect == NULL ? NULL : expected(expect, ids, &tokens, &vocabulary);
    agree();

    // What each host has, before anybody loads anything.
    st_checkpoint *model = st_open(path, &error);
    if (model == NULL)
        wrong("%s", error.message);
    agree();
    size_t size = 0, count = 0;
    const st_shard *first = st_shards(model, &count);
    const char *slash = count == 0 ? NULL : strrchr(first->path, '/');
    char *place = allocate(slash == NULL ? 16 : (uint64_t)(slash - first->path) + 16, 1);
    sprintf(place, "%.*sconfig.json", slash == NULL ? 0 : (int)(slash - first->path) + 1, slash == NULL ? "" : first->path);
    char *config = contents(place, 1 << 20, &size);
    if (config == NULL)
        wrong("%s: can't be read", place);
    agree();
    compare(model, config, plans, plan_count);

    // The same plan on every rank, and this rank's part of it.
    if (plan_count > 0 && plan_count < MOST_PLANS) {
        st_text *family = &plans[plan_count++];
        family->data = st_rank_plan_builtin("llama", &family->size);
    }
    st_rank_plan_options options = ST_RANK_PLAN_OPTIONS_INIT;
    options.plans = plans;
    options.plan_count = plan_count;
    options.config = (st_text){config, size};
    st_axis axis = {"tp", rank, ranks, {0}};
    st_rank_plan *plan = st_rank_plan_open(model, &options, &error);
    parts = plan == NULL ? NULL : st_rank_plan_parts(plan, &axis, 1, &part_count, &error);
    if (parts == NULL)
        wrong("%s: %s", path, error.message);
    agree();

    report mine = {.parts = part_count};
    memcpy(mine.host, own.host, sizeof mine.host);
    uint64_t before = memory("VmRSS:");
    double start = MPI_Wtime();
    st_plan loaded = load(model);
    mine.load = MPI_Wtime() - start;
    mine.peak = memory("VmHWM:") - before;
    mine.held = loaded.bytes;
    mine.read = loaded.read_bytes;
    mine.staging = loaded.staging_bytes;
    llama it = assemble(model, config);
    for (int64_t t = 0; t < tokens; t++) {
        if (ids[t] < 0 || ids[t] >= it.vocabulary)
            wrong("token %" PRId64 " of %" PRId64, ids[t], it.vocabulary);
    }
    if (wanted != NULL && vocabulary != it.vocabulary)
        wrong("%s: logits of %" PRId64 " tokens, and the model has %" PRId64, expect, vocabulary, it.vocabulary);
    agree();
    float *logits = allocate((uint64_t)tokens * (uint64_t)it.vocabulary, sizeof *logits);
    start = MPI_Wtime();
    for (int i = 0; i < repeat; i++)
        compute(&it, ids, tokens, logits);
    mine.compute = (MPI_Wtime() - start) / (repeat < 1 ? 1 : repeat);
    print_reports(mine, path);

    double most = 0;
    for (int64_t i = 0; wanted != NULL && i < tokens * it.vocabulary; i++)
        most = fabs((double)logits[i] - wanted[i]) <= most ? most : fabs((double)logits[i] - wanted[i]);
    if (!(most <= 1e-4))
        wrong("%s: logits differ by up to %g", expect, most);
    if (rank == 0) {
        printf("likeliest after each token:");
        for (int64_t t = 0; t < tokens; t++) {
            int64_t best = 0;
            for (int64_t i = 1; i < it.vocabulary; i++)
                best = logits[t * it.vocabulary + i] > logits[t * it.vocabulary + best] ? i : best;
            printf(" %" PRId64, best);
        }
        printf("\n");
        if (wanted != NULL)
            printf("logits differ from %s by up to %.2g\n", expect, most);
        if (saved != NULL)
            save(saved, ids, logits, tokens, it.vocabulary);
    }
    agree();
    st_rank_plan_free(plan);
    st_free(model);
    MPI_Finalize();
    return 0;
}
