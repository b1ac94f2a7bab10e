// SPDX-License-Identifier: Apache-2.0
#include "description.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <regex>
#include <set>

namespace bridge {

// A longer name is no folder's, and regular expressions take their time.
static constexpr size_t longest_name = 255;

enum class Part { basename, size_label, finetune, version, type };

struct Word {
    std::string text;
    std::set<Part> parts;

    bool is(Part part) const { return parts.count(part) > 0; }
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) || (c & 0x80); }

static std::string mapped(std::string text, int (*change)(int)) {
    for (char &c : text)
        if (!(c & 0x80)) c = char(change(c));
    return text;
}

static bool matches(const std::string &text, const char *pattern) {
    return std::regex_match(text, std::regex(pattern, std::regex::ECMAScript | std::regex::icase));
}

static std::vector<std::string> split_at(const std::string &text, const char *separators) {
    std::vector<std::string> out;
    for (size_t begin = 0; (begin = text.find_first_not_of(separators, begin)) != std::string::npos;) {
        size_t end = std::min(text.find_first_of(separators, begin), text.size());
        out.push_back(text.substr(begin, end - begin));
        begin = end;
    }
    return out;
}

// "7b" as "7B", "7b1" as "7.1B"; a number that is far from the model's size is a length of context: "128k".
static void read_size(Word &word, uint64_t parameters) {
    std::string &text = word.text;
    std::replace(text.begin(), text.end(), '_', '.');
    if (is_digit(text.back())) text = text.substr(0, text.size() - 2) + "." + text.back() + text[text.size() - 2];
    if (text.size() > 1 && is_digit(text[text.size() - 2])) text.back() = char(std::toupper(text.back()));
    char *end;
    const std::string number = text.substr(0, text.size() - 1);
    const double value = std::strtod(number.c_str(), &end);
    const size_t power = std::string(" KMBT").find(text.back());
    const bool whole = !number.empty() && *end == 0 && is_digit(number[0]);
    if (whole && parameters > 0 && power != std::string::npos && std::abs(value * std::pow(1000, double(power)) - double(parameters)) > double(7 * parameters / 8)) {
        word.parts.insert(Part::finetune);
        text.back() = char(std::tolower(text.back()));
    } else {
        word.parts.insert(Part::size_label);
    }
}

static void read_word(Word &word, bool first, uint64_t parameters) {
    if (matches(word.text, "(v|iter)?\\d+([.]\\d+)*")) {
        word.parts.insert(Part::version);
    } else if (matches(word.text, "i?q\\d(_\\w)*|b?fp?(16|32)")) {
        word.parts.insert(Part::type);
        word.text = mapped(word.text, std::toupper);
    } else if (!first && matches(word.text, "(A|\\d+x)?\\d+([._]\\d+)?[KMBT]\\d?|small|mini|medium|large|x?xl")) {
        read_size(word, parameters);
    } else if (!first && matches(word.text, "chat|instruct|vision|lora")) {
        word.parts.insert(Part::finetune);
    }
}

static std::string joined(const std::vector<Word> &words, bool (*chosen)(const Word &)) {
    std::string out;
    std::set<std::string> sizes;
    for (const Word &word : words) {
        if (!chosen(word) || (word.is(Part::size_label) && !sizes.insert(word.text).second)) continue;
        out += (out.empty() ? "" : "-") + word.text;
    }
    return out;
}

NameParts split_name(const std::string &id, uint64_t parameters) {
    NameParts out;
    out.name = id;
    if (id.size() > longest_name || id.find(' ') != std::string::npos) return out;
    if (const size_t slash = id.find('/'); slash != std::string::npos) {
        out.name = id.substr(slash + 1);
        if (id[0] != '.') out.organization = id.substr(0, slash);
    }
    std::vector<Word> words;
    for (const std::string &text : split_at(out.name, "-")) words.push_back({text, {}});
    for (size_t i = 0; i < words.size(); i++) read_word(words[i], i == 0, parameters);

    // "large" says nothing where "7B" is said.
    auto has_digit = [](const std::string &text) { return std::any_of(text.begin(), text.end(), is_digit); };
    if (std::any_of(words.begin(), words.end(), [&](const Word &word) { return word.is(Part::size_label) && has_digit(word.text); }))
        for (Word &word : words)
            if (std::all_of(word.text.begin(), word.text.end(), is_letter)) word.parts.erase(Part::size_label);

    bool at_start = true;
    for (Word &word : words) {
        if (at_start && ((word.parts.empty() && is_letter(word.text[0])) || word.is(Part::version))) {
            word.parts.insert(Part::basename);
            continue;
        }
        at_start = false;
        if (word.parts.empty()) word.parts.insert(Part::finetune);
    }
    // A version at the very end is no part of the base's name.
    for (auto word = words.rbegin(); word != words.rend() && word->is(Part::basename) && word->parts.size() > 1; ++word) word->parts.erase(Part::basename);

    out.basename = joined(words, [](const Word &word) { return word.is(Part::basename); });
    out.size_label = joined(words, [](const Word &word) { return word.is(Part::size_label); });
    out.finetune = joined(words, [](const Word &word) { return word.is(Part::finetune); });
    out.version = joined(words, [](const Word &word) { return word.is(Part::version) && !word.is(Part::basename); });
    if (out.size_label.empty() && out.finetune.empty() && out.version.empty()) out.basename.clear();
    return out;
}

