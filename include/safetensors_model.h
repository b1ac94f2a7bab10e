/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors_model.h: what a model is made of, beyond named tensors: which
 * part of each tensor a rank of a parallel job holds (rank plans), and which
 * tensors are one quantised tensor together (groups).
 *
 * Generated from src/ffi by cbindgen; how is said in cbindgen_model.toml.
 *
 * The rules of safetensors.h for errors, ownership, threads, strings and structs
 * hold here. Everything in this header is in the same library.
 *
 *     st_checkpoint *model = st_open("model/", &error);
 *     st_rank_plan *plan = st_rank_plan_open(model, NULL, &error);
 *     st_axis axes[1] = {{"tp", rank, ranks, {0, 0}}};
 *     size_t count;
 *     const st_part *parts = st_rank_plan_parts(plan, axes, 1, &count, &error);
 *     for (size_t i = 0; i < count; i++) {
 *         st_load_item item = ST_LOAD_ITEM_INIT;
 *         item.part = &parts[i];
 *         item.dst = place_for(parts[i].tensor->name, parts[i].size);
 *         item.dst_size = (size_t)parts[i].size;
 *         add(&items, &item);
 *     }
 *     st_load(model, items.all, count, NULL, &error);
 */

#ifndef SAFETENSORS_MODEL_H
#define SAFETENSORS_MODEL_H

#include <safetensors.h>

/* Initialisers: struct_size, and the default in every other field. */
#define ST_RANK_PLAN_OPTIONS_INIT \
    {sizeof(st_rank_plan_options), NULL, 0, {NULL, 0}, NULL, 0, NULL, 0}

// Tensors that are one quantised tensor together. Opaque.
typedef struct st_group st_group;

// The quantised groups of a checkpoint. Opaque.
typedef struct st_groups st_groups;

// One or several plans, put together with the checkpoint that they are for.
// Opaque; made by st_rank_plan_open.
typedef struct st_rank_plan st_rank_plan;

// A text with its length. A record that you fill.
typedef struct st_text {
    // UTF-8; need not end in NUL.
    const char *data;
    // Bytes at data.
    size_t size;
} st_text;

// A number that a plan may use by its name. A record that you fill.
typedef struct st_symbol {
    // NUL-terminated.
    const char *name;
    // 0 or more.
    int64_t value;
    // Zero.
    uint64_t reserved[2];
} st_symbol;

// How a checkpoint is dealt to ranks. Begin with ST_RANK_PLAN_OPTIONS_INIT;
// zero in any field is the default.
typedef struct st_rank_plan_options {
    // sizeof(st_rank_plan_options), as set by ST_RANK_PLAN_OPTIONS_INIT.
    size_t struct_size;
    // Plans, in order: what an earlier one says of a tensor holds. Borrowed for the call.
    const struct st_text *plans;
    // Plans; 0: the built-in one for the model_type of config.
    size_t plan_count;
    // The text of the model's config.json, whose numbers plans use. Borrowed for
    // the call. data NULL: config.json beside the checkpoint, if there is one.
    struct st_text config;
    // Numbers that come before those of config. Borrowed for the call.
    const struct st_symbol *symbols;
    // How many symbols.
    size_t symbol_count;
    // The plan then speaks of logical tensors: groups, and what belongs to no
    // group. NULL: of the tensors in the files.
    const struct st_groups *groups;
    // Not 0: on every axis that a rule is on, each tensor must be matched by a rule.
    int32_t strict;
} st_rank_plan_options;

// A piece of a dimension: the stored indices start to stop - 1, then zeros
// indices that are in no file and whose elements have all bits 0.
typedef struct st_interval {
    // First stored index.
    int64_t start;
    // The stored index after the last.
    int64_t stop;
    // Indices after those whose elements are zero.
    int64_t zeros;
    // Of block scales, how many logical elements of the first block belong to
    // what lies before this piece; 0 elsewhere. Loading does not look at it.
    int64_t skip;
} st_interval;

