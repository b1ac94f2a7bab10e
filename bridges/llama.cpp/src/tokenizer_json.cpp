// SPDX-License-Identifier: Apache-2.0
#include "tokenizer_json.h"

namespace bridge {

// Deeper text than this is no tokenizer.
static constexpr size_t most_depth = 64;

void TokenizerJson::Vocabulary::set(size_t id, std::string_view text) {
    if (id >= places.size()) places.resize(id + 1);
    places[id] = {arena.size(), uint32_t(text.size()), true};
    arena.append(text);
}

namespace {

class Handler final : public nlohmann::json_sax<Json> {
  public:
    // text_size: no id is larger than that in a file whose ids are dense, nor is memory asked for it.
    Handler(TokenizerJson &out, size_t vocab_size, size_t text_size) : out(out), vocab_size(vocab_size), text_size(text_size) {}

    std::string problem;

    bool null() override { return value(Json()); }
    bool boolean(bool v) override { return value(v); }
    bool number_integer(number_integer_t v) override { return in == Part::vocabulary ? refuse("an id below 0") : value(v); }
    bool number_unsigned(number_unsigned_t v) override { return in == Part::vocabulary ? vocabulary_id(v) : value(v); }
    bool number_float(number_float_t v, const string_t &) override { return value(v); }
    bool binary(binary_t &) override { return refuse("binary"); }

    bool string(string_t &v) override {
        if (in == Part::merges) {
            out.merges.add(v);
            return true;
        }
        if (in == Part::merge_pair) {
            pair[pair_size++ % 2] = std::move(v);
            return pair_size <= 2 || refuse("a merge of more than two");
        }
        return value(std::move(v));
    }

    bool key(string_t &v) override {
        if (in == Part::skipped) return true;
        pending = std::move(v);
        if (in == Part::vocabulary) return true;
        if (tree.size() == 1) section = pending;
        return true;
    }

    bool start_object(size_t) override {
        if (in == Part::skipped) return skip_deeper();
        if (in == Part::rest && at("vocab")) return enter(Part::vocabulary);
        return open(Json::object());
    }

    bool end_object() override { return in == Part::vocabulary ? enter(Part::rest) : close(); }

    bool start_array(size_t) override {
        if (in == Part::skipped) return skip_deeper();
        if (in == Part::merges) {
            pair_size = 0;
            return enter(Part::merge_pair);
        }
        if (in == Part::rest && at("merges")) return enter(Part::merges);
        if (in == Part::rest && at("vocab")) return enter(Part::skipped);
        return open(Json::array());
    }

    bool end_array() override {
        if (in == Part::merge_pair) {
            if (pair_size != 2) return refuse("a merge that is not a pair");
            out.merges.add(spelled(pair[0]) + " " + spelled(pair[1]));
            return enter(Part::merges);
        }
        if (in == Part::merges) return enter(Part::rest);
        return close();
    }

    bool parse_error(size_t position, const std::string &, const nlohmann::detail::exception &) override {
        return refuse("no JSON at byte " + std::to_string(position));
    }

  private:
    enum class Part { rest, vocabulary, merges, merge_pair, skipped };

    bool at(const char *name) const { return tree.size() == 2 && section == "model" && pending == name; }

    bool enter(Part part) {
        in = part;
        depth = 0;
        return true;
    }

    bool refuse(const std::string &what) {
        if (problem.empty()) problem = what;
        return false;
    }

    bool skip_deeper() {
        depth++;
        return true;
    }

    bool vocabulary_id(uint64_t id) {
        if (id >= vocab_size) return refuse("id " + std::to_string(id) + ", and vocab_size is " + std::to_string(vocab_size));
        if (id >= text_size) return refuse("id " + std::to_string(id) + ", more than it has bytes");
        out.vocabulary.set(size_t(id), pending);
        return true;
    }

    // A space within half of a merge is spelled as byte-level BPE spells it.
    static std::string spelled(const std::string &half) {
        std::string text;
        for (char c : half) c == ' ' ? text += "\xc4\xa0" : text += c;
        return text;
    }

    bool value(Json v) {
        switch (in) {
        case Part::skipped: return true;
        case Part::vocabulary: return refuse("a vocabulary with values that are not ids");
        case Part::merges:
        case Part::merge_pair: return refuse("merges that are not strings");
        case Part::rest: break;
        }
        if (tree.empty()) return refuse("no object");
        place(std::move(v));
        return true;
    }

    Json *place(Json v) {
        Json &parent = *tree.back();
        if (parent.is_array()) {
            parent.push_back(std::move(v));
            return &parent.back();
        }
        Json &slot = parent[pending];
        slot = std::move(v);
        return &slot;
    }

    bool open(Json container) {
        if (in != Part::rest) return value(std::move(container));
        if (tree.size() >= most_depth) return refuse("text nested more than 64 deep");
        if (tree.empty()) {
            if (!container.is_object()) return refuse("no object");
            out.rest = std::move(container);
            tree.push_back(&out.rest);
        } else {
            tree.push_back(place(std::move(container)));
        }
        return true;
    }

    bool close() {
        if (in == Part::skipped) {
            if (depth == 0) return enter(Part::rest);
            depth--;
            return true;
        }
        tree.pop_back();
        return true;
    }

    TokenizerJson &out;
    const size_t vocab_size, text_size;
    std::vector<Json *> tree;
    std::string section, pending;
    std::string pair[2];
    size_t pair_size = 0, depth = 0;
    Part in = Part::rest;
};

} // namespace

TokenizerJson parse_tokenizer_json(std::string_view text, size_t vocab_size) {
    TokenizerJson out;
    Handler handler(out, vocab_size, text.size());
    if (!Json::sax_parse(text.begin(), text.end(), &handler)) throw TokenizerProblem{"tokenizer.json has " + handler.problem};
    return out;
}

} // namespace bridge
