// SPDX-License-Identifier: Apache-2.0
// The architectures that llama.cpp computes as transformers does, and what config.json says of one.
#pragma once

#include "config.h"

#include <vector>

namespace bridge {

enum class Family { llama, mixtral, qwen2, qwen3, qwen3_moe, gemma, gemma2, gemma3, phi3, olmo2, bert };

// What of rope_scaling the architecture's graph in llama.cpp has a place for.
enum class RopeSupport { none, plain, linear, linear_yarn, all };

struct Architecture {
    const char *hub_class; // architectures[0] of config.json
    const char *name;      // general.architecture of GGUF
    Family family;
    RopeSupport rope;
    // What transformers takes where config.json does not mention a key.
    int64_t default_head_dim; // 0: hidden_size / heads
    int64_t default_kv_heads; // 0: as many as heads
    double default_epsilon;
};

// All of them, as messages list them.
std::string supported_architectures();

enum class RopeKind { plain, linear, yarn, llama3 };

struct Rope {
    RopeKind kind = RopeKind::plain;
    double base = 10000;
    double sliding_base = 0; // Gemma 3's other base; 0: not given
    double rotary_share = 1; // of a head's columns
    double factor = 1;
    int64_t original_context = 0;
    double beta_fast = 0, beta_slow = 0; // 0: not given
    double low_factor = 1, high_factor = 4;
};

struct Hyper {
    const Architecture *arch;
    int64_t layers, hidden, heads, kv_heads, head_dim, inner, vocab, context;
    int64_t experts = 0, experts_used = 0, expert_inner = 0;
    int64_t token_types = 0;
    int64_t sliding_window = 0;
    double norm_epsilon = 0;
    double attention_cap = 0, final_cap = 0;
    bool head_dim_given = false;
    bool attention_bias = false, mlp_bias = false;
    bool tied_given = false, tied = false;
    Rope rope;
};

// Reads config.json and refuses what llama.cpp would silently compute otherwise.
Hyper read_hyper(const Config &config);

// rope_scaling and rope_parameters, in the spelling of transformers 5 or of older files.
Rope read_rope(const Config &config, const Hyper &hyper);

// Columns of a head that turn with the position.
int64_t rotary_columns(const Hyper &hyper);

// Llama 3's tensor rope_freqs.weight: what each frequency is divided by.
std::vector<float> llama3_factors(const Hyper &hyper);

} // namespace bridge
