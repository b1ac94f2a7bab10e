// SPDX-License-Identifier: Apache-2.0
// Loading: into memory, converted, in parts, with strides, through a sink, from
// callbacks; progress, cancelling, and what callbacks throw.

#include "check.hpp"

#include <algorithm>
#include <numeric>
#include <set>

namespace {

using check::Mine;
using check::throws;
using check::throws_mine;

constexpr std::size_t rows = 300, columns = 1000;

// A BF16 matrix that counts, and a vector of bytes.
struct Model {
    Model(const std::string &path)
    {
        std::vector<st::bfloat16> values(rows * columns);
        std::vector<float> counting(rows * columns);
        std::generate(counting.begin(), counting.end(), [i = 0]() mutable { return static_cast<float>(i++ % 256); });
        st::convert(counting, values);
        std::vector<std::uint8_t> bytes(70000);
        std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
        st::save(path, {{"matrix", {rows, columns}, values}, {"bytes", {70000}, bytes}});
        file = st::Checkpoint::open(path);
        text = check::read_file(path);
    }

    st::Checkpoint file;
    std::string text;
};

float expected(std::size_t row, std::size_t column) { return static_cast<float>((row * columns + column) % 256); }

void into_memory(const st::Checkpoint &model)
{
    std::vector<std::byte> arena(rows * columns * 4 + 70000);
    const st::span<std::byte> all(arena), matrix = all.first(rows * columns * 4), bytes = all.last(70000);
    const std::vector<st::LoadItem> items = {{model.get("matrix"), matrix, st::Dtype::F32}, {model.get("bytes"), bytes}};
    st::LoadOptions options;
    std::vector<std::uint64_t> told;
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
        told.push_back(done);
        CHECK(done <= total && total == arena.size());
    };
    for (const std::uint32_t threads : {0U, 1U, 4U}) {
        for (const auto io : {st::LoadIo::automatic, st::LoadIo::cached, st::LoadIo::direct}) {
            std::memset(arena.data(), 0xAA, arena.size());
            options.threads = threads;
            options.io = io;
            told.clear();
            model.load(items, options);
            CHECK(!told.empty() && told.back() == arena.size() && std::is_sorted(told.begin(), told.end()));
            const auto *floats = reinterpret_cast<const float *>(matrix.data());
            CHECK(floats[0] == 0 && floats[1001] == expected(1, 1) && floats[rows * columns - 1] == expected(rows - 1, columns - 1));
            CHECK(bytes[69999] == std::byte{69999 % 256});
        }
    }
    const st::Plan plan = model.plan(items, options);
    CHECK(plan.bytes == arena.size() && plan.read_bytes == rows * columns * 2 + 70000 && plan.shards == 1 && plan.threads >= 1);
    model.load({});
    model.prefetch();
    model.prefetch({});
    model.prefetch({model.get("bytes")});
}

void in_parts(const st::Checkpoint &model)
{
    // Two rows of three columns, transposed.
    float out[3][2] = {};
    st::LoadItem item(model.get("matrix"), out, st::Dtype::F32);
    item.ranges = {{10, 12}, {-3}};
    item.strides = {sizeof(float), 2 * sizeof(float)};
    model.load({item});
    for (std::size_t r = 0; r < 2; r++)
        for (std::size_t c = 0; c < 3; c++)
            CHECK(out[c][r] == expected(10 + r, columns - 3 + c));
    item.strides = {4};
    CHECK(throws(st::Status::invalid_argument, [&] { model.load({item}); }, "1 strides for 2 dimensions"));
    CHECK(throws(st::Status::invalid_argument, [&] { model.plan({item}); }));
    item.strides = {};
    item.ranges = {{0, 2000}};
    CHECK(throws(st::Status::invalid_argument, [&] { model.load({item}); }));
    std::vector<float> small(7);
    CHECK(throws(st::Status::buffer_size, [&] { model.load({{model.get("matrix"), small}}); }));
    CHECK(throws(st::Status::unsupported, [&] { model.load({{model.get("matrix"), small, st::Dtype::I32}}); }));
    CHECK(throws(st::Status::invalid_argument, [&] { st::Checkpoint().load({{model.get("matrix"), small}}); }));
}

// Memory of a type takes what arrives as that type, and no other bytes.
void by_type(const st::Checkpoint &model)
{
    const st::Tensor matrix = model.get("matrix"), bytes = model.get("bytes");
    std::vector<float> floats(rows * columns, -1);
    std::vector<std::int32_t> whole(rows * columns);
    std::vector<st::bfloat16> halves(rows * columns);
    std::vector<std::uint8_t> plain(rows * columns * 4);
    const auto wrong = st::Status::invalid_argument;
    CHECK(throws(wrong, [&] { model.load({{matrix, floats}}); }, "item 0: tensor \"matrix\" arrives as BF16 in memory of F32"));
    CHECK(throws(wrong, [&] { model.plan({{bytes, plain}, {matrix, floats}}); }, "item 1"));
    CHECK(throws(wrong, [&] { model.load({{matrix, whole, st::Dtype::F32}}); }, "arrives as F32 in memory of I32"));
    CHECK(throws(wrong, [&] { model.read(matrix, floats); }, "arrives as BF16 in memory of F32"));
    CHECK(throws(wrong, [&] { model.read_slice(matrix, {{0, 1}}, floats); }));
    CHECK(throws(wrong, [&] { model.read(bytes, halves); }, "arrives as U8 in memory of BF16"));
    const auto some = st::span<std::uint8_t>(plain).first(whole.size());
    CHECK(throws(wrong, [&] { st::convert(st::Dtype::U8, some, st::Dtype::F32, whole); }, "memory of I32 is given for F32"));
    CHECK(floats[0] == -1 && floats.back() == -1); // nothing was written
    model.load({{matrix, floats, st::Dtype::F32}});
    model.read(matrix, halves);
    CHECK(floats[1001] == expected(1, 1) && static_cast<float>(halves[1001]) == expected(1, 1));

    // Bytes take all there is, and so does a pointer with a size.
    model.load({{matrix, plain}});
    model.load({{matrix, plain, st::Dtype::F32}});
    CHECK(std::memcmp(plain.data(), floats.data(), plain.size()) == 0);
    model.load({{matrix, {whole.data(), whole.size() * 4}, st::Dtype::F32}});
    CHECK(std::memcmp(whole.data(), floats.data(), plain.size()) == 0);
}

