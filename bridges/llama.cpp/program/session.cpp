// SPDX-License-Identifier: Apache-2.0
#include "session.h"

#include "progress.h"
#include "remote.h"

#include <algorithm>
#include <cmath>
#include <thread>

std::unique_ptr<st_gguf, FreeGguf> open_gguf(const Arguments &arguments) {
    st_gguf_options options = ST_GGUF_OPTIONS_INIT;
    options.type = arguments.type.c_str();
    options.threads = arguments.threads;
    options.window_bytes = arguments.window;
    options.tokenizer = arguments.ids_only ? ST_GGUF_TOKENIZER_NONE : ST_GGUF_TOKENIZER_AUTO;
    options.progress = draw_progress;
    st_error error;
    std::unique_ptr<st_gguf, FreeGguf> gguf(st_gguf_open(arguments.model.c_str(), &options, &error));
    if (!gguf) throw Trouble(error.message);
    return gguf;
}

Session::Session(const Arguments &arguments) : arguments(arguments) {
    auto gguf = open_gguf(arguments);
    if (const char *problem = st_gguf_tokenizer_problem(gguf.get())) tokenizer_problem = problem;
    llama_model_params params = llama_model_default_params();
    std::vector<ggml_backend_dev_t> devices;
    if (!arguments.rpc.empty()) {
        devices = remote_devices(arguments.rpc);
        devices.push_back(nullptr);
        params.devices = devices.data();
        params.n_gpu_layers = -1;
    }
    st_error error;
    model.reset(arguments.user_way ? st_llama_load_user(gguf.get(), params, &error) : st_llama_load_gguf(gguf.get(), params, &error));
    clear_progress();
    if (!model) throw Trouble(error.message);
    vocab = llama_model_get_vocab(model.get());
}

bool Session::is_encoder() const {
    char value[16] = "";
    char architecture[32] = "";
    llama_model_meta_val_str(model.get(), "general.architecture", architecture, sizeof architecture);
    llama_model_meta_val_str(model.get(), (std::string(architecture) + ".attention.causal").c_str(), value, sizeof value);
    return std::string(value) == "false";
}

bool Session::has_text() const { return llama_vocab_type(vocab) != LLAMA_VOCAB_TYPE_NONE; }

int32_t Session::columns() const { return is_encoder() ? llama_model_n_embd(model.get()) : llama_vocab_n_tokens(vocab); }

std::vector<int32_t> Session::tokenize(const std::string &text, bool framed) const {
    if (!has_text()) throw Trouble(tokenizer_problem.empty() ? "ids only" : tokenizer_problem);
    std::vector<int32_t> tokens(text.size() + 8);
    int32_t count = llama_tokenize(vocab, text.data(), int32_t(text.size()), tokens.data(), int32_t(tokens.size()), framed, true);
    if (count < 0) {
        tokens.resize(size_t(-count));
        count = llama_tokenize(vocab, text.data(), int32_t(text.size()), tokens.data(), int32_t(tokens.size()), framed, true);
    }
    if (count < 0) throw Trouble("the text has too many tokens");
    tokens.resize(size_t(count));
    return tokens;
}

std::string Session::detokenize(const std::vector<int32_t> &tokens) const {
    if (!has_text() || tokens.empty()) return "";
    std::string text(tokens.size() * 16 + 64, '\0');
    int32_t size = llama_detokenize(vocab, tokens.data(), int32_t(tokens.size()), text.data(), int32_t(text.size()), false, true);
    if (size < 0) {
        text.resize(size_t(-size));
        size = llama_detokenize(vocab, tokens.data(), int32_t(tokens.size()), text.data(), int32_t(text.size()), false, true);
    }
    text.resize(size_t(std::max(size, 0)));
    return text;
}

