/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors_model.h: what a model is made of, beyond named tensors: which
 * part of each tensor a rank of a parallel job holds (rank plans), and which
 * tensors are one quantised tensor together (groups).
 *
 * Generated from src/ffi by cbindgen, as cbindgen_model.toml and src/ffi/sections.txt say.
 *
 * CONTENTS: an example; constants and types; then
 *
 *   Rank plans       st_rank_plan_open st_rank_plan_parts st_rank_plan_free
 *                    st_rank_plan_builtin
 *   Groups           st_groups_open st_groups_list st_find_group st_groups_plain
 *                    st_group_parts st_groups_free
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
#define ST_GROUPS_OPTIONS_INIT {sizeof(st_groups_options), {NULL, 0}, 0, NULL, 0}

// st_group.flags: codes are stored [in, out].
#define ST_GROUP_TRANSPOSED 1

// An index says each column's group.
#define ST_GROUP_ACT_ORDER 2

// There are zero points.
#define ST_GROUP_ASYMMETRIC 4

// Scales are stored in tiles of 128 rows and 4 groups.
#define ST_GROUP_SWIZZLED 8

// Of two codes in a byte the first is the high one.
#define ST_GROUP_HIGH_NIBBLE_FIRST 16

// Codes are one run over the whole matrix.
#define ST_GROUP_FLAT 32

// Words of 32 bits have unused bits.
#define ST_GROUP_PADDED_WORDS 64

// Several readings fit, and nothing says which is meant.
#define ST_GROUP_AMBIGUOUS 128

// st_recipe.code: an unsigned integer.
#define ST_CODE_UNSIGNED 1

// A signed byte.
#define ST_CODE_SIGNED 2

// E2M1.
#define ST_CODE_FP4 3

// E2M3.
#define ST_CODE_FP6 4

// E4M3.
#define ST_CODE_E4M3 5

// E5M2.
#define ST_CODE_E5M2 6

// An index into the member "map".
#define ST_CODE_MAP 7

// st_recipe.packing: one code a byte.
#define ST_PACKING_BYTES 1

// A stream of bits along in, the least significant first.
#define ST_PACKING_STREAM 2

// Two codes a byte along in, the high one first.
#define ST_PACKING_HIGH_NIBBLES 3

// As many codes as fit in each word of 32 bits, along in.
#define ST_PACKING_PADDED_WORDS 4

// A stream down dimension 0 of what is stored [in, out].
#define ST_PACKING_COLUMNS 5

// Words of eight columns in AWQ's order, of what is stored [in, out].
#define ST_PACKING_AWQ_COLUMNS 6

// Two codes a byte over the whole matrix, the high one first.
#define ST_PACKING_FLAT_NIBBLES 7

// st_recipe.scale_type: F32.
#define ST_SCALE_F32 1

// F16.
#define ST_SCALE_F16 2

// BF16.
#define ST_SCALE_BF16 3

// Powers of two, as F8_E8M0 or U8.
#define ST_SCALE_E8M0 4

// F8_E4M3.
#define ST_SCALE_E4M3 5

// Bytes that index the member "nested_map", with scales of their own.
#define ST_SCALE_NESTED 6

// st_recipe.scale_layout: one scale for all.
#define ST_SCALES_TENSOR 1

// One a row.
#define ST_SCALES_ROWS 2

// One a group along in: [out, G].
#define ST_SCALES_GROUPS 3

// One a group along in: [G, out].
#define ST_SCALES_GROUPS_TRANSPOSED 4

// One a block of rows and columns.
#define ST_SCALES_GRID 5

// One a group along in, in tiles of 128 rows and 4 groups.
#define ST_SCALES_SWIZZLED 6

// One for a run of elements in C order.
#define ST_SCALES_FLAT 7

// st_recipe.zero: nothing is subtracted from a code.
#define ST_ZERO_NONE 0

// 2^(bits - 1).
#define ST_ZERO_MIDDLE 1

// A signed byte for each scale.
#define ST_ZERO_SIGNED 2

// A stream down out of what is stored [out, G].
#define ST_ZERO_ROWS 3

// The same, as many as fit in each word.
#define ST_ZERO_PADDED_ROWS 4

// A stream along out of what is stored [G, out].
#define ST_ZERO_COLUMNS 5

// The same, and stored one less, modulo 2^bits.
#define ST_ZERO_COLUMNS_LESS_ONE 6

// [G, out] in AWQ's order.
#define ST_ZERO_AWQ_COLUMNS 7

// A stream along G of what is stored [out, G].
#define ST_ZERO_GROUPS 8

// Nothing is subtracted; the member "offsets" is added to code times scale.
#define ST_ZERO_OFFSET 9

// st_recipe.global: no last factor.
#define ST_GLOBAL_NONE 0

// Times the member "global".
#define ST_GLOBAL_MULTIPLY 1

