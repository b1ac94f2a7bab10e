// SPDX-License-Identifier: Apache-2.0
#include "keys.h"

#include <ggml.h>

namespace bridge {

static void write_sizes(const Hyper &hyper, Metadata &out) {
    out.u32(".block_count", hyper.layers);
    out.u32(".context_length", hyper.context);
    out.u32(".embedding_length", hyper.hidden);
    out.u32(".feed_forward_length", hyper.inner);
    out.u32(".attention.head_count", hyper.heads);
    if (hyper.arch->family != Family::bert) out.u32(".attention.head_count_kv", hyper.kv_heads);
}

static void write_rope(const Hyper &hyper, Metadata &out) {
    const Rope &rope = hyper.rope;
    if (rope.kind == RopeKind::linear || rope.kind == RopeKind::yarn) {
        out.string(".rope.scaling.type", rope.kind == RopeKind::linear ? "linear" : "yarn");
        out.f32(".rope.scaling.factor", rope.factor);
    }
    if (rope.kind == RopeKind::yarn) {
        out.u32(".rope.scaling.original_context_length", rope.original_context);
        if (rope.beta_fast > 0) out.f32(".rope.scaling.yarn_beta_fast", rope.beta_fast);
        if (rope.beta_slow > 0) out.f32(".rope.scaling.yarn_beta_slow", rope.beta_slow);
    }
    out.f32(".rope.freq_base", rope.base);
    if (rope.sliding_base > 0) out.f32(".rope.freq_base_swa", rope.sliding_base);
}

static void write_general(const Hyper &hyper, const FileKind &kind, Metadata &out) {
    write_sizes(hyper, out);
    if (hyper.arch->family != Family::bert) write_rope(hyper, out);
    out.f32(hyper.arch->family == Family::bert ? ".attention.layer_norm_epsilon" : ".attention.layer_norm_rms_epsilon", hyper.norm_epsilon);
    if (hyper.experts > 0) {
        out.u32(".expert_count", hyper.experts);
        out.u32(".expert_used_count", hyper.experts_used);
    }
    const Family family = hyper.arch->family;
    if (hyper.head_dim_given || family == Family::llama || family == Family::qwen3 || family == Family::gemma3) {
        out.u32(".attention.key_length", hyper.head_dim);
        out.u32(".attention.value_length", hyper.head_dim);
    }
    if (kind.file_type >= 0) out.u32("general.file_type", uint64_t(kind.file_type));
}

// Gemma and Gemma 2.
static void write_gemma(const Hyper &hyper, const FileKind &kind, Metadata &out) {
    out.u32(".context_length", hyper.context);
    out.u32(".embedding_length", hyper.hidden);
    out.u32(".block_count", hyper.layers);
    out.u32(".feed_forward_length", hyper.inner);
    out.u32(".attention.head_count", hyper.heads);
    out.u32(".attention.head_count_kv", hyper.kv_heads);
    out.f32(".attention.layer_norm_rms_epsilon", hyper.norm_epsilon);
    out.u32(".attention.key_length", hyper.head_dim);
    out.u32(".attention.value_length", hyper.head_dim);
    if (kind.file_type >= 0) out.u32("general.file_type", uint64_t(kind.file_type));
    if (hyper.rope.base != 10000) out.f32(".rope.freq_base", hyper.rope.base);
}

static void write_phi3(const Hyper &hyper, const FileKind &kind, Metadata &out) {
    out.u32(".context_length", hyper.context);
    out.u32(".rope.scaling.original_context_length", hyper.rope.original_context);
    out.u32(".embedding_length", hyper.hidden);
    out.u32(".feed_forward_length", hyper.inner);
    out.u32(".block_count", hyper.layers);
    out.u32(".attention.head_count", hyper.heads);
    out.u32(".attention.head_count_kv", hyper.kv_heads);
    out.f32(".attention.layer_norm_rms_epsilon", hyper.norm_epsilon);
    out.u32(".rope.dimension_count", rotary_columns(hyper));
    out.f32(".rope.freq_base", hyper.rope.base);
    if (kind.file_type >= 0) out.u32("general.file_type", uint64_t(kind.file_type));
    out.u32(".attention.sliding_window", hyper.sliding_window);
}

void write_keys(const Hyper &hyper, const FileKind &kind, Metadata &out) {
    switch (hyper.arch->family) {
    case Family::llama:
    case Family::mixtral:
        write_general(hyper, kind, out);
        out.u32(".vocab_size", hyper.vocab);
        out.u32(".rope.dimension_count", hyper.head_dim);
        break;
    case Family::qwen2:
    case Family::qwen3:
    case Family::olmo2:
        write_general(hyper, kind, out);
        break;
    case Family::qwen3_moe:
        write_general(hyper, kind, out);
        out.u32(".expert_feed_forward_length", hyper.expert_inner);
        break;
    case Family::gemma:
        write_gemma(hyper, kind, out);
        break;
    case Family::gemma2:
        write_gemma(hyper, kind, out);
        out.f32(".attn_logit_softcapping", hyper.attention_cap);
        out.f32(".final_logit_softcapping", hyper.final_cap);
        out.u32(".attention.sliding_window", hyper.sliding_window);
        break;
    case Family::gemma3:
        write_general(hyper, kind, out);
        if (hyper.final_cap > 0) out.f32(".final_logit_softcapping", hyper.final_cap);
        out.u32(".attention.sliding_window", hyper.sliding_window);
        break;
    case Family::phi3:
        write_phi3(hyper, kind, out);
        break;
    case Family::bert:
        write_general(hyper, kind, out);
        out.flag(".attention.causal", false);
        if (kind.pooling > 0) out.u32(".pooling_type", kind.pooling);
        break;
    }
    out.u32("general.quantization_version", GGML_QNT_VERSION);
}

} // namespace bridge
