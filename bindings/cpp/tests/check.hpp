// SPDX-License-Identifier: Apache-2.0
// What the C++ tests share: checks that count, files of the format, an Io over
// memory, FNV-1a.
#ifndef CHECK_HPP
#define CHECK_HPP

#include <safetensors.hpp>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace st = safetensors;

namespace check {

inline std::atomic<int> failures{0};

inline bool that(bool holds, const char *text, const char *file, int line)
{
    if (!holds) {
        std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, text);
        failures++;
    }
    return holds;
}

// Whether the work throws a safetensors::Error of this code, whose message is
// whole, safe to print and has `part` in it.
template <class Work> bool throws(st::Status code, Work work, std::string_view part = "")
{
    try {
        work();
        std::fprintf(stderr, "nothing was thrown\n");
        return false;
    } catch (const st::Error &error) {
        const std::string_view message = error.what();
        bool good = error.code() == code && !message.empty() && message.find(part) != message.npos;
        for (const char c : message)
            good = good && static_cast<unsigned char>(c) >= 0x20 && c != 0x7F;
        if (!good)
            std::fprintf(stderr, "wanted %s, found %s: %s\n", st::name(code), error.name(), error.what());
        return good;
    }
}

// What a callback throws, to see it come out again.
struct Mine : std::runtime_error {
    explicit Mine(int its_number) : std::runtime_error("mine"), number(its_number) {}
    int number;
};

// Whether the work throws a Mine of this number.
template <class Work> bool throws_mine(int number, Work work)
{
    try {
        work();
    } catch (const Mine &mine) {
        return mine.number == number;
    }
    return false;
}

inline std::uint64_t fnv1a(const void *data, std::size_t size)
{
    std::uint64_t hash = 0xCBF29CE484222325;
    for (std::size_t i = 0; i < size; i++)
        hash = (hash ^ static_cast<const unsigned char *>(data)[i]) * 0x100000001B3;
    return hash;
}

// A file of the format: length, header text, data.
inline std::string file(std::string_view header, std::string_view data = "")
{
    std::string all;
    for (std::size_t i = 0; i < 8; i++)
        all += static_cast<char>(header.size() >> 8 * i & 0xFF);
    return all.append(header).append(data);
}

// With U8 tensors "t0", "t1", ... of `each` bytes.
inline std::string file_of(std::size_t count, std::size_t each)
{
    std::string header, data;
    for (std::size_t i = 0; i < count; i++)
        header += (i != 0 ? "," : "{") + ("\"t" + std::to_string(i)) + "\":{\"dtype\":\"U8\",\"shape\":[" +
                  std::to_string(each) + "],\"data_offsets\":[" + std::to_string(i * each) + "," +
                  std::to_string((i + 1) * each) + "]}";
    for (std::size_t i = 0; i < count * each; i++)
        data += static_cast<char>(i * 31 + 7);
    return file(header + "}", data);
}

// A copy on the heap of just the size, so that a sanitizer sees an over-read.
inline std::vector<char> exactly(std::string_view bytes) { return {bytes.begin(), bytes.end()}; }

inline std::string read_file(const std::string &path)
{
    std::ifstream in(path, std::ios::binary);
    if (!in)
        throw std::runtime_error("can't read " + path);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::string &path, std::string_view bytes)
{
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush())
        throw std::runtime_error("can't write " + path);
}

// Counts how many of it there are.
class Counted {
public:
    explicit Counted(std::atomic<int> &alive) : alive_(&alive) { ++*alive_; }
    Counted(Counted &&other) noexcept : alive_(std::exchange(other.alive_, nullptr)) {}
    Counted(const Counted &) = delete;
    Counted &operator=(const Counted &) = delete;
    Counted &operator=(Counted &&) = delete;
    ~Counted()
    {
        if (alive_ != nullptr)
            --*alive_;
    }

private:
    std::atomic<int> *alive_;
};

// Memory as an Io that gives at most `most` bytes a call; 0: any number. Its
// callback can be moved only, as it holds a Counted.
inline st::Io io_over(const std::string &bytes, std::atomic<int> &alive, std::size_t most = 0)
{
    return {bytes.size(), [&bytes, most, held = Counted(alive)](std::uint64_t offset, st::span<std::byte> to) {
                std::size_t size = most != 0 && most < to.size() ? most : to.size();
                if (offset > bytes.size() || to.size() > bytes.size() - offset)
                    throw std::logic_error("asked for bytes after the end");
                std::memcpy(to.data(), bytes.data() + offset, size);
                return size;
            }};
}

inline int result()
{
    if (failures != 0)
        std::fprintf(stderr, "%d checks failed\n", failures.load());
    return failures == 0 ? 0 : 1;
}

} // namespace check

#define CHECK(condition) ::check::that(static_cast<bool>(condition), #condition, __FILE__, __LINE__)

// A program of a function of this name, which is given a folder with the corpus
// and one to write into; or that function alone, for another program to call.
#ifdef CHECK_NO_MAIN
#define CHECK_PROGRAM(name)
#else
#define CHECK_PROGRAM(name)                                                                                            \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        return argc > 2 ? name(argv[1], argv[2]) : 2;                                                                  \
    }
#endif

// The tests, for those who call them.
int check_contract(const char *corpus, const char *scratch);
int check_callbacks(const char *corpus, const char *scratch);
int check_corpus(const char *corpus, const char *scratch);
int check_loading(const char *corpus, const char *scratch);
int check_threads(const char *corpus, const char *scratch);
int check_writing(const char *corpus, const char *scratch);

#endif