// Divided by the member "global".
#define ST_GLOBAL_DIVIDE 2

// Times 1/127 as F32.
#define ST_GLOBAL_OVER_127 3

// st_recipe.order: columns are in groups one after the other.
#define ST_ORDER_OF_GROUPS_SEQUENTIAL 0

// The member "order" says each column's group.
#define ST_ORDER_OF_GROUPS_INDEX 1

// The quantised groups of a checkpoint. Opaque; made by st_groups_open.
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

// How a checkpoint is divided among ranks. Begin with ST_RANK_PLAN_OPTIONS_INIT;
// zero in any field is the default.
typedef struct st_rank_plan_options {
    // sizeof(st_rank_plan_options), as set by ST_RANK_PLAN_OPTIONS_INIT.
    size_t struct_size;
    // Plans, in order: where several have a rule for a tensor, the first one
    // counts. Borrowed for the call.
    const struct st_text *plans;
    // How many plans; 0: the built-in one for the model_type of config.
    size_t plan_count;
    // The text of the model's config.json, whose numbers plans use. Borrowed for
    // the call. data NULL: config.json beside the checkpoint, if there is one.
    struct st_text config;
    // Numbers that take precedence over those of config. Borrowed for the call.
    const struct st_symbol *symbols;
    // How many symbols.
    size_t symbol_count;
    // The plan is then about logical tensors: groups, and the tensors of no
    // group that can be decoded. Keep the groups until st_rank_plan_free. NULL:
    // it is about the tensors in the files.
    const struct st_groups *groups;
    // Not 0: on every axis that a rule is on, each tensor must be matched by a rule.
    int32_t strict;
} st_rank_plan_options;

// A tensor of a group. As filled in by the library, everything it points to
// is owned by what returned it.
typedef struct st_member {
    // What it is for, static: "codes", "scales", "zeros", "offsets", "global",
    // "order", "shape", "map", "state", "nested_scales", "nested_map", "format",
    // or, for activations and not for the weight, "input_scale", "pre_scale", "kv_scale".
    const char *role;
    // Owned by the checkpoint.
    const st_tensor *tensor;
    // Zero.
    uint64_t reserved[2];
} st_member;

// How codes become values: numbers to switch on. All zero where a group can't be decoded.
typedef struct st_recipe {
    // What a code stands for: an ST_CODE_ constant.
    uint32_t code;
    // Where codes lie: an ST_PACKING_ constant.
    uint32_t packing;
    // The type of scales: an ST_SCALE_ constant.
    uint32_t scale_type;
    // What a scale is for: an ST_SCALES_ constant.
    uint32_t scale_layout;
    // What is subtracted from a code, or added: an ST_ZERO_ constant.
    uint32_t zero;
    // What comes last: an ST_GLOBAL_ constant.
    uint32_t global;
    // Which group a column is in: an ST_ORDER_OF_ constant.
    uint32_t order;
    // Zero.
    uint32_t reserved0;
} st_recipe;

// One logical tensor that is stored as several. As filled in by the library,
// everything it points to is owned by the st_groups.
typedef struct st_group {
    // Logical name, NUL-terminated: "model.layers.0.mlp.up_proj.weight".
    const char *name;
    // Bytes of name without its NUL.
    size_t name_len;
    // The family, static: "gptq". Where status is not ST_OK what it seems to be, or "".
    const char *kind;
    // The exact layout, static: "gptq-v1"; "" where status is not ST_OK.
    const char *layout;
    // ST_OK; ST_ERROR_GROUP: broken; ST_ERROR_UNSUPPORTED: several readings fit
    // (ST_GROUP_AMBIGUOUS), or there is no decoder.
    int32_t status;
    // Bits of a code.
    uint32_t bits;
    // ST_GROUP_ constants, together.
    uint32_t flags;
    // Zero.
    uint32_t reserved0;
    // Number of dimensions; 0 where status is not ST_OK.
    size_t rank;
    // rank sizes: [out, in], or [experts, out, in].
    const int64_t *shape;
    // For each dimension the elements that share one scale.
    const int64_t *block;
    // For each dimension the step: ranges begin and end at its multiples, or
    // where the dimension ends.
    const int64_t *step;
    // Its tensors, codes first.
    const struct st_member *members;
    // How many members.
    size_t member_count;
    // NUL-terminated: "" where status is ST_OK, else what is wrong. Begins with
    // "missing: ", "shape: ", "dtype: ", "value: ", "state: ", "config: ",
    // "ambiguous: " or "unsupported: ".
    const char *problem;
    // How it is decoded.
    struct st_recipe recipe;
    // The library's.
    uint64_t reserved[4];
} st_group;

