// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, read in one pass: its vocabulary and merges have up to a million entries and go
// straight to where they are needed; the rest is small and becomes a tree.
#pragma once

#include "config.h"
#include "metadata.h"

#include <nlohmann/json.hpp>

#include <vector>

namespace bridge {

struct TokenizerJson {
    // Tokens of model.vocab by id.
    class Vocabulary {
      public:
        bool has(size_t id) const { return id < places.size() && places[id].known; }
        std::string_view text(size_t id) const { return std::string_view(arena).substr(places[id].begin, places[id].length); }
        void set(size_t id, std::string_view text);

      private:
        struct Place {
            size_t begin = 0;
            uint32_t length = 0;
            bool known = false;
        };
        std::string arena;
        std::vector<Place> places;
    };

    Vocabulary vocabulary;
    StringList merges; // "a b", whichever way the file spells them
    Json rest;         // without vocab and merges

};

// Throws a TokenizerProblem where the text is malformed or an id is not below vocab_size.
TokenizerJson parse_tokenizer_json(std::string_view text, size_t vocab_size);

} // namespace bridge
