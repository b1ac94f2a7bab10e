// SPDX-License-Identifier: Apache-2.0
#include "names.h"

namespace bridge {

// A size that config.json implies.
enum class Size {
    none, // the rows of a vector
    hidden,
    queries,
    keys,
    fused, // queries, keys and values one after the other
    head,
    inner,
    gate_up, // gate and up one after the other
    experts,
    expert_inner,
    vocab,
    positions,
    token_types,
};

struct Entry {
    const char *hub;
    const char *gguf;
    Size rows;
    Size columns;
    Step step = Step::copy;
    Kind kind = Kind::matrix;
    bool per_expert = false;
};

static int64_t size_of(Size size, const Hyper &h) {
    switch (size) {
    case Size::none: return 0;
    case Size::hidden: return h.hidden;
    case Size::queries: return h.heads * h.head_dim;
    case Size::keys: return h.kv_heads * h.head_dim;
    case Size::fused: return (h.heads + 2 * h.kv_heads) * h.head_dim;
    case Size::head: return h.head_dim;
    case Size::inner: return h.inner;
    case Size::gate_up: return 2 * h.inner;
    case Size::experts: return h.experts;
    case Size::expert_inner: return h.expert_inner;
    case Size::vocab: return h.vocab;
    case Size::positions: return h.context;
    case Size::token_types: return h.token_types;
    }
    return 0;
}

static const char *keys_of(Size size, const Hyper &h) {
    switch (size) {
    case Size::none: return "";
    case Size::hidden: return "hidden_size";
    case Size::queries: return "num_attention_heads x head size";
    case Size::keys: return "num_key_value_heads x head size";
    case Size::fused: return "(num_attention_heads + 2 num_key_value_heads) x head size";
    case Size::head: return "head_dim";
    case Size::inner: return "intermediate_size";
    case Size::gate_up: return "2 x intermediate_size";
    case Size::experts: return "experts";
    case Size::expert_inner: return h.arch->family == Family::mixtral ? "intermediate_size" : "moe_intermediate_size";
    case Size::vocab: return "vocab_size";
    case Size::positions: return "max_position_embeddings";
    case Size::token_types: return "type_vocab_size";
    }
    return "";
}

static Expected expected(const Entry &entry, const std::string &hub_prefix, const std::string &gguf_prefix, const Hyper &hyper) {
    Expected out;
    out.hub = hub_prefix + entry.hub;
    out.gguf = gguf_prefix + entry.gguf;
    out.rows = size_of(entry.rows, hyper);
    out.columns = size_of(entry.columns, hyper);
    out.experts = entry.per_expert ? hyper.experts : 0;
    out.rows_from = keys_of(entry.rows, hyper);
    out.columns_from = keys_of(entry.columns, hyper);
    out.step = entry.step;
    out.kind = entry.rows == Size::none ? Kind::exact : entry.kind;
    return out;
}

static constexpr Entry attention[] = {
    {"self_attn.q_proj.weight", "attn_q.weight", Size::queries, Size::hidden},
    {"self_attn.k_proj.weight", "attn_k.weight", Size::keys, Size::hidden},
    {"self_attn.v_proj.weight", "attn_v.weight", Size::keys, Size::hidden},
    {"self_attn.o_proj.weight", "attn_output.weight", Size::hidden, Size::queries},
};
// llama.cpp turns neighbouring columns where transformers turns halves of a head.
static constexpr Entry attention_permuted[] = {
    {"self_attn.q_proj.weight", "attn_q.weight", Size::queries, Size::hidden, Step::permute_queries},
    {"self_attn.k_proj.weight", "attn_k.weight", Size::keys, Size::hidden, Step::permute_keys},
    {"self_attn.v_proj.weight", "attn_v.weight", Size::keys, Size::hidden},
    {"self_attn.o_proj.weight", "attn_output.weight", Size::hidden, Size::queries},
};
static constexpr Entry attention_permuted_bias[] = {
    {"self_attn.q_proj.bias", "attn_q.bias", Size::none, Size::queries, Step::permute_queries},
    {"self_attn.k_proj.bias", "attn_k.bias", Size::none, Size::keys, Step::permute_keys},
    {"self_attn.v_proj.bias", "attn_v.bias", Size::none, Size::keys},
    {"self_attn.o_proj.bias", "attn_output.bias", Size::none, Size::hidden},
};
static constexpr Entry attention_bias[] = {
    {"self_attn.q_proj.bias", "attn_q.bias", Size::none, Size::queries},
    {"self_attn.k_proj.bias", "attn_k.bias", Size::none, Size::keys},
    {"self_attn.v_proj.bias", "attn_v.bias", Size::none, Size::keys},
};
static constexpr Entry attention_fused[] = {
    {"self_attn.qkv_proj.weight", "attn_qkv.weight", Size::fused, Size::hidden},
    {"self_attn.o_proj.weight", "attn_output.weight", Size::hidden, Size::queries},
};
static constexpr Entry head_norms[] = {
    {"self_attn.q_norm.weight", "attn_q_norm.weight", Size::none, Size::head},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", Size::none, Size::head},
};
static constexpr Entry head_norms_plus_one[] = {
    {"self_attn.q_norm.weight", "attn_q_norm.weight", Size::none, Size::head, Step::plus_one},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", Size::none, Size::head, Step::plus_one},
};
static constexpr Entry whole_norms[] = {
    {"self_attn.q_norm.weight", "attn_q_norm.weight", Size::none, Size::queries},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", Size::none, Size::keys},
};
static constexpr Entry mlp[] = {
    {"mlp.gate_proj.weight", "ffn_gate.weight", Size::inner, Size::hidden},
    {"mlp.up_proj.weight", "ffn_up.weight", Size::inner, Size::hidden},
    {"mlp.down_proj.weight", "ffn_down.weight", Size::hidden, Size::inner},
};
static constexpr Entry mlp_bias[] = {
    {"mlp.gate_proj.bias", "ffn_gate.bias", Size::none, Size::inner},
    {"mlp.up_proj.bias", "ffn_up.bias", Size::none, Size::inner},
    {"mlp.down_proj.bias", "ffn_down.bias", Size::none, Size::hidden},
};
static constexpr Entry mlp_fused[] = {
    {"mlp.gate_up_proj.weight", "ffn_up.weight", Size::gate_up, Size::hidden},
    {"mlp.down_proj.weight", "ffn_down.weight", Size::hidden, Size::inner},
};
static constexpr Entry mixtral_experts[] = {
    {"block_sparse_moe.gate.weight", "ffn_gate_inp.weight", Size::experts, Size::hidden, Step::copy, Kind::exact},
    {"block_sparse_moe.experts.#.w1.weight", "ffn_gate_exps.weight", Size::expert_inner, Size::hidden, Step::copy, Kind::matrix, true},
    {"block_sparse_moe.experts.#.w2.weight", "ffn_down_exps.weight", Size::hidden, Size::expert_inner, Step::copy, Kind::matrix, true},
    {"block_sparse_moe.experts.#.w3.weight", "ffn_up_exps.weight", Size::expert_inner, Size::hidden, Step::copy, Kind::matrix, true},
};
static constexpr Entry qwen_experts[] = {
    {"mlp.gate.weight", "ffn_gate_inp.weight", Size::experts, Size::hidden, Step::copy, Kind::exact},
    {"mlp.experts.#.down_proj.weight", "ffn_down_exps.weight", Size::hidden, Size::expert_inner, Step::copy, Kind::matrix, true},
    {"mlp.experts.#.gate_proj.weight", "ffn_gate_exps.weight", Size::expert_inner, Size::hidden, Step::copy, Kind::matrix, true},
    {"mlp.experts.#.up_proj.weight", "ffn_up_exps.weight", Size::expert_inner, Size::hidden, Step::copy, Kind::matrix, true},
};
static constexpr Entry norms[] = {
    {"input_layernorm.weight", "attn_norm.weight", Size::none, Size::hidden},
    {"post_attention_layernorm.weight", "ffn_norm.weight", Size::none, Size::hidden},
};
static constexpr Entry norms_gemma[] = {
    {"input_layernorm.weight", "attn_norm.weight", Size::none, Size::hidden, Step::plus_one},
    {"post_attention_layernorm.weight", "ffn_norm.weight", Size::none, Size::hidden, Step::plus_one},
};
static constexpr Entry norms_gemma2[] = {
    {"input_layernorm.weight", "attn_norm.weight", Size::none, Size::hidden, Step::plus_one},
    {"post_attention_layernorm.weight", "post_attention_norm.weight", Size::none, Size::hidden, Step::plus_one},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight", Size::none, Size::hidden, Step::plus_one},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", Size::none, Size::hidden, Step::plus_one},
};
static constexpr Entry norms_olmo2[] = {
    {"post_attention_layernorm.weight", "post_attention_norm.weight", Size::none, Size::hidden},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", Size::none, Size::hidden},
};
static constexpr Entry bert_layer[] = {
    {"attention.self.query.weight", "attn_q.weight", Size::queries, Size::hidden},
    {"attention.self.query.bias", "attn_q.bias", Size::none, Size::queries},
    {"attention.self.key.weight", "attn_k.weight", Size::keys, Size::hidden},
    {"attention.self.key.bias", "attn_k.bias", Size::none, Size::keys},
    {"attention.self.value.weight", "attn_v.weight", Size::keys, Size::hidden},
    {"attention.self.value.bias", "attn_v.bias", Size::none, Size::keys},
    {"attention.output.dense.weight", "attn_output.weight", Size::hidden, Size::queries},
    {"attention.output.dense.bias", "attn_output.bias", Size::none, Size::hidden},
    {"attention.output.LayerNorm.weight", "attn_output_norm.weight", Size::none, Size::hidden},
    {"attention.output.LayerNorm.bias", "attn_output_norm.bias", Size::none, Size::hidden},
    {"intermediate.dense.weight", "ffn_up.weight", Size::inner, Size::hidden},
    {"intermediate.dense.bias", "ffn_up.bias", Size::none, Size::inner},
    {"output.dense.weight", "ffn_down.weight", Size::hidden, Size::inner},
    {"output.dense.bias", "ffn_down.bias", Size::none, Size::hidden},
    {"output.LayerNorm.weight", "layer_output_norm.weight", Size::none, Size::hidden},
    {"output.LayerNorm.bias", "layer_output_norm.bias", Size::none, Size::hidden},
};
static constexpr Entry bert_outside[] = {
    {"embeddings.word_embeddings.weight", "token_embd.weight", Size::vocab, Size::hidden},
    {"embeddings.position_embeddings.weight", "position_embd.weight", Size::positions, Size::hidden, Step::copy, Kind::exact},
    {"embeddings.token_type_embeddings.weight", "token_types.weight", Size::token_types, Size::hidden, Step::copy, Kind::exact},
    {"embeddings.LayerNorm.weight", "token_embd_norm.weight", Size::none, Size::hidden},
    {"embeddings.LayerNorm.bias", "token_embd_norm.bias", Size::none, Size::hidden},
};

