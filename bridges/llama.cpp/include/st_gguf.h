/* SPDX-License-Identifier: Apache-2.0 */
/*
 * st_gguf.h: a model folder as a GGUF file that exists only while it is read.
 *
 *   1  Types        st_gguf, st_gguf_options
 *   2  Open         st_gguf_open, st_gguf_open_checkpoint, st_gguf_free
 *   3  Read         st_gguf_size, st_gguf_read, st_gguf_file
 *   4  Write        st_gguf_write
 *   5  Ask          st_gguf_tokenizer_problem
 *
 *     st_error error;
 *     st_gguf *gguf = st_gguf_open("SmolLM2-135M", NULL, &error);
 *     if (!gguf) { fprintf(stderr, "%s\n", error.message); return 1; }
 *     FILE *file = st_gguf_file(gguf, &error);      // for an engine that reads GGUF
 *     ...
 *     fclose(file);
 *     st_gguf_free(gguf);
 *
 * The rules of safetensors.h hold here as well: errors, ownership, strings,
 * structs that begin with struct_size. No C++ exception crosses. Opening checks
 * everything that can be known before a tensor is read: every tensor is there,
 * has the shape that config.json implies, and has a place in the model; what
 * llama.cpp would compute otherwise without saying so is refused.
 */
#ifndef ST_GGUF_H
#define ST_GGUF_H

#include <safetensors.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef ST_LLAMA_API
#ifdef __GNUC__
#define ST_LLAMA_API __attribute__((visibility("default")))
#else
#define ST_LLAMA_API
#endif
#endif

/* ==== 1 Types ==== */

/* A model folder as a GGUF file. Opaque; made by st_gguf_open. */
typedef struct st_gguf st_gguf;

/* st_gguf_options.tokenizer: text where tokenizer.json is of a known kind, else ids only. */
#define ST_GGUF_TOKENIZER_AUTO 0u
/* A tokenizer that can't be passed on is an error. */
#define ST_GGUF_TOKENIZER_REQUIRED 1u
/* Ids only; tokenizer.json is not read. */
#define ST_GGUF_TOKENIZER_NONE 2u

/* How to make the file. Begin with ST_GGUF_OPTIONS_INIT; zero in any field is the default. */
typedef struct st_gguf_options {
    /* sizeof(st_gguf_options), as set by ST_GGUF_OPTIONS_INIT. */
    size_t struct_size;
    /* What matrices become: "stored" (F32, F16 and BF16 as they are, all else F32), "f32",
       "f16", "bf16", "q8_0", "q4_0", "q4_k", or any other ggml type that needs no importance
       matrix; in either case. NULL: "stored". Rows whose length is not a multiple
       of its block become Q8_0, or F16 where it is not a multiple of 32 either. Vectors, norms
       and what llama.cpp wants as F32 are always F32. */
    const char *type;
    /* The type for one tensor, by its name in the GGUF file ("blk.0.attn_q.weight"), or NULL
       for `type`. Called while opening. NULL: none. */
    const char *(*type_for)(void *user_data, const char *name);
    /* Most threads at work in a read; 0: as many as are useful. */
    uint32_t threads;
    /* Most bytes of a tensor that are made at once for a stream, 65536 or more; 0: 512 KiB. One
       row is the least, or what can't be cut: a head of a matrix whose rows change places, a
       group's step. */
    uint64_t window_bytes;
    /* ST_GGUF_TOKENIZER_AUTO, ST_GGUF_TOKENIZER_REQUIRED or ST_GGUF_TOKENIZER_NONE. */
    uint32_t tokenizer;
    /* Called now and then by st_gguf_write and st_llama_load with the bytes of tensors that
       are done. A result other than 0 ends the call with ST_ERROR_CANCELLED. NULL: none. */
    int32_t (*progress)(void *user_data, uint64_t done, uint64_t total);
    /* Yours; passed to type_for and progress. */
    void *user_data;
} st_gguf_options;

#define ST_GGUF_OPTIONS_INIT {sizeof(st_gguf_options), NULL, NULL, 0, 0, 0, NULL, NULL}

/* ==== 2 Open ==== */