// A piece of a dimension: the stored indices start to stop - 1, then zeros
// indices that are in no file and whose elements have all bits 0.
typedef struct st_interval {
    // First stored index.
    int64_t start;
    // The stored index after the last.
    int64_t stop;
    // How many indices of zeros follow.
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
    // For each dimension how many pieces; 0 where intervals has NULL.
    const size_t *interval_counts;
    // Bytes of the local result as stored.
    uint64_t size;
    // Bytes that are read for it: all but the zeros of padding.
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

// What you know about a module that the files leave open. A record that you
// fill.
typedef struct st_group_override {
    // NUL-terminated: a module's name, or the beginning of names up to a dot; "": all.
    // The longest that fits counts.
    const char *module;
    // NUL-terminated: a layout, as "gptq-v2", or a kind, as "gptq"; NULL: not said.
    const char *layout;
    // Bits of a code; 0: not said.
    uint32_t bits;
    // Elements that share a scale along in (and along out, for blocks of FP8); 0: not said.
    uint64_t group_size;
    // Zero.
    uint64_t reserved[2];
} st_group_override;

// How groups are looked for. Begin with ST_GROUPS_OPTIONS_INIT; zero in any
// field is the default.
typedef struct st_groups_options {
    // sizeof(st_groups_options), as set by ST_GROUPS_OPTIONS_INIT.
    size_t struct_size;
    // The text of the model's config.json, 16 MiB at most. Borrowed for the call.
    // data NULL: config.json beside the checkpoint, if there is one.
    struct st_text config;
    // Not 0: no configuration counts, only what shapes and markers say.
    int32_t ignore_config;
    // Counts instead of what the configuration says about these modules.
    // Borrowed for the call.
    const struct st_group_override *overrides;
    // How many overrides.
    size_t override_count;
} st_groups_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* ------------------------------------------------------------ Rank plans
 *
 * What each rank of several holds of a model.
 */

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

/* ---------------------------------------------------------------- Groups
 *
 * Quantised weights: the tensors that belong together, and how they are decoded.
 */

// Finds the groups of a checkpoint: weights that are stored as codes, scales
// and zero points, in the layouts that docs/groups.md lists.
//
// A group that is broken, or that can be read in several ways, is listed with
// its problem and never decoded. Of the data only small members and indices are
// read, and zero points where nothing else tells two layouts apart.
//
// checkpoint: stays open until st_groups_free, whoever calls st_free.
// options: borrowed for the call; NULL: all defaults.
//
// Returns groups that the caller owns: release them with st_groups_free; or NULL:
// ST_ERROR_CONFIG (a configuration that can't be read), ST_ERROR_IO,
// ST_ERROR_INVALID_ARGUMENT, ST_ERROR_OUT_OF_MEMORY. Since 0.2.
ST_API
struct st_groups *st_groups_open(const st_checkpoint *checkpoint,
                                 const struct st_groups_options *options,
                                 st_error *error);

// All groups, in the byte order of their names.
//
// count: receives how many; may be NULL.
//
// Returns an array owned by the groups, valid until st_groups_free; NULL (and
// count 0) only for NULL. Since 0.2.
ST_API const struct st_group *st_groups_list(const struct st_groups *groups, size_t *count);

// The group of a logical name.
//
// name: NUL-terminated, borrowed for the call.
//
// Returns a record owned by the groups, valid until st_groups_free; NULL if no
// group has this name. Since 0.2.
ST_API const struct st_group *st_find_group(const struct st_groups *groups, const char *name);

// The tensors that belong to no group, by shard and offset.
//
// count: receives how many; may be NULL.
//
// Returns an array owned by the groups, valid until st_groups_free, of records
// owned by the checkpoint; NULL (and count 0) only for NULL. Since 0.2.
ST_API const st_tensor *const *st_groups_plain(const struct st_groups *groups, size_t *count);

// Which box of each member a slice of a group needs, as parts for st_load: for
// engines with kernels of their own. Does no I/O.
//
// group: one of these groups' records or a copy of one. ranges: range_count of
// them, of the logical shape, as for st_read_slice; each begins and ends on a
// multiple of its dimension's step, or at the end, and its own step is 1. Both
// are borrowed for the call. parts: receives a part for each member that decoding needs.
// count: holds the room at parts, and receives how many parts there are; with
// ST_ERROR_BUFFER_SIZE too. What parts point to is owned by the groups, valid
// until st_groups_free.
//
// Returns ST_OK, ST_ERROR_BUFFER_SIZE, ST_ERROR_INVALID_ARGUMENT (the message names
// dimension and step), ST_ERROR_OUT_OF_MEMORY, or the group's status. Since 0.2.
ST_API
st_status st_group_parts(const struct st_groups *groups,
                         const struct st_group *group,
                         const st_range *ranges,
                         size_t range_count,
                         struct st_part *parts,
                         size_t *count,
                         st_error *error);

// Releases groups, with all of their records. NULL is fine. Since 0.2.
ST_API void st_groups_free(struct st_groups *groups);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SAFETENSORS_MODEL_H */
