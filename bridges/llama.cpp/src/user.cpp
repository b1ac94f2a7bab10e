// SPDX-License-Identifier: Apache-2.0
#include "user.h"

#include <ggml-backend.h>
#include <gguf.h>

#include <cstring>
#include <map>
#include <memory>

namespace bridge {

namespace {

struct FreeContext {
    void operator()(gguf_context *context) const { gguf_free(context); }
};

// Answers llama.cpp's calls for data. They return nothing: a failure is kept, and what follows is zeros.
class Supplier {
  public:
    explicit Supplier(Gguf &gguf) : gguf(gguf) {
        for (size_t i = 0; i < gguf.outputs().size(); i++) places[gguf.outputs()[i].name] = i;
    }

    void supply(ggml_tensor *tensor) {
        std::string name = ggml_get_name(tensor);
        auto found = places.find(name);
        if (found != places.end()) return set(tensor, found->second, 0);
        // A fused matrix is asked for in its parts.
        if (supply_part(tensor, name)) return;
        // A head that shares the embedding is asked for by itself.
        found = places.find("token_embd.weight");
        if (name == "output.weight" && found != places.end()) return set(tensor, found->second, 0);
        fill(tensor, neutral(name));
    }

  private:
    // Tensors that llama.cpp always makes here and the model does not have: what leaves a result as it is.
    static float neutral(const std::string &name) {
        for (const char *part : {".scale", ".input_scale", "rope_freqs", "rope_factors_long", "rope_factors_short"})
            if (name.find(part) != std::string::npos) return 1;
        return 0;
    }

    void set(ggml_tensor *tensor, size_t output, uint64_t offset) {
        if (gguf.stream_error) return;
        st_error error;
        st_status status = guard_status(&error, [&] {
            if (tensor->type != gguf.outputs()[output].type || offset + ggml_nbytes(tensor) > gguf.outputs()[output].size())
                fail(ST_ERROR_UNSUPPORTED, "llama.cpp asks for " + in_quotes(ggml_get_name(tensor)) + " in another type or size");
            if (tensor->buffer && ggml_backend_buffer_is_host(tensor->buffer))
                return gguf.read_tensor(output, offset, static_cast<uint8_t *>(tensor->data), ggml_nbytes(tensor));
            std::vector<uint8_t> bytes(size_t(1) << 20);
            for (size_t done = 0, size = ggml_nbytes(tensor); done < size;) {
                size_t count = std::min(bytes.size(), size - done);
                gguf.read_tensor(output, offset + done, bytes.data(), count);
                ggml_backend_tensor_set(tensor, bytes.data(), done, count);
                done += count;
            }
        });
        if (status != ST_OK) gguf.stream_error = error;
    }

    bool supply_part(ggml_tensor *tensor, const std::string &name) {
        const Hyper &hyper = gguf.hyper();
        const int64_t queries = hyper.heads * hyper.head_dim, keys = hyper.kv_heads * hyper.head_dim;
        const std::pair<const char *, int64_t> parts[] = {{"attn_q.weight", 0}, {"attn_k.weight", queries}, {"attn_v.weight", queries + keys}};
        for (const auto &[part, row] : parts) {
            size_t at = name.find(part);
            if (at == std::string::npos) continue;
            auto fused = places.find(name.substr(0, at) + "attn_qkv.weight");
            if (fused == places.end()) return false;
            set(tensor, fused->second, uint64_t(row) * gguf.outputs()[fused->second].row_size);
            return true;
        }
        return false;
    }

    void fill(ggml_tensor *tensor, float value) {
        std::vector<uint8_t> bytes(ggml_nbytes(tensor));
        if (value != 0 && tensor->type == GGML_TYPE_F32)
            for (size_t i = 0; i + sizeof value <= bytes.size(); i += sizeof value) std::memcpy(bytes.data() + i, &value, sizeof value);
        ggml_backend_tensor_set(tensor, bytes.data(), 0, bytes.size());
    }

    Gguf &gguf;
    std::map<std::string, size_t> places;
};

} // namespace

// llama.cpp takes a tensor's type from the table: the parts of a fused matrix have to be in it.
static std::vector<Output> with_parts(const Gguf &gguf) {
    std::vector<Output> outputs = gguf.outputs();
    const Hyper &hyper = gguf.hyper();
    const size_t count = outputs.size();
    for (size_t i = 0; i < count; i++) {
        size_t at = outputs[i].name.find("attn_qkv.weight");
        if (at == std::string::npos) continue;
        const std::pair<const char *, int64_t> parts[] = {{"attn_q.weight", hyper.heads}, {"attn_k.weight", hyper.kv_heads}, {"attn_v.weight", hyper.kv_heads}};
        for (const auto &[part, heads] : parts) {
            Output output = outputs[i];
            output.name = output.name.substr(0, at) + part;
            output.rows = heads * hyper.head_dim;
            outputs.push_back(std::move(output));
        }
    }
    bool has_head = std::any_of(outputs.begin(), outputs.end(), [](const Output &each) { return each.name == "output.weight"; });
    for (size_t i = 0; i < count && !has_head; i++)
        if (outputs[i].name == "token_embd.weight") {
            Output head = outputs[i];
            head.name = "output.weight";
            outputs.push_back(std::move(head));
            has_head = true;
        }
    return outputs;
}

llama_model *load_by_user(Gguf &gguf, llama_model_params params) {
    std::vector<Output> outputs = with_parts(gguf);
    Layout layout(gguf.metadata(), outputs, file_alignment);
    std::vector<uint8_t> front(layout.front_size());
    layout.read_front(0, front.data(), front.size());
    gguf_init_params init{};
    init.no_alloc = true;
    std::unique_ptr<gguf_context, FreeContext> context(gguf_init_from_buffer(front.data(), front.size(), init));
    front = {};
    if (!context) return nullptr;
    Supplier supplier(gguf);
    return llama_model_init_from_user(
        context.get(), [](ggml_tensor *tensor, void *user_data) { static_cast<Supplier *>(user_data)->supply(tensor); }, &supplier, params);
}

} // namespace bridge
