// SPDX-License-Identifier: Apache-2.0
// The half that writes: what comes back, what is refused and leaves nothing,
// files in pieces and in shards, metadata, conversion.

#include "check.hpp"

#include <cerrno>
#include <filesystem>

namespace {

using check::throws;

// A folder for one test, empty.
class Folder {
public:
    explicit Folder(const char *scratch) : path_(std::filesystem::path(scratch) / "writing")
    {
        std::filesystem::remove_all(path_);
        std::filesystem::create_directories(path_);
    }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;
    ~Folder() { std::filesystem::remove_all(path_); }

    std::filesystem::path operator/(const char *name) const { return path_ / name; }
    std::ptrdiff_t files() const { return std::distance(std::filesystem::directory_iterator(path_), {}); }

private:
    std::filesystem::path path_;
};

const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
const std::vector<std::uint16_t> words = {7, 8};

std::string as_text(const st::Buffer &buffer)
{
    return {reinterpret_cast<const char *>(buffer.data()), buffer.size()};
}

void what_is_written()
{
    // What the reference implementation writes for the same, here by hand.
    const std::string header = R"({"__metadata__":{"k":"v"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                               R"("a":{"dtype":"U16","shape":[2],"data_offsets":[24,28]}})";
    std::string data(reinterpret_cast<const char *>(floats.data()), 24);
    data.append(reinterpret_cast<const char *>(words.data()), 4);
    const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
    const std::vector<st::NewTensor> tensors = {{"a", {2}, words}, {"b", st::Dtype::F32, {2, 3}, floats}};
    CHECK(as_text(st::serialize(tensors, st::Metadata{{"k", "v"}})) == check::file(padded, data));

    // No metadata, and metadata without entries.
    CHECK(as_text(st::serialize({})) == check::file("{}      "));
    CHECK(as_text(st::serialize({}, st::Metadata())) == check::file("{\"__metadata__\":{}}     "));

    // Names and metadata with NUL and without anything; elements that are none.
    const std::string nul("\0x", 2);
    const auto odd = st::serialize({{nul, {0}, std::vector<float>()}, {"", {}, st::span<const float>(floats).first(1)}},
                                   st::Metadata{{nul, ""}, {"", nul}});
    const auto model = st::Checkpoint::open_memory(odd.data(), odd.size());
    CHECK(model.find(nul)->shape()[0] == 0 && model.get("").as<float>()[0] == 1 && model.tensors().size() == 2);
    CHECK(model.metadata().find(nul) == "" && model.metadata().find("") == nul);
    CHECK(as_text(st::serialize({model.tensors().begin(), model.tensors().end()}, model.metadata().copy())) == as_text(odd));
}

void files(const Folder &folder)
{
    const auto path = folder / "m.safetensors";
    const std::vector<st::NewTensor> tensors = {{"b", {2, 3}, floats}, {"a", {2}, words}};
    st::SaveOptions options;
    options.order = st::Order::given;
    options.alignment = 4096;
    options.sync = st::Sync::none;
    st::save(path, tensors, st::Metadata{{"format", "pt"}}, options);
    const auto model = st::Checkpoint::open(path);
    CHECK(model.shards()[0].data_offset() % 4096 == 0 && model.metadata().find("format") == "pt");
    CHECK(model.read<float>(model.get("b")) == floats && model.read<std::uint16_t>(model.get("a")) == words);

    // A copy of it, from its file.
    options = {};
    options.source = &model;
    st::save(folder / "copy.safetensors", {model.tensors().begin(), model.tensors().end()}, model.metadata().copy(), options);
    CHECK(check::read_file((folder / "copy.safetensors").string()) == as_text(st::serialize(tensors, st::Metadata{{"format", "pt"}})));
    st::OpenOptions read;
    read.access = st::Access::read;
    const auto unmapped = st::Checkpoint::open(path, read);
    options.source = &unmapped;
    CHECK(as_text(st::serialize({*unmapped.find("a")}, {}, options)) == as_text(st::serialize({{"a", {2}, words}})));
    CHECK(throws(st::Status::invalid_argument, [&] { st::serialize({*unmapped.find("a")}); }));

    options = {};
    options.overwrite = st::Overwrite::refuse;
    const auto refused = st::try_save(path, tensors, {}, options);
    CHECK(!refused && refused.error().code() == st::Status::io && refused.error().os_errno() == EEXIST);

    // Shards.
    options = {};
    options.max_shard_size = 24;
    st::save(folder / "big.safetensors", tensors, {}, options);
    const auto sharded = st::Checkpoint::open(folder / "big.safetensors.index.json");
    CHECK(sharded.shards().size() == 2 && sharded.read<float>(sharded.get("b")) == floats);

    // Metadata alone.
    options = {};
    options.header_reserve = 200;
    st::save(path, tensors, {}, options);
    st::MetadataOptions edit;
    edit.in_place = true;
    st::set_metadata(path, st::Metadata{{"new", "entry"}}, edit);
    auto edited = st::Checkpoint::open(path);
    CHECK(edited.metadata().find("new") == "entry");
    st::set_metadata(path, {}, edit);
    edited = st::Checkpoint::open(path);
    CHECK(!edited.metadata().present());
    // What does not fit is refused, or written all the same where the file system shares blocks.
    const auto long_one = st::try_set_metadata(path, st::Metadata{{"k", std::string(400, 'v')}}, edit);
    edited = st::Checkpoint::open(path);
    CHECK(long_one ? edited.metadata().find("k")->size() == 400
                   : long_one.error().code() == st::Status::buffer_size);
    CHECK(throws(st::Status::io, [&] { st::set_metadata(folder / "none", {}); }));
}

