// SPDX-License-Identifier: Apache-2.0
//
// What the C++ wrapper costs beside the C functions that it calls: opening and
// listing 300 and 100,000 tensors, one lookup among them (with strings of their
// own), loading 1 GiB. Both take turns in one process; medians.
//
//     main FOLDER        needs 1.1 GB there

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <safetensors.hpp>

namespace st = safetensors;

namespace {

double seconds(const std::function<void()> &work)
{
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> times)
{
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

void compare(const char *what, int rounds, double count, const char *unit, const std::function<void()> &c,
             const std::function<void()> &cpp)
{
    std::vector<double> first, second;
    for (int round = 0; round < rounds; round++) {
        c(); // each once untimed, so that none pays for the other's caches
        first.push_back(seconds(c));
        cpp();
        second.push_back(seconds(cpp));
    }
    const double ours = median(first) / count, theirs = median(second) / count;
    std::printf("%-36s C %9.2f %s   C++ %9.2f %s   ratio %.3f\n", what, ours, unit, theirs, unit, theirs / ours);
}

void make(const std::string &path, std::size_t count, std::size_t size)
{
    std::vector<unsigned char> bytes(size);
    for (std::size_t i = 0; i < size; i++)
        bytes[i] = static_cast<unsigned char>(i * 2654435761U >> 24);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; i++)
        names.push_back("model.layers." + std::to_string(i) + ".mlp.experts.down_proj.weight");
    const std::int64_t shape[] = {static_cast<std::int64_t>(size)};
    std::vector<st_tensor> tensors(count);
    for (std::size_t i = 0; i < count; i++) {
        tensors[i] = st_tensor{};
        tensors[i].name = names[i].c_str();
        tensors[i].dtype = ST_DTYPE_U8;
        tensors[i].rank = 1;
        tensors[i].shape = shape;
        tensors[i].data = bytes.data();
    }
    st_error error;
    if (st_save(path.c_str(), tensors.data(), count, nullptr, 0, nullptr, &error) != ST_OK)
        throw std::runtime_error(error.message);
}

// Whatever is summed up here was used.
volatile std::uint64_t sink;

void open_and_list(const std::string &path, const char *what)
{
    compare(
        what, 21, 1e-3, "ms",
        [&] {
            st_checkpoint *model = st_open(path.c_str(), nullptr);
            std::size_t count;
            const st_tensor *tensors = st_tensors(model, &count);
            std::uint64_t sum = 0;
            for (std::size_t i = 0; i < count; i++)
                sum += tensors[i].size + tensors[i].name_len;
            sink = sum;
            st_free(model);
        },
        [&] {
            const auto model = st::Checkpoint::open(path);
            std::uint64_t sum = 0;
            for (const st::Tensor tensor : model.tensors())
                sum += tensor.size() + tensor.name().size();
            sink = sum;
        });
}

void look_up(const std::string &path, const char *what)
{
    const auto model = st::Checkpoint::open(path);
    std::vector<std::string> names;
    for (const st::Tensor tensor : model.tensors())
        names.emplace_back(tensor.name());
    for (std::size_t i = names.size(); i > 1; i--)
        std::swap(names[i - 1], names[i * 2654435761U % i]);
    compare(
        what, 21, 1e-9 * static_cast<double>(names.size()), "ns",
        [&] {
            std::uint64_t sum = 0;
            for (const std::string &name : names)
                sum += st_find_tensor_n(model.handle(), name.data(), name.size())->offset;
            sink = sum;
        },
        [&] {
            std::uint64_t sum = 0;
            for (const std::string &name : names)
                sum += model.find(name)->offset();
            sink = sum;
        });
}

void load(const std::string &path)
{
    const auto model = st::Checkpoint::open(path);
    std::vector<unsigned char> memory(1U << 30, 1);
    compare(
        "load 1 GiB, warm", 9, 1e-3, "ms",
        [&] {
            std::size_t count, at = 0;
            const st_tensor *tensors = st_tensors(model.handle(), &count);
            std::vector<st_load_item> items(count);
            for (std::size_t i = 0; i < count; at += tensors[i++].size) {
                items[i] = st_load_item{};
                items[i].tensor = &tensors[i];
                items[i].dst = memory.data() + at;
                items[i].dst_size = tensors[i].size;
            }
            if (st_load(model.handle(), items.data(), count, nullptr, nullptr) != ST_OK)
                throw std::runtime_error("st_load");
        },
        [&] {
            std::size_t at = 0;
            std::vector<st::LoadItem> items;
            for (const st::Tensor tensor : model.tensors()) {
                items.emplace_back(tensor, st::MutableBytes(memory.data() + at, tensor.size()));
                at += tensor.size();
            }
            model.load(items);
        });
}

} // namespace

int main(int argc, char **argv)
{
    const std::string folder = argc > 1 ? argv[1] : ".";
    const std::string few = folder + "/bench-few.safetensors", many = folder + "/bench-many.safetensors",
                      large = folder + "/bench-large.safetensors";
    make(few, 300, 64);
    make(many, 100000, 64);
    make(large, 64, 16 << 20);
    open_and_list(few, "open and list 300 tensors");
    look_up(few, "one lookup among them, random");
    open_and_list(many, "open and list 100,000 tensors");
    look_up(many, "one lookup among them, random");
    load(large);
    std::remove(few.c_str());
    std::remove(many.c_str());
    std::remove(large.c_str());
}
