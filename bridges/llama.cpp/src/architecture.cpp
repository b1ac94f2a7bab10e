// SPDX-License-Identifier: Apache-2.0
#include "architecture.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace bridge {

static constexpr Architecture architectures[] = {
    {"LlamaForCausalLM", "llama", Family::llama, RopeSupport::all, 0, 0, 1e-6},
    {"MistralForCausalLM", "llama", Family::llama, RopeSupport::all, 0, 8, 1e-6},
    {"MixtralForCausalLM", "llama", Family::mixtral, RopeSupport::all, 0, 8, 1e-5},
    {"Qwen2ForCausalLM", "qwen2", Family::qwen2, RopeSupport::linear_yarn, 0, 32, 1e-6},
    {"Qwen3ForCausalLM", "qwen3", Family::qwen3, RopeSupport::linear_yarn, 128, 32, 1e-6},
    {"Qwen3MoeForCausalLM", "qwen3moe", Family::qwen3_moe, RopeSupport::linear_yarn, 0, 4, 1e-6},
    {"GemmaForCausalLM", "gemma", Family::gemma, RopeSupport::plain, 256, 16, 1e-6},
    {"Gemma2ForCausalLM", "gemma2", Family::gemma2, RopeSupport::plain, 256, 4, 1e-6},
    {"Gemma3ForCausalLM", "gemma3", Family::gemma3, RopeSupport::linear, 256, 4, 1e-6},
    {"Phi3ForCausalLM", "phi3", Family::phi3, RopeSupport::plain, 0, 0, 1e-5},
    {"Olmo2ForCausalLM", "olmo2", Family::olmo2, RopeSupport::plain, 0, 0, 1e-5},
    {"BertModel", "bert", Family::bert, RopeSupport::none, 0, 0, 1e-12},
};

// llama.cpp's own limits, which it asserts.
static constexpr int64_t most_layers = 512;
static constexpr int64_t most_experts = 1024;

std::string supported_architectures() {
    std::string list;
    for (const Architecture &arch : architectures) list += (list.empty() ? "" : ", ") + std::string(arch.hub_class);
    return list;
}

static const Architecture &find_architecture(const Config &config) {
    const Json &list = config.value("architectures");
    if (!list.is_array() || list.empty() || !list[0].is_string())
        fail(ST_ERROR_CONFIG, "config.json has no architectures list with a name in it (supported: " + supported_architectures() + ")");
    const auto &name = list[0].get_ref<const std::string &>();
    for (const Architecture &arch : architectures)
        if (name == arch.hub_class) return arch;
    fail(ST_ERROR_UNSUPPORTED, "config.json: architecture " + in_quotes(name) + " is not supported; supported: " + supported_architectures());
}

static void check_activation(const Config &config, Family family) {
    bool gemma = family == Family::gemma || family == Family::gemma2 || family == Family::gemma3;
    const char *expected = gemma ? "gelu_pytorch_tanh" : family == Family::bert ? "gelu" : "silu";
    const char *key = gemma && config.has("hidden_activation") ? "hidden_activation" : "hidden_act";
    std::string found = config.text(key, expected);
    // The first Gemma's files say "gelu" and mean the other one, in transformers too.
    if (family == Family::gemma && found == "gelu") return;
    if (found != expected) config.refuse(key, expected);
}

// Where llama.cpp attends to the whole context, a window shorter than that is a different model.
static void check_no_window(const Config &config, const Hyper &hyper) {
    const Family family = hyper.arch->family;
    bool qwen = family == Family::qwen2 || family == Family::qwen3 || family == Family::qwen3_moe;
    if (!config.flag("use_sliding_window", !qwen)) return;
    // transformers' default for Mistral is 4096, not none.
    bool by_default = !config.mentions("sliding_window") && std::string_view(hyper.arch->hub_class) == "MistralForCausalLM";
    if (!config.has("sliding_window") && !by_default) return;
    if (config.count("sliding_window", 4096) >= hyper.context) return;
    if (by_default)
        fail(ST_ERROR_UNSUPPORTED, "config.json has no sliding_window, which means 4096, less than max_position_embeddings, and llama.cpp attends to all of it (supported: null)");
    config.refuse("sliding_window", "null, or at least max_position_embeddings");
}

