/* SPDX-License-Identifier: Apache-2.0 */
/* A program in C that loads a folder: what docs/llama.md shows. */
#include <st_llama.h>

#include <stdio.h>

static void quiet(enum ggml_log_level level, const char *text, void *user_data) {
    (void)level, (void)text, (void)user_data;
}

int main(int count, char **values) {
    st_error error;
    struct llama_model *model;
    st_gguf_options options = ST_GGUF_OPTIONS_INIT;
    if (count < 2) return 2;
    llama_log_set(quiet, NULL);
    options.type = "f32";
    model = st_llama_load(values[1], llama_model_default_params(), &options, &error);
    if (!model) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    printf("%d\n", llama_model_n_layer(model));
    llama_model_free(model);
    return 0;
}
