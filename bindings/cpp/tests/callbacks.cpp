// SPDX-License-Identifier: Apache-2.0
// Callbacks: what they give, what they throw and return as errors, which call
// that comes out of, and that each is destroyed in time.

#include "check.hpp"

#include <cerrno>
#include <functional>
#include <thread>

namespace {

using check::Mine;
using check::throws;
using check::throws_mine;

const std::string index_text = R"({"weight_map":{"t0":"a","t1":"b"}})";

void reading()
{
    const std::string bytes = check::file_of(3, 100);
    std::atomic<int> alive{0};
    {
        auto model = st::Checkpoint::open_io(check::io_over(bytes, alive, 33));
        CHECK(alive == 1 && model.shards().size() == 1);
        CHECK(model.shards()[0].access() == st::Access::callback && !model.shards()[0].path());
        CHECK(model.find("t1")->data() == nullptr);
        const auto tensor = model.get("t1");
        CHECK(std::memcmp(tensor.data(), bytes.data() + tensor.offset(), 100) == 0);
        const st::Checkpoint other = model.share();
        model = st::Checkpoint();
        CHECK(alive == 1 && other.get("t1").data() == tensor.data());
    }
    CHECK(alive == 0);
    CHECK(throws(st::Status::header_length, [&] {
        const std::string cut = bytes.substr(0, 20);
        st::Checkpoint::open_io(check::io_over(cut, alive));
    }));
    CHECK(alive == 0);
    CHECK(throws(st::Status::invalid_argument, [] { st::Checkpoint::open_io({}); }));
    CHECK(throws(st::Status::io, [] { st::Checkpoint::open_io({100, [](std::uint64_t, st::span<std::byte>) { return 0; }}); }));
    CHECK(throws(st::Status::io, [] { st::Checkpoint::open_io({100, [](std::uint64_t, st::span<std::byte>) { return -1; }}); }));
    std::function<std::size_t(std::uint64_t, st::span<std::byte>)> empty;
    CHECK(throws(st::Status::invalid_argument, [&] { st::Checkpoint::open_io({100, empty}); }));
}

// An Io whose callback does what `fails` says, once that is set.
struct Failing {
    std::string bytes = check::file_of(4, 100);
    std::function<st::Result<std::size_t>()> fails = nullptr;

