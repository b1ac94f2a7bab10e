// SPDX-License-Identifier: Apache-2.0
// gguf-to-folder FILE.gguf FOLDER [f32|bf16]: a Llama model with byte-level BPE out of a GGUF file,
// as the folder that it may once have been. For demo, tests and benchmarks: GGUF files are to be
// had in packages where folders are not.
#include <ggml.h>
#include <gguf.h>
#include <nlohmann/json.hpp>
#include <safetensors.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

using Json = nlohmann::json;

struct FreeGguf {
    void operator()(gguf_context *context) const { gguf_free(context); }
};
struct FreeGgml {
    void operator()(ggml_context *context) const { ggml_free(context); }
};

class Source {
  public:
    explicit Source(const char *path) {
        gguf_init_params params{};
        ggml_context *made = nullptr;
        params.ctx = &made;
        gguf.reset(gguf_init_from_file(path, params));
        tensors.reset(made);
        if (!gguf) throw std::runtime_error(std::string(path) + " is no GGUF file");
    }

    int64_t key(const std::string &name) const { return gguf_find_key(gguf.get(), name.c_str()); }
    bool has(const std::string &name) const { return key(name) >= 0; }
    int64_t need(const std::string &name) const {
        int64_t found = key(name);
        if (found < 0) throw std::runtime_error("the GGUF file has no " + name);
        return found;
    }
    uint32_t u32(const std::string &name) const { return gguf_get_val_u32(gguf.get(), need(name)); }
    float f32(const std::string &name) const { return gguf_get_val_f32(gguf.get(), need(name)); }
    std::string text(const std::string &name) const { return gguf_get_val_str(gguf.get(), need(name)); }
    std::vector<std::string> texts(const std::string &name) const {
        int64_t found = need(name);
        std::vector<std::string> out;
        for (size_t i = 0; i < gguf_get_arr_n(gguf.get(), found); i++) out.emplace_back(gguf_get_arr_str(gguf.get(), found, i));
        return out;
    }
    const int32_t *types() const { return static_cast<const int32_t *>(gguf_get_arr_data(gguf.get(), need("tokenizer.ggml.token_type"))); }
    const gguf_context *table() const { return gguf.get(); }
    ggml_context *all() const { return tensors.get(); }

  private:
    std::unique_ptr<gguf_context, FreeGguf> gguf;
    std::unique_ptr<ggml_context, FreeGgml> tensors;
};

static std::string hub_name(const std::string &name) {
    static const std::map<std::string, std::string> outside = {
        {"token_embd.weight", "model.embed_tokens.weight"}, {"output_norm.weight", "model.norm.weight"}, {"output.weight", "lm_head.weight"}};
    static const std::map<std::string, std::string> inside = {
        {"attn_q", "self_attn.q_proj"}, {"attn_k", "self_attn.k_proj"}, {"attn_v", "self_attn.v_proj"}, {"attn_output", "self_attn.o_proj"},
        {"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"}, {"ffn_gate", "mlp.gate_proj"}, {"ffn_up", "mlp.up_proj"}, {"ffn_down", "mlp.down_proj"}};
    auto found = outside.find(name);
    if (found != outside.end()) return found->second;
    size_t layer = name.find('.'), kind = name.find('.', layer + 1), end = name.rfind('.');
    if (name.compare(0, 4, "blk.") == 0 && kind != std::string::npos && end > kind) {
        auto part = inside.find(name.substr(kind + 1, end - kind - 1));
        if (part != inside.end()) return "model.layers." + name.substr(layer + 1, kind - layer - 1) + "." + part->second + name.substr(end);
    }
    throw std::runtime_error("tensor " + name + " has no place in a Llama model");
}

// Rows of q and k back from llama.cpp's order: [d/2][2] to [2][d/2] in each head.
static void permute_back(std::vector<float> &values, int64_t rows, int64_t columns, int64_t heads) {
    std::vector<float> out(values.size());
    const int64_t size = rows / heads, half = size / 2;
    for (int64_t row = 0; row < rows; row++) {
        int64_t within = row % size, from = row - within + within % half * 2 + within / half;
        std::copy_n(values.begin() + from * columns, columns, out.begin() + row * columns);
    }
    values.swap(out);
}

static void write_text(const std::filesystem::path &path, const std::string &text) {
    std::ofstream file(path, std::ios::binary);
    file << text;
    if (!file.flush()) throw std::runtime_error(path.string() + " can't be written");
}

