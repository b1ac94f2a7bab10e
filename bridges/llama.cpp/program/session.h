// SPDX-License-Identifier: Apache-2.0
// A loaded model and a context of it.
#pragma once

#include "arguments.h"

#include <st_llama.h>

#include <functional>
#include <memory>

struct FreeGguf {
    void operator()(st_gguf *gguf) const { st_gguf_free(gguf); }
};
struct FreeModel {
    void operator()(llama_model *model) const { llama_model_free(model); }
};
struct FreeContext {
    void operator()(llama_context *context) const { llama_free(context); }
};

// The virtual file of the arguments' folder. Throws Trouble.
std::unique_ptr<st_gguf, FreeGguf> open_gguf(const Arguments &arguments);

class Session {
  public:
    // Loads the model. Throws Trouble.
    explicit Session(const Arguments &arguments);

    bool is_encoder() const;
    bool has_text() const;
    int32_t columns() const;
    llama_model *handle() const { return model.get(); }

    std::vector<int32_t> tokenize(const std::string &text, bool framed) const;
    std::string detokenize(const std::vector<int32_t> &tokens) const;

    // A context for that many tokens. at_once: most tokens of one run. pooled: an encoder's one vector for
    // a text, not one for each token.
    void open_context(size_t tokens, size_t at_once, bool pooled = false);

    // Runs tokens after those that ran before; all: [tokens][columns], for --logits.
    void run(const std::vector<int32_t> &tokens, std::vector<float> *all);

    // An encoder's one vector for a text, of length 1.
    std::vector<float> embed(const std::string &text);

    // The likeliest next tokens, told one by one, up to an end of generation where `until_end`.
    std::vector<int32_t> generate(int32_t count, bool until_end, const std::function<void(const std::string &)> &told);

  private:
    const Arguments &arguments;
    std::string tokenizer_problem;
    std::unique_ptr<llama_model, FreeModel> model;
    std::unique_ptr<llama_context, FreeContext> context;
    const llama_vocab *vocab = nullptr;
    size_t room = 0, used = 0;
};