// What one rank holds of a tensor. As filled in by the library, everything it
// points to is owned by what returned it.
typedef struct st_part {
    // The tensor that it is a part of, owned by the checkpoint; NULL where it is of a group.
    const st_tensor *tensor;
    // The group that it is a part of; NULL where it is of a tensor.
    const struct st_group *group;
    // Number of dimensions, as many as the tensor has.
    size_t rank;
    // rank sizes: the local shape.
    const int64_t *shape;
    // For each dimension its pieces in their local order; NULL: all of it.
    const struct st_interval *const *intervals;
    // For each dimension how many pieces; 0 too where intervals has NULL.
    const size_t *interval_counts;
    // Bytes of the local result as stored.
    uint64_t size;
    // Bytes that are read for it: those that are not zeros of a padding.
    uint64_t read_size;
    // Zero; ignored when given to the library.
    uint64_t reserved[4];
} st_part;

// An axis of a parallel job and a place on it. A record that you fill.
typedef struct st_axis {
    // NUL-terminated: "tp", "pp", "ep", or any other name that the plan uses.
    const char *name;
    // Which rank on this axis, from 0.
    int64_t rank;
    // How many ranks the axis has, 1 or more.
    int64_t size;
    // Zero.
    uint64_t reserved[2];
} st_axis;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// ==== Rank plans: what each rank of a parallel job holds ====
//
// Puts plans and a checkpoint together.
//
// A plan is JSON that says, by patterns of names, how tensors are cut along
// axes (tensor parallel), and which of them are on which rank (layers,
// experts); docs/ranks.md has the language. No data of tensors is read.
//
// checkpoint: stays open until st_rank_plan_free, whoever calls st_free.
// options: borrowed for the call; NULL: all defaults.
//
// Returns a plan that the caller owns: release it with st_rank_plan_free; or
// NULL: ST_ERROR_PLAN (PLAN_SYNTAX), ST_ERROR_CONFIG, ST_ERROR_NOT_FOUND (no plan
// is given, and none is built in for the model), ST_ERROR_INVALID_ARGUMENT,
// ST_ERROR_UNSUPPORTED, ST_ERROR_IO, ST_ERROR_OUT_OF_MEMORY. Since 0.2.
ST_API
struct st_rank_plan *st_rank_plan_open(const st_checkpoint *checkpoint,
                                       const struct st_rank_plan_options *options,
                                       st_error *error);

// The parts of the checkpoint's tensors that a rank holds, in the byte order of
// the tensors' names. Does no I/O. What fails for one rank fails for all.
//
// axes: one for each axis of the job, each name once; an axis that is not
// given has one rank. Borrowed for the call; may be NULL where axis_count is 0.
// count: receives how many parts; may be NULL.
//
// May be called from several threads at once, and for any number of ranks.
//
// Returns an array owned by the plan, valid until st_rank_plan_free; a rank
// without parts is not NULL, with count 0. NULL (and count 0): ST_ERROR_PLAN,
// whose message begins with the rule's name, as "INDIVISIBLE: ",
// ST_ERROR_INVALID_ARGUMENT, ST_ERROR_UNSUPPORTED, ST_ERROR_OUT_OF_MEMORY. Since 0.2.
ST_API
const struct st_part *st_rank_plan_parts(struct st_rank_plan *plan,
                                         const struct st_axis *axes,
                                         size_t axis_count,
                                         size_t *count,
                                         st_error *error);

// Releases a plan and all of its parts. NULL is fine. Since 0.2.
ST_API void st_rank_plan_free(struct st_rank_plan *plan);

// The text of a built-in plan.
//
// model_type: NUL-terminated, as in config.json; or "awq", "fp8-block",
// "fp8-channel", "gptq" for what describes such tensors, or "vocab-64" for a padded
// vocabulary, which are given before a family's plan. Borrowed for the call.
// length: receives the text's bytes; may be NULL.
//
// Returns static NUL-terminated JSON; NULL (and length 0) where no plan is
// built in for this type of model. Since 0.2.
ST_API const char *st_rank_plan_builtin(const char *model_type, size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SAFETENSORS_MODEL_H */
