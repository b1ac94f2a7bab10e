// SPDX-License-Identifier: Apache-2.0
//
// load: loads a whole checkpoint into one block of memory, as an engine does.
//
//     load_cpp CHECKPOINT [--threads N] [--direct] [--list]
//
// The weights of a model belong together: one arena, where the library places each tensor
// at a multiple of 64 bytes, BF16 and F16 widened to F32 while they are read. What the file
// holds decides the plan; the library reads in file order, in large requests and
// on several threads, and tells how far it is. Ctrl-C ends it in good order.

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <safetensors.hpp>

namespace {

namespace st = safetensors;

volatile std::sig_atomic_t interrupted = 0;

// The block that all weights lie in.
class Arena {
public:
    // A cache line: what is read there is copied by whole lines, and vector instructions
    // find each tensor aligned.
    static constexpr std::size_t alignment = 64;

    explicit Arena(std::size_t size)
        : data_(static_cast<std::byte *>(::operator new(size, std::align_val_t{alignment}))), size_(size)
    {
    }
    Arena(const Arena &) = delete;
    Arena &operator=(const Arena &) = delete;
    ~Arena() { ::operator delete(data_, std::align_val_t{alignment}); }

    std::byte *data() const { return data_; }
    std::size_t size() const { return size_; }

    // The bytes of what was placed there.
    st::span<std::byte> part(std::uint64_t offset, std::uint64_t size) const
    {
        return st::span<std::byte>(data_, size_).subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(size));
    }

private:
    std::byte *data_;
    std::size_t size_;
};

// Where a tensor is in the arena.
struct Placed {
    st::Tensor tensor;
    st::Dtype dtype;
    std::uint64_t offset;
    std::uint64_t size;
};

// What is to be loaded, F16 and BF16 widened to F32.
std::vector<st_load_item> wanted(const st::Checkpoint &model)
{
    std::vector<st_load_item> items;
    for (const st::Tensor tensor : model.tensors()) {
        st_load_item item = {};
        item.tensor = &tensor.record();
        if (tensor.dtype() == st::Dtype::BF16 || tensor.dtype() == st::Dtype::F16)
            item.dtype = ST_DTYPE_F32;
        items.push_back(item);
    }
    return items;
}

// Sets where each item's result goes in a block of memory, one after the other, and says
// how much of it they take. Without memory it only counts.
std::size_t arrange(std::vector<st_load_item> &items, const Arena *arena)
{
    st_error error;
    std::uint64_t total = 0;
    void *const base = arena ? arena->data() : nullptr;
    const std::size_t size = arena ? arena->size() : 0;
    if (st_arrange(items.data(), items.size(), base, size, Arena::alignment, &total, &error) != ST_OK)
        throw st::Error(error);
    if (total > std::numeric_limits<std::size_t>::max() / 2)
        throw std::length_error("the checkpoint is larger than any memory");
    return static_cast<std::size_t>(total);
}

// "1.2 GB".
std::string amount(double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    std::size_t unit = 0;
    for (; bytes >= 1000 && unit < 4; unit++)
        bytes /= 1000;
    char text[32];
    std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
    return text;
}

// A bar that is drawn again for each hundredth.
class Bar {
public:
    bool operator()(std::uint64_t done, std::uint64_t total)
    {
        const int percent = total == 0 ? 100 : static_cast<int>(static_cast<double>(done) / static_cast<double>(total) * 100);
        if (percent != drawn_) {
            drawn_ = percent;
            const std::string bar(static_cast<std::size_t>(percent) / 2, '#');
            std::fprintf(stderr, "\r[%-50s] %3d %% of %s", bar.c_str(), percent, amount(static_cast<double>(total)).c_str());
        }
        return interrupted == 0;
    }

private:
    int drawn_ = -1;
};

// A name is a stranger's text: nothing of it may reach the terminal as a command.
std::string shown(std::string_view name)
{
    std::string plain(name);
    for (char &c : plain)
        if (c < ' ' || c > '~')
            c = '?';
    return plain;
}

// A number that depends on every element, to compare runs and programs by.
double sum(const Placed &placed, const Arena &arena)
{
    if (placed.dtype != st::Dtype::F32)
        return 0;
    const auto *first = reinterpret_cast<const float *>(arena.part(placed.offset, placed.size).data());
    return std::accumulate(first, first + placed.size / sizeof(float), 0.0);
}

int run(const char *path, const st::LoadOptions &given, bool list)
{
    const auto model = st::Checkpoint::open(path);
    auto wanted_items = wanted(model);
    const Arena arena(arrange(wanted_items, nullptr));
    const std::size_t size = arrange(wanted_items, &arena);

    std::vector<Placed> placed;
    std::vector<st::LoadItem> items;
    for (const st_load_item &item : wanted_items) {
        const auto offset = static_cast<std::size_t>(static_cast<std::byte *>(item.dst) - arena.data());
        const auto dtype = item.dtype == ST_DTYPE_F32 ? st::Dtype::F32 : st::Tensor(*item.tensor).dtype();
        placed.push_back({st::Tensor(*item.tensor), dtype, offset, item.dst_size});
        items.emplace_back(st::Tensor(*item.tensor), arena.part(offset, item.dst_size), dtype);
    }

    st::LoadOptions options = given;
    const st::Plan plan = model.plan(items, options);
    std::cout << placed.size() << " tensors in " << plan.shards << (plan.shards == 1 ? " file: " : " files: ")
              << amount(static_cast<double>(plan.read_bytes)) << " to read, " << amount(static_cast<double>(size))
              << " of memory\n";

    options.progress = Bar();
    const auto began = std::chrono::steady_clock::now();
    const auto loaded = model.try_load(items, options);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::fputc('\n', stderr);
    if (!loaded && loaded.error().code() == st::Status::cancelled) {
        std::cout << "stopped\n";
        return 130;
    }
    loaded.value();

    if (list)
        for (const Placed &one : placed)
            std::printf("%12llu %-4s %-10s %12g  %s\n", static_cast<unsigned long long>(one.offset), st::name(one.dtype),
                        st::name(one.tensor.dtype()), sum(one, arena), shown(one.tensor.name()).c_str());
    std::cout << "loaded in " << took.count() << " s, "
              << amount(took.count() > 0 ? static_cast<double>(plan.read_bytes) / took.count() : 0) << "/s\n";
    return 0;
}

} // namespace

int main(int argc, char **argv)
{
    const char *path = nullptr;
    st::LoadOptions options;
    bool list = false, good = true;
    for (int i = 1; i < argc; i++) {
        const std::string_view argument = argv[i];
        if (argument == "--threads" && i + 1 < argc)
            options.threads = static_cast<std::uint32_t>(std::strtoul(argv[++i], nullptr, 10));
        else if (argument == "--direct")
            options.io = st::LoadIo::direct;
        else if (argument == "--list")
            list = true;
        else if (path == nullptr && argument.substr(0, 2) != "--")
            path = argv[i];
        else
            good = false;
    }
    if (path == nullptr || !good) {
        std::cerr << "usage: load_cpp CHECKPOINT [--threads N] [--direct] [--list]\n";
        return 2;
    }
    std::signal(SIGINT, [](int) { interrupted = 1; });
    try {
        return run(path, options, list);
    } catch (const st::Error &error) {
        std::cerr << "load_cpp: " << error.name() << ": " << error.what() << '\n';
    } catch (const std::exception &error) {
        std::cerr << "load_cpp: " << error.what() << '\n';
    }
    return 1;
}
