// SPDX-License-Identifier: Apache-2.0
// st-llama: llama.cpp on a model folder.
#include "chat.h"
#include "progress.h"
#include "remote.h"

#include <csignal>
#include <cstdio>
#include <cstring>

static std::string json_ids(const std::vector<int32_t> &ids) {
    std::string out = "[";
    for (int32_t id : ids) out += (out.size() > 1 ? ", " : "") + std::to_string(id);
    return out + "]";
}

// How many bytes of valid UTF-8 begin here; 0: none do.
static size_t valid_utf8(const char *text, size_t room) {
    auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    size_t size = byte(0) < 0x80 ? 1 : byte(0) >= 0xc2 && byte(0) < 0xe0 ? 2 : (byte(0) & 0xf0) == 0xe0 ? 3 : byte(0) >= 0xf0 && byte(0) < 0xf5 ? 4 : 0;
    if (size == 0 || size > room) return 0;
    for (size_t i = 1; i < size; i++)
        if ((byte(i) & 0xc0) != 0x80) return 0;
    if (size == 3 && ((byte(0) == 0xe0 && byte(1) < 0xa0) || (byte(0) == 0xed && byte(1) > 0x9f))) return 0;
    if (size == 4 && ((byte(0) == 0xf0 && byte(1) < 0x90) || (byte(0) == 0xf4 && byte(1) > 0x8f))) return 0;
    return size;
}

static std::string json_text(const std::string &text) {
    std::string out = "\"";
    for (size_t i = 0; i < text.size();) {
        size_t size = valid_utf8(text.data() + i, text.size() - i);
        auto c = static_cast<unsigned char>(text[i]);
        if (size == 0) {
            out += "\\ufffd"; // half of a character, where generation stopped within it
            size = 1;
        } else if (c == '"' || c == '\\') {
            out += '\\';
            out += char(c);
        } else if (c < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", c);
            out += escape;
        } else {
            out.append(text, i, size);
        }
        i += size;
    }
    return out + "\"";
}

static void write_floats(const std::string &path, const std::vector<float> &values) {
    std::FILE *file = std::fopen(path.c_str(), "wb");
    if (!file) throw Trouble(path + ": " + std::strerror(errno));
    size_t done = std::fwrite(values.data(), sizeof(float), values.size(), file);
    bool failed = done != values.size();
    failed = std::fclose(file) != 0 || failed;
    if (failed) throw Trouble(path + ": can't be written");
}

static void run(const Arguments &arguments) {
    Session session(arguments);
    std::vector<int32_t> tokens = arguments.has_text ? session.tokenize(arguments.text, true) : arguments.tokens;
    if (tokens.empty()) throw Trouble("the text has no tokens");
    session.open_context(std::max(tokens.size() + size_t(arguments.generate), size_t(arguments.context)), tokens.size());
    std::vector<float> values;
    session.run(tokens, arguments.logits.empty() ? nullptr : &values);
    if (!arguments.logits.empty()) write_floats(arguments.logits, values);
    std::vector<int32_t> generated = session.generate(arguments.generate, false, nullptr);
    std::printf("{\"columns\": %d, \"tokens\": %s, \"generated\": %s, \"text\": %s}\n", session.columns(), json_ids(tokens).c_str(), json_ids(generated).c_str(),
                json_text(session.detokenize(generated)).c_str());
}

static void write_gguf(const Arguments &arguments) {
    auto gguf = open_gguf(arguments);
    st_error error;
    st_status status = st_gguf_write(gguf.get(), arguments.write_gguf.c_str(), &error);
    clear_progress();
    if (status != ST_OK) throw Trouble(error.message);
    if (const char *problem = st_gguf_tokenizer_problem(gguf.get())) std::printf("%s\n", problem);
}

static void check(const Arguments &arguments) {
    st_gguf_options options = ST_GGUF_OPTIONS_INIT;
    options.type = arguments.type.c_str();
    options.tokenizer = arguments.ids_only ? ST_GGUF_TOKENIZER_NONE : ST_GGUF_TOKENIZER_AUTO;
    st_error error;
    auto say = [](void *, const char *line) -> int32_t {
        if (std::strncmp(line, "not supported", 13) != 0) std::printf("%s\n", line);
        return 0;
    };
    if (st_llama_check(arguments.model.c_str(), &options, say, nullptr, &error) != ST_OK) throw Trouble(error.message);
}

static void act(const Arguments &arguments) {
    if (arguments.action == Action::help) {
        std::fputs(usage, stdout);
        return;
    }
    if (!arguments.verbose) llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    if (arguments.action == Action::check) return check(arguments);
    if (arguments.action == Action::write_gguf) return write_gguf(arguments);
    ggml_backend_load_all();
    llama_backend_init();
    if (arguments.action == Action::serve) return serve(arguments.serve, arguments.threads);
    if (arguments.action == Action::run) return run(arguments);
    Session session(arguments);
    if (arguments.action == Action::compare) compare(session, arguments);
    else if (arguments.prompt.empty()) chat(session, arguments);
    else continue_prompt(session, arguments);
}

int main(int count, char **values) {
    std::signal(SIGPIPE, SIG_IGN);
    try {
        act(read_arguments(count, values));
    } catch (const std::exception &trouble) {
        clear_progress();
        std::fprintf(stderr, "st-llama: %s\n", trouble.what());
        return 1;
    }
    return 0;
}
