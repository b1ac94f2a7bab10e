// SPDX-License-Identifier: Apache-2.0
#include "chat.h"

#include <cstdio>
#include <iostream>
#include <unistd.h>

static void show(const std::string &text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

// The conversation as the model's own template spells it, or as plain lines where it has none that llama.cpp knows.
static std::string spell(const Session &session, const std::vector<std::pair<std::string, std::string>> &turns) {
    std::vector<llama_chat_message> messages;
    for (const auto &[role, content] : turns) messages.push_back({role.c_str(), content.c_str()});
    if (const char *form = llama_model_chat_template(session.handle(), nullptr)) {
        std::string text(4096, '\0');
        int32_t size = llama_chat_apply_template(form, messages.data(), messages.size(), true, text.data(), int32_t(text.size()));
        if (size > int32_t(text.size())) {
            text.resize(size_t(size));
            size = llama_chat_apply_template(form, messages.data(), messages.size(), true, text.data(), int32_t(text.size()));
        }
        if (size >= 0) {
            text.resize(size_t(size));
            return text;
        }
    }
    std::string text;
    for (const auto &[role, content] : turns) text += (role == "user" ? "Question: " : "Answer: ") + content + "\n";
    return text + "Answer:";
}

void chat(Session &session, const Arguments &arguments) {
    const size_t context = arguments.context ? size_t(arguments.context) : std::min<size_t>(4096, size_t(llama_model_n_ctx_train(session.handle())));
    const int32_t longest = arguments.generate ? arguments.generate : 256;
    std::vector<std::pair<std::string, std::string>> turns;
    const bool terminal = isatty(STDIN_FILENO);
    for (std::string line; show(terminal ? "> " : ""), std::getline(std::cin, line);) {
        if (line.empty()) continue;
        turns.emplace_back("user", line);
        std::vector<int32_t> tokens = session.tokenize(spell(session, turns), true);
        // The oldest turns are forgotten where the context is full.
        while (tokens.size() + size_t(longest) > context && turns.size() > 2) {
            turns.erase(turns.begin(), turns.begin() + 2);
            tokens = session.tokenize(spell(session, turns), true);
        }
        session.open_context(tokens.size() + size_t(longest), tokens.size());
        session.run(tokens, nullptr);
        std::vector<int32_t> answer = session.generate(longest, true, show);
        show("\n");
        turns.emplace_back("assistant", session.detokenize(answer));
    }
}

void continue_prompt(Session &session, const Arguments &arguments) {
    std::vector<int32_t> tokens = session.tokenize(arguments.prompt, true);
    if (tokens.empty()) throw Trouble("the prompt has no tokens");
    const int32_t longest = arguments.generate ? arguments.generate : 128;
    session.open_context(tokens.size() + size_t(longest), tokens.size());
    session.run(tokens, nullptr);
    show(arguments.prompt);
    session.generate(longest, true, show);
    show("\n");
}

void compare(Session &session, const Arguments &arguments) {
    if (!session.is_encoder()) throw Trouble("--sentence needs an encoder (BertModel)");
    std::vector<std::vector<float>> vectors;
    for (const std::string &sentence : arguments.sentences) vectors.push_back(session.embed(sentence));
    const char *const shades[] = {" ", "\u2591", "\u2592", "\u2593", "\u2588"};
    for (size_t i = 0; i < vectors.size(); i++) {
        std::string row;
        for (const auto &other : vectors) {
            double cosine = 0;
            for (size_t k = 0; k < other.size(); k++) cosine += double(vectors[i][k]) * other[k];
            const char *shade = shades[cosine < 0.1 ? 0 : cosine < 0.3 ? 1 : cosine < 0.5 ? 2 : cosine < 0.9 ? 3 : 4];
            char number[32];
            std::snprintf(number, sizeof number, " %s%s%s%5.2f", shade, shade, shade, cosine);
            row += number;
        }
        std::printf("%2zu %s   %s\n", i + 1, row.c_str(), arguments.sentences[i].c_str());
    }
}