// Which layers attend within the window is fixed in llama.cpp: all but each period-th.
static void check_layer_types(const Config &config, const Hyper &hyper, int64_t period) {
    const Json &types = config.value("layer_types");
    if (types.is_null()) return;
    if (!types.is_array() || int64_t(types.size()) != hyper.layers)
        fail(ST_ERROR_CONFIG, "config.json: layer_types is not a list of num_hidden_layers (" + std::to_string(hyper.layers) + ") names");
    for (int64_t i = 0; i < hyper.layers; i++) {
        const char *expected = (i + 1) % period == 0 ? "full_attention" : "sliding_attention";
        if (types[size_t(i)] != expected)
            fail(ST_ERROR_UNSUPPORTED, "config.json: layer_types[" + std::to_string(i) + "] is " +
                                           (types[size_t(i)].is_string() ? in_quotes(types[size_t(i)].get<std::string>()) : "no string") +
                                           ", and llama.cpp computes " + expected + " there");
    }
}

static void read_experts(const Config &config, Hyper &hyper) {
    const char *key = config.has("num_local_experts") ? "num_local_experts" : "num_experts";
    hyper.experts = config.count(key);
    hyper.experts_used = config.count("num_experts_per_tok");
    if (hyper.experts > most_experts) config.refuse(key, "up to 1024");
    if (hyper.experts_used > hyper.experts) config.refuse("num_experts_per_tok", "up to " + config.name(key));
    if (hyper.arch->family == Family::mixtral) {
        hyper.expert_inner = hyper.inner;
        return;
    }
    hyper.expert_inner = config.count("moe_intermediate_size");
    // llama.cpp always brings the chosen experts' weights to a sum of 1. transformers' default is not to.
    if (!config.flag("norm_topk_prob", false))
        fail(ST_ERROR_UNSUPPORTED, "config.json: norm_topk_prob is not true, and llama.cpp always normalises (supported: true)");
    if (config.count("decoder_sparse_step", 1) != 1) config.refuse("decoder_sparse_step", "1");
    const Json &dense = config.value("mlp_only_layers");
    if (!dense.is_null() && !(dense.is_array() && dense.empty())) config.refuse("mlp_only_layers", "[]");
}

// llama.cpp scales attention by head_dim, but in the 27B models (known by their layers) by hidden_size / heads.
static void check_attention_scale(const Config &config, const Hyper &hyper, int64_t layers_of_27b) {
    int64_t scaled_by = hyper.layers == layers_of_27b ? hyper.hidden / hyper.heads : hyper.head_dim;
    double scalar = config.number("query_pre_attn_scalar", 1e-6, 1e9, 256);
    if (scalar != double(scaled_by)) {
        if (!config.has("query_pre_attn_scalar"))
            fail(ST_ERROR_UNSUPPORTED, "config.json has no query_pre_attn_scalar, which means 256, and llama.cpp computes " + std::to_string(scaled_by));
        config.refuse("query_pre_attn_scalar", std::to_string(scaled_by));
    }
}

static void read_gemma2(const Config &config, Hyper &hyper) {
    check_attention_scale(config, hyper, 46);
    check_layer_types(config, hyper, 2);
    hyper.sliding_window = config.count("sliding_window");
    hyper.attention_cap = config.number("attn_logit_softcapping", 1e-6, 1e9);
    hyper.final_cap = config.number("final_logit_softcapping", 1e-6, 1e9);
}

static void read_gemma3(const Config &config, Hyper &hyper) {
    check_attention_scale(config, hyper, 62);
    check_layer_types(config, hyper, 6);
    for (const char *key : {"sliding_window_pattern", "_sliding_window_pattern"})
        if (config.count(key, 6) != 6) config.refuse(key, "6");
    if (config.has("attn_logit_softcapping")) config.refuse("attn_logit_softcapping", "null");
    if (config.flag("use_bidirectional_attention", false)) config.refuse("use_bidirectional_attention", "false");
    hyper.sliding_window = config.count("sliding_window");
    hyper.final_cap = config.number("final_logit_softcapping", 1e-6, 1e9, 0);
}