// "qwen2-moe" as "Qwen2 Moe"; what has capitals, is a version or begins with a digit stays.
static std::string as_title(const std::string &name) {
    std::string out;
    for (std::string word : split_at(name, "- \t\n\r\f\v")) {
        auto ascii = [](char c) { return !(c & 0x80); };
        const bool lower = std::all_of(word.begin(), word.end(), ascii) && std::none_of(word.begin(), word.end(), [](unsigned char c) { return std::isupper(c); }) &&
                           std::any_of(word.begin(), word.end(), [](unsigned char c) { return std::islower(c); });
        if (lower && !is_digit(word[0]) && !(word[0] == 'v' && matches(word, "v\\d+(\\.\\d+)*")))
            for (size_t i = 0; i < word.size(); i++)
                if (i == 0 || !is_letter(word[i - 1])) word[i] = char(std::toupper(word[i]));
        out += (out.empty() ? "" : " ") + word;
    }
    return out;
}

static std::string count_in_words(double count) {
    const std::pair<double, const char *> units[] = {{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "K"}};
    auto unit = std::find_if(std::begin(units), std::end(units) - 1, [&](const auto &each) { return count > each.first; });
    const double scaled = count * (1 / unit->first);
    // Two digits at least.
    const double round = std::nearbyint(scaled);
    char text[64];
    std::snprintf(text, sizeof text, "%.*f%s", round < 1 ? 2 : round < 10 ? 1 : 0, scaled, unit->second);
    return text;
}

static uint64_t parameters_of(const Output &output) { return uint64_t(output.columns) * uint64_t(output.all_rows()); }

std::string size_in_words(const std::vector<Output> &outputs) {
    uint64_t shared = 0, of_one_expert = 0, experts = 0;
    for (const Output &output : outputs) {
        if (output.experts > 0) of_one_expert += parameters_of(output) / uint64_t(output.experts), experts = uint64_t(output.experts);
        else shared += parameters_of(output);
    }
    return (experts > 0 ? std::to_string(experts) + "x" : "") + count_in_words(double(shared + of_one_expert));
}

static void write_sampling(const Json &generation, Metadata &out) {
    enum class Form { text, whole, number };
    static const struct {
        const char *key, *from, *otherwise;
        Form form;
    } keys[] = {
        {"general.sampling.sequence", "sequence", "", Form::text},
        {"general.sampling.top_k", "top_k", "", Form::whole},
        {"general.sampling.top_p", "top_p", "", Form::number},
        {"general.sampling.min_p", "min_p", "", Form::number},
        {"general.sampling.xtc_probability", "xtc_probability", "", Form::number},
        {"general.sampling.xtc_threshold", "xtc_threshold", "", Form::number},
        {"general.sampling.temp", "temperature", "", Form::number},
        {"general.sampling.penalty_last_n", "penalty_last_n", "", Form::whole},
        {"general.sampling.penalty_repeat", "penalty_repeat", "repetition_penalty", Form::number},
        {"general.sampling.mirostat", "mirostat", "", Form::whole},
        {"general.sampling.mirostat_tau", "mirostat_tau", "", Form::number},
        {"general.sampling.mirostat_eta", "mirostat_eta", "", Form::number},
    };
    if (!generation.is_object()) return;
    for (const auto &each : keys) {
        auto found = generation.find(generation.contains(each.from) ? each.from : each.otherwise);
        if (found == generation.end()) continue;
        if (each.form == Form::text && found->is_string()) out.string(each.key, found->get_ref<const std::string &>());
        if (each.form == Form::number && found->is_number()) out.f32(each.key, found->get<double>());
        if (each.form == Form::whole && found->is_number_integer()) {
            auto value = found->get<int64_t>();
            if (value >= INT32_MIN && value <= INT32_MAX) out.i32(each.key, int32_t(value));
        }
    }
}

void write_description(const std::string &folder, const Config &config, const Json &generation, const std::vector<Output> &outputs, Metadata &out) {
    write_sampling(generation, out);
    uint64_t parameters = 0;
    for (const Output &output : outputs) parameters += parameters_of(output);
    NameParts known;
    auto learn = [&](const std::string &id) {
        NameParts parts = split_name(id, parameters);
        for (auto part : {&NameParts::name, &NameParts::organization})
            if ((known.*part).empty()) known.*part = as_title(parts.*part);
        for (auto part : {&NameParts::basename, &NameParts::finetune, &NameParts::version, &NameParts::size_label})
            if ((known.*part).empty()) known.*part = parts.*part;
    };
    // Where the model came from, unless that is a path on somebody's disk.
    const Json &origin = config.value("_name_or_path");
    if (origin.is_string()) {
        const auto &id = origin.get_ref<const std::string &>();
        if (!id.empty() && id.size() <= longest_name && std::count(id.begin(), id.end(), '/') <= 1) learn(id);
    }
    if (!folder.empty()) learn(folder);
    if (known.size_label.empty()) known.size_label = size_in_words(outputs);
    const std::pair<const char *, std::string NameParts::*> keys[] = {
        {"general.name", &NameParts::name},         {"general.version", &NameParts::version},   {"general.organization", &NameParts::organization},
        {"general.finetune", &NameParts::finetune}, {"general.basename", &NameParts::basename}, {"general.size_label", &NameParts::size_label}};
    for (const auto &[key, part] : keys)
        if (!(known.*part).empty()) out.string(key, known.*part);
}

} // namespace bridge
