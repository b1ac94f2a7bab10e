// SPDX-License-Identifier: Apache-2.0
#include "outputs.h"

#include <algorithm>
#include <numeric>

namespace bridge {

namespace {

// Where an output stands among the others.
struct Placed {
    size_t last_source;
    Output output;
};

class Planner {
  public:
    Planner(const st_checkpoint *checkpoint, const st_groups *groups, st_dtype decoded, const Hyper &hyper, const ChoiceFor &choice_for)
        : checkpoint(checkpoint), groups(groups), decoded(decoded), hyper(hyper), choice_for(choice_for) {
        tensors = st_tensors(checkpoint, &count);
        used.assign(count, false);
        rank_tensors();
    }

    std::vector<Output> run();

  private:
    void rank_tensors();
    Source take(const std::string &name);
    void use(const st_tensor *tensor);
    void check_shape(const Source &source, const Expected &expected) const;
    st_dtype dtype_of(const Source &source) const;
    void add(const Expected &expected);
    void add_rope_factors();
    void check_leftovers() const;

    const st_checkpoint *checkpoint;
    const st_groups *groups;
    const st_dtype decoded;
    const Hyper &hyper;
    const ChoiceFor &choice_for;
    const st_tensor *tensors;
    size_t count = 0;
    std::vector<bool> used;
    std::vector<size_t> ranks; // of each tensor in the converter's order: files by name, in each tensors by name
    size_t last_taken = 0;
    std::vector<Placed> placed;
};

void Planner::use(const st_tensor *tensor) {
    // A group's member may be a copy of the checkpoint's record.
    const st_tensor *record = st_find_tensor_n(checkpoint, tensor->name, tensor->name_len);
    if (!record) return;
    size_t index = size_t(record - tensors);
    used[index] = true;
    last_taken = std::max(last_taken, ranks[index]);
}

void Planner::rank_tensors() {
    size_t shard_count;
    const st_shard *shards = st_shards(checkpoint, &shard_count);
    auto name = [&](size_t i) { return std::string_view(tensors[i].name, tensors[i].name_len); };
    auto file = [&](size_t i) { return std::string_view(shards[tensors[i].shard].path ? shards[tensors[i].shard].path : ""); };
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t(0));
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        if (tensors[a].shard != tensors[b].shard)
            if (const int compared = file(a).compare(file(b))) return compared < 0;
        return name(a) < name(b);
    });
    ranks.resize(count);
    for (size_t i = 0; i < count; i++) ranks[order[i]] = i;
}

Source Planner::take(const std::string &name) {
    const st_group *group = groups ? st_find_group(groups, name.c_str()) : nullptr;
    if (group) {
        if (group->status != ST_OK) fail(group->status, "quantised tensor " + in_quotes(name) + ": " + group->problem);
        for (size_t i = 0; i < group->member_count; i++)
            if (group->members[i].tensor) use(group->members[i].tensor);
        return {nullptr, group};
    }
    const st_tensor *tensor = st_find_tensor_n(checkpoint, name.data(), name.size());
    if (!tensor)
        fail(ST_ERROR_NOT_FOUND, "tensor " + in_quotes(name) + " is missing: " + hyper.arch->hub_class + " with num_hidden_layers = " +
                                     std::to_string(hyper.layers) + " needs it");
    use(tensor);
    return {tensor, nullptr};
}

void Planner::check_shape(const Source &source, const Expected &expected) const {
    int64_t shape[2] = {expected.rows, expected.columns};
    const bool vector = expected.rows == 0;
    const int64_t *wanted = vector ? shape + 1 : shape;
    const size_t rank = vector ? 1 : 2;
    if (source.rank() == rank && std::equal(wanted, wanted + rank, source.shape())) return;
    std::string from = vector ? expected.columns_from : std::string(expected.rows_from) + ", " + expected.columns_from;
    fail(ST_ERROR_SHAPE, "tensor " + in_quotes(source.name()) + " is " + shape_text(source.shape(), source.rank()) +
                             ", and config.json implies " + shape_text(wanted, rank) + " [" + from + "]");
}

