// SPDX-License-Identifier: Apache-2.0
// What one load costs, for the bench: measure WAY MODEL [TYPE [TOKENS [WINDOW]]]
//
//     folder, user     a model folder, by the stream or by llama_model_init_from_user, as TYPE
//     gguf, mapped     a GGUF file, by llama.cpp alone, without and with mmap
//
// Prints one JSON object: the load's time, the process's peak of resident memory after it, the model's
// own bytes, and the time of TOKENS tokens decoded one by one.
#include <st_llama.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

static double since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

// A line of /proc/self/status, in KiB.
static long status_of(const char *name) {
    std::FILE *file = std::fopen("/proc/self/status", "r");
    char line[256];
    long value = 0;
    while (file && std::fgets(line, sizeof line, file))
        if (std::strncmp(line, name, std::strlen(name)) == 0) value = std::atol(line + std::strlen(name));
    if (file) std::fclose(file);
    return value;
}

static int fail(const char *why) {
    std::fprintf(stderr, "measure: %s\n", why);
    return 1;
}

int main(int count, char **values) {
    if (count < 3) return fail("measure folder|user|gguf|mapped MODEL [TYPE [TOKENS]]");
    const std::string way = values[1];
    const int tokens = count > 4 ? std::atoi(values[4]) : 0;
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    ggml_backend_load_all();
    llama_backend_init();
    llama_model_params params = llama_model_default_params();
    params.load_mode = way == "mapped" ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;

    st_error error;
    const auto begin = std::chrono::steady_clock::now();
    llama_model *model;
    if (way == "gguf" || way == "mapped") {
        model = llama_model_load_from_file(values[2], params);
    } else {
        st_gguf_options options = ST_GGUF_OPTIONS_INIT;
        options.type = count > 3 ? values[3] : nullptr;
        if (count > 5) options.window_bytes = std::strtoull(values[5], nullptr, 10);
        st_gguf *gguf = st_gguf_open(values[2], &options, &error);
        if (!gguf) return fail(error.message);
        model = way == "user" ? st_llama_load_user(gguf, params, &error) : st_llama_load_gguf(gguf, params, &error);
        st_gguf_free(gguf);
        if (!model) return fail(error.message);
    }
    if (!model) return fail("llama.cpp loads no such file");
    const double load = since(begin);
    const long peak = status_of("VmHWM:");

    double decode = 0;
    if (tokens > 0) {
        llama_context_params how = llama_context_default_params();
        how.n_ctx = uint32_t(tokens) + 8;
        how.n_threads = how.n_threads_batch = int32_t(std::thread::hardware_concurrency());
        llama_context *context = llama_init_from_model(model, how);
        if (!context) return fail("no context");
        llama_token token = 1;
        for (int i = -2; i < tokens; i++) {
            // Two to warm up.
            static std::chrono::steady_clock::time_point first;
            if (i == 0) first = std::chrono::steady_clock::now();
            if (llama_decode(context, llama_batch_get_one(&token, 1)) != 0) return fail("a token could not be run");
            if (i == tokens - 1) decode = since(first);
        }
        llama_free(context);
    }
    std::printf("{\"load_ms\": %.1f, \"peak_kib\": %ld, \"model_bytes\": %llu, \"decode_ms\": %.1f}\n", load, peak,
                static_cast<unsigned long long>(llama_model_size(model)), decode);
    llama_model_free(model);
    return 0;
}
