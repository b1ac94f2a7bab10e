// SPDX-License-Identifier: Apache-2.0
// The tensors of the GGUF file: which tensors of the checkpoint each is made of, and how.
#pragma once

#include "names.h"
#include "types.h"

#include <safetensors_model.h>

#include <functional>
#include <memory>

namespace bridge {

// A tensor of the checkpoint, or a quantised group that decodes to one.
struct Source {
    const st_tensor *tensor;
    const st_group *group;

    size_t rank() const { return tensor ? tensor->rank : group->rank; }
    const int64_t *shape() const { return tensor ? tensor->shape : group->shape; }
    std::string_view name() const { return tensor ? std::string_view(tensor->name, tensor->name_len) : std::string_view(group->name, group->name_len); }
};

struct FreeGroups {
    void operator()(st_groups *groups) const { st_groups_free(groups); }
};
using Groups = std::unique_ptr<st_groups, FreeGroups>;

struct Output {
    std::string name;
    ggml_type type;
    int64_t columns;
    int64_t rows;    // of one expert; 1 for a vector
    int64_t experts; // 0: not a stack of matrices
    size_t dimensions;
    Step step;
    int64_t head_dim;
    std::vector<Source> sources; // one, or one for each expert; none where `constant` is all
    std::vector<float> constant;
    size_t row_size; // bytes

    int64_t all_rows() const { return rows * (experts > 0 ? experts : 1); }
    uint64_t size() const { return uint64_t(all_rows()) * row_size; }
};

// The type asked for a tensor of this GGUF name.
using ChoiceFor = std::function<Choice(const std::string &name)>;

// All tensors, in the order of llama.cpp's converter: files by name and in each tensors by name, a stack of
// experts where its last member is. Checks that every tensor of the model is there with its shape,
// and that no tensor of the checkpoint is left over.
//
// groups: the checkpoint's quantised groups; NULL: it has none. decoded: what they become where
// "stored" is asked for.
std::vector<Output> plan_outputs(const st_checkpoint *checkpoint, const st_groups *groups, st_dtype decoded, const Hyper &hyper, const ChoiceFor &choice_for);

} // namespace bridge
