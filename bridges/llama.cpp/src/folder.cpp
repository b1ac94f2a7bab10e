// SPDX-License-Identifier: Apache-2.0
#include "folder.h"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>

namespace bridge {

struct Close {
    void operator()(std::FILE *file) const { std::fclose(file); }
};

// A file's text; empty where there is no such file.
static std::string read_text(const std::filesystem::path &path, size_t most) {
    std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
    if (!file) {
        if (errno == ENOENT || errno == ENOTDIR) return "";
        fail_errno(in_quotes(path.string()) + " can't be opened", errno);
    }
    std::error_code unknown;
    auto size = std::filesystem::file_size(path, unknown);
    if (!unknown && size > most) fail(ST_ERROR_CONFIG, in_quotes(path.string()) + " is longer than " + std::to_string(most) + " bytes");
    std::string text;
    if (!unknown) text.reserve(size_t(size));
    char buffer[65536];
    while (size_t got = std::fread(buffer, 1, sizeof buffer, file.get())) {
        text.append(buffer, got);
        if (text.size() > most) fail(ST_ERROR_CONFIG, in_quotes(path.string()) + " is longer than " + std::to_string(most) + " bytes");
    }
    if (std::ferror(file.get())) fail_errno(in_quotes(path.string()) + " can't be read", errno);
    return text;
}

static bool is_true(const Json &object, const char *key) { return object.is_object() && object.contains(key) && object[key] == true; }

// modules.json, of the sentence-transformers library, names the folder that says how to pool.
static uint32_t read_pooling(const std::filesystem::path &folder) {
    std::string text = read_text(folder / "modules.json", max_config_bytes);
    if (text.empty()) return 0;
    Json modules = parse_small_json(text, "modules.json");
    if (!modules.is_array()) return 0;
    for (const Json &module : modules) {
        bool named = module.is_object() && module.contains("type") && module["type"].is_string() && module.contains("path") && module["path"].is_string();
        if (!named) continue;
        auto type = module["type"].get<std::string>();
        auto path = module["path"].get<std::string>();
        // A name within the folder, and nothing else.
        if (type.size() < 7 || type.compare(type.size() - 7, 7, "Pooling") != 0 || path.empty() || path.find('/') != std::string::npos || path == "..") continue;
        std::string pooling_text = read_text(folder / path / "config.json", max_config_bytes);
        if (pooling_text.empty()) return 0;
        Json pooling = parse_small_json(pooling_text, "the pooling module's config.json");
        if (is_true(pooling, "pooling_mode_mean_tokens")) return 1;
        if (is_true(pooling, "pooling_mode_cls_token")) return 2;
        if (is_true(pooling, "pooling_mode_lasttoken")) return 3;
        fail(ST_ERROR_UNSUPPORTED, "the pooling module pools by another rule than mean, cls or last token");
    }
    return 0;
}

ModelFiles read_folder(const std::string &folder, bool with_tokenizer) {
    const std::filesystem::path path(folder);
    ModelFiles files;
    files.config = read_text(path / "config.json", max_config_bytes);
    if (files.config.empty()) fail(ST_ERROR_CONFIG, in_quotes(folder) + " has no config.json, or an empty one");
    files.generation = read_text(path / "generation_config.json", max_config_bytes);
    std::error_code ignored;
    auto absolute = std::filesystem::weakly_canonical(path, ignored);
    // "folder/" has no file name, but its parent has.
    if (!ignored) files.name = (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
    if (with_tokenizer) {
        files.tokenizer.tokenizer = read_text(path / "tokenizer.json", max_tokenizer_bytes);
        files.tokenizer.tokenizer_config = read_text(path / "tokenizer_config.json", max_config_bytes);
        files.tokenizer.chat_template = read_text(path / "chat_template.jinja", max_config_bytes);
    }
    files.pooling = read_pooling(path);
    return files;
}

} // namespace bridge