static void write_tensors(const Source &source, const std::string &arch, const std::filesystem::path &folder, st_dtype dtype) {
    struct Kept {
        std::string name;
        std::vector<int64_t> shape;
        std::vector<uint8_t> bytes;
    };
    std::vector<Kept> kept;
    st_error error;
    for (ggml_tensor *tensor = ggml_get_first_tensor(source.all()); tensor; tensor = ggml_get_next_tensor(source.all(), tensor)) {
        // All data as one tensor is in the list too.
        if (gguf_find_tensor(source.table(), ggml_get_name(tensor)) < 0) continue;
        Kept each;
        each.name = hub_name(ggml_get_name(tensor));
        const int64_t columns = tensor->ne[0], rows = ggml_nrows(tensor);
        if (ggml_n_dims(tensor) > 1) each.shape.push_back(rows);
        each.shape.push_back(columns);
        std::vector<float> values(size_t(ggml_nelements(tensor)));
        auto to_float = ggml_get_type_traits(tensor->type)->to_float;
        if (tensor->type == GGML_TYPE_F32) std::memcpy(values.data(), tensor->data, values.size() * sizeof(float));
        else to_float(tensor->data, values.data(), ggml_nelements(tensor));
        bool queries = each.name.find(".q_proj.") != std::string::npos, keys = each.name.find(".k_proj.") != std::string::npos;
        if (queries || keys) permute_back(values, rows, columns, source.u32(arch + (queries ? ".attention.head_count" : ".attention.head_count_kv")));
        each.bytes.resize(values.size() * st_dtype_bits(dtype) / 8);
        if (st_convert(ST_DTYPE_F32, values.data(), dtype, each.bytes.data(), values.size(), &error) != ST_OK) throw std::runtime_error(error.message);
        kept.push_back(std::move(each));
    }
    std::vector<st_tensor> records;
    for (const Kept &each : kept) {
        st_tensor record{};
        record.name = each.name.c_str();
        record.name_len = each.name.size();
        record.dtype = dtype;
        record.rank = each.shape.size();
        record.shape = each.shape.data();
        record.data = each.bytes.data();
        record.size = each.bytes.size();
        records.push_back(record);
    }
    st_metadata format{};
    format.key = "format";
    format.value = "pt";
    if (st_save((folder / "model.safetensors").c_str(), records.data(), records.size(), &format, 1, nullptr, &error) != ST_OK) throw std::runtime_error(error.message);
}

static void write_config(const Source &source, const std::string &arch, const std::filesystem::path &folder, size_t vocab, const char *dtype, bool tied) {
    Json config;
    config["architectures"] = {"LlamaForCausalLM"};
    config["model_type"] = "llama";
    config["hidden_size"] = source.u32(arch + ".embedding_length");
    config["intermediate_size"] = source.u32(arch + ".feed_forward_length");
    config["num_hidden_layers"] = source.u32(arch + ".block_count");
    config["num_attention_heads"] = source.u32(arch + ".attention.head_count");
    config["num_key_value_heads"] = source.u32(arch + ".attention.head_count_kv");
    config["max_position_embeddings"] = source.u32(arch + ".context_length");
    // The shortest decimal that is this F32.
    char number[32];
    std::snprintf(number, sizeof number, "%.6g", double(source.f32(arch + ".attention.layer_norm_rms_epsilon")));
    config["rms_norm_eps"] = Json::parse(number);
    config["rope_theta"] = source.f32(arch + ".rope.freq_base");
    config["vocab_size"] = vocab;
    config["hidden_act"] = "silu";
    config["tie_word_embeddings"] = tied;
    config["torch_dtype"] = dtype;
    for (const char *role : {"bos", "eos"}) config[std::string(role) + "_token_id"] = source.u32(std::string("tokenizer.ggml.") + role + "_token_id");
    write_text(folder / "config.json", config.dump(2) + "\n");
}

static void write_tokenizer(const Source &source, const std::filesystem::path &folder, const std::vector<std::string> &tokens) {
    Json vocab = Json::object(), added = Json::array();
    for (size_t id = 0; id < tokens.size(); id++) {
        vocab[tokens[id]] = id;
        if (source.types()[id] == 3)
            added.push_back({{"id", id}, {"content", tokens[id]}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", true}});
    }
    const Json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    Json pre = level;
    std::string split = source.text("tokenizer.ggml.pre");
    if (split == "smollm") pre = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, level}}};
    else if (split != "gpt-2") throw std::runtime_error("the GGUF file cuts words by " + split + " (known: smollm, gpt-2)");
    Json json;
    json["version"] = "1.0";
    json["truncation"] = json["padding"] = json["normalizer"] = json["post_processor"] = nullptr;
    json["added_tokens"] = added;
    json["pre_tokenizer"] = pre;
    json["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    json["model"] = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr}, {"end_of_word_suffix", nullptr},
                     {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", false}, {"vocab", vocab}, {"merges", source.texts("tokenizer.ggml.merges")}};
    write_text(folder / "tokenizer.json", json.dump(1) + "\n");

    Json config;
    config["tokenizer_class"] = "GPT2Tokenizer";
    config["add_prefix_space"] = false;
    for (const auto &[role, key] : {std::pair{"bos", "bos"}, {"eos", "eos"}, {"unk", "unknown"}, {"pad", "padding"}}) {
        std::string name = std::string("tokenizer.ggml.") + key + "_token_id";
        if (source.has(name)) config[std::string(role) + "_token"] = tokens.at(source.u32(name));
    }
    if (source.has("tokenizer.chat_template")) config["chat_template"] = source.text("tokenizer.chat_template");
    write_text(folder / "tokenizer_config.json", config.dump(2) + "\n");
}

int main(int count, char **values) {
    try {
        if (count < 3) throw std::runtime_error("usage: gguf-to-folder FILE.gguf FOLDER [f32|bf16]");
        const bool wide = count > 3 && std::string(values[3]) == "f32";
        Source source(values[1]);
        const std::string arch = source.text("general.architecture");
        if (arch != "llama" || source.text("tokenizer.ggml.model") != "gpt2") throw std::runtime_error("the GGUF file is no Llama model with byte-level BPE");
        const std::filesystem::path folder = values[2];
        std::filesystem::create_directories(folder);
        std::vector<std::string> tokens = source.texts("tokenizer.ggml.tokens");
        write_tensors(source, arch, folder, wide ? ST_DTYPE_F32 : ST_DTYPE_BF16);
        write_config(source, arch, folder, tokens.size(), wide ? "float32" : "bfloat16", !ggml_get_tensor(source.all(), "output.weight"));
        write_tokenizer(source, folder, tokens);
    } catch (const std::exception &trouble) {
        std::fprintf(stderr, "gguf-to-folder: %s\n", trouble.what());
        return 1;
    }
    return 0;
}