st_dtype Planner::dtype_of(const Source &source) const {
    if (source.group) return decoded;
    switch (source.tensor->dtype) {
    case ST_DTYPE_F64:
    case ST_DTYPE_F32:
    case ST_DTYPE_F16:
    case ST_DTYPE_BF16: return source.tensor->dtype;
    default:
        fail(ST_ERROR_UNSUPPORTED, "tensor " + in_quotes(source.name()) + " is " + source.tensor->dtype_name +
                                       ", which is not a weight by itself (supported: F64, F32, F16, BF16, and quantised groups)");
    }
}

void Planner::add(const Expected &expected) {
    Output out{};
    out.name = expected.gguf;
    out.columns = expected.columns;
    out.rows = std::max<int64_t>(expected.rows, 1);
    out.experts = expected.experts;
    out.dimensions = (expected.rows > 0 ? 2 : 1) + (expected.experts > 0 ? 1 : 0);
    out.step = expected.step;
    out.head_dim = hyper.head_dim;

    last_taken = 0;
    size_t mark = expected.hub.find('#');
    for (int64_t i = 0; i < std::max<int64_t>(expected.experts, 1); i++) {
        std::string name = expected.hub;
        if (mark != std::string::npos) name.replace(mark, 1, std::to_string(i));
        Source source = take(name);
        check_shape(source, expected);
        out.sources.push_back(source);
    }

    st_dtype stored = dtype_of(out.sources[0]);
    for (const Source &source : out.sources)
        if (dtype_of(source) != stored) stored = ST_DTYPE_F32;
    out.type = expected.kind == Kind::exact ? GGML_TYPE_F32 : type_of_matrix(choice_for(out.name), stored, out.columns);
    out.row_size = ggml_row_size(out.type, out.columns);
    placed.push_back({last_taken, std::move(out)});
}

void Planner::add_rope_factors() {
    if (hyper.rope.kind != RopeKind::llama3) return;
    Output out{};
    out.name = "rope_freqs.weight";
    out.constant = llama3_factors(hyper);
    out.type = GGML_TYPE_F32;
    out.columns = int64_t(out.constant.size());
    out.rows = 1;
    out.dimensions = 1;
    out.step = Step::copy;
    out.row_size = out.constant.size() * sizeof(float);
    placed.push_back({0, std::move(out)});
}

void Planner::check_leftovers() const {
    for (size_t i = 0; i < count; i++) {
        std::string_view name{tensors[i].name, tensors[i].name_len};
        if (used[i] || is_skipped(hyper, name)) continue;
        fail(ST_ERROR_UNSUPPORTED, "tensor " + in_quotes(name) + " " + shape_text(tensors[i].shape, tensors[i].rank) + " has no place in " +
                                       hyper.arch->hub_class + " as config.json describes it (num_hidden_layers = " + std::to_string(hyper.layers) +
                                       "); leaving it out would be a different model");
    }
}

std::vector<Output> Planner::run() {
    add_rope_factors();
    const bool head_stored = st_find_tensor(checkpoint, "lm_head.weight") != nullptr;
    for (const Expected &expected : expected_outside(hyper, head_stored)) add(expected);
    for (int64_t layer = 0; layer < hyper.layers; layer++) {
        size_t first = placed.size();
        size_t last_of_experts = 0;
        for (const Expected &expected : expected_in_layer(hyper, layer)) add(expected);
        // The converter keeps experts back until it has seen all of a layer.
        for (size_t i = first; i < placed.size(); i++)
            if (placed[i].output.experts > 0) last_of_experts = std::max(last_of_experts, placed[i].last_source);
        for (size_t i = first; i < placed.size(); i++)
            if (placed[i].output.experts > 0) placed[i].last_source = last_of_experts;
    }
    check_leftovers();
    std::stable_sort(placed.begin(), placed.end(), [](const Placed &a, const Placed &b) { return a.last_source < b.last_source; });
    std::vector<Output> outputs;
    for (Placed &each : placed) outputs.push_back(std::move(each.output));
    return outputs;
}

} // namespace

std::vector<Output> plan_outputs(const st_checkpoint *checkpoint, const st_groups *groups, st_dtype decoded, const Hyper &hyper, const ChoiceFor &choice_for) {
    return Planner(checkpoint, groups, decoded, hyper, choice_for).run();
}

} // namespace bridge
