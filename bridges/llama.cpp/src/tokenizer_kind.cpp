// SPDX-License-Identifier: Apache-2.0
#include "tokenizer_kind.h"

#include <string_view>

namespace bridge {

// How Llama 3 and Qwen 2 cut text into words: the regular expression itself is the key, as
// llama.cpp's own name for it ("llama-bpe") stands in no file.
static constexpr std::string_view llama3_regex =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static constexpr std::string_view qwen2_regex =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static std::string text_at(const Json &object, const char *key) {
    auto found = object.is_object() ? object.find(key) : object.end();
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

static std::optional<bool> flag_at(const Json &object, const char *key) {
    auto found = object.find(key);
    return found != object.end() && found->is_boolean() ? std::optional<bool>(found->get<bool>()) : std::nullopt;
}

static const Json &object_at(const Json &object, const char *key) {
    static const Json none;
    auto found = object.is_object() ? object.find(key) : object.end();
    return found != object.end() ? *found : none;
}

static bool is_set(const Json &object, const char *key) {
    const Json &value = object_at(object, key);
    return !value.is_null() && value != "";
}

// A ByteLevel step that puts no space in front; splits: whether it cuts words by GPT-2's rule itself.
static bool is_byte_level(const Json &step, bool splits) {
    return text_at(step, "type") == "ByteLevel" && flag_at(step, "add_prefix_space") == false && flag_at(step, "use_regex").value_or(true) == splits;
}

static const char *find_split(const Json &tokenizer) {
    const Json &pre = object_at(tokenizer, "pre_tokenizer");
    if (is_byte_level(pre, true)) return "gpt-2";
    const Json &steps = object_at(pre, "pretokenizers");
    if (text_at(pre, "type") == "Sequence" && steps.is_array() && steps.size() == 2) {
        const Json &first = steps[0];
        if (text_at(first, "type") == "Digits" && flag_at(first, "individual_digits") == true && is_byte_level(steps[1], true)) return "smollm";
        bool isolated = text_at(first, "type") == "Split" && text_at(first, "behavior") == "Isolated" && flag_at(first, "invert") != true;
        if (isolated && is_byte_level(steps[1], false)) {
            std::string regex = text_at(object_at(first, "pattern"), "Regex");
            if (regex == llama3_regex) return "llama-bpe";
            if (regex == qwen2_regex) return "qwen2";
        }
    }
    throw TokenizerProblem{"tokenizer.json cuts words by a rule (pre_tokenizer " + in_quotes(text_at(pre, "type")) +
                           ") that is none of gpt-2, smollm, llama-bpe, qwen2"};
}

static TokenizerKind byte_level_kind(const Json &tokenizer) {
    const Json &model = tokenizer["model"];
    if (flag_at(model, "byte_fallback") == true) throw TokenizerProblem{"tokenizer.json is SentencePiece-like BPE (byte_fallback): llama.cpp orders merges by score and place, tokenizers by rank, and not all texts come out the same"};
    for (const char *key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
        if (is_set(model, key)) throw TokenizerProblem{std::string("tokenizer.json has a model with ") + key};
    TokenizerKind kind{"gpt2", find_split(tokenizer), {}, {}};
    const Json &normalizer = object_at(tokenizer, "normalizer");
    // llama.cpp does not compose characters; text that is composed already is the same.
    if (!normalizer.is_null() && !(text_at(normalizer, "type") == "NFC" && std::string_view(kind.pre) == "qwen2"))
        throw TokenizerProblem{"tokenizer.json has a normalizer " + in_quotes(text_at(normalizer, "type"))};
    bool whole_words_first = flag_at(model, "ignore_merges").value_or(false);
    if (whole_words_first != (std::string_view(kind.pre) == "llama-bpe"))
        throw TokenizerProblem{std::string("tokenizer.json has ignore_merges ") + (whole_words_first ? "true" : "false") + ", which llama.cpp does not compute for " + kind.pre};
    return kind;
}

static TokenizerKind word_piece_kind(const Json &tokenizer) {
    const Json &normalizer = object_at(tokenizer, "normalizer");
    if (text_at(normalizer, "type") != "BertNormalizer" || flag_at(normalizer, "clean_text") == false || flag_at(normalizer, "handle_chinese_chars") == false)
        throw TokenizerProblem{"tokenizer.json has WordPiece with another normalizer than BertNormalizer with its defaults"};
    if (text_at(object_at(tokenizer, "pre_tokenizer"), "type") != "BertPreTokenizer")
        throw TokenizerProblem{"tokenizer.json has WordPiece with another pre_tokenizer than BertPreTokenizer"};
    if (text_at(tokenizer["model"], "continuing_subword_prefix") != "##")
        throw TokenizerProblem{"tokenizer.json has WordPiece with another continuing_subword_prefix than \"##\""};
    return {"bert", "default", flag_at(normalizer, "lowercase"), flag_at(normalizer, "strip_accents")};
}

TokenizerKind find_tokenizer_kind(const Json &tokenizer) {
    const Json &model = object_at(tokenizer, "model");
    std::string type = text_at(model, "type");
    if (type == "BPE") return byte_level_kind(tokenizer);
    if (type == "WordPiece") return word_piece_kind(tokenizer);
    throw TokenizerProblem{"tokenizer.json has a model of type " + in_quotes(type) + " (known: BPE, WordPiece)"};
}

} // namespace bridge
