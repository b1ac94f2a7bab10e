// SPDX-License-Identifier: Apache-2.0
#include "special_tokens.h"

#include <algorithm>

namespace bridge {

namespace {

// A token in tokenizer_config.json is its text, or an object with "content".
std::string content(const Json &value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_object() && value.contains("content") && value["content"].is_string()) return value["content"].get<std::string>();
    return "";
}

class Finder {
  public:
    Finder(const Json &tokenizer, const Json &tokenizer_config, const Config &config, int64_t vocab_size)
        : tokenizer(tokenizer), tokenizer_config(tokenizer_config), config(config), vocab_size(vocab_size) {}

    SpecialTokens run();

  private:
    using Names = std::vector<std::pair<std::string, std::string>>;

    std::string &name(const std::string &role);
    bool flag(const std::string &role) const;
    void set_flag(const std::string &role, bool value);
    void set_id(const std::string &role, int64_t id);
    void read_processor(const Json &processor);
    void read_template(const Json &processor);
    void read_pair(const Json &pair, const std::string &first, const std::string &last);

    const Json &tokenizer, &tokenizer_config;
    const Config &config;
    const int64_t vocab_size;
    std::vector<std::string> roles{"bos", "eos", "unk", "sep", "pad", "cls", "mask"};
    Names names;
    SpecialTokens out;
};

std::string &Finder::name(const std::string &role) {
    for (auto &each : names)
        if (each.first == role) return each.second;
    names.emplace_back(role, "");
    return names.back().second;
}

void Finder::set_flag(const std::string &role, bool value) {
    for (auto &each : out.added)
        if (each.first == role) {
            each.second = value;
            return;
        }
    out.added.emplace_back(role, value);
}

void Finder::set_id(const std::string &role, int64_t id) {
    if (id < 0 || id >= vocab_size) return;
    for (auto &each : out.ids)
        if (each.first == role) return;
    out.ids.emplace_back(role, id);
}

// The special token of an element of a template; "": it is a sequence.
std::string special_of(const Json &element) {
    if (!element.is_object() || !element.contains("SpecialToken")) return "";
    const Json &special = element["SpecialToken"];
    return special.is_object() && special.contains("id") && special["id"].is_string() ? special["id"].get<std::string>() : "";
}

std::string sequence_of(const Json &element) {
    if (!element.is_object() || !element.contains("Sequence")) return "";
    const Json &sequence = element["Sequence"];
    return sequence.is_object() && sequence.contains("id") && sequence["id"].is_string() ? sequence["id"].get<std::string>() : "";
}

void Finder::read_pair(const Json &pair, const std::string &first, const std::string &last) {
    size_t begin = !first.empty() && special_of(pair.front()) == first ? 1 : 0;
    size_t end = pair.size() - (!last.empty() && special_of(pair.back()) == last ? 1 : 0);
    if (end < begin + 3 || sequence_of(pair[begin]) != "A" || sequence_of(pair[end - 1]) != "B") return;
    auto separates = [&](const std::string &token) { return !token.empty() && (token == name("sep") || token == name("eos")); };
    bool add = separates(special_of(pair[begin + 1])) && last.empty();
    if (end - begin == 4 && separates(special_of(pair[begin + 2]))) add = true;
    set_flag("sep", add);
    if (add && name("sep").empty()) name("sep") = name("eos");
}

void Finder::read_template(const Json &processor) {
    const Json &single = processor.contains("single") ? processor["single"] : Json();
    size_t size = single.is_array() ? single.size() : 0;
    std::string first = size > 1 ? special_of(single.front()) : "";
    std::string last = size > 1 ? special_of(single.back()) : "";
    size_t frame = (first.empty() ? 0 : 1) + (last.empty() ? 0 : 1);
    if (size != frame + 1 || sequence_of(single[first.empty() ? 0 : 1]) != "A")
        throw TokenizerProblem{"tokenizer.json frames text with more than one token before and one after it"};
    if (!first.empty()) {
        if (name("bos").empty()) name("bos") = first;
        if (name("cls").empty()) name("cls") = first;
        if (name("bos") != first)
            throw TokenizerProblem{"tokenizer.json begins text with " + in_quotes(first) + ", and bos_token is " + in_quotes(name("bos"))};
        set_flag("bos", true);
    }
    if (!last.empty()) {
        if (!name("eos").empty() && name("eos") != last) {
            // Both end something: the one in the template ends a text, the other one a turn.
            name("eot") = name("eos");
            if (std::find(roles.begin(), roles.end(), "eot") == roles.end()) roles.push_back("eot");
        }
        name("eos") = last;
        set_flag("eos", true);
    }
    if (processor.contains("pair") && processor["pair"].is_array() && !processor["pair"].empty()) read_pair(processor["pair"], first, last);
}

void Finder::read_processor(const Json &processor) {
    std::string type = processor.is_object() && processor.contains("type") && processor["type"].is_string() ? processor["type"].get<std::string>() : "";
    if (type == "ByteLevel") {
        for (const char *role : {"bos", "eos"})
            if (std::none_of(out.added.begin(), out.added.end(), [&](auto &each) { return each.first == role; })) set_flag(role, false);
    } else if (type == "TemplateProcessing") {
        read_template(processor);
    } else if (type != "BertProcessing") {
        throw TokenizerProblem{"tokenizer.json frames text by a post_processor " + in_quotes(type) + " (known: ByteLevel, TemplateProcessing, BertProcessing)"};
    }
}

SpecialTokens Finder::run() {
    if (tokenizer_config.is_object())
        for (const char *role : {"bos", "eos", "unk", "sep", "pad", "cls", "mask"}) {
            auto found = tokenizer_config.find(std::string(role) + "_token");
            if (found != tokenizer_config.end()) name(role) = content(*found);
        }
    if (name("bos").empty()) name("bos") = name("cls");
    if (name("eos").empty()) name("eos") = name("sep");

    if (tokenizer.contains("post_processor") && !tokenizer["post_processor"].is_null()) {
        const Json &processor = tokenizer["post_processor"];
        if (processor.is_object() && processor.contains("processors") && processor["processors"].is_array())
            for (const Json &each : processor["processors"]) read_processor(each);
        else read_processor(processor);
    }

    const Json &added_tokens = tokenizer.contains("added_tokens") ? tokenizer["added_tokens"] : Json();
    for (const std::string &role : roles) {
        if (tokenizer_config.is_object()) {
            auto found = tokenizer_config.find("add_" + role + "_token");
            bool known = std::any_of(out.added.begin(), out.added.end(), [&](auto &each) { return each.first == role; });
            if (found != tokenizer_config.end() && found->is_boolean() && !known) set_flag(role, found->get<bool>());
        }
        const std::string &text = name(role);
        if (text.empty() || !added_tokens.is_array()) continue;
        for (const Json &token : added_tokens)
            if (token.is_object() && token.contains("content") && token["content"] == text && token.contains("id") && token["id"].is_number_integer()) {
                set_id(role, token["id"].get<int64_t>());
                break;
            }
    }
    for (const std::string &role : roles) {
        const Json &id = config.value((role + "_token_id").c_str());
        if (id.is_number_integer()) set_id(role, id.get<int64_t>());
    }
    return out;
}

} // namespace

SpecialTokens find_special_tokens(const Json &tokenizer, const Json &tokenizer_config, const Config &config, int64_t vocab_size) {
    return Finder(tokenizer, tokenizer_config, config, vocab_size).run();
}

} // namespace bridge
