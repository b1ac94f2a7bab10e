// SPDX-License-Identifier: Apache-2.0
// One checkpoint and eight threads; and nothing that grows with 10,000 opens.

#include "check.hpp"

#include <dirent.h>

#include <map>
#include <thread>

namespace {

constexpr std::size_t thread_count = 8, tensor_count = 64, each = 3000, rounds = 20;

#ifdef CHECK_SANITIZED
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
constexpr int many_opens = sanitized ? 500 : 10000;

void together(const std::string &path, st::Access access)
{
    const std::string file = check::file_of(tensor_count, each);
    check::write_file(path, file);
    st::OpenOptions options;
    options.access = access;
    auto model = st::Checkpoint::open(path, options);
    std::vector<std::map<std::string, const void *>> got(thread_count);
    std::vector<std::thread> threads;
    for (std::size_t me = 0; me < thread_count; me++) {
        threads.emplace_back([&got, me, model = model.share()] {
            std::vector<std::uint8_t> copy(each);
            for (std::size_t i = 0; i < tensor_count * rounds; i++) {
                const std::string name = "t" + std::to_string((i * 5 + me * 11) % tensor_count);
                const st::Checkpoint mine = model.share();
                const auto bytes = mine.get(name).as<std::uint8_t>();
                const void *&before = got[me][name];
                CHECK(before == nullptr || before == bytes.data());
                before = bytes.data();
                mine.read(mine.get(name), copy);
                CHECK(bytes.size() == each && std::memcmp(copy.data(), bytes.data(), each) == 0);
                CHECK(!mine.find("nope") && !mine.try_get("nope"));
            }
        });
    }
    for (std::thread &thread : threads)
        thread.join();
    for (const auto &map : got)
        CHECK(map == got[0]);
    for (const st::Tensor tensor : model.tensors())
        CHECK(std::memcmp(got[0][std::string(tensor.name())], file.data() + tensor.offset(), each) == 0);
}

void writing(const std::string &path)
{
    const std::vector<std::uint8_t> data(each, 5);
    std::vector<st::NewTensor> tensors;
    for (std::size_t i = 0; i < thread_count; i++)
        tensors.emplace_back("t" + std::to_string(i), st::Dtype::U8, std::vector<std::int64_t>{each});
    auto writer = st::Writer::open(path, tensors);
    std::vector<std::thread> threads;
    for (std::size_t me = 0; me < thread_count; me++)
        threads.emplace_back([&, me] {
            for (std::size_t i = 0; i < each; i += 100)
                writer.write(me, i, st::span<const std::uint8_t>(data).subspan(i, 100));
        });
    for (std::thread &thread : threads)
        thread.join();
    writer.finish();
    const auto model = st::Checkpoint::open(path);
    CHECK(model.tensors().size() == thread_count);
    for (const st::Tensor tensor : model.tensors())
        CHECK(model.read<std::uint8_t>(tensor) == data);
}

int descriptors()
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    while (folder != nullptr && readdir(folder) != nullptr)
        count++;
    if (folder != nullptr)
        closedir(folder);
    return count;
}

// Writable memory of this process in pages, 0 where the system does not say.
long pages()
{
    long numbers[6] = {};
    std::ifstream statm("/proc/self/statm");
    for (long &number : numbers)
        statm >> number;
    return numbers[5];
}

void opened_again_and_again(const std::string &path)
{
    const std::string file = check::file_of(3, 1000);
    check::write_file(path, file);
    std::atomic<int> alive{0};
    const auto once = [&] {
        for (const auto access : {st::Access::map, st::Access::read}) {
            st::OpenOptions options;
            options.access = access;
            const auto opened = st::Checkpoint::open(path, options);
            CHECK(opened.get("t1").size() == 1000);
        }
        const auto in_memory = st::Checkpoint::open_memory(file.data(), file.size());
        CHECK(in_memory.find("t2"));
        {
            const auto through = st::Checkpoint::open_io(check::io_over(file, alive));
            CHECK(through.get("t0").size() == 1000);
        }
        CHECK(!st::Checkpoint::try_open(path + ".gone"));
        CHECK(check::throws_mine(3, [] {
            st::Checkpoint::open_io({9, [](std::uint64_t, st::span<std::byte>) -> std::size_t { throw check::Mine(3); }});
        }));
    };
    for (int i = 0; i < 100; i++)
        once();
    const int open_before = descriptors();
    const long pages_before = pages();
    for (int i = 0; i < many_opens; i++)
        once();
    CHECK(alive == 0 && descriptors() == open_before);
    // Leaks of 32 bytes an open would show as eighty pages. Allocators keep some of
    // their own; a sanitizer's keeps a lot, and it has a leak check that is better.
    CHECK(sanitized || pages() - pages_before < 64);
}

} // namespace

int check_threads(const char *, const char *scratch)
{
    const std::string path = std::string(scratch) + "/threads.safetensors";
    together(path, st::Access::map);
    together(path, st::Access::read);
    writing(path);
    opened_again_and_again(path);
    std::remove(path.c_str());
    return check::result();
}

CHECK_PROGRAM(check_threads)