void refusals(const Folder &folder)
{
    const auto before = folder.files();
    const auto refused = [&](st::Status status, const std::vector<st::NewTensor> &tensors, const st::SaveOptions &options = {}) {
        const auto path = folder / "refused.safetensors";
        return throws(status, [&] { st::save(path, tensors, {}, options); }) &&
               throws(status, [&] { st::serialize(tensors, {}, options); }) && folder.files() == before;
    };
    CHECK(refused(st::Status::duplicate_key, {{"a", {2}, words}, {"a", {2}, words}}));
    CHECK(refused(st::Status::invalid_argument, {{"__metadata__", {2}, words}}));
    CHECK(refused(st::Status::invalid_argument, {{"\xFF", {2}, words}}));
    CHECK(refused(st::Status::size_mismatch, {{"a", {3}, words}}) && refused(st::Status::size_mismatch, {{"a", {1}, words}}));
    CHECK(refused(st::Status::shape, {{"a", {-1}, words}}));
    CHECK(refused(st::Status::sub_byte, {{"a", st::Dtype::F4, {7}, words}}));
    CHECK(refused(st::Status::invalid_argument, {{"a", st::Dtype::as_stored, {2}, words}}));
    CHECK(refused(st::Status::unsupported, {{"a", st::Dtype::unknown, {4}, words}}));
    // Data that was left out, or is nothing at a real address.
    CHECK(refused(st::Status::invalid_argument, {{"a", st::Dtype::U16, {2}}}));
    CHECK(refused(st::Status::invalid_argument, {{"a", {2}, st::span<const std::uint16_t>(words).first(0)}}));
    st::SaveOptions options;
    options.alignment = 12;
    CHECK(refused(st::Status::invalid_argument, {{"a", {2}, words}}, options));
    CHECK(throws(st::Status::invalid_argument, [] { st::save(nullptr, {}); }));
    CHECK(throws(st::Status::invalid_argument, [] { st::save(std::string("a\0b", 3), {}); }));
    CHECK(throws(st::Status::invalid_argument, [] { st::Writer::open(nullptr, {}); }));
    CHECK(throws(st::Status::duplicate_key, [] { st::serialize({}, st::Metadata{{"k", ""}, {"k", ""}}); }));
}

void pieces(const Folder &folder)
{
    const auto path = folder / "pieces.safetensors";
    const auto before = folder.files();
    {
        auto writer = st::Writer::open(path, {{"b", st::Dtype::F32, {2, 3}}, {"a", st::Dtype::U16, {2}}});
        writer.write(0, 0, floats);
    }
    CHECK(folder.files() == before);
    auto writer = st::Writer::open(path, {{"b", st::Dtype::F32, {2, 3}}, {"a", st::Dtype::U16, {2}}}, st::Metadata{{"k", "v"}});
    writer.write(1, 2, {&words[1], 2});
    writer.write(1, 0, {words.data(), 2});
    CHECK(throws(st::Status::data_not_covered, [&] { writer.finish(); }, "\"b\""));
    CHECK(throws(st::Status::invalid_argument, [&] { writer.write(2, 0, words); }));
    CHECK(throws(st::Status::invalid_argument, [&] { writer.write(1, 2, words); }));
    st::Writer moved(std::move(writer));
    moved.write(0, 0, floats);
    moved.write(0, 24, {});
    moved.finish();
    CHECK(throws(st::Status::invalid_argument, [&] { moved.finish(); }));
    const auto model = st::Checkpoint::open(path);
    CHECK(model.read<float>(model.get("b")) == floats && model.read<std::uint16_t>(model.get("a")) == words);
}

void conversion()
{
    std::vector<st::bfloat16> half(6);
    CHECK(st::convert(floats, half) == 6 && half[2].bits == 0x4040);
    std::vector<float> back(6);
    CHECK(st::convert(half, back) == 6 && back == floats);
    CHECK(st::convert(st::span<const float>(floats).first(2), st::span<float>(back).last(2)) == 2 && back[4] == 1);
    st::float16 two[2];
    CHECK(st::convert(words, two) == 2 && static_cast<float>(two[1]) == 8);
    // F4, packed from the low bits up: 0.5, 6, -6, 1.
    const unsigned char packed[] = {0x71, 0x2F};
    CHECK(st::convert(st::Dtype::F4, packed, st::Dtype::F32, back) == 4);
    CHECK(back[0] == 0.5F && back[1] == 6 && back[2] == -6 && back[3] == 1);
    CHECK(st::convert(st::Dtype::F32, {}, st::Dtype::BF16, {}) == 0);
    const auto bytes = st::Bytes(packed);
    CHECK(throws(st::Status::size_mismatch, [&] { st::convert(st::Dtype::F32, bytes, st::Dtype::F16, back); }, "2 bytes"));
    CHECK(throws(st::Status::buffer_size, [&] { st::convert(floats, two); }, "4 bytes"));
    CHECK(throws(st::Status::invalid_argument, [&] { st::convert(st::Dtype::as_stored, bytes, st::Dtype::F32, back); }));
    CHECK(throws(st::Status::invalid_argument, [&] { st::convert(st::Dtype::U8, bytes, st::Dtype::as_stored, back); }));
    std::vector<std::uint16_t> integers(6);
    CHECK(throws(st::Status::unsupported, [&] { st::convert(floats, integers); }));
}

} // namespace

int check_writing(const char *, const char *scratch)
{
    const Folder folder(scratch);
    what_is_written();
    files(folder);
    refusals(folder);
    pieces(folder);
    conversion();
    return check::result();
}

CHECK_PROGRAM(check_writing)