std::vector<Expected> expected_outside(const Hyper &hyper, bool head_stored) {
    std::vector<Expected> out;
    auto add = [&](const Entry &entry) { out.push_back(expected(entry, "", "", hyper)); };
    const Family family = hyper.arch->family;
    if (family == Family::bert) {
        for (const Entry &entry : bert_outside) add(entry);
        return out;
    }
    bool gemma = family == Family::gemma || family == Family::gemma2 || family == Family::gemma3;
    add({"model.embed_tokens.weight", "token_embd.weight", Size::vocab, Size::hidden});
    add({"model.norm.weight", "output_norm.weight", Size::none, Size::hidden, gemma ? Step::plus_one : Step::copy});
    bool tied = hyper.tied_given || gemma ? hyper.tied : !head_stored;
    if (!tied) add({"lm_head.weight", "output.weight", Size::vocab, Size::hidden});
    // Where llama.cpp itself does not share the embedding, the head is a copy of it.
    else if (family == Family::olmo2) add({"model.embed_tokens.weight", "output.weight", Size::vocab, Size::hidden});
    return out;
}

std::vector<Expected> expected_in_layer(const Hyper &hyper, int64_t layer) {
    std::vector<Expected> out;
    const Family family = hyper.arch->family;
    const std::string number = std::to_string(layer) + ".";
    const std::string hub = (family == Family::bert ? "encoder.layer." : "model.layers.") + number;
    const std::string gguf = "blk." + number;
    auto add = [&](const auto &entries) {
        for (const Entry &entry : entries) out.push_back(expected(entry, hub, gguf, hyper));
    };
    switch (family) {
    case Family::llama:
    case Family::mixtral:
        add(norms), add(attention_permuted);
        if (hyper.attention_bias) add(attention_permuted_bias);
        if (family == Family::mixtral) add(mixtral_experts);
        else add(mlp);
        if (hyper.mlp_bias) add(mlp_bias);
        break;
    case Family::qwen2: add(norms), add(attention), add(attention_bias), add(mlp); break;
    case Family::qwen3: add(norms), add(attention), add(head_norms), add(mlp); break;
    case Family::qwen3_moe: add(norms), add(attention), add(head_norms), add(qwen_experts); break;
    case Family::gemma: add(norms_gemma), add(attention), add(mlp); break;
    case Family::gemma2: add(norms_gemma2), add(attention), add(mlp); break;
    case Family::gemma3: add(norms_gemma2), add(attention), add(head_norms_plus_one), add(mlp); break;
    case Family::phi3: add(norms), add(attention_fused), add(mlp_fused); break;
    case Family::olmo2: add(norms_olmo2), add(attention), add(whole_norms), add(mlp); break;
    case Family::bert: add(bert_layer); break;
    }
    return out;
}

static bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool is_skipped(const Hyper &hyper, std::string_view name) {
    // Computed by transformers from config.json, as llama.cpp does.
    if (ends_with(name, "rotary_emb.inv_freq")) return true;
    if (hyper.arch->family == Family::bert)
        return name == "embeddings.position_ids" || name == "pooler.dense.weight" || name == "pooler.dense.bias";
    return name == "lm_head.weight" && hyper.tied;
}

} // namespace bridge
