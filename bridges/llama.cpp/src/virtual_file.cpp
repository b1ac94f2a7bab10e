// SPDX-License-Identifier: Apache-2.0
#include "virtual_file.h"

#include "description.h"
#include "keys.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <map>

namespace bridge {

// It fits a core's cache: what is read is copied twice more, by stdio and by llama.cpp. Larger ones were no faster.
static constexpr uint64_t default_window = uint64_t(512) << 10;

// Vectors and the like are kept: they are asked for one by one, between matrices, and a read of
// a few KiB each would cost more than they do. As many as fit here.
static constexpr uint64_t small_tensor = uint64_t(64) << 10;
static constexpr uint64_t small_total = uint64_t(8) << 20;

st_gguf_options read_options(const st_gguf_options *options) {
    st_gguf_options out = ST_GGUF_OPTIONS_INIT;
    if (options) {
        size_t size = options->struct_size;
        if (size < sizeof(size_t) || size > 65536) fail(ST_ERROR_INVALID_ARGUMENT, "st_gguf_options.struct_size is not set: use ST_GGUF_OPTIONS_INIT");
        auto bytes = reinterpret_cast<const unsigned char *>(options);
        for (size_t i = sizeof out; i < size; i++)
            if (bytes[i] != 0) fail(ST_ERROR_UNSUPPORTED, "st_gguf_options has a field that this version does not know");
        std::memcpy(&out, options, std::min(size, sizeof out));
        out.struct_size = sizeof out;
    }
    if (out.tokenizer > ST_GGUF_TOKENIZER_NONE)
        fail(ST_ERROR_INVALID_ARGUMENT, "st_gguf_options.tokenizer is " + std::to_string(out.tokenizer) + ", not ST_GGUF_TOKENIZER_AUTO, _REQUIRED or _NONE");
    if (out.window_bytes != 0 && out.window_bytes < 65536)
        fail(ST_ERROR_INVALID_ARGUMENT, "st_gguf_options.window_bytes is " + std::to_string(out.window_bytes) + ", below 65536");
    return out;
}

static Json parse_config(const std::string &text) {
    Json root = parse_small_json(text, "config.json");
    if (!root.is_object()) fail(ST_ERROR_CONFIG, "config.json is not an object");
    return root;
}

static bool is_plain(st_dtype dtype) { return dtype == ST_DTYPE_F32 || dtype == ST_DTYPE_F16 || dtype == ST_DTYPE_BF16 || dtype == ST_DTYPE_F64 || dtype == ST_DTYPE_I64; }

// Quantised groups, where config.json or a tensor's dtype speaks of such.
static Groups find_groups(const st_checkpoint *checkpoint, const Json &root, const std::string &text) {
    size_t count;
    const st_tensor *tensors = st_tensors(checkpoint, &count);
    const Config config(root);
    const bool announced = config.has("quantization_config") || config.has("compression_config");
    if (!announced && std::all_of(tensors, tensors + count, [](const st_tensor &each) { return is_plain(each.dtype); })) return nullptr;
    st_groups_options options = ST_GROUPS_OPTIONS_INIT;
    options.config = {text.data(), text.size()};
    st_error error;
    Groups groups(st_groups_open(checkpoint, &options, &error));
    if (!groups) pass_on(error);
    st_groups_list(groups.get(), &count);
    if (announced && count == 0)
        fail(ST_ERROR_UNSUPPORTED, "config.json has a quantization_config, and no tensors are quantised in a way that is known");
    return groups;
}

// What groups decode to where "stored" is asked for: the dtype of the model that was quantised.
static st_dtype decoded_dtype(const Json &root) {
    const Config config(root);
    std::string name = config.has("dtype") ? config.text("dtype", "") : config.text("torch_dtype", "");
    return name == "float16" ? ST_DTYPE_F16 : name == "bfloat16" ? ST_DTYPE_BF16 : ST_DTYPE_F32;
}

static std::vector<Output> plan(const st_checkpoint *checkpoint, const st_groups *groups, const Json &root, const Hyper &hyper, const st_gguf_options &options) {
    Choice all = parse_type(options.type);
    return plan_outputs(checkpoint, groups, decoded_dtype(root), hyper, [&](const std::string &name) {
        const char *one = options.type_for ? options.type_for(options.user_data, name.c_str()) : nullptr;
        return one ? parse_type(one) : all;
    });
}

Gguf::Gguf(Checkpoint opened, const ModelFiles &files, const st_gguf_options &options) : Gguf(std::move(opened), files, parse_config(files.config), options) {}

Gguf::Gguf(Checkpoint opened, const ModelFiles &files, const Json &config, const st_gguf_options &options)
    : checkpoint(std::move(opened)), settings(options), sizes(read_hyper(Config(config))), groups(find_groups(checkpoint.get(), config, files.config)),
      tensors(plan(checkpoint.get(), groups.get(), config, sizes, settings)), keys(sizes.arch->name),
      stream((write_metadata(files, config), keys), tensors, stream_alignment), reader(checkpoint.get(), settings.threads) {
    // Borrowed for the call of opening only.
    settings.type = nullptr;
}

// general.file_type is what was asked for, or that of most matrices.
static int64_t file_type(const char *asked, const std::vector<Output> &outputs) {
    if (Choice choice = parse_type(asked)) return file_type_of(*choice);
    std::map<ggml_type, size_t> counts;
    for (const Output &output : outputs)
        if (output.dimensions > 1) counts[output.type]++;
    auto most = std::max_element(counts.begin(), counts.end(), [](auto &a, auto &b) { return a.second < b.second; });
    return most == counts.end() ? 0 : file_type_of(most->first);
}

// Some are not JSON, and llama.cpp's converter goes on then.
static Json parse_generation(const std::string &text) { return Json::parse(text, nullptr, false); }

void Gguf::write_metadata(const ModelFiles &files, const Json &config) {
    keys.string("general.architecture", sizes.arch->name);
    keys.string("general.type", "model");
    write_description(files.name, Config(config), parse_generation(files.generation), tensors, keys);
    write_keys(sizes, {file_type(settings.type, tensors), files.pooling}, keys);
    if (settings.tokenizer == ST_GGUF_TOKENIZER_NONE) {
        problem = "ids only: by the caller's choice";
    } else {
        try {
            write_tokenizer(files.tokenizer, Config(config), sizes, keys);
            return;
        } catch (const TokenizerProblem &found) {
            problem = "ids only: " + found.text;
            if (settings.tokenizer == ST_GGUF_TOKENIZER_REQUIRED) fail(ST_ERROR_UNSUPPORTED, problem);
        }
    }
    write_ids_only(sizes, keys);
}

uint64_t Gguf::tensor_bytes() const {
    uint64_t bytes = 0;
    for (const Output &output : tensors) bytes += output.size();
    return bytes;
}

void Gguf::read(uint64_t offset, uint8_t *dst, size_t size) {
    if (offset < stream.front_size()) {
        size_t count = std::min<uint64_t>(size, stream.front_size() - offset);
        stream.read_front(offset, dst, count);
        dst += count;
        size -= count;
        offset += count;
    }
    while (size > 0) {
        size_t output = stream.output_at(offset);
        uint64_t within = offset - stream.offset(output);
        uint64_t room = tensors[output].size();
        size_t count;
        if (within < room) {
            count = std::min<uint64_t>(size, room - within);
            read_tensor(output, within, dst, count);
        } else {
            uint64_t end = output + 1 < tensors.size() ? stream.offset(output + 1) : stream.size();
            count = std::min<uint64_t>(size, end - offset);
            std::memset(dst, 0, count);
        }
        dst += count;
        size -= count;
        offset += count;
    }
}

void Gguf::read_small() {
    small_offsets.assign(tensors.size(), UINT64_MAX);
    uint64_t total = 0;
    for (size_t i = 0; i < tensors.size(); i++) {
        if (tensors[i].size() > small_tensor || total + tensors[i].size() > small_total) continue;
        small_offsets[i] = total;
        total += (tensors[i].size() + 63) / 64 * 64;
    }
    small.resize(total);
    std::vector<Rows> rows;
    for (size_t i = 0; i < tensors.size(); i++)
        if (small_offsets[i] != UINT64_MAX) rows.push_back({&tensors[i], 0, tensors[i].all_rows(), small.data() + small_offsets[i]});
    try {
        reader.read(rows);
    } catch (...) {
        small_offsets.clear();
        throw;
    }
}

Rows Gguf::rows_at(size_t output, uint64_t offset, uint64_t most) const {
    const Output &tensor = tensors[output];
    const int64_t unit = row_unit(tensor);
    const int64_t units = std::max<int64_t>(1, int64_t(most / (tensor.row_size * uint64_t(unit))));
    const int64_t row = int64_t(offset / tensor.row_size);
    // Units other than rows stay within one matrix of a stack.
    const int64_t matrix = unit > 1 ? row / tensor.rows * tensor.rows : 0;
    const int64_t end = unit > 1 ? matrix + tensor.rows : tensor.all_rows();
    const int64_t first = matrix + (row - matrix) / unit * unit;
    return {&tensor, first, std::min(units * unit, end - first), nullptr};
}

size_t Gguf::read_part(size_t output, uint64_t offset, uint8_t *dst, size_t size) {
    const uint64_t row_size = tensors[output].row_size;
    if (window.output != output || offset < window.begin || offset >= window.end) {
        const uint64_t most = settings.window_bytes ? settings.window_bytes : default_window;
        Rows rows = rows_at(output, offset, std::max<uint64_t>(size, most));
        const uint64_t bytes = uint64_t(rows.count) * row_size;
        // Straight to where they are wanted, if all that a window would hold is wanted.
        if (uint64_t(rows.first) * row_size == offset && bytes <= size) {
            rows.dst = dst;
            reader.read({rows});
            return size_t(bytes);
        }
        rows = rows_at(output, offset, most);
        window.output = SIZE_MAX;
        window.bytes.resize(size_t(rows.count) * row_size);
        rows.dst = window.bytes.data();
        reader.read({rows});
        window.output = output;
        window.begin = uint64_t(rows.first) * row_size;
        window.end = window.begin + window.bytes.size();
    }
    size_t count = std::min<uint64_t>(size, window.end - offset);
    std::memcpy(dst, window.bytes.data() + (offset - window.begin), count);
    return count;
}

void Gguf::read_tensor(size_t output, uint64_t offset, uint8_t *dst, size_t size) {
    if (small_offsets.empty()) read_small();
    if (small_offsets[output] != UINT64_MAX) {
        std::memcpy(dst, small.data() + small_offsets[output] + offset, size);
        return;
    }
    while (size > 0) {
        size_t count = read_part(output, offset, dst, size);
        dst += count;
        size -= count;
        offset += count;
    }
}

} // namespace bridge
