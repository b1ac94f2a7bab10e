/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.h: read and write safetensors checkpoints from C, or from
 * anything that can call C.
 *
 * Generated from src/ffi by cbindgen, as cbindgen.toml and src/ffi/sections.txt say.
 *
 * CONTENTS: the format; rules for every function; versions, constants and types; then
 *
 *   Open and close   st_open st_open_with st_open_files st_open_fd st_open_memory
 *                    st_open_io st_open_resolved st_retain st_free
 *   Inspect          st_tensors st_find_tensor st_find_tensor_n st_metadata_entries
 *                    st_get_metadata st_shards
 *   Read             st_get_tensor st_get_tensor_n st_read_tensor
 *   Slice            st_read_slice st_slice_shape
 *   Load             st_load st_load_plan st_prefetch st_load_size st_arrange
 *                    st_can_convert st_require st_evict
 *   Convert          st_convert
 *   Write            st_save st_serialize st_save_to st_writer_open st_writer_write
 *                    st_writer_finish st_writer_free st_set_metadata st_buffer_free
 *   Validate         st_validate
 *   Helpers          st_status_name st_dtype_name st_dtype_from_name st_dtype_bits
 *                    st_version st_abi_version
 *
 * THE FORMAT
 *
 *     8 bytes     N, the header's length, unsigned little-endian
 *     N bytes     the header: one JSON object
 *     the rest    the data section: all tensors' bytes
 *
 *     {"__metadata__": {"format": "pt"},
 *      "weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
 *
 * Data is in C order and little-endian. data_offsets count from the start of
 * the data section, which the tensors fill without hole or overlap, in any
 * order. A shape counts elements; [] is one element. Nothing in a file is code.
 * A large model is several such files ("shards") beside an index file,
 *
 *     {"metadata": {...}, "weight_map": {"weight": "model-00001-of-00002.safetensors"}}
 *
 * A "checkpoint" is any of these, opened: one set of named tensors.
 *
 *     st_error error;
 *     st_checkpoint *model = st_open("model.safetensors", &error);
 *     if (!model) { fprintf(stderr, "%s\n", error.message); return 1; }
 *     const st_tensor *weight = st_get_tensor(model, "weight", &error);
 *     if (weight) use(weight->data, weight->shape, weight->rank);
 *     st_free(model);
 *
 * RULES FOR EVERY FUNCTION
 *
 * Errors. What can fail returns NULL or an st_status other than ST_OK, and
 *   takes an st_error last, which may be NULL. It is plain memory of the
 *   caller's, written on failure only. There is no thread-local or global
 *   state. Any file and any argument gives a status: nothing here prints, exits
 *   or lets a fault cross. A pointer that must not be NULL and is, is
 *   ST_ERROR_INVALID_ARGUMENT; where there is no error to fill, it gives NULL
 *   or 0. Messages are safe to print: names from files come escaped.
 * Ownership, in four phrases. "Caller owns": release it with the one function
 *   named there; all of those take NULL. "Owned by the checkpoint, valid until
 *   st_free": until the last one. "Borrowed for the call": the library keeps
 *   nothing of it. "Static": for ever.
 * Threads. A checkpoint does not change once it is open: any number of threads
 *   may use one at the same time, and st_retain and st_free too. Several
 *   threads may write different tensors through one st_writer.
 * Strings. In: NUL-terminated UTF-8 (paths: the system's bytes), or with a
 *   length in the functions that end in _n. Out: NUL-terminated, with the
 *   length beside them, as a name may contain NUL.
 * Structs that the caller fills begin with struct_size: initialise them with
 *   their _INIT macro, and zero is the default in every field. A caller
 *   compiled against an older or newer header is served; a field this version
 *   does not know must be zero (ST_ERROR_UNSUPPORTED).
 * Mapping. Where a file is mapped, somebody who cuts it short while it is open
 *   makes the system raise SIGBUS in whoever touches the lost bytes. Opening
 *   and copying never touch them; where files are not under your control, use
 *   ST_ACCESS_READ.
 */

#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

/* On every function: with default visibility, found in the shared library. */
#ifndef ST_API
#if defined(_WIN32) && !defined(SAFETENSORS_STATIC)
#define ST_API __declspec(dllimport)
#elif defined(__GNUC__)
#define ST_API __attribute__((visibility("default")))
#else
#define ST_API
#endif
#endif

/* Initialisers: struct_size, and the default in every other field. */
#define ST_OPEN_OPTIONS_INIT {sizeof(st_open_options), 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0}
#define ST_IO_INIT {sizeof(st_io), 0, NULL, NULL, NULL, 0, 0}
#define ST_RESOLVER_INIT {sizeof(st_resolver), NULL, NULL, NULL}
#define ST_SAVE_OPTIONS_INIT \
    {sizeof(st_save_options), 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, 0}
#define ST_OUTPUT_INIT {sizeof(st_output), NULL, NULL}
#define ST_LOAD_ITEM_INIT {NULL, NULL, 0, 0, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL, {0, 0, 0}}
#define ST_TRANSFORM_INIT {sizeof(st_transform), 0, 0, NULL, NULL}
#define ST_SINK_INIT {sizeof(st_sink), NULL, 0, NULL, NULL, NULL, NULL}
#define ST_LOAD_OPTIONS_INIT \
    {sizeof(st_load_options), 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, 0}
#define ST_METADATA_OPTIONS_INIT {sizeof(st_metadata_options), 0, 0, 0, 0}

/* A whole dimension. */
#define ST_RANGE_ALL {0, INT64_MAX, 1}

// Major version of this header.
#define SAFETENSORS_VERSION_MAJOR 0

// Minor version of this header.
#define SAFETENSORS_VERSION_MINOR 1

// Patch version of this header.
#define SAFETENSORS_VERSION_PATCH 0

// This header's version as one number to compare: major * 1000000 + minor * 1000 + patch.
#define SAFETENSORS_VERSION 1000

// What st_abi_version returns for a library that fits this header.
#define SAFETENSORS_ABI_VERSION 1

// st_open_options.access: map on file systems known to be local, read elsewhere.
#define ST_ACCESS_AUTO 0

// Zero-copy: data points into a mapping in every record.
#define ST_ACCESS_MAP 1

// Nothing is mapped: a failing disk is an error code, never a SIGBUS.
#define ST_ACCESS_READ 2

// In st_shard.access only: the caller's memory.
#define ST_ACCESS_MEMORY 3

// In st_shard.access only: the caller's read_at.
#define ST_ACCESS_CALLBACK 4

// st_open_options.tolerate: allow bytes after the last tensor.
#define ST_TOLERATE_TRAILING_BYTES 1

// st_open_options.tolerate: keep tensors of unknown dtypes, as opaque bytes.
#define ST_TOLERATE_UNKNOWN_DTYPE 2

// st_open_options.prefetch: nothing.
#define ST_PREFETCH_NONE 0

// st_open_options.prefetch: ask the system to read ahead, and do not wait.
#define ST_PREFETCH_ADVISE 1

// st_open_options.prefetch: mapped files are in memory when opening returns; as _ADVISE for others.
#define ST_PREFETCH_POPULATE 2

// st_load_options.io: from the page cache where the bytes are in it; on local file systems,
// large reads of the rest bypass it, and leave nothing in it. Loads of less than 2 MiB don't.
#define ST_IO_AUTO 0

// Through the page cache, where the next load finds the bytes.
#define ST_IO_CACHED 1

// Bypassing the page cache (O_DIRECT) where the file system supports it; else through it.
#define ST_IO_DIRECT 2

// From the mapping where there is one, else as ST_IO_AUTO: the fastest way for
// files that are in the page cache, and for parts of tensors above all. A file
// that is cut short raises SIGBUS then, as touching data does. Since 0.2.
#define ST_IO_MAPPED 3

// st_save_options.order: by dtype, widest first, then by name, as the reference
// implementation writes.
#define ST_ORDER_REFERENCE 0

// As given.
#define ST_ORDER_GIVEN 1

// st_save_options.sync: files and their names are on the disk when the call returns.
#define ST_SYNC_FULL 0

// The system writes them in its own time: a power failure may lose them.
#define ST_SYNC_NONE 1

// st_save_options.overwrite: a file that exists is replaced, in one step.
#define ST_OVERWRITE_REPLACE 0

// A file that exists stays: ST_ERROR_IO with EEXIST.
#define ST_OVERWRITE_REFUSE 1

// Writes straight into the file of that name, front to back: for mounts that
// cannot rename, for a file that is mounted by itself, and for a writable file
// in a folder that is not. A file that exists is emptied first; a crash leaves a
// part of it. Since 0.2.
#define ST_OVERWRITE_DIRECT 2

// st_problem.fatal: st_open refuses the file for it.
#define ST_FATAL_STRICT 1

// st_problem.fatal: st_open_with refuses it also with all ST_TOLERATE_ flags.
#define ST_FATAL_TOLERANT 2

// One opened set of named tensors. Opaque; made by the st_open functions.
typedef struct st_checkpoint st_checkpoint;

// A file being written in pieces. Opaque; made by st_writer_open.
typedef struct st_writer st_writer;

// What a function returns: ST_OK, or which rule was broken. The numbers never change.
typedef int32_t st_status;

// An error: 512 bytes of the caller's memory, with nothing to free.
//
// Written on failure only, so it needs no initialising.
typedef struct st_error {
    // Which rule was broken.
    st_status code;
    // The operating system's errno, or 0 where it had none.
    int32_t os_errno;
    // NUL-terminated UTF-8, safe to print: file, tensor, rule, numbers.
    char message[504];
} st_error;

// How to open. Begin with ST_OPEN_OPTIONS_INIT; zero in any field is the default.
//
// Limits hold for each file by itself, but for max_set_bytes.
typedef struct st_open_options {
    // sizeof(st_open_options), as set by ST_OPEN_OPTIONS_INIT.
    size_t struct_size;
    // ST_ACCESS_AUTO, ST_ACCESS_MAP or ST_ACCESS_READ.
    int32_t access;
    // Any of ST_TOLERATE_*, or'ed.
    uint32_t tolerate;
    // ST_PREFETCH_NONE, ST_PREFETCH_ADVISE or ST_PREFETCH_POPULATE.
    int32_t prefetch;
    // Zero.
    uint32_t reserved0;
    // Largest header, and largest index file, in bytes; 0: 100,000,000.
    uint64_t max_header_size;
    // Most tensors in a header; 0: as many as fit.
    uint64_t max_tensors;
    // Most dimensions of a tensor; 0: as many as fit.
    uint64_t max_rank;
    // Longest name of a tensor in bytes; 0: as long as fits.
    uint64_t max_name_length;
    // In a folder, only files of this variant count: "fp16" for
    // model.fp16.safetensors. NUL-terminated, borrowed for the call. NULL or
    // empty: files without a variant. No effect where the path is a file's.
    // Since 0.2.
    const char *variant;
    // Most bytes of the headers and the index of all files together, beyond
    // which opening is ST_ERROR_HEADER_TOO_LARGE; 0: 1,000,000,000. Since 0.2.
    uint64_t max_set_bytes;
} st_open_options;

// Your own bytes: HTTP, object stores, asset packs. Begin with ST_IO_INIT.
typedef struct st_io {
    // sizeof(st_io), as set by ST_IO_INIT.
    size_t struct_size;
    // Bytes in the file.
    uint64_t size;
    // Reads up to len bytes at offset into dst and sets *done to their number:
    // fewer than len is fine, 0 is an error (ST_ERROR_IO). Returns ST_OK, or a
    // status, which the function that needed the bytes then returns; what it
    // wrote to error (os_errno, message) is passed on. May be called from
    // several threads at once. Required.
    st_status (*read_at)(void *user_data,
                         uint64_t offset,
                         void *dst,
                         size_t len,
                         size_t *done,
                         struct st_error *error);
    // Called exactly once, when the library is done with user_data: with the
    // last st_free, or before a failed open returns. NULL: nothing to release.
    // (Not called where struct_size itself is not valid.)
    void (*release)(void *user_data);
    // Yours; passed to both functions.
    void *user_data;
    // The request size that suits you best, in bytes; 0: no preference.
    size_t preferred_read;
    // How many read_at calls may be under way at once; 0: any number.
    size_t max_parallel;
} st_io;

// Finds the files of a sharded checkpoint that is reached through callbacks. Begin
// with ST_RESOLVER_INIT.
typedef struct st_resolver {
    // sizeof(st_resolver), as set by ST_RESOLVER_INIT.
    size_t struct_size;
    // Fills *out (which arrives as ST_IO_INIT) for the file or index of this
    // name: the one given to st_open_resolved, then each shard's, with the
    // same folder before it. Returns ST_OK or a status, as st_io.read_at does;
    // a status other than ST_OK means *out holds nothing to release. Called
    // from the thread that opens, one name after another. Required.
    st_status (*open)(void *user_data, const char *name, struct st_io *out, struct st_error *error);
    // Called exactly once, before st_open_resolved returns. NULL: nothing to
    // release.
    void (*release)(void *user_data);
    // Yours; passed to both functions.
    void *user_data;
} st_resolver;

// One tensor: its name, what it holds and where its bytes are.
//
// A view; it owns nothing. As returned by reading, every pointer in it is
// owned by the checkpoint, valid until st_free.
typedef struct st_tensor {
    // UTF-8, NUL-terminated; may itself contain NUL, so trust name_len.
    const char *name;
    // Bytes in name, without the terminating NUL.
    size_t name_len;
    // One of ST_DTYPE_*.
    int32_t dtype;
    // Which file it is in: an index into what st_shards returns.
    uint32_t shard;
    // Number of dimensions; 0 is a scalar, which has one element.
    size_t rank;
    // rank sizes in elements, outermost first (C order).
    const int64_t *shape;
    // Product of the shape.
    uint64_t element_count;
    // Where its bytes begin, from the start of its shard's file.
    uint64_t offset;
    // Its bytes: element_count times the dtype's bits, divided by 8.
    uint64_t size;
    // Its bytes in memory, or NULL where the shard is read and not mapped.
    // Little-endian. Aligned as the file is, so check before you cast; what
    // ST_ACCESS_READ and st_get_tensor give is aligned to 64 bytes.
    const void *data;
    // The dtype as the file spells it, NUL-terminated.
    const char *dtype_name;
    // 0 as returned. When given to the library with st_save_options.sources:
    // 1 + the index there of the checkpoint it comes from; 0: the first that
    // has the record. Since 0.2.
    uint64_t source;
    // Zero; ignored when given to the library.
    uint64_t reserved[1];
} st_tensor;

// One entry of a checkpoint's metadata.
//
// As returned by reading, owned by the checkpoint, valid until st_free.
typedef struct st_metadata {
    // UTF-8, NUL-terminated; may itself contain NUL.
    const char *key;
    // Bytes in key, without the terminating NUL.
    size_t key_len;
    // UTF-8, NUL-terminated; may itself contain NUL.
    const char *value;
    // Bytes in value, without the terminating NUL.
    size_t value_len;
    // Zero; ignored when given to the library.
    uint64_t reserved[2];
} st_metadata;

// One file of a checkpoint.
//
// Owned by the checkpoint, valid until st_free.
typedef struct st_shard {
    // Its path, or the resolver's name for it; NULL for memory and a lone st_io.
    const char *path;
    // Bytes in path, without the terminating NUL.
    size_t path_len;
    // Bytes in the file.
    uint64_t size;
    // Where the data section begins: 8 plus the header's length.
    uint64_t data_offset;
    // Bytes that the tensors in the file take.
    uint64_t data_size;
    // ST_ACCESS_MAP, ST_ACCESS_READ, ST_ACCESS_MEMORY or ST_ACCESS_CALLBACK: what was chosen.
    int32_t access;
    // Zero.
    uint32_t reserved0;
    // Why it was chosen, NUL-terminated text for people.
    const char *reason;
    // Zero.
    uint64_t reserved[2];
} st_shard;

// What a slice takes from one dimension: the elements start, start + step, ...
// before stop. Initialise with ST_RANGE_ALL for all of them.
//
// Negative bounds count from the end. Nothing is clamped: bounds are within the
// dimension and start is not after stop; start equal to stop picks nothing.
typedef struct st_range {
    // First element; negative: from the end.
    int64_t start;
    // One past the last element; negative: from the end, INT64_MAX: the end.
    int64_t stop;
    // Distance from one to the next, at least 1.
    int64_t step;
} st_range;

// The last step of an item, by the caller, on the library's threads: quantising
// to an engine's blocks, repacking, hashing, over data that is still in the
// cache. Begin with ST_TRANSFORM_INIT. Since 0.2.
typedef struct st_transform {
    // sizeof(st_transform), as set by ST_TRANSFORM_INIT.
    size_t struct_size;
    // Elements that belong together, 1 or more: a block, a row. The result's
    // elements are whole units.
    uint64_t unit;
    // Bytes that a unit becomes; 0: none, and the item's result is empty.
    uint64_t unit_size;
    // Turns count elements of the dense result, the first of which has the
    // number element, into count / unit * unit_size bytes at dst. item is the
    // item's number. src is dense, aligned to 64 bytes, and of the item's dtype;
    // count is a multiple of unit. Called on several threads at once, in any
    // order, and never for the same elements twice. Returns ST_OK, or a status
    // that ends the load; what it wrote to error is passed on. Required.
    st_status (*run)(void *user_data,
                     size_t item,
                     uint64_t element,
                     size_t count,
                     const void *src,
                     void *dst,
                     struct st_error *error);
    // Yours; passed to run.
    void *user_data;
} st_transform;

// One thing to load. Zero is the default in every field but the first.
typedef struct st_load_item {
    // A record of the checkpoint, or a copy of one.
    const struct st_tensor *tensor;
    // Which part of it, as for st_read_slice; NULL where range_count is 0.
    const struct st_range *ranges;
    // Ranges; dimensions without one are taken whole.
    size_t range_count;
    // The dtype of the result: ST_DTYPE_AS_STORED, or one that st_convert converts to.
    int32_t dtype;
    // Zero.
    uint32_t reserved0;
    // Where the result goes: dense and in C order, or by dst_strides. With a sink
    // nothing goes there, and it may be anything that overlaps none of the sink's
    // buffers. May be NULL for a result without bytes.
    void *dst;
    // Bytes at dst; more than needed is fine.
    size_t dst_size;
    // For each of the tensor's dimensions the bytes from one element of the
    // result to the next. They may be in any order of sizes (a transposed
    // result, say), and each leaves room for the dimensions inside. Elements of
    // less than a byte are packed in the last dimension, whose stride is 0.
    // Borrowed for the call; NULL: dense.
    const int64_t *dst_strides;
    // Yours; not looked at.
    void *user_data;
    // Instead of tensor and ranges: what a rank holds, zeros included. Borrowed
    // for the call. Since 0.2.
    const struct st_part *part;
    // Instead of tensor: a quantised group, decoded to dtype; ranges are of its
    // logical shape. Borrowed for the call. Since 0.2.
    const struct st_group *group;
    // The last step, by the caller, on the library's threads; not with
    // dst_strides. Borrowed for the call; NULL: none. Since 0.2.
    const struct st_transform *transform;
    // Zero.
    uint64_t reserved[3];
} st_load_item;

// A block of memory.
typedef struct st_buffer {
    // Its first byte.
    void *data;
    // Its bytes.
    size_t size;
} st_buffer;

// Where in a sink's buffer a piece of an item's result is. Since 0.2.
typedef struct st_piece {
    // The item's number.
    size_t item;
    // Where in the item's dense result the piece begins, in bytes.
    uint64_t item_offset;
    // Where in the buffer it begins, in bytes: a multiple of 16.
    size_t buffer_offset;
    // Its bytes.
    size_t size;
    // Zero.
    uint64_t reserved[2];
} st_piece;

// Takes results in pieces, instead of plain destinations: the library fills the
// caller's buffers in turn, and the caller copies each to where it belongs (a
// device, say) while the next is being filled. Begin with ST_SINK_INIT.
//
// All functions are called on the thread that called st_load, never two at once.
typedef struct st_sink {
    // sizeof(st_sink), as set by ST_SINK_INIT.
    size_t struct_size;
    // The buffers: buffer_count of them, 4096 bytes or more each, apart from
    // one another. Borrowed for the call. Results come in pieces as large as
    // the smallest of them.
    const struct st_buffer *buffers;
    // One is enough; with more of them than threads, reading never waits for the
    // copies, as long as those are as fast.
    size_t buffer_count;
    // buffers[buffer] holds size bytes of the dense result of items[item], from
    // its byte item_offset on. May start a copy and return. Returns ST_OK, or a
    // status that ends the load; what it wrote to error is passed on, and that
    // buffer is not waited for. NULL where pieces is set; one of them is required.
    st_status (*chunk)(void *user_data,
                       size_t buffer,
                       size_t item,
                       uint64_t item_offset,
                       size_t size,
                       struct st_error *error);
    // Returns when the copy out of buffers[buffer] is over: called once for each
    // chunk or pieces, before the buffer is filled again or st_load returns,
    // even if the load failed. A status other than ST_OK ends the load. NULL:
    // chunk, or pieces, is done with the buffer when it returns.
    st_status (*wait)(void *user_data, size_t buffer, struct st_error *error);
    // Yours; passed to these functions.
    void *user_data;
    // Instead of chunk, for many items in a buffer: results are written one
    // after the other into buffers[buffer] until it is full or no work is left,
    // and it then holds count pieces. Called and returns as chunk. Since 0.2.
    st_status (*pieces)(void *user_data,
                        size_t buffer,
                        const struct st_piece *pieces,
                        size_t count,
                        struct st_error *error);
} st_sink;

// How to load. Begin with ST_LOAD_OPTIONS_INIT; zero in any field is the default.
typedef struct st_load_options {
    // sizeof(st_load_options), as set by ST_LOAD_OPTIONS_INIT.
    size_t struct_size;
    // Most threads at work, the calling one among them; 0: as many as are useful.
    uint32_t threads;
    // ST_IO_AUTO, ST_IO_CACHED, ST_IO_DIRECT or ST_IO_MAPPED.
    int32_t io;
    // Most bytes of memory that the load takes for staging, 65536 or more; less
    // memory means fewer threads. 0: 16 MiB.
    uint64_t staging_bytes;
    // Not 0: drop from the page cache what the load has read through it, so that
    // it does not displace what other programs have there.
    uint32_t drop_cache;
    // Zero.
    uint32_t reserved0;
    // Called now and then with how many bytes of all results are in place, and at
    // the end with all of them. A result other than 0 ends the load with
    // ST_ERROR_CANCELLED. Called on the thread that called st_load. NULL: none.
    int32_t (*progress)(void *user_data, uint64_t done, uint64_t total);
    // Yours; passed to progress and item_done.
    void *user_data;
    // Takes the results in pieces; NULL: they go to the items' destinations.
    const struct st_sink *sink;
    // Called when the result of items[item] is whole: once for each item of a
    // load that succeeds, items without bytes too, on the thread that called
    // st_load, and never with a sink. NULL: none. Since 0.2.
    void (*item_done)(void *user_data, size_t item);
    // Any thread may set it to a value other than 0, which ends the load with
    // ST_ERROR_CANCELLED: no further read is begun. Borrowed for the call; NULL:
    // none. Since 0.2.
    const int32_t *cancel;
    // Widest gap between pieces, in bytes, that is read over instead of reading
    // twice: set more for disks and mounts where a seek costs more. 0: 64 KiB
    // for an st_io; for files, as many bytes as are read in the time of a system
    // call on this machine, which is measured once (0.5 to 32 KiB, and fewer between
    // large pieces than between small ones). Since 0.2.
    uint64_t max_gap;
} st_load_options;

// What a load would do. As filled in by st_load_plan.
typedef struct st_plan {
    // Bytes of all results: the total that progress receives.
    uint64_t bytes;
    // Bytes that will be read from the files. (Reads that bypass the page cache
    // take up to two blocks of 4 KiB more each.)
    uint64_t read_bytes;
    // Of those, bytes that belong to no item: gaps of at most max_gap bytes
    // between pieces that are fetched together. (The count is too low where
    // items pick the same bytes.)
    uint64_t over_read_bytes;
    // Reads through the page cache, where none comes back short; with pieces there may be
    // fewer, as neighbours that fit into a sink's buffer are read into it at once.
    uint64_t requests;
    // Most bytes of memory that staging takes.
    uint64_t staging_bytes;
    // Most threads at work, the calling one among them.
    uint32_t threads;
    // Files that are read from.
    uint32_t shards;
    // Zero.
    uint64_t reserved[8];
} st_plan;

// An element type, one of ST_DTYPE_*. The numbers never change.
typedef int32_t st_dtype;

// How to write. Begin with ST_SAVE_OPTIONS_INIT; zero in any field is the default.
typedef struct st_save_options {
    // sizeof(st_save_options), as set by ST_SAVE_OPTIONS_INIT.
    size_t struct_size;
    // ST_ORDER_REFERENCE or ST_ORDER_GIVEN: how tensors follow one another.
    int32_t order;
    // The data section begins at a multiple of this many bytes (spaces in the
    // header make up the difference): a power of two from 8 to 2097152; 0: 8.
    // With 64, tensors whose sizes are multiples of 64 begin at such addresses
    // in the file as they do in an engine's memory: the system then copies up to
    // 1.4 times as fast.
    uint32_t alignment;
    // Most bytes of tensors in one file; 0: one file. What takes more becomes
    // shards and an index; one tensor larger than this is a shard by itself.
    uint64_t max_shard_size;
    // ST_SYNC_FULL or ST_SYNC_NONE.
    int32_t sync;
    // ST_OVERWRITE_REPLACE, ST_OVERWRITE_REFUSE or ST_OVERWRITE_DIRECT.
    int32_t overwrite;
    // Spare bytes in the header, for a later st_set_metadata.
    uint64_t header_reserve;
    // For st_save and st_serialize: called now and then with how many of the
    // tensors' bytes are written, and at the end with all of them, before the file
    // gets its name. A result other than 0 ends the call with ST_ERROR_CANCELLED. May
    // be called from other threads than the caller's, one at a time. NULL: none.
    int32_t (*progress)(void *user_data, uint64_t done, uint64_t total);
    // Yours; passed to progress.
    void *user_data;
    // For st_save and st_serialize: records of this checkpoint whose data is
    // NULL or its mapping are read from its files, by shard, offset and size,
    // so that a file cut short is an error and not a signal. Borrowed for the
    // call. NULL: every record has data.
    const struct st_checkpoint *source;
    // Several, where one is not enough: source_count checkpoints, none NULL;
    // source is one more after them. A record says in st_tensor.source which
    // one it comes from; where that is 0 it comes from the first that has a
    // record of its name, shard, offset and size. Borrowed for the call. Since
    // 0.2.
    const struct st_checkpoint *const *sources;
    // How many there are, at most 65534. Since 0.2.
    size_t source_count;
} st_save_options;

// Where the bytes of a file go. Begin with ST_OUTPUT_INIT. Since 0.2.
typedef struct st_output {
    // sizeof(st_output), as set by ST_OUTPUT_INIT.
    size_t struct_size;
    // Takes the next size bytes, all of them; data is borrowed for the call.
    // Returns ST_OK, or what ends the save: its code, and errno and message in
    // error, are passed on. Called from the thread that called st_save_to.
    st_status (*write)(void *user_data, const void *data, size_t size, struct st_error *error);
    // Yours; passed to write.
    void *user_data;
} st_output;

// How to change metadata. Begin with ST_METADATA_OPTIONS_INIT; zero in any field is the default.
typedef struct st_metadata_options {
    // sizeof(st_metadata_options), as set by ST_METADATA_OPTIONS_INIT.
    size_t struct_size;
    // Not 0: where the file system can't share blocks, overwrite the header
    // where it is. A crash of the system or a power failure in that moment can
    // leave old and new text mixed, and then no tensor in the file can be found
    // again, though their bytes are whole: keep a copy of the header. A process
    // that is killed can do the same where the file system has no direct writes
    // (ext4, xfs, btrfs and f2fs have them) and the header has more than 4,096
    // bytes.
    int32_t in_place;
    // ST_SYNC_FULL or ST_SYNC_NONE.
    int32_t sync;
    // Not 0: set these keys and keep the others; a value of NULL removes its
    // key. Since 0.2.
    int32_t merge;
    // Zero.
    int32_t reserved0;
} st_metadata_options;

// One rule that a file breaks.
//
// Borrowed for the call of report.
typedef struct st_problem {
    // The rule, as st_open's status.
    st_status code;
    // Any of ST_FATAL_*, or'ed; 0: the file opens all the same (since 0.2).
    uint32_t fatal;
    // The byte in the file where it shows: the place in the header's text, the
    // start of the tensor's entry there, or where bytes are missing or too many.
    uint64_t position;
    // Path of the file, NUL-terminated: a shard's, the index's, or what st_validate was given.
    const char *file;
    // Bytes in file, without the terminating NUL.
    size_t file_len;
    // The tensor it is about, NUL-terminated UTF-8 that may itself contain NUL;
    // NULL where no tensor is concerned.
    const char *tensor;
    // Bytes in tensor, without the terminating NUL.
    size_t tensor_len;
    // What is wrong, with the numbers: NUL-terminated, safe to print.
    const char *text;
    // Zero.
    uint64_t reserved[4];
} st_problem;

// Success.
#define ST_OK 0

// An argument breaks this header's rules.
#define ST_ERROR_INVALID_ARGUMENT 1

// An allocation failed; the message says of what, and how many bytes.
#define ST_ERROR_OUT_OF_MEMORY 2

// A system call failed (os_errno says how), or a file ended before the bytes to be read.
#define ST_ERROR_IO 3

// No tensor has this name.
#define ST_ERROR_NOT_FOUND 4

// A destination is too small.
#define ST_ERROR_BUFFER_SIZE 5

// A callback asked to stop.
#define ST_ERROR_CANCELLED 6

// Not supported by this version, or not with these arguments.
#define ST_ERROR_UNSUPPORTED 7

// A bug in the library: please report it.
#define ST_ERROR_INTERNAL 8

// The file ends before its header's length, or before its last tensor.
#define ST_ERROR_TRUNCATED 9

// The header is longer than the limit, or has more tensors or longer names than the limits allow.
#define ST_ERROR_HEADER_TOO_LARGE 10

// The header is longer than the file.
#define ST_ERROR_HEADER_LENGTH 11

// The header does not begin with `{`.
#define ST_ERROR_HEADER_START 12

// The header is not UTF-8.
#define ST_ERROR_HEADER_UTF8 13

// The header is not JSON of the format's form.
#define ST_ERROR_HEADER_JSON 14

// A tensor, metadata key or field appears twice.
#define ST_ERROR_DUPLICATE_KEY 15

// The metadata is not a map of strings.
#define ST_ERROR_METADATA 16

// A dtype is not one of the format's.
#define ST_ERROR_DTYPE 17

// A shape is not a list of sizes, its product overflows 64 bits, or it has too many dimensions.
#define ST_ERROR_SHAPE 18

// Data offsets are malformed, or leave a hole or an overlap.
#define ST_ERROR_OFFSETS 19

// Data offsets hold more or fewer bytes than dtype and shape need.
#define ST_ERROR_SIZE_MISMATCH 20

// Bytes after the last tensor belong to none; or st_writer_finish while bytes are missing.
#define ST_ERROR_DATA_NOT_COVERED 21

// A tensor of sub-byte elements does not fill whole bytes.
#define ST_ERROR_SUB_BYTE 22

// The index file is malformed, or a folder has several.
#define ST_ERROR_INDEX 23

// A shard is missing (os_errno says why), or lacks a tensor that the index maps to it.
#define ST_ERROR_SHARD 24

// A rank plan is wrong or does not fit the checkpoint; the message begins with the rule's name.
#define ST_ERROR_PLAN 25

// A quantised group is broken: its members contradict one another.
#define ST_ERROR_GROUP 26

// A config.json can't be read.
#define ST_ERROR_CONFIG 27

// Where a dtype may be chosen: the one that the file has.
#define ST_DTYPE_AS_STORED 0

// One byte, 0 or 1.
#define ST_DTYPE_BOOL 1

// 4-bit float E2M1, two elements a byte, low bits first (OCP Microscaling Formats 1.0).
#define ST_DTYPE_F4 2

// 6-bit float, 2 exponent bits, packed from the low bits up (OCP Microscaling Formats 1.0).
#define ST_DTYPE_F6_E2M3 3

// 6-bit float, 3 exponent bits, packed from the low bits up (OCP Microscaling Formats 1.0).
#define ST_DTYPE_F6_E3M2 4

// Unsigned byte.
#define ST_DTYPE_U8 5

// Signed byte.
#define ST_DTYPE_I8 6

// 8-bit float with infinities.
#define ST_DTYPE_F8_E5M2 7

// 8-bit float of the "fn" kind: no infinity, NaN is S.1111.111.
#define ST_DTYPE_F8_E4M3 8

// A power of two, 2^(b - 127); NaN is 0xFF (OCP Microscaling Formats 1.0).
#define ST_DTYPE_F8_E8M0 9

// 8-bit float with one zero, NaN is 0x80 (ONNX).
#define ST_DTYPE_F8_E4M3FNUZ 10

// 8-bit float with one zero, NaN is 0x80 (ONNX).
#define ST_DTYPE_F8_E5M2FNUZ 11

// Signed 16-bit integer.
#define ST_DTYPE_I16 12

// Unsigned 16-bit integer.
#define ST_DTYPE_U16 13

// IEEE 754 half precision.
#define ST_DTYPE_F16 14

// The upper half of an F32.
#define ST_DTYPE_BF16 15

// Signed 32-bit integer.
#define ST_DTYPE_I32 16

// Unsigned 32-bit integer.
#define ST_DTYPE_U32 17

// IEEE 754 single precision.
#define ST_DTYPE_F32 18

// Complex number of two F32: real, imaginary.
#define ST_DTYPE_C64 19

// IEEE 754 double precision.
#define ST_DTYPE_F64 20

// Signed 64-bit integer.
#define ST_DTYPE_I64 21

// Unsigned 64-bit integer.
#define ST_DTYPE_U64 22

// A dtype this version does not know, kept as opaque bytes on request (ST_TOLERATE_UNKNOWN_DTYPE).
#define ST_DTYPE_UNKNOWN 255

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* -------------------------------------------------------- Open and close
 *
 * A checkpoint is opened from a path, from memory, or through callbacks. Every rule of the format
 * has been checked when it is open, so nothing that a later function finds in it can be malformed.
 * The handle is counted: st_retain adds an owner, the last st_free closes.
 */

// Opens a checkpoint with all defaults: st_open_with with options NULL.
//
// Returns a handle that the caller owns and releases with st_free, or NULL
// with error filled. Since 0.1.
ST_API struct st_checkpoint *st_open(const char *path, struct st_error *error);

// Opens a checkpoint: a .safetensors file, an index with its shards beside it, or
// a folder. Symbolic links are followed. Everything a header says has been checked
// when this returns.
//
// An index is a file *.safetensors.index.json, *.safetensors.index.VARIANT.json
// or *.safetensors.VARIANT.index.json, or another .json file with a weight_map.
//
// In a folder only files of the variant in options count, and none whose name
// begins with a dot. The folder is model's index, else the only index; else the
// only file, model.safetensors, or the only series
// (NAME-00001-of-00003.safetensors ...) if none of its numbers is missing
// (ST_ERROR_SHARD). Nothing is merged on a guess: several indexes, several
// models, or other variants alone are ST_ERROR_INDEX, which names them; a
// variant that is not there is ST_ERROR_NOT_FOUND, which names those that are. A
// hub's cache (models--OWNER--NAME) is the snapshot that its refs/main names. A
// folder without any of these is ST_ERROR_IO with ENOENT, and the message says
// what it holds instead.
//
// A set that is being replaced is opened as the old or the new one, or fails
// with ST_ERROR_IO or ST_ERROR_SHARD: never as a mixture.
//
// path: NUL-terminated, in the system's bytes, borrowed for the call.
// options: borrowed for the call; NULL: all defaults.
//
// Returns a handle that the caller owns and releases with st_free, or NULL:
// ST_ERROR_IO (with errno), every ST_ERROR_ of the format from
// ST_ERROR_TRUNCATED on, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_UNSUPPORTED,
// ST_ERROR_OUT_OF_MEMORY. Since 0.1.
ST_API
struct st_checkpoint *st_open_with(const char *path,
                                   const struct st_open_options *options,
                                   struct st_error *error);

// Opens several files as one checkpoint, in this order: parts of one model that
// have no index, or several models at once.
//
// paths: count of them, each NUL-terminated, in the system's bytes; borrowed for
// the call. options: borrowed for the call; NULL: all defaults. variant is of no
// effect.
//
// Returns and errors as st_open_with; ST_ERROR_DUPLICATE_KEY where two of them have
// a tensor of one name, ST_ERROR_INVALID_ARGUMENT for no paths and for an index
// among them. Since 0.2.
ST_API
struct st_checkpoint *st_open_files(const char *const *paths,
                                    size_t count,
                                    const struct st_open_options *options,
                                    struct st_error *error);

// Opens a part of a file that is open already: an asset in a package, a model in
// a bundle, a descriptor that a sandbox was handed. It maps, reads and loads as a
// path would.
//
// fd: open for reading, a regular file's (else ST_ERROR_IO). The library keeps a
// duplicate; the caller may close fd at once. Its position is neither used nor moved.
// offset, size: the part in bytes; offset need not be aligned, size 0 is up to the
// file's end. A part that is not all in the file is ST_ERROR_INVALID_ARGUMENT.
// options: borrowed for the call; NULL: all defaults.
//
// Returns and errors as st_open_with. Offsets and sizes in its records count
// from the part's start, and its shard's path is NULL: for I/O of your own, add
// offset. Since 0.2.
ST_API
struct st_checkpoint *st_open_fd(int32_t fd,
                                 uint64_t offset,
                                 uint64_t size,
                                 const struct st_open_options *options,
                                 struct st_error *error);

// Opens one file's bytes that are in memory already.
//
// data: size bytes, borrowed until the last st_free; records point into it.
// size: bytes. options: borrowed for the call; NULL: all defaults.
//
// Returns and errors as st_open_with. Since 0.1.
ST_API
struct st_checkpoint *st_open_memory(const void *data,
                                     size_t size,
                                     const struct st_open_options *options,
                                     struct st_error *error);

// Opens one file through your own read_at.
//
// io: borrowed for the call, its user_data until release is called.
// options: borrowed for the call; NULL: all defaults. access has no effect.
//
// Returns and errors as st_open_with, and whatever read_at returns. Since 0.1.
ST_API
struct st_checkpoint *st_open_io(const struct st_io *io,
                                 const struct st_open_options *options,
                                 struct st_error *error);

// Opens a file, or an index with its shards, through your own resolver. An index
// is what st_open_with says, or a name that ends in .index.json. Shards' headers
// are read concurrently.
//
// resolver: borrowed for the call. name: NUL-terminated, borrowed for the
// call. options: borrowed for the call; NULL: all defaults.
//
// Returns and errors as st_open_with, and whatever the callbacks return. A
// shard that open reports as ST_ERROR_IO is ST_ERROR_SHARD. Since 0.1.
ST_API
struct st_checkpoint *st_open_resolved(const struct st_resolver *resolver,
                                       const char *name,
                                       const struct st_open_options *options,
                                       struct st_error *error);

// Adds an owner to a handle: the last st_free closes it. Any thread.
//
// Returns the handle itself; NULL for NULL. Since 0.1.
ST_API struct st_checkpoint *st_retain(struct st_checkpoint *checkpoint);

// Gives up one ownership of a handle. The last one releases everything that the
// checkpoint owns: records, names, data. Any thread; NULL is fine.
//
// Since 0.1.
ST_API void st_free(struct st_checkpoint *checkpoint);

/* --------------------------------------------------------------- Inspect
 *
 * What is in a checkpoint. None of these does I/O or fails: NULL means that there is
 * no such thing.
 */

// All tensors, by shard and offset.
//
// count: receives their number; may be NULL.
//
// Returns an array owned by the checkpoint, valid until st_free; NULL (and
// count 0) for a NULL handle. Since 0.1.
ST_API const struct st_tensor *st_tensors(const struct st_checkpoint *checkpoint, size_t *count);

// The tensor of this name. Allocates nothing.
//
// name: NUL-terminated UTF-8, borrowed for the call.
//
// Returns a record owned by the checkpoint, valid until st_free; NULL where
// no tensor has the name, and for a NULL handle or name. Since 0.1.
ST_API
const struct st_tensor *st_find_tensor(const struct st_checkpoint *checkpoint,
                                       const char *name);

// st_find_tensor for a name of name_len bytes, which may contain NUL.
//
// name: borrowed for the call; may be NULL where name_len is 0.
//
// Returns as st_find_tensor. Since 0.1.
ST_API
const struct st_tensor *st_find_tensor_n(const struct st_checkpoint *checkpoint,
                                         const char *name,
                                         size_t name_len);

// All metadata entries. Of several files: the index's first (a value that is
// not a string as its JSON text), then each shard's; the first of equal keys
// stays.
//
// count: receives their number; may be NULL.
//
// Returns an array owned by the checkpoint, valid until st_free. No metadata
// is NULL; metadata without entries is not NULL, with count 0. Since 0.1.
ST_API
const struct st_metadata *st_metadata_entries(const struct st_checkpoint *checkpoint,
                                              size_t *count);

// The metadata value of a key.
//
// key: NUL-terminated UTF-8, borrowed for the call. length: receives the
// value's bytes without the terminating NUL; may be NULL.
//
// Returns NUL-terminated text owned by the checkpoint, valid until st_free;
// NULL (and length 0) where there is no such key. Since 0.1.
ST_API
const char *st_get_metadata(const struct st_checkpoint *checkpoint,
                            const char *key,
                            size_t *length);

// The files of a checkpoint, by name; st_tensor.shard is an index into them.
//
// count: receives their number; may be NULL.
//
// Returns an array owned by the checkpoint, valid until st_free; NULL (and
// count 0) for a NULL handle. Since 0.1.
ST_API const struct st_shard *st_shards(const struct st_checkpoint *checkpoint, size_t *count);

/* ------------------------------------------------------------------ Read
 *
 * One tensor at a time. There are five ways to bytes:
 *
 *     function         gives                            reads              for
 *     (none)           st_tensor.data, where mapped     at first touch     sparse or lazy use
 *     st_get_tensor    data in the checkpoint's memory  whole, once        tools, small models
 *     st_read_tensor   a copy in your memory            whole, each time   one tensor
 *     st_read_slice    a copy of part of it             the part           one rank's part
 *     st_load          many of those, converted and     in file order,     a whole model, and
 *                      in place, or passed to a device  several threads    anything large
 *
 * The first raises SIGBUS if another process cuts the file short. The others report ST_ERROR_IO.
 */

// The tensor of this name with its bytes: data in the record returned is never
// NULL. Where nothing is mapped, the first call for a tensor reads it into
// memory of the checkpoint, 64-byte aligned, where it stays until st_free; one
// of 8 MiB or more as st_load does, on several threads and past the page cache
// where it is not there.
//
// name: NUL-terminated UTF-8, borrowed for the call.
//
// Returns a record owned by the checkpoint, valid until st_free, or NULL:
// ST_ERROR_NOT_FOUND, ST_ERROR_IO, ST_ERROR_OUT_OF_MEMORY,
// ST_ERROR_INVALID_ARGUMENT, or what read_at returned. Since 0.1.
ST_API
const struct st_tensor *st_get_tensor(const struct st_checkpoint *checkpoint,
                                      const char *name,
                                      struct st_error *error);

// st_get_tensor for a name of name_len bytes, which may contain NUL.
//
// name: borrowed for the call; may be NULL where name_len is 0.
//
// Returns and errors as st_get_tensor. Since 0.1.
ST_API
const struct st_tensor *st_get_tensor_n(const struct st_checkpoint *checkpoint,
                                        const char *name,
                                        size_t name_len,
                                        struct st_error *error);

// Copies a tensor's bytes into the caller's memory. Reads the file and never
// goes through a mapping, so a file cut short or a failing disk is an error
// and not a signal.
//
// tensor: a record of this checkpoint or a copy of one, borrowed for the call;
// shard, offset and size say which. dst: receives tensor->size bytes; not in
// memory that the checkpoint was opened from. dst_size: bytes at dst; more than
// needed is fine. After an error the contents of dst are unspecified.
//
// Returns ST_OK, ST_ERROR_IO, ST_ERROR_BUFFER_SIZE, ST_ERROR_INVALID_ARGUMENT,
// or what read_at returned. Since 0.1.
ST_API
st_status st_read_tensor(const struct st_checkpoint *checkpoint,
                         const struct st_tensor *tensor,
                         void *dst,
                         size_t dst_size,
                         struct st_error *error);

/* ----------------------------------------------------------------- Slice
 *
 * Parts of one tensor: a start, stop and step for each dimension. st_load takes the same ranges.
 */

// Copies part of a tensor into the caller's memory: what the ranges pick,
// dense, in C order. Reads the file and never goes through a mapping, as
// st_read_tensor.
//
// tensor: a record of this checkpoint or a copy of one, borrowed for the call;
// shard, offset and size say which (and the address in name, where several
// empty tensors share a place). ranges: range_count of them, borrowed for the
// call, from the outermost dimension on; dimensions without one are taken
// whole; may be NULL where range_count is 0. dst: receives as many bytes as
// st_slice_shape says, not in memory that the checkpoint was opened from; may be
// NULL where they are 0. dst_size: bytes at dst; more than needed is fine. After
// an error the contents of dst are unspecified.
//
// What lies in one piece is one read. Narrow gaps between pieces are read too and
// thrown away: those that take no longer than a system call does on this machine
// (1 to 32 KiB; 64 KiB through an st_io). Wider gaps are never read. F4 and F6
// are cut between bytes only.
//
// Returns ST_OK, ST_ERROR_IO, ST_ERROR_BUFFER_SIZE, ST_ERROR_OUT_OF_MEMORY,
// ST_ERROR_INVALID_ARGUMENT (a message about a range names its dimension, the
// size and the bound), ST_ERROR_SUB_BYTE where a piece does not begin and end
// on a byte, ST_ERROR_UNSUPPORTED for ST_DTYPE_UNKNOWN, or what read_at
// returned. Since 0.1.
ST_API
st_status st_read_slice(const struct st_checkpoint *checkpoint,
                        const struct st_tensor *tensor,
                        const struct st_range *ranges,
                        size_t range_count,
                        void *dst,
                        size_t dst_size,
                        struct st_error *error);

// The shape and size of what st_read_slice gives for these ranges. No I/O.
//
// tensor: any record, borrowed for the call; its dtype, rank and shape count,
// its names are for messages. ranges, range_count: as for st_read_slice. shape:
// receives tensor->rank sizes in elements, and must not overlap tensor->shape;
// NULL: not wanted. size: receives the number of bytes; NULL: not wanted.
// Written on success only.
//
// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_SUB_BYTE or
// ST_ERROR_UNSUPPORTED, as st_read_slice. Since 0.1.
ST_API
st_status st_slice_shape(const struct st_tensor *tensor,
                         const struct st_range *ranges,
                         size_t range_count,
                         int64_t *shape,
                         uint64_t *size,
                         struct st_error *error);

/* ------------------------------------------------------------------ Load
 *
 * Any number of tensors, or parts of them, into the caller's memory or through buffers to a device.
 * All tensors of a model as F32, each where it belongs:
 *
 *     size_t count;
 *     const st_tensor *tensors = st_tensors(model, &count);
 *     st_load_item *items = calloc(count, sizeof *items);
 *     for (size_t i = 0; i < count; i++) {
 *         items[i].tensor = &tensors[i];
 *         items[i].dtype = ST_DTYPE_F32;
 *         items[i].dst_size = tensors[i].element_count * sizeof(float);
 *         items[i].dst = malloc(items[i].dst_size);
 *     }
 *     st_status status = st_load(model, items, count, NULL, &error);
 */

// Fills the caller's own memory with any number of tensors or parts of them,
// converted on the way: in file order, in large reads, on several threads.
//
// items: item_count of them, borrowed for the call. options: borrowed for the
// call; NULL: all defaults.
//
// Before the first byte is read, everything is checked: records, ranges,
// dtypes, room, and that no two destinations share a byte. Pieces below 64 KiB that
// lie together are read together, whichever items they belong to: many small
// tensors, or the columns of one matrix that go to different places. Files are
// read and not touched through their mapping (but for ST_IO_MAPPED), so one that
// is cut short is an error and not a signal. An st_io has up to options->threads
// calls of read_at under way (by default 8, or its max_parallel).
//
// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_BUFFER_SIZE,
// ST_ERROR_UNSUPPORTED (a pair of dtypes), ST_ERROR_SUB_BYTE,
// ST_ERROR_OUT_OF_MEMORY, ST_ERROR_IO, ST_ERROR_CANCELLED, or what read_at or
// the sink returned; messages name the item, its tensor, its file and the
// bytes. After an error the contents of the destinations are unspecified; no
// thread is left, and no buffer that has not been waited for. Since 0.1.
ST_API
st_status st_load(const struct st_checkpoint *checkpoint,
                  const struct st_load_item *items,
                  size_t item_count,
                  const struct st_load_options *options,
                  struct st_error *error);

// What st_load would do with the same arguments, found without reading.
//
// plan: receives it, on success only. Takes time in proportion to the pieces
// that the items' ranges make.
//
// Returns as st_load does before the first byte is read. Since 0.1.
ST_API
st_status st_load_plan(const struct st_checkpoint *checkpoint,
                       const struct st_load_item *items,
                       size_t item_count,
                       const struct st_load_options *options,
                       struct st_plan *plan,
                       struct st_error *error);

// Brings tensors into memory before they are used through a mapping: large reads and
// filled page tables, in place of a page fault for each 4 KiB. Mapped files are there
// when this returns; for others the system is asked to read ahead; memory and an st_io
// have nothing to gain. It is a hint: what the system declines is not an error.
//
// tensors: count pointers to records of this checkpoint or copies, borrowed
// for the call; NULL with a count of 0: everything.
//
// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_OUT_OF_MEMORY, or
// ST_ERROR_IO where a mapped file can't be read. Since 0.1.
ST_API
st_status st_prefetch(const struct st_checkpoint *checkpoint,
                      const struct st_tensor *const *tensors,
                      size_t count,
                      struct st_error *error);

// How many bytes an item's result has, once converted and transformed. Its
// destination is not looked at.
//
// item: borrowed for the call. size: receives the bytes, on success only.
//
// Returns ST_OK, or what st_load says of such an item. Since 0.2.
ST_API
st_status st_load_size(const struct st_load_item *item,
                       uint64_t *size,
                       struct st_error *error);

// Places the results of items one after the other in one block of memory: sets
// dst and dst_size of each.
//
// items: item_count of them; only dst and dst_size are written, and on success
// only. base: the block, of base_size bytes; NULL: nothing is placed, and total
// receives the bytes that a block needs whose address is a multiple of the
// alignment (of 64 where that is 0). alignment: a power of two of which each
// address is a multiple; 0: each address equals the place in the file modulo 64,
// which the kernel copies fastest. total: receives the end of the last result,
// in bytes from base; may be NULL.
//
// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_BUFFER_SIZE where the
// results do not fit into base_size, or what st_load says of such items. Since 0.2.
ST_API
st_status st_arrange(struct st_load_item *items,
                     size_t count,
                     void *base,
                     size_t base_size,
                     size_t alignment,
                     uint64_t *total,
                     struct st_error *error);

// Whether elements of one dtype can be converted to another, by st_convert and
// on the way of a load. Every dtype but ST_DTYPE_UNKNOWN to itself can.
//
// Returns 1 or 0; 0 for numbers that are not dtypes. Since 0.2.
ST_API int32_t st_can_convert(st_dtype from, st_dtype to);

// Finds a tensor that must have a dtype and a shape, and says what differs if it
// has not. No I/O.
//
// name: NUL-terminated UTF-8, borrowed for the call. dtype: ST_DTYPE_AS_STORED
// accepts any. shape: rank sizes, borrowed for the call; -1 accepts any size. rank:
// SIZE_MAX accepts any shape.
//
// Returns a record owned by the checkpoint, valid until st_free, or NULL:
// ST_ERROR_NOT_FOUND, ST_ERROR_DTYPE, ST_ERROR_SHAPE or
// ST_ERROR_INVALID_ARGUMENT. Since 0.2.
ST_API
const struct st_tensor *st_require(const struct st_checkpoint *checkpoint,
                                   const char *name,
                                   st_dtype dtype,
                                   const int64_t *shape,
                                   size_t rank,
                                   struct st_error *error);

// The other half of st_prefetch: pages of the mapping are let go, and the page cache
// learns that these tensors are not needed. Whoever touches them reads them again. It
// is a hint: what the system declines is not an error.
//
// tensors: count pointers to records of this checkpoint or copies, borrowed
// for the call; NULL with a count of 0: everything.
//
// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT or ST_ERROR_OUT_OF_MEMORY. Since 0.2.
ST_API
st_status st_evict(const struct st_checkpoint *checkpoint,
                   const struct st_tensor *const *tensors,
                   size_t count,
                   struct st_error *error);

/* --------------------------------------------------------------- Convert
 *
 * Dtypes, in memory. st_load converts the same way while it reads.
 */

// Converts elements from one dtype to another.
//
// From F64, F32, F16, BF16, every F8, F6 and F4, BOOL and the integers to F32,
// F16 and BF16; from F32 also to F8_E4M3, F8_E5M2 and their FNUZ kinds; and
// from every dtype to itself, which copies.
//
// Each value is rounded once, to nearest even. Overflow is infinity where the
// target has one, else NaN: nothing saturates. NaN stays NaN, and it and zero
// keep their sign, but for the FNUZ kinds, which have one of each. A BOOL is 1
// unless its byte is 0. The floating-point environment has to round to
// nearest; flushing subnormals to zero matters to F64 sources only.
//
// src: element_count elements, borrowed for the call; F4 and F6 are packed from
// the low bits up and have to fill whole bytes. dst: receives as many. The two
// must not overlap, need no alignment, and may be NULL where element_count is
// 0.
//
// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_SUB_BYTE, or
// ST_ERROR_UNSUPPORTED for other pairs of dtypes. Since 0.1.
ST_API
st_status st_convert(st_dtype from,
                     const void *src,
                     st_dtype to,
                     void *dst,
                     size_t element_count,
                     struct st_error *error);

/* ----------------------------------------------------------------- Write
 *
 * Files appear whole or not at all: each is written under a name of its own
 * (.NAME.RANDOM.safetensors-tmp) beside the target, brought to the disk, and then renamed. A
 * process that is killed in between leaves the older file as it was, and such a temporary, which
 * the next save to the same path removes. A new file's mode is 0666 less the umask; a replaced
 * file keeps its mode and access list, or access gets narrower where that is not possible. A
 * symbolic link at the path is followed, but not another user's in a sticky folder that everybody
 * may write to (EACCES). A mapping of the older file stays as it was.
 *
 * A path that ends in NAME.safetensors stands for a set: that file, or shards and their index. At
 * every moment, also after a crash or an error, whoever opens the folder or the index finds the
 * older set whole or the newer one; while files are being renamed, a loader may also get
 * ST_ERROR_IO or ST_ERROR_SHARD. Where older shards are in the way of new ones they get second
 * names (.NAME.RANDOM-NUMBER.safetensors-old) and an index that leads to those, until the new
 * index is in place; where the file system has no hard links they are copied. On local file
 * systems, saves to one path take turns: one waits up to 30 s for another, and calls progress
 * meanwhile.
 *
 *     const int64_t shape[] = {2, 3};
 *     const float data[6] = {1, 2, 3, 4, 5, 6};
 *     st_tensor weight = {0};
 *     weight.name = "weight";
 *     weight.dtype = ST_DTYPE_F32;
 *     weight.rank = 2;
 *     weight.shape = shape;
 *     weight.data = data;
 *     st_status status = st_save("model.safetensors", &weight, 1, NULL, 0, NULL, &error);
 */

// Writes tensors to a file: byte for byte what the reference implementation
// writes for the same tensors and metadata, with metadata ordered by key.
//
// path: NUL-terminated, in the system's bytes, borrowed for the call. With
// max_shard_size it ends in NAME.safetensors; where one file is not enough,
// NAME-00001-of-0000N.safetensors and NAME.safetensors.index.json are written
// beside it instead, filled in order, the index last. With max_shard_size or
// without, files of NAME's older set that the new one does not replace are
// then removed: shards NAME-#####-of-#####.safetensors, the index, and the
// single file beside new shards.
// tensors: count records, borrowed for the call; name, name_len (0: up to the
// NUL), dtype, rank, shape, data and size (0 or what dtype and shape take) are
// used, and with options->source also shard and offset.
// metadata: metadata_count entries, borrowed for the call; a key_len or
// value_len of 0 means up to the NUL; NULL: no metadata, which differs from
// metadata without entries. It is written as given, into every shard; the index
// gets only total_size. options: borrowed for the call; NULL: all defaults.
//
// What could not be read back is refused before anything is written:
// ST_ERROR_DUPLICATE_KEY (names, metadata keys), ST_ERROR_SHAPE,
// ST_ERROR_SIZE_MISMATCH, ST_ERROR_SUB_BYTE, ST_ERROR_HEADER_TOO_LARGE (over
// 100,000,000 bytes), ST_ERROR_UNSUPPORTED (ST_DTYPE_UNKNOWN),
// ST_ERROR_INVALID_ARGUMENT (the name __metadata__, missing data, text that is
// not UTF-8).
//
// Returns ST_OK, one of those, ST_ERROR_IO with errno, ST_ERROR_CANCELLED,
// ST_ERROR_OUT_OF_MEMORY, or what the source's read_at returned. After an
// error nothing new is left, and what was there is as it was; only where
// nothing but bringing a name to the disk has failed, the new files are in
// place: the message says so and names the last of them. Since 0.1.
ST_API
st_status st_save(const char *path,
                  const struct st_tensor *tensors,
                  size_t count,
                  const struct st_metadata *metadata,
                  size_t metadata_count,
                  const struct st_save_options *options,
                  struct st_error *error);

// The bytes of the file that st_save would write, in memory.
//
// tensors, metadata, options: as for st_save; max_shard_size must not make
// several files of it (ST_ERROR_UNSUPPORTED), and sync and overwrite have no
// effect. out: receives a block that the caller owns and releases with
// st_buffer_free; untouched after an error.
//
// Returns as st_save. Since 0.1.
ST_API
st_status st_serialize(const struct st_tensor *tensors,
                       size_t count,
                       const struct st_metadata *metadata,
                       size_t metadata_count,
                       const struct st_save_options *options,
                       struct st_buffer *out,
                       struct st_error *error);

// Hands the bytes of the file that st_save would write to a function, front to
// back: for a socket, an upload or a pipe. Nothing but the header is held in
// memory; sources are read as they are needed.
//
// output: its write takes the bytes, in pieces of up to 32 MiB; borrowed for the
// call. tensors, metadata, options: as for st_serialize.
//
// Returns as st_serialize, or what write returned. After an error some bytes
// may have been handed over. Since 0.2.
ST_API
st_status st_save_to(const struct st_output *output,
                     const struct st_tensor *tensors,
                     size_t count,
                     const struct st_metadata *metadata,
                     size_t metadata_count,
                     const struct st_save_options *options,
                     struct st_error *error);

// Begins a file whose tensors' bytes come later, in any order.
//
// path, tensors, metadata, options: as for st_save, and nothing of them is
// kept; the records' data is not looked at, and progress and source have no
// effect. The room that the files take is set aside now where the file system
// can: a full disk is an error here.
//
// Returns a handle that the caller owns and releases with st_writer_free, or
// NULL with the codes of st_save. Since 0.1.
ST_API
struct st_writer *st_writer_open(const char *path,
                                 const struct st_tensor *tensors,
                                 size_t count,
                                 const struct st_metadata *metadata,
                                 size_t metadata_count,
                                 const struct st_save_options *options,
                                 struct st_error *error);

// Writes bytes of one tensor. Any number of threads may do so at once.
//
// tensor: its number in the array given to st_writer_open. offset: the first
// byte to write, from the tensor's start. data: size bytes, borrowed for the
// call; may be NULL where size is 0.
//
// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT (no such tensor, past its end,
// bytes that are written already, a finished writer), or ST_ERROR_IO or
// ST_ERROR_OUT_OF_MEMORY, after which the same bytes may be written again.
// Since 0.1.
ST_API
st_status st_writer_write(struct st_writer *writer,
                          size_t tensor,
                          uint64_t offset,
                          const void *data,
                          size_t size,
                          struct st_error *error);

// Brings the files to the disk and gives them their names.
//
// Returns ST_OK; ST_ERROR_DATA_NOT_COVERED while bytes of a tensor are missing
// (the message says which; write them and finish again);
// ST_ERROR_INVALID_ARGUMENT after it has been finished; ST_ERROR_IO, after
// which the writer can only be released. Since 0.1.
ST_API st_status st_writer_finish(struct st_writer *writer, struct st_error *error);

// Releases a writer. Where it has not been finished, nothing is left behind,
// and an older file at the path is as it was. NULL is fine. No other thread
// may still be using it.
//
// Since 0.1.
ST_API void st_writer_free(struct st_writer *writer);

// Replaces all metadata of a file without rewriting its tensors.
//
// On file systems that share blocks (xfs, btrfs, bcachefs) a new file takes over
// the old one's data at no cost and replaces it, as safely as st_save does, and
// the room in the header does not matter. Elsewhere the header can only be
// overwritten where it is, with one write, if it fits
// (st_save_options.header_reserve leaves room) and options->in_place allows it,
// which says what a crash in that moment can cost.
//
// path: one .safetensors file, NUL-terminated, borrowed for the call; or (since
// 0.2) an index: then all of its shards, one after another, once it is known
// that each can be changed. metadata: as for st_save; NULL removes it. With
// options->merge: the keys to set or remove. options: borrowed for the call;
// NULL: all defaults.
//
// Where there is no room, write the file anew:
//
//     st_checkpoint *older = st_open(path, &error);
//     options.source = older;  options.header_reserve = 4096;
//     st_save(path, st_tensors(older, &count), count, entries, entry_count, &options, &error);
//     st_free(older);
//
// Returns ST_OK, ST_ERROR_BUFFER_SIZE where the header does not fit (the
// message has the room needed and the room there is), ST_ERROR_UNSUPPORTED
// where it would have to be overwritten and that was not allowed, the codes of
// st_open_with, ST_ERROR_DUPLICATE_KEY, or ST_ERROR_IO. Since 0.1.
ST_API
st_status st_set_metadata(const char *path,
                          const struct st_metadata *metadata,
                          size_t metadata_count,
                          const struct st_metadata_options *options,
                          struct st_error *error);

// Releases what st_serialize has filled in, and empties the struct: a second
// call does nothing. NULL is fine.
//
// buffer: as it was filled in. Since 0.1.
ST_API void st_buffer_free(struct st_buffer *buffer);

/* -------------------------------------------------------------- Validate
 *
 * Everything that is wrong with a file, where opening stops at the first fault.
 */

// Reports everything that is wrong with a file, an index and its shards, or a
// folder: every broken rule, where st_open stops at the first. Reads headers,
// and of tensors only what says how a quantised group is stored.
//
// path, options: as for st_open_with, and what they mean is the same; access
// and prefetch have no effect, and tolerate affects the result alone.
// report: called for each problem, on the calling thread, file by file and
// within a file in the order in which st_open checks the rules. A result other
// than 0 ends the call. user_data: passed to report.
//
// Also reported, as not fatal: tensors that are in a shard and not in its index, an
// index without entries beside files, a total_size that is wrong, and files that a
// folder has beside what is opened. And, once all can be opened: quantised groups that
// are broken or can be read in several ways, their scales and zero points without codes,
// and a config.json beside them that can't be read.
//
// A fault can hide others after it: a header is not read past text that is not
// JSON, and where offsets are unreadable, holes are not reported.
//
// Returns what st_open_with with these options would say: ST_OK if there is
// nothing that it refuses the file for, else the code and message of the first
// problem that it does. ST_ERROR_CANCELLED where report ended it. Since 0.1.
ST_API
st_status st_validate(const char *path,
                      const struct st_open_options *options,
                      int32_t (*report)(void *user_data, const struct st_problem *problem),
                      void *user_data,
                      struct st_error *error);

/* --------------------------------------------------------------- Helpers
 *
 * Names of statuses and dtypes, and versions. All texts are static.
 */

// The constant's own spelling, as "ST_ERROR_IO".
//
// Returns static text, never NULL: "ST_ERROR_?" for a number that is not a status.
// Since 0.1.
ST_API const char *st_status_name(st_status status);

// A dtype's spelling in files, as "F32".
//
// Returns static text, never NULL: "UNKNOWN" for ST_DTYPE_UNKNOWN, "?" for a
// number that is not a dtype. Since 0.1.
ST_API const char *st_dtype_name(st_dtype dtype);

// The dtype with this spelling in files; case matters, as it does there.
//
// name: NUL-terminated, borrowed for the call. Returns 0 for NULL and for
// what is not a dtype. Since 0.1.
ST_API st_dtype st_dtype_from_name(const char *name);

// Bits of one element: 4, 6, 8, 16, 32 or 64.
//
// Returns 0 for ST_DTYPE_UNKNOWN and for a number that is not a dtype. Since 0.1.
ST_API uint32_t st_dtype_bits(st_dtype dtype);

// The library's version, as "0.1.0": the one that is running, where
// SAFETENSORS_VERSION is the one compiled against.
//
// Returns static text, never NULL. Since 0.1.
ST_API const char *st_version(void);

// The number of the binary interface. It grows with each incompatible change;
// a program that loads the library by hand compares it with
// SAFETENSORS_ABI_VERSION.
//
// Since 0.1.
ST_API uint32_t st_abi_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SAFETENSORS_H */
