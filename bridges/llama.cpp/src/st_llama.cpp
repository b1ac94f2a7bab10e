// SPDX-License-Identifier: Apache-2.0
// st_llama.h: llama.cpp's loader on the virtual file.
#include "stream.h"
#include "user.h"

#include <st_llama.h>

#include <mutex>

using namespace bridge;

namespace {

// llama.cpp says why it failed in its log alone: this listens to it for one load and passes all on.
class LogListener {
  public:
    LogListener() : lock(one_at_a_time) {
        llama_log_get(&older, &older_data);
        llama_log_set(listen, this);
    }
    ~LogListener() { llama_log_set(older, older_data); }

    std::string last_error() {
        std::lock_guard<std::mutex> guard(text_lock);
        return error;
    }

  private:
    static void listen(ggml_log_level level, const char *text, void *user_data) {
        auto *self = static_cast<LogListener *>(user_data);
        if (level == GGML_LOG_LEVEL_ERROR && text) {
            std::lock_guard<std::mutex> guard(self->text_lock);
            self->error = text;
            while (!self->error.empty() && self->error.back() == '\n') self->error.pop_back();
        }
        if (self->older) self->older(level, text, self->older_data);
    }

    static std::mutex one_at_a_time; // the log is llama.cpp's only one
    std::lock_guard<std::mutex> lock;
    std::mutex text_lock;
    std::string error;
    ggml_log_callback older = nullptr;
    void *older_data = nullptr;
};

std::mutex LogListener::one_at_a_time;

struct Progress {
    const st_gguf_options *options;
    uint64_t total;
    bool cancelled = false;
    llama_progress_callback callers;
    void *callers_data;
};

bool tell_progress(float share, void *user_data) {
    auto *progress = static_cast<Progress *>(user_data);
    bool go_on = true;
    if (progress->callers) go_on = progress->callers(share, progress->callers_data);
    else if (progress->options->progress)
        go_on = progress->options->progress(progress->options->user_data, uint64_t(double(share) * double(progress->total)), progress->total) == 0;
    if (!go_on) progress->cancelled = true;
    return go_on;
}

struct CloseFile {
    void operator()(std::FILE *file) const { std::fclose(file); }
};

enum class Way { stream, user };

llama_model *load(Gguf &gguf, llama_model_params params, Way way) {
    Progress progress{&gguf.options(), gguf.tensor_bytes(), false, params.progress_callback, params.progress_callback_user_data};
    if (progress.callers || gguf.options().progress) {
        params.progress_callback = tell_progress;
        params.progress_callback_user_data = &progress;
    }
    // Nothing of a stream can be mapped.
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    gguf.stream_error.reset();
    LogListener log;
    llama_model *model;
    if (way == Way::stream) {
        std::unique_ptr<std::FILE, CloseFile> file(open_stream(gguf));
        model = llama_model_load_from_file_ptr(file.get(), params);
    } else {
        model = load_by_user(gguf, params);
    }
    if (gguf.stream_error) {
        llama_model_free(model);
        pass_on(*gguf.stream_error);
    }
    if (model) return model;
    if (progress.cancelled) fail(ST_ERROR_CANCELLED, "cancelled by progress");
    std::string why = log.last_error();
    fail(ST_ERROR_UNSUPPORTED, "llama.cpp: " + (why.empty() ? std::string("no reason in its log") : why));
}

llama_model *load_handle(st_gguf *gguf, llama_model_params params, Way way) {
    if (!gguf) fail(ST_ERROR_INVALID_ARGUMENT, "gguf is NULL");
    return load(gguf->gguf, params, way);
}

} // namespace

llama_model *st_llama_load_gguf(st_gguf *gguf, llama_model_params params, st_error *error) {
    return guard(error, static_cast<llama_model *>(nullptr), [&] { return load_handle(gguf, params, has_streams() ? Way::stream : Way::user); });
}

llama_model *st_llama_load_user(st_gguf *gguf, llama_model_params params, st_error *error) {
    return guard(error, static_cast<llama_model *>(nullptr), [&] { return load_handle(gguf, params, Way::user); });
}

llama_model *st_llama_load(const char *folder, llama_model_params params, const st_gguf_options *options, st_error *error) {
    st_gguf *gguf = st_gguf_open(folder, options, error);
    if (!gguf) return nullptr;
    llama_model *model = st_llama_load_gguf(gguf, params, error);
    st_gguf_free(gguf);
    return model;
}

st_status st_llama_check(const char *folder, const st_gguf_options *options, int32_t (*report)(void *user_data, const char *line), void *user_data,
                         st_error *error) {
    st_error inner;
    std::unique_ptr<st_gguf, void (*)(st_gguf *)> gguf(st_gguf_open(folder, options, &inner), st_gguf_free);
    return guard_status(error, [&] {
        auto say = [&](const std::string &line) {
            if (report && report(user_data, line.c_str()) != 0) fail(ST_ERROR_CANCELLED, "cancelled by report");
        };
        if (!gguf) {
            say(std::string("not supported: ") + inner.message);
            pass_on(inner);
        }
        const Hyper &hyper = gguf->gguf.hyper();
        say(std::string("supported: ") + hyper.arch->hub_class + " as " + hyper.arch->name + ", " + std::to_string(hyper.layers) + " layers, " +
            std::to_string(gguf->gguf.outputs().size()) + " tensors, " + std::to_string(gguf->gguf.tensor_bytes()) + " bytes");
        const char *problem = st_gguf_tokenizer_problem(gguf.get());
        say(problem ? problem : "text: by tokenizer.json");
    });
}
