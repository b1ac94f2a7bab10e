// SPDX-License-Identifier: Apache-2.0
#include "tokenizer.h"

#include "special_tokens.h"
#include "tokenizer_json.h"
#include "tokenizer_kind.h"

#include <algorithm>
#include <map>
#include <unordered_set>

namespace bridge {

// A vocabulary larger than this is no text's.
static constexpr int64_t most_tokens = 1 << 24;

// Values of tokenizer.ggml.token_type.
enum TokenType : int32_t { normal = 1, control = 3, user_defined = 4, unused = 5 };

static const std::string space_mark = "\xe2\x96\x81"; // U+2581, as SentencePiece writes a space

namespace {

struct AddedToken {
    std::string text;
    bool special;
};

struct Tokens {
    StringList texts;
    std::vector<int32_t> types;
};

} // namespace

static bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }
static bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// Some files don't mark their control tokens; llama.cpp's converter knows them by their look.
static bool looks_special(std::string_view text) {
    for (const char *known : {"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
        if (text == known) return true;
    const std::string_view bar = "\xef\xbd\x9c"; // U+FF5C
    return (starts_with(text, "<|") && ends_with(text, "|>")) ||
           (starts_with(text, "<" + std::string(bar)) && ends_with(text, std::string(bar) + ">")) ||
           (starts_with(text, "<unused") && ends_with(text, ">"));
}

static std::map<int64_t, AddedToken> read_added_tokens(const Json &tokenizer, int64_t vocab_size) {
    std::map<int64_t, AddedToken> added;
    auto found = tokenizer.find("added_tokens");
    if (found == tokenizer.end() || !found->is_array()) return added;
    for (const Json &token : *found) {
        bool valid = token.is_object() && token.contains("id") && token["id"].is_number_integer() && token.contains("content") && token["content"].is_string();
        if (!valid) throw TokenizerProblem{"tokenizer.json has an added token without id or content"};
        auto id = token["id"].get<int64_t>();
        if (id < 0 || id >= vocab_size)
            throw TokenizerProblem{"tokenizer.json has an added token with id " + std::to_string(id) + ", and vocab_size is " + std::to_string(vocab_size)};
        bool special = token.contains("special") && token["special"] == true;
        added[id] = {token["content"].get<std::string>(), special};
    }
    return added;
}

static std::string without_space_marks(const std::string &text) {
    std::string out;
    size_t begin = 0;
    for (size_t at; (at = text.find(space_mark, begin)) != std::string::npos; begin = at + space_mark.size()) out.append(text, begin, at - begin).append(" ");
    return out.append(text, begin);
}

// WordPiece marks what continues a word, llama.cpp what begins one.
static std::string word_piece(const std::string &text, TokenType type) {
    if (type == control) return text;
    return starts_with(text, "##") ? text.substr(2) : space_mark + text;
}

static Tokens list_tokens(const TokenizerJson &json, const Hyper &hyper, bool pieces) {
    const auto added = read_added_tokens(json.rest, hyper.vocab);
    Tokens tokens;
    tokens.types.reserve(size_t(hyper.vocab));
    std::unordered_set<std::string> seen;
    seen.reserve(size_t(hyper.vocab));
    for (int64_t id = 0; id < hyper.vocab; id++) {
        std::string text;
        TokenType type = normal;
        auto found = added.find(id);
        if (found != added.end()) {
            type = found->second.special || looks_special(found->second.text) ? control : user_defined;
            text = type == control ? found->second.text : without_space_marks(found->second.text);
        } else if (json.vocabulary.has(size_t(id))) {
            text = json.vocabulary.text(size_t(id));
        } else {
            text = "[PAD" + std::to_string(id) + "]";
            type = unused;
        }
        if (pieces) text = word_piece(text, type);
        tokens.texts.add(text);
        tokens.types.push_back(type);
        if (text.empty()) text = "[EMPTY_" + std::to_string(id) + "]"; // llama.cpp's own name for it
        // llama.cpp aborts on these.
        if (!seen.insert(std::move(text)).second) throw TokenizerProblem{"tokenizer.json has two tokens that are the same text, the second with id " + std::to_string(id)};
    }
    return tokens;
}

static void write_special_tokens(const SpecialTokens &special, Metadata &out) {
    static const std::map<std::string, const char *> keys = {
        {"bos", "tokenizer.ggml.bos_token_id"},       {"eos", "tokenizer.ggml.eos_token_id"},
        {"unk", "tokenizer.ggml.unknown_token_id"},   {"sep", "tokenizer.ggml.seperator_token_id"},
        {"pad", "tokenizer.ggml.padding_token_id"},   {"mask", "tokenizer.ggml.mask_token_id"},
        {"eot", "tokenizer.ggml.eot_token_id"},
    };
    for (const auto &[role, id] : special.ids) {
        auto key = keys.find(role);
        if (key != keys.end()) out.u32(key->second, uint64_t(id));
    }
    for (const auto &[role, value] : special.added)
        if (role == "bos" || role == "eos" || role == "sep") out.flag(("tokenizer.ggml.add_" + role + "_token").c_str(), value);
}

// In tokenizer_config.json a template is its text, or a list of named ones.
static std::string find_chat_template(const Json &tokenizer_config, const std::string &file) {
    auto found = tokenizer_config.is_object() ? tokenizer_config.find("chat_template") : tokenizer_config.end();
    if (!tokenizer_config.is_object() || found == tokenizer_config.end() || found->is_null()) return file;
    if (found->is_string()) return found->get<std::string>();
    std::string first;
    if (found->is_array())
        for (const Json &each : *found) {
            bool valid = each.is_object() && each.contains("name") && each.contains("template") && each["template"].is_string();
            if (!valid) continue;
            if (each["name"] == "default") return each["template"].get<std::string>();
            if (first.empty()) first = each["template"].get<std::string>();
        }
    return first;
}

void write_tokenizer(const TokenizerFiles &files, const Config &config, const Hyper &hyper, Metadata &out) {
    if (files.tokenizer.empty()) throw TokenizerProblem{"there is no tokenizer.json"};
    if (files.tokenizer.size() > max_tokenizer_bytes) throw TokenizerProblem{"tokenizer.json is longer than 256 MiB"};
    if (hyper.vocab > most_tokens) throw TokenizerProblem{"vocab_size is more than 16777216"};
    TokenizerJson json = parse_tokenizer_json(files.tokenizer, size_t(hyper.vocab));
    TokenizerKind kind = find_tokenizer_kind(json.rest);
    const bool pieces = std::string_view(kind.model) == "bert";
    if (pieces != (hyper.arch->family == Family::bert)) throw TokenizerProblem{std::string("llama.cpp has no ") + (pieces ? "WordPiece" : "BPE") + " for this architecture"};
    if (!pieces && json.merges.count == 0) throw TokenizerProblem{"tokenizer.json has BPE without merges"};
    Json tokenizer_config = files.tokenizer_config.empty() ? Json() : parse_small_json(files.tokenizer_config, "tokenizer_config.json");
    Tokens tokens = list_tokens(json, hyper, pieces);
    SpecialTokens special = find_special_tokens(json.rest, tokenizer_config, config, hyper.vocab);

    bool no_bos_at_end = false;
    // Llama's converter takes this over; byte-level BPE does not look at it.
    if (hyper.arch->family == Family::llama || hyper.arch->family == Family::mixtral) {
        if (tokenizer_config.is_object() && tokenizer_config.contains("add_prefix_space") && tokenizer_config["add_prefix_space"].is_boolean())
            out.flag("tokenizer.ggml.add_space_prefix", tokenizer_config["add_prefix_space"].get<bool>());
        // And sets this for every vocabulary of this size, at the end.
        auto bos = std::find_if(special.added.begin(), special.added.end(), [](auto &each) { return each.first == "bos"; });
        if (hyper.vocab == 49152 && bos != special.added.end()) bos->second = false;
        no_bos_at_end = hyper.vocab == 49152 && bos == special.added.end();
    }
    if (pieces) out.u32("tokenizer.ggml.token_type_count", uint64_t(hyper.token_types));
    out.string("tokenizer.ggml.model", kind.model);
    out.string("tokenizer.ggml.pre", kind.pre);
    out.strings("tokenizer.ggml.tokens", tokens.texts);
    out.i32s("tokenizer.ggml.token_type", tokens.types);
    if (!pieces) out.strings("tokenizer.ggml.merges", json.merges);
    write_special_tokens(special, out);
    std::string chat_template = find_chat_template(tokenizer_config, files.chat_template);
    if (!chat_template.empty()) out.string("tokenizer.chat_template", chat_template);
    if (no_bos_at_end) out.flag("tokenizer.ggml.add_bos_token", false);
    if (kind.lowercase) out.flag("tokenizer.ggml.normalizer.lowercase", *kind.lowercase);
    if (kind.strip_accents) out.flag("tokenizer.ggml.normalizer.strip_accents", *kind.strip_accents);
}

void write_ids_only(const Hyper &hyper, Metadata &out) {
    if (hyper.arch->family == Family::bert) out.u32("tokenizer.ggml.token_type_count", uint64_t(hyper.token_types));
    out.string("tokenizer.ggml.model", "no_vocab");
    // Llama has it among its sizes.
    if (hyper.arch->family != Family::llama && hyper.arch->family != Family::mixtral) out.u32(".vocab_size", uint64_t(hyper.vocab));
}

} // namespace bridge
