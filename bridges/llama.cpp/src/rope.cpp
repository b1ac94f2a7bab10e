// SPDX-License-Identifier: Apache-2.0
// Rotary positions. transformers 5 writes everything into rope_parameters; files on the hub have
// rope_theta at the root and the rest in rope_scaling, whose kind is "rope_type" or "type".
#include "architecture.h"

#include <cmath>

namespace bridge {

static constexpr double most_base = 3e38; // within F32

static RopeKind read_kind(const Config &scaling, RopeSupport support) {
    const char *key = scaling.has("rope_type") ? "rope_type" : "type";
    std::string kind = scaling.text(key, "default");
    std::string allowed = "default";
    if (kind == "default") return RopeKind::plain;
    if (support >= RopeSupport::linear) {
        if (kind == "linear") return RopeKind::linear;
        allowed += ", linear";
    }
    if (support >= RopeSupport::linear_yarn) {
        if (kind == "yarn") return RopeKind::yarn;
        allowed += ", yarn";
    }
    if (support >= RopeSupport::all) {
        if (kind == "llama3") return RopeKind::llama3;
        allowed += ", llama3";
    }
    scaling.refuse(key, allowed);
}

static void read_yarn(const Config &scaling, const Hyper &hyper, Rope &rope) {
    for (const char *key : {"mscale", "mscale_all_dim", "attention_factor", "attn_factor", "extrapolation_factor"})
        if (scaling.has(key)) scaling.refuse(key, "null");
    if (!scaling.flag("truncate", true)) scaling.refuse("truncate", "true");
    rope.original_context = scaling.count("original_max_position_embeddings", hyper.context);
    if (scaling.has("beta_fast")) rope.beta_fast = scaling.number("beta_fast", 1e-6, 1e6);
    if (scaling.has("beta_slow")) rope.beta_slow = scaling.number("beta_slow", 1e-6, 1e6);
}

static void read_llama3(const Config &scaling, Rope &rope) {
    rope.low_factor = scaling.number("low_freq_factor", 1e-6, 1e6);
    rope.high_factor = scaling.number("high_freq_factor", 1e-6, 1e6);
    rope.original_context = scaling.count("original_max_position_embeddings");
    if (rope.high_factor <= rope.low_factor) scaling.refuse("high_freq_factor", "more than low_freq_factor");
}

static void read_scaling(const Config &scaling, const Hyper &hyper, Rope &rope) {
    if (scaling.has("rope_theta")) rope.base = scaling.number("rope_theta", 1, most_base);
    if (scaling.has("partial_rotary_factor")) rope.rotary_share = scaling.number("partial_rotary_factor", 1e-3, 1);
    rope.kind = read_kind(scaling, hyper.arch->rope);
    if (rope.kind == RopeKind::plain) return;
    rope.factor = scaling.number("factor", 1e-6, 1e6);
    if (rope.kind == RopeKind::yarn) read_yarn(scaling, hyper, rope);
    if (rope.kind == RopeKind::llama3) read_llama3(scaling, rope);
}

int64_t rotary_columns(const Hyper &hyper) {
    return int64_t(hyper.rope.rotary_share * double(hyper.hidden)) / hyper.heads;
}

Rope read_rope(const Config &config, const Hyper &hyper) {
    Rope rope;
    if (hyper.arch->rope == RopeSupport::none) return rope;
    const Family family = hyper.arch->family;
    rope.base = family == Family::mixtral || family == Family::gemma3 ? 1e6 : 10000; // transformers' defaults
    if (config.has("rope_theta")) rope.base = config.number("rope_theta", 1, most_base);
    if (config.has("rope_local_base_freq")) rope.sliding_base = config.number("rope_local_base_freq", 1, most_base);
    if (config.has("partial_rotary_factor")) rope.rotary_share = config.number("partial_rotary_factor", 1e-3, 1);

    const char *key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    if (config.has(key)) {
        Config scaling = config.object(key);
        bool nested = scaling.has("full_attention") || scaling.has("sliding_attention");
        if (nested && family != Family::gemma3) scaling.refuse(scaling.has("full_attention") ? "full_attention" : "sliding_attention", "none");
        if (!nested) read_scaling(scaling, hyper, rope);
        if (scaling.has("full_attention")) read_scaling(scaling.object("full_attention"), hyper, rope);
        if (scaling.has("sliding_attention")) {
            Config sliding = scaling.object("sliding_attention");
            read_kind(sliding, RopeSupport::plain);
            if (sliding.has("rope_theta")) rope.sliding_base = sliding.number("rope_theta", 1, most_base);
        }
    }
    if (rope.rotary_share != 1 && family != Family::phi3)
        fail(ST_ERROR_UNSUPPORTED, "config.json: partial_rotary_factor is not 1, which llama.cpp does not compute for " + std::string(hyper.arch->hub_class));
    if (family == Family::phi3) {
        rope.original_context = config.count("original_max_position_embeddings", hyper.context);
        Hyper with = hyper;
        with.rope = rope;
        int64_t columns = rotary_columns(with);
        if (columns < 2 || columns % 2 != 0)
            fail(ST_ERROR_UNSUPPORTED, "config.json: partial_rotary_factor leaves " + std::to_string(columns) + " columns of a head, not an even number");
    }
    return rope;
}

std::vector<float> llama3_factors(const Hyper &hyper) {
    const Rope &rope = hyper.rope;
    const double pi = 3.14159265358979323846;
    double low_wavelength = double(rope.original_context) / rope.low_factor;
    double high_wavelength = double(rope.original_context) / rope.high_factor;
    std::vector<float> factors;
    for (int64_t i = 0; i < hyper.head_dim; i += 2) {
        // F32, as transformers and llama.cpp's converter compute it.
        float frequency = 1.0f / std::pow(float(rope.base), float(i) / float(hyper.head_dim));
        float wavelength = float(2 * pi) / frequency;
        if (wavelength < high_wavelength) {
            factors.push_back(1);
        } else if (wavelength > low_wavelength) {
            factors.push_back(float(rope.factor));
        } else {
            float smooth = float((float(rope.original_context) / wavelength - rope.low_factor) / (rope.high_factor - rope.low_factor));
            factors.push_back(1.0f / ((1.0f - smooth) / float(rope.factor) + smooth));
        }
    }
    return factors;
}

} // namespace bridge