static void read_bert(const Config &config, Hyper &hyper) {
    hyper.token_types = config.count("type_vocab_size", 2);
    if (config.text("position_embedding_type", "absolute") != "absolute") config.refuse("position_embedding_type", "\"absolute\"");
    for (const char *key : {"is_decoder", "add_cross_attention"})
        if (config.flag(key, false)) config.refuse(key, "false");
}

// Architectures whose graphs in llama.cpp take the hidden size for that of all heads together.
static bool heads_fill_hidden(Family family) {
    return family == Family::qwen2 || family == Family::phi3 || family == Family::olmo2 || family == Family::bert;
}

static void read_attention(const Config &config, Hyper &hyper) {
    const Architecture &arch = *hyper.arch;
    hyper.heads = config.count("num_attention_heads");
    int64_t kv_heads = arch.default_kv_heads > 0 && !config.mentions("num_key_value_heads") ? arch.default_kv_heads : hyper.heads;
    hyper.kv_heads = config.count("num_key_value_heads", kv_heads);
    hyper.head_dim_given = config.has("head_dim");
    const bool by_default = arch.default_head_dim > 0 && !config.mentions("head_dim");
    if (!hyper.head_dim_given && !by_default && hyper.hidden % hyper.heads != 0)
        config.refuse("num_attention_heads", "a divisor of hidden_size (" + std::to_string(hyper.hidden) + ") where head_dim is not given");
    hyper.head_dim = config.count("head_dim", by_default ? arch.default_head_dim : std::max<int64_t>(1, hyper.hidden / hyper.heads));
    if (hyper.heads % hyper.kv_heads != 0)
        config.refuse("num_key_value_heads", "a divisor of num_attention_heads (" + std::to_string(hyper.heads) + ")");
    if (hyper.heads > INT32_MAX / hyper.head_dim)
        config.refuse(hyper.head_dim_given ? "head_dim" : "num_attention_heads", "sizes whose product is below 2^31");
    if (heads_fill_hidden(hyper.arch->family) && hyper.heads * hyper.head_dim != hyper.hidden)
        config.refuse(hyper.head_dim_given ? "head_dim" : "num_attention_heads",
                      "hidden_size / num_attention_heads = " + std::to_string(hyper.hidden) + " / " + std::to_string(hyper.heads));
    if (hyper.arch->family != Family::bert && hyper.head_dim % 2 != 0)
        config.refuse(hyper.head_dim_given ? "head_dim" : "num_attention_heads", "an even size of heads");
}

Hyper read_hyper(const Config &config) {
    Hyper hyper{};
    hyper.arch = &find_architecture(config);
    const Family family = hyper.arch->family;
    const bool gemma = family == Family::gemma || family == Family::gemma2 || family == Family::gemma3;

    hyper.layers = config.count("num_hidden_layers");
    if (hyper.layers > most_layers) config.refuse("num_hidden_layers", "up to 512");
    hyper.hidden = config.count("hidden_size");
    hyper.inner = config.count("intermediate_size");
    hyper.vocab = config.count("vocab_size");
    hyper.context = config.count("max_position_embeddings");
    read_attention(config, hyper);

    const char *epsilon = family == Family::bert ? "layer_norm_eps" : "rms_norm_eps";
    hyper.norm_epsilon = config.number(epsilon, 1e-30, 0.999999, hyper.arch->default_epsilon);
    check_activation(config, family);
    hyper.tied_given = config.has("tie_word_embeddings");
    hyper.tied = config.flag("tie_word_embeddings", gemma);
    hyper.attention_bias = config.flag("attention_bias", false);
    hyper.mlp_bias = config.flag("mlp_bias", false);
    if (family != Family::llama && family != Family::qwen2) {
        if (hyper.attention_bias) config.refuse("attention_bias", "false");
        if (hyper.mlp_bias) config.refuse("mlp_bias", "false");
    }
    if ((family == Family::gemma || family == Family::gemma2) && !hyper.tied) config.refuse("tie_word_embeddings", "true");

    if (family == Family::mixtral || family == Family::qwen3_moe) read_experts(config, hyper);
    if (family == Family::gemma2) read_gemma2(config, hyper);
    else if (family == Family::gemma3) read_gemma3(config, hyper);
    else if (family == Family::bert) read_bert(config, hyper);
    else check_no_window(config, hyper);
    hyper.rope = read_rope(config, hyper);
    return hyper;
}

} // namespace bridge