void Session::open_context(size_t tokens, size_t at_once, bool pooled) {
    const auto trained = size_t(llama_model_n_ctx_train(model.get()));
    if (is_encoder() && tokens > trained) throw Trouble(std::to_string(tokens) + " tokens, and the model has " + std::to_string(trained) + " positions");
    if (tokens > (size_t(1) << 24)) throw Trouble("a context of " + std::to_string(tokens) + " tokens is too long");
    room = std::max<size_t>(tokens, 32);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = uint32_t(room);
    // Memory for logits is taken for as many tokens as may be run at once.
    params.n_batch = params.n_ubatch = uint32_t(is_encoder() ? room : std::clamp<size_t>(at_once, 1, 512));
    params.n_threads = params.n_threads_batch = int32_t(arguments.threads ? arguments.threads : std::max(1u, std::thread::hardware_concurrency()));
    // So that results can be compared: no rounding that the model itself does not ask for.
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    if (is_encoder()) {
        params.embeddings = true;
        // Mean is what such models are mostly made for; a modules.json that says otherwise is heard.
        char pooling[16];
        if (!pooled) params.pooling_type = LLAMA_POOLING_TYPE_NONE;
        else if (llama_model_meta_val_str(model.get(), "bert.pooling_type", pooling, sizeof pooling) < 0) params.pooling_type = LLAMA_POOLING_TYPE_MEAN;
    }
    context.reset(llama_init_from_model(model.get(), params));
    if (!context) throw Trouble("llama.cpp made no context of " + std::to_string(room) + " tokens");
    used = 0;
}

void Session::run(const std::vector<int32_t> &tokens, std::vector<float> *all) {
    const int32_t vocabulary = llama_vocab_n_tokens(vocab);
    for (int32_t token : tokens)
        if (token >= vocabulary) throw Trouble("token " + std::to_string(token) + " is not below vocab_size, " + std::to_string(vocabulary));
    if (used + tokens.size() > room) throw Trouble("the context of " + std::to_string(room) + " tokens is full");
    const size_t width = size_t(columns());
    const size_t most = llama_n_batch(context.get());
    if (all) all->reserve(tokens.size() * width);
    for (size_t begin = 0; begin < tokens.size(); begin += most) {
        const size_t count = std::min(most, tokens.size() - begin);
        llama_batch batch = llama_batch_init(int32_t(count), 0, 1);
        batch.n_tokens = int32_t(count);
        for (size_t i = 0; i < count; i++) {
            batch.token[i] = tokens[begin + i];
            batch.pos[i] = llama_pos(used + i);
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = all != nullptr || is_encoder() || begin + i + 1 == tokens.size();
        }
        int32_t code = is_encoder() ? llama_encode(context.get(), batch) : llama_decode(context.get(), batch);
        llama_batch_free(batch);
        if (code != 0) throw Trouble("llama.cpp could not run the tokens (code " + std::to_string(code) + ")");
        for (size_t i = 0; all && i < count; i++) {
            const float *row = is_encoder() ? llama_get_embeddings_ith(context.get(), int32_t(i)) : llama_get_logits_ith(context.get(), int32_t(i));
            if (!row) throw Trouble("llama.cpp has no result for a token");
            all->insert(all->end(), row, row + width);
        }
        used += count;
    }
}

std::vector<float> Session::embed(const std::string &text) {
    std::vector<int32_t> tokens = tokenize(text, true);
    open_context(tokens.size(), tokens.size(), true);
    run(tokens, nullptr);
    const float *found = llama_get_embeddings_seq(context.get(), 0);
    if (!found) throw Trouble("the model gives no vector for a text: not an encoder");
    std::vector<float> vector(found, found + columns());
    double length = 0;
    for (float each : vector) length += double(each) * each;
    for (float &each : vector) each = float(each / std::sqrt(std::max(length, 1e-30)));
    return vector;
}

std::vector<int32_t> Session::generate(int32_t count, bool until_end, const std::function<void(const std::string &)> &told) {
    std::vector<int32_t> made;
    if (is_encoder()) {
        if (count > 0) throw Trouble("an encoder generates nothing");
        return made;
    }
    std::string shown;
    while (int32_t(made.size()) < count) {
        const float *logits = llama_get_logits_ith(context.get(), -1);
        if (!logits) throw Trouble("llama.cpp has no logits");
        auto next = int32_t(std::max_element(logits, logits + columns()) - logits);
        if (until_end && llama_vocab_is_eog(vocab, next)) break;
        made.push_back(next);
        if (told) {
            // All of it again: a character may take several tokens.
            std::string text = detokenize(made);
            if (text.size() > shown.size() && (text.back() & 0x80) == 0) {
                told(text.substr(shown.size()));
                shown = text;
            }
        }
        if (int32_t(made.size()) < count) run({next}, nullptr);
    }
    if (told) {
        std::string text = detokenize(made);
        if (text.size() > shown.size()) told(text.substr(shown.size()));
    }
    return made;
}
