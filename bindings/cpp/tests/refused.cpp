// SPDX-License-Identifier: Apache-2.0
// Programs that must not compile: -DREFUSED=N takes the Nth of them, and 0 none.
// What each does wrong stands in its line; the same in right is around it.

#include <safetensors.hpp>

#include <vector>

namespace st = safetensors;

template <class... Ignored> void use(Ignored &&...) {}

#if REFUSED == 14 || REFUSED == 0
st::Tensors of_a_local_one()
{
    st::Checkpoint model = st::Checkpoint::open("model.safetensors");
#if REFUSED == 14 // a warning of clang's, and so an error here
    return model.tensors();
#else
    use(model.tensors());
    return {};
#endif
}
#endif

struct Pair {
    float x;
    int y;
};

int main()
{
    const auto model = st::Checkpoint::open("model.safetensors");
    const auto tensor = model.get("weight");
    std::vector<float> values(tensor.element_count());
    std::vector<st::LoadItem> items{{tensor, values}, {tensor, st::span<float>(values).first(1), st::Dtype::F32}};
    items.emplace_back(tensor, values);
    model.load(items);
    const auto tried = st::Checkpoint::try_open("model.safetensors");
    use(tried->tensors(), (*tried).get("weight"), tried.value().shards(), st::try_slice_shape(tensor, {})->size);
    st::Sink sink;
    sink.buffers.emplace_back(values);
    const auto file = st::serialize({{"w", {2}, std::vector<float>(2)}, {"v", {2}, values}});
    use(file.bytes(), st::serialize({}).size());

#if REFUSED == 1
    for (const auto each : st::Checkpoint::open("model.safetensors").tensors())
        use(each);
#elif REFUSED == 2
    use(st::Checkpoint::open("model.safetensors").get("weight").as<float>());
#elif REFUSED == 3
    use(st::Checkpoint::open("model.safetensors").find("weight"));
#elif REFUSED == 4
    use(st::Checkpoint::open("model.safetensors").metadata().find("format"));
#elif REFUSED == 5
    use(st::Checkpoint::open("model.safetensors").shards());
#elif REFUSED == 6
    use(st::Checkpoint::try_open("model.safetensors")->tensors());
#elif REFUSED == 7
    use((*st::Checkpoint::try_open("model.safetensors")).try_get("weight"));
#elif REFUSED == 8
    use(model.share().handle());
#elif REFUSED == 9
    items.emplace_back(tensor, std::vector<float>(6), st::Dtype::F32);
#elif REFUSED == 10
    model.load({{tensor, std::vector<float>(6)}});
#elif REFUSED == 11
    model.read(tensor, std::vector<float>(6));
#elif REFUSED == 12
    sink.buffers.emplace_back(std::vector<std::byte>(4096));
#elif REFUSED == 13
    use(st::serialize({}).bytes());
#elif REFUSED == 15 // a type that says of no dtype that it holds it
    std::vector<Pair> pairs(6);
    model.read(tensor, pairs);
#elif REFUSED == 16
    bool flags[6] = {};
    model.read(tensor, flags);
#elif REFUSED == 17
    const std::vector<float> constant(6);
    model.read(tensor, constant);
#endif
}
