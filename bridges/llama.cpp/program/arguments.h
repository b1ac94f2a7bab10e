// SPDX-License-Identifier: Apache-2.0
// What st-llama was asked to do.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

// One line for standard error.
struct Trouble : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Action { run, write_gguf, check, chat, compare, serve, help };

struct Arguments {
    Action action = Action::run;
    std::string model, type = "stored", logits, write_gguf, text, rpc, serve, prompt;
    std::vector<int32_t> tokens;
    std::vector<std::string> sentences;
    bool has_text = false, ids_only = false, user_way = false, verbose = false;
    int32_t generate = 0;
    uint32_t threads = 0;
    uint64_t window = 0;
    int32_t context = 0;
};

extern const char *const usage;

// Throws Trouble.
Arguments read_arguments(int count, char **values);
