/* SPDX-License-Identifier: Apache-2.0 */
/*
 * st_llama.h: llama.cpp, unmodified, runs a model folder.
 *
 *     struct llama_model *model = st_llama_load("SmolLM2-135M", llama_model_default_params(),
 *                                               NULL, &error);
 *     if (!model) { fprintf(stderr, "%s\n", error.message); return 1; }
 *     ...                                        // llama.cpp's own functions from here on
 *     llama_model_free(model);
 */
#ifndef ST_LLAMA_H
#define ST_LLAMA_H

#include <llama.h>
#include <st_gguf.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Loads a folder with llama.cpp: through a stream, or on systems without such streams by
 * llama_model_init_from_user.
 *
 * folder, options: as for st_gguf_open. params: load_mode is ours; devices, tensor_split and
 * all other fields are the caller's. Where options have a progress and params no progress_callback,
 * progress is called with bytes of tensors.
 *
 * Returns a model that the caller owns and releases with llama_model_free, or NULL: the codes
 * of st_gguf_open, what st_load returned when a read failed, ST_ERROR_CANCELLED, or
 * ST_ERROR_UNSUPPORTED with the last error in llama.cpp's log. Since 0.2. */
ST_LLAMA_API struct llama_model *st_llama_load(const char *folder,
                                               struct llama_model_params params,
                                               const st_gguf_options *options, st_error *error);

/* st_llama_load for a file that is open already. gguf is borrowed for the call.
 *
 * Returns and errors as st_llama_load. Since 0.2. */
ST_LLAMA_API struct llama_model *st_llama_load_gguf(st_gguf *gguf,
                                                    struct llama_model_params params,
                                                    st_error *error);

/* st_llama_load_gguf by llama_model_init_from_user, on every system: slower to decode for some
 * types (llama.cpp repacks no weights then). Types that can't be cut (quantised, fused) are fine.
 *
 * Returns and errors as st_llama_load. Since 0.2. */
ST_LLAMA_API struct llama_model *st_llama_load_user(st_gguf *gguf,
                                                    struct llama_model_params params,
                                                    st_error *error);

/* Says whether a folder would load and what is missing. No tensor is read.
 *
 * folder, options: as for st_gguf_open. report: called for one line of text after the other;
 * a result other than 0 ends the call with ST_ERROR_CANCELLED; NULL: only the result counts.
 * user_data: passed to report.
 *
 * Returns what st_gguf_open would return. Since 0.2. */
ST_LLAMA_API st_status st_llama_check(const char *folder, const st_gguf_options *options,
                                      int32_t (*report)(void *user_data, const char *line),
                                      void *user_data, st_error *error);

#ifdef __cplusplus
}
#endif

#endif