    st::Io io()
    {
        return {bytes.size(), [this](std::uint64_t offset, st::span<std::byte> to) -> st::Result<std::size_t> {
                    if (fails)
                        return fails();
                    std::memcpy(to.data(), bytes.data() + offset, to.size());
                    return to.size();
                }};
    }
};

void failing_reads()
{
    Failing remote;
    const auto model = st::Checkpoint::open_io(remote.io());
    const auto t0 = model.get("t0");
    std::vector<char> room(100);

    // A returned Error goes through the library: code, errno and text are kept, the tensor is named.
    remote.fails = [] { return st::Error(st::Status::cancelled, "remote says 503", 121); };
    const auto result = model.try_get("t1");
    CHECK(!result && result.error().code() == st::Status::cancelled && result.error().os_errno() == 121);
    const std::string_view said = result ? "" : result.error().message();
    CHECK(said.find("remote says 503") != said.npos && said.find("\"t1\"") != said.npos);
    CHECK(throws(st::Status::cancelled, [&] { model.read(*model.find("t1"), room); }, "remote says 503"));
    remote.fails = [] { return st::Error(st::Status::ok, "an error that is none"); };
    CHECK(throws(st::Status::internal, [&] { model.get("t1"); }));

    // What is thrown comes out, of both forms, and of every function.
    remote.fails = []() -> st::Result<std::size_t> { throw Mine(7); };
    CHECK(throws_mine(7, [&] { model.get("t1"); }) && throws_mine(7, [&] { (void)model.try_get("t1"); }));
    CHECK(throws_mine(7, [&] { model.read(*model.find("t1"), room); }));
    CHECK(throws_mine(7, [&] { model.read<std::uint8_t>(*model.find("t1")); }));
    CHECK(throws_mine(7, [&] { model.read_slice(*model.find("t1"), {{1, 3}}, room); }));
    CHECK(throws_mine(7, [&] { st::Checkpoint::open_io(remote.io()); }));
    const auto shared = model.share();
    CHECK(throws_mine(7, [&] { shared.get("t1"); }));
    st::SaveOptions options;
    options.source = &model;
    CHECK(throws_mine(7, [&] { (void)st::try_serialize({{*model.find("t1")}}, {}, options); }));
    remote.fails = []() -> st::Result<std::size_t> { throw st::Error(st::Status::io, "thrown", 5); };
    CHECK(throws(st::Status::io, [&] { model.get("t1"); }, "thrown"));
    CHECK(!model.get("t0").bytes().empty() && model.get("t0").data() == t0.data());
    remote.fails = []() -> st::Result<std::size_t> { throw 42; };
    int thrown = 0;
    try {
        model.get("t1");
    } catch (int number) {
        thrown = number;
    }
    CHECK(thrown == 42);
    remote.fails = nullptr;
    CHECK(model.get("t1").size() == 100);
}

// Many threads fail in one checkpoint at once: each call throws what its own
// thread has thrown.
void right_thread()
{
    thread_local int me = 0;
    Failing remote;
    const auto model = st::Checkpoint::open_io(remote.io());
    remote.fails = []() -> st::Result<std::size_t> { throw Mine(me); };
    std::vector<std::thread> threads;
    for (int i = 1; i <= 8; i++)
        threads.emplace_back([&, i] {
            me = i;
            char room[100];
            for (int round = 0; round < 500; round++)
                if (!throws_mine(i, [&] { model.read(*model.find("t2"), room); }))
                    return (void)CHECK(false);
        });
    for (std::thread &thread : threads)
        thread.join();
}

void resolving()
{
    const std::string files[] = {index_text, check::file_of(1, 9), check::file_of(2, 9)};
    std::atomic<int> alive{0};
    std::vector<std::string> asked;
    const auto resolver = [&](const std::string &name) -> st::Result<st::Io> {
        asked.push_back(name);
        if (name == "k/x.index.json")
            return check::io_over(files[0], alive);
        if (name == "k/a" || name == "k/b")
            return check::io_over(files[name == "k/b" ? 2 : 1], alive);
        return st::Error(st::Status::io, "404", ENOENT);
    };
    {
        const auto model = st::Checkpoint::open_resolved(resolver, "k/x.index.json");
        CHECK((asked == std::vector<std::string>{"k/x.index.json", "k/a", "k/b"}) && alive == 2);
        CHECK(model.shards().size() == 2 && model.shards()[1].path() == "k/b" && model.tensors().size() == 2);
        CHECK(model.get("t1").as<std::uint8_t>()[0] == (9 * 31 + 7) % 256);
    }
    CHECK(alive == 0);
    const auto missing = st::Checkpoint::try_open_resolved(resolver, "other.index.json");
    CHECK(!missing && missing.error().code() == st::Status::io && missing.error().os_errno() == ENOENT);
    const auto throwing = [&](const std::string &name) -> st::Io {
        if (name == "k/b")
            throw Mine(9);
        return *resolver(name);
    };
    CHECK(throws_mine(9, [&] { st::Checkpoint::open_resolved(throwing, "k/x.index.json"); }) && alive == 0);
    CHECK(throws_mine(9, [&] { (void)st::Checkpoint::try_open_resolved(throwing, "k/x.index.json"); }) && alive == 0);
    CHECK(throws(st::Status::invalid_argument, [] { st::Checkpoint::open_resolved(nullptr, "x"); }));
    CHECK(throws(st::Status::invalid_argument, [&] { st::Checkpoint::open_resolved(resolver, nullptr); }));
    // Headers are read on threads of the library.
    const auto unreadable = [&](const std::string &name) -> st::Io {
        if (name == "k/x.index.json")
            return *resolver(name);
        return {100, [](std::uint64_t, st::span<std::byte>) -> std::size_t { throw Mine(10); }};
    };
    CHECK(throws_mine(10, [&] { st::Checkpoint::open_resolved(unreadable, "k/x.index.json"); }));
}

void saving()
{
    const std::vector<std::uint8_t> data(100, 7);
    const std::vector<st::NewTensor> tensors = {{"x", {100}, data}};
    st::SaveOptions options;
    std::uint64_t last = 0;
    options.progress = [&](std::uint64_t done, std::uint64_t total) { last = done == total ? done : 0; };
    st::serialize(tensors, {}, options);
    CHECK(last == 100);
    options.progress = [](std::uint64_t, std::uint64_t) { return true; };
    st::serialize(tensors, {}, options);
    options.progress = [](std::uint64_t, std::uint64_t) { return false; };
    CHECK(throws(st::Status::cancelled, [&] { st::serialize(tensors, {}, options); }));
    options.progress = [](std::uint64_t, std::uint64_t) { throw Mine(11); };
    CHECK(throws_mine(11, [&] { st::serialize(tensors, {}, options); }));
    CHECK(throws_mine(11, [&] { (void)st::try_serialize(tensors, {}, options); }));
}

} // namespace

int check_callbacks(const char *, const char *)
{
    reading();
    failing_reads();
    right_thread();
    resolving();
    saving();
    return check::result();
}

CHECK_PROGRAM(check_callbacks)