/* Opens a folder with config.json, safetensors files and, preferably, tokenizer.json.
 *
 * folder: NUL-terminated, in the system's bytes, borrowed for the call. options: borrowed for
 * the call; NULL: all defaults.
 *
 * Returns a handle that the caller owns and releases with st_gguf_free, or NULL:
 * ST_ERROR_CONFIG (config.json is missing, malformed, or lacks a value), ST_ERROR_UNSUPPORTED
 * (an architecture, value, tensor or dtype that is not supported; the message lists what is),
 * ST_ERROR_NOT_FOUND (a tensor that the model needs), ST_ERROR_SHAPE,
 * ST_ERROR_INVALID_ARGUMENT, ST_ERROR_OUT_OF_MEMORY, or what st_open_with returns. Since 0.2. */
ST_LLAMA_API st_gguf *st_gguf_open(const char *folder, const st_gguf_options *options,
                                   st_error *error);

/* Opens a checkpoint from anywhere: memory, callbacks, files of your choice.
 *
 * checkpoint: stays open until st_gguf_free, whether the caller releases it or not.
 * config_json: the text of config.json, NUL-terminated, borrowed for the call. tokenizer_json:
 * the text of tokenizer.json, NUL-terminated, borrowed for the call; NULL: ids only. options:
 * borrowed for the call; NULL: all defaults.
 *
 * Returns and errors as st_gguf_open. Since 0.2. */
ST_LLAMA_API st_gguf *st_gguf_open_checkpoint(st_checkpoint *checkpoint, const char *config_json,
                                              const char *tokenizer_json,
                                              const st_gguf_options *options, st_error *error);

/* Releases a handle. A FILE from st_gguf_file is closed first. NULL is fine. Since 0.2. */
ST_LLAMA_API void st_gguf_free(st_gguf *gguf);

/* ==== 3 Read ==== */

/* The file's size in bytes; 0 for NULL. Since 0.2. */
ST_LLAMA_API uint64_t st_gguf_size(const st_gguf *gguf);

/* Reads bytes of the file: tensors are read from the checkpoint, converted and quantised as
 * they are asked for. Fastest from front to back within a tensor. One thread at a time.
 *
 * offset: the first byte. dst: receives size bytes; may be NULL where size is 0.
 *
 * Returns ST_OK, ST_ERROR_INVALID_ARGUMENT (past the end), or what st_load returns. Since 0.2. */
ST_LLAMA_API st_status st_gguf_read(st_gguf *gguf, uint64_t offset, void *dst, size_t size,
                                    st_error *error);

/* The file as a stream, for llama_model_load_from_file_ptr (load_mode
 * LLAMA_LOAD_MODE_NONE) or gguf_init_from_file_ptr. Reads and seeks; has no descriptor. A read
 * that fails sets errno.
 *
 * Returns a stream that the caller owns and releases with fclose, before st_gguf_free; or NULL:
 * ST_ERROR_UNSUPPORTED where the system has no such streams (fopencookie or funopen),
 * ST_ERROR_OUT_OF_MEMORY, ST_ERROR_INVALID_ARGUMENT. Since 0.2. */
ST_LLAMA_API FILE *st_gguf_file(st_gguf *gguf, st_error *error);

/* ==== 4 Write ==== */

/* Writes the file: a converter without Python. The file at path is the whole new one or, after
 * an error, what it was before. Tensors are aligned to 32 bytes in it.
 *
 * path: NUL-terminated, in the system's bytes, borrowed for the call.
 *
 * Returns ST_OK, ST_ERROR_IO, ST_ERROR_CANCELLED, or as st_gguf_read. Since 0.2. */
ST_LLAMA_API st_status st_gguf_write(st_gguf *gguf, const char *path, st_error *error);

/* ==== 5 Ask ==== */

/* Why the file has ids only and no text, as in "ids only: ...".
 *
 * Returns text owned by the handle, valid until st_gguf_free; NULL where it has text, and for
 * NULL. Since 0.2. */
ST_LLAMA_API const char *st_gguf_tokenizer_problem(const st_gguf *gguf);

#ifdef __cplusplus
}
#endif

#endif