void through_a_sink(const st::Checkpoint &model)
{
    std::vector<std::vector<char>> staging(3, std::vector<char>(8192));
    std::string whole[2] = {std::string(rows * columns * 4, 0), std::string(70000, 0)};
    std::multiset<std::size_t> in_flight;
    st::Sink sink{{staging[0], staging[1], staging[2]}, nullptr, nullptr};
    sink.chunk = [&](const st::Chunk &chunk) {
        CHECK(static_cast<const void *>(chunk.bytes.data()) == staging[chunk.buffer].data() && chunk.bytes.size() <= 8192);
        CHECK(in_flight.insert(chunk.buffer) != in_flight.end() && in_flight.count(chunk.buffer) == 1);
        std::memcpy(&whole[chunk.item][chunk.offset], chunk.bytes.data(), chunk.bytes.size());
    };
    sink.wait = [&](std::size_t buffer) { CHECK(in_flight.erase(buffer) == 1); };
    st::LoadOptions options;
    options.sink = &sink;
    const std::vector<st::LoadItem> items = {st::LoadItem(model.get("matrix"), st::Dtype::F32), st::LoadItem(model.get("bytes"))};
    model.load(items, options);
    float last;
    std::memcpy(&last, whole[0].data() + whole[0].size() - 4, 4);
    CHECK(in_flight.empty() && last == expected(rows - 1, columns - 1) && whole[1][300] == 300 - 256);

    // What it throws or returns ends the load, and every other buffer has been waited for.
    const auto copy = sink.chunk;
    int chunks = 0;
    sink.chunk = [&](const st::Chunk &chunk) {
        if (++chunks == 5)
            throw Mine(5);
        copy(chunk).value();
    };
    CHECK(throws_mine(5, [&] { model.load(items, options); }) && in_flight.empty());
    sink.chunk = [](const st::Chunk &) -> st::Result<void> { return st::Error(st::Status::out_of_memory, "device is full"); };
    CHECK(throws(st::Status::out_of_memory, [&] { model.load(items, options); }, "device is full") && in_flight.empty());
    sink.chunk = copy;
    sink.wait = [&](std::size_t) { throw Mine(6); };
    CHECK(throws_mine(6, [&] { (void)model.try_load(items, options); }));
    sink.chunk = nullptr;
    CHECK(throws(st::Status::invalid_argument, [&] { model.load(items, options); }));
}

void ended_early(const st::Checkpoint &model)
{
    std::vector<float> to(rows * columns);
    const std::vector<st::LoadItem> items = {{model.get("matrix"), to, st::Dtype::F32}};
    st::LoadOptions options;
    options.progress = [](std::uint64_t, std::uint64_t) { return false; };
    CHECK(throws(st::Status::cancelled, [&] { model.load(items, options); }));
    options.progress = [](std::uint64_t, std::uint64_t) { throw Mine(8); };
    CHECK(throws_mine(8, [&] { model.load(items, options); }) && throws_mine(8, [&] { (void)model.try_load(items, options); }));
}

// read_at throws on threads of the library.
void from_callbacks(const Model &model)
{
    std::atomic<int> alive{0}, fails{0};
    auto io = check::io_over(model.text, alive);
    auto read = io.read_at;
    io.read_at = [&fails, read](std::uint64_t offset, st::span<std::byte> to) {
        if (fails != 0 && offset > 100000)
            throw Mine(fails);
        return read(offset, to);
    };
    io.preferred_read = 16384;
    const auto remote = st::Checkpoint::open_io(std::move(io));
    std::vector<st::bfloat16> to(rows * columns);
    const std::vector<st::LoadItem> items = {{*remote.find("matrix"), to}};
    st::LoadOptions options;
    options.threads = 4;
    remote.load(items, options);
    CHECK(static_cast<float>(to.back()) == expected(rows - 1, columns - 1));
    for (fails = 1; fails < 20; fails++)
        CHECK(throws_mine(fails, [&] { remote.load(items, options); }));
}

} // namespace

int check_loading(const char *, const char *scratch)
{
    const std::string path = std::string(scratch) + "/loading.safetensors";
    {
        const Model model(path);
        into_memory(model.file);
        in_parts(model.file);
        by_type(model.file);
        through_a_sink(model.file);
        ended_early(model.file);
        from_callbacks(model);
    }
    std::remove(path.c_str());
    return check::result();
}

CHECK_PROGRAM(check_loading)
