// SPDX-License-Identifier: Apache-2.0
// The rules of the header: errors in both forms, owners and what is left of
// them once moved, ranges, views of elements, options, names of numbers.

#include "check.hpp"

#include <algorithm>
#include <filesystem>
#include <numeric>

namespace {

using check::throws;

// Nothing here is copied by accident, everything moves without a throw.
template <class T>
constexpr bool moves_only = !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
                            std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
static_assert(moves_only<st::Checkpoint> && moves_only<st::Writer> && moves_only<st::Buffer>);
static_assert(std::is_nothrow_copy_constructible_v<st::Error> && std::is_base_of_v<std::exception, st::Error>);
static_assert(sizeof(st::Tensor) == sizeof(void *) && std::is_trivially_copyable_v<st::Tensor>);
#if defined(__cpp_lib_span)
static_assert(std::is_same_v<decltype(std::declval<st::Tensor>().as<float>()), std::span<const float>>);
static_assert(std::random_access_iterator<st::Tensors::iterator>);
static_assert(std::ranges::random_access_range<st::Tensors> && std::ranges::sized_range<st::Tensors>);
static_assert(std::ranges::borrowed_range<st::Tensors> && std::ranges::borrowed_range<st::Entries>);
#endif

// Two F32, F16 and BF16 of the same values, an unaligned F32, a scalar, an empty one.
const char *const mixed_header =
    R"({"__metadata__":{"a":"1","b":""},"bf16":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]},)"
    R"("empty":{"dtype":"I64","shape":[0,7],"data_offsets":[22,22]},"f16":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},)"
    R"("f32":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"flags":{"dtype":"BOOL","shape":[2],"data_offsets":[16,18]},)"
    R"("odd":{"dtype":"F32","shape":[],"data_offsets":[18,22]}})";

std::string mixed()
{
    std::string header = mixed_header;
    header.append((8 - header.size() % 8) % 8, ' ');
    const float one_and_a_half = 1.5F, minus_two = -2;
    std::string data;
    for (const float value : {one_and_a_half, minus_two})
        data.append(reinterpret_cast<const char *>(&value), 4);
    data += std::string("\x00\x3E\x00\xC0", 4) + std::string("\xC0\x3F\x00\xC0", 4) + "\x01\x07";
    return check::file(header, data.append(reinterpret_cast<const char *>(&minus_two), 4));
}

void errors(const std::string &scratch)
{
    const std::string nowhere = scratch + "/nowhere.safetensors";
    try {
        st::Checkpoint::open(nowhere);
        CHECK(false);
    } catch (const std::exception &thrown) {
        const auto &error = dynamic_cast<const st::Error &>(thrown);
        CHECK(error.code() == st::Status::io && error.os_errno() == ENOENT && std::string(error.name()) == "ST_ERROR_IO");
        CHECK(std::string(error.what()).find("nowhere.safetensors") != std::string::npos && error.what() == error.message());
    }
    auto result = st::Checkpoint::try_open(nowhere);
    CHECK(!result && !result.has_value() && result.error().code() == st::Status::io && result.error().os_errno() == ENOENT);
    CHECK(throws(st::Status::io, [&] { (void)result.value(); }, "nowhere.safetensors"));
    CHECK(throws(st::Status::io, [&] { (void)std::as_const(result).value(); }));
    CHECK(throws(st::Status::io, [&] { (void)std::move(result).value(); }));

    const char *null = nullptr;
    CHECK(throws(st::Status::invalid_argument, [&] { st::Checkpoint::open(null); }, "NULL"));
    CHECK(throws(st::Status::invalid_argument, [&] { st::Checkpoint::open(nowhere + '\0' + "x"); }, "NUL"));
    CHECK(throws(st::Status::io, [&] { st::Checkpoint::open(std::filesystem::path(nowhere)); }));
    CHECK(throws(st::Status::invalid_argument, [] { st::Checkpoint::open_memory(nullptr, 8); }));
    CHECK(throws(st::Status::truncated, [] { st::Checkpoint::open_memory("1234567", 7); }));
    CHECK(throws(st::Status::header_start, [] { st::Checkpoint::open_memory("\2\0\0\0\0\0\0\0[]", 10); }));

    const std::string long_text(2000, 'x');
    const st::Error cut(st::Status::shape, long_text, 7);
    CHECK(std::strlen(cut.what()) == 503 && cut.os_errno() == 7 && cut.code() == st::Status::shape);
    const st::Error copy = cut;
    CHECK(std::string(copy.what()) == cut.what());
    const st::Result<std::string> good(std::string("value"));
    CHECK(good && *good == "value" && good->size() == 5 && good.value() == "value");
    st::Result<void> nothing;
    nothing.value();
    CHECK(nothing && !st::Result<void>(cut));
    CHECK(throws(st::Status::shape, [&] { st::Result<void>(cut).value(); }));
}

void ranges(const st::Checkpoint &model)
{
    const st::Tensors tensors = model.tensors();
    CHECK(tensors.size() == 6 && !tensors.empty() && tensors.front().name() == "f32" && tensors.back().name() == "empty");
    std::string names;
    for (const st::Tensor tensor : model.tensors())
        names += std::string(tensor.name()) + ' ';
    CHECK(names == "f32 f16 bf16 flags odd empty ");
    const auto named = [](std::string_view name) { return [name](st::Tensor tensor) { return tensor.name() == name; }; };
    CHECK(std::find_if(tensors.begin(), tensors.end(), named("flags"))->offset() == tensors[3].offset());
    CHECK(std::count_if(tensors.begin(), tensors.end(), [](st::Tensor t) { return t.dtype() == st::Dtype::F32; }) == 2);
    const auto bytes = [](std::uint64_t sum, st::Tensor tensor) { return sum + tensor.size(); };
    CHECK(std::accumulate(tensors.begin(), tensors.end(), std::uint64_t{0}, bytes) == 22);
    const auto second = std::lower_bound(tensors.begin(), tensors.end(), tensors[1].offset(),
                                         [](st::Tensor tensor, std::uint64_t offset) { return tensor.offset() < offset; });
    CHECK(second - tensors.begin() == 1 && second[1].name() == "bf16" && tensors.end() - second == 5);
    CHECK(second > tensors.begin() && *(second + 1)->name().data() == 'b' && (1 + second)[0].name() == "bf16");
    std::vector<st::Tensor> copies(tensors.begin(), tensors.end());
    std::sort(copies.begin(), copies.end(), [](st::Tensor a, st::Tensor b) { return a.name() < b.name(); });
    CHECK(copies.front().name() == "bf16" && copies.back().name() == "odd");
    const std::reverse_iterator<st::Tensors::iterator> last(tensors.end());
    CHECK((*last).name() == "empty" && last->name() == "empty");
#if defined(__cpp_lib_span)
    CHECK(std::ranges::find_if(model.tensors(), named("odd"))->rank() == 0);
    CHECK(std::ranges::distance(model.tensors()) == 6);
#endif

    std::string all;
    for (const auto [key, value] : model.metadata())
        (all += key) += '=' + std::string(value) + ' ';
    CHECK(all == "a=1 b= " && model.metadata().present());
    CHECK(model.metadata().find("a") == "1" && model.metadata().find("b") == "" && !model.metadata().find("c"));
    CHECK((model.metadata().copy() == st::Metadata{{"a", "1"}, {"b", ""}}));
    CHECK(model.shards().size() == 1 && model.shards()[0].size() == model.shards()[0].data_offset() + 22);
}

void views(const st::Checkpoint &model)
{
    const st::Tensor f32 = model.get("f32");
    CHECK(f32.dtype() == st::Dtype::F32 && f32.dtype_name() == "F32" && f32.rank() == 2 && f32.element_count() == 2);
    CHECK(f32.shape().size() == 2 && f32.shape()[0] == 1 && f32.shape()[1] == 2);
    const st::span<const float> floats = f32.as<float>();
    CHECK(floats.size() == 2 && floats[0] == 1.5F && floats[1] == -2 && floats.data() == f32.data());
    CHECK(f32.as<const float>().data() == floats.data() && f32.bytes().size() == 8);
    CHECK(std::accumulate(floats.begin(), floats.end(), 0.0F) == -0.5F);
    CHECK(throws(st::Status::invalid_argument, [&] { f32.as<std::int32_t>(); }, "\"f32\" is F32, and not I32"));
    CHECK(!f32.try_as<double>() && !f32.try_as<st::bfloat16>() && f32.try_as<float>());
    const auto f16 = model.get("f16").as<st::float16>();
    const auto bf16 = model.get("bf16").as<st::bfloat16>();
    CHECK(static_cast<float>(f16[0]) == 1.5F && static_cast<float>(f16[1]) == -2);
    CHECK(static_cast<float>(bf16[0]) == 1.5F && static_cast<float>(bf16[1]) == -2);
    const auto flags = model.get("flags").as<std::uint8_t>();
    CHECK(flags[0] == 1 && flags[1] == 7 && !model.get("flags").try_as<std::int8_t>());
    CHECK(throws(st::Status::unsupported, [&] { model.get("odd").as<float>(); }, "no multiple of 4"));
    CHECK(model.read<float>(model.get("odd")) == std::vector<float>{-2});
    CHECK(model.get("empty").as<long>().empty() && model.get("empty").as<std::int64_t>().empty());
    CHECK(model.read<std::int64_t>(*model.find("empty")).empty());
    CHECK(throws(st::Status::invalid_argument, [&] { model.read<float>(model.get("f16")); }));

    // Into whatever holds plain elements.
    float array[3] = {0, 0, 9};
    model.read(f32, array);
    CHECK(array[0] == 1.5F && array[1] == -2 && array[2] == 9);
    std::vector<unsigned char> vector(8);
    model.read(f32, vector);
    CHECK(std::memcmp(vector.data(), array, 8) == 0);
    model.read(f32, {vector.data(), vector.size()});
    std::vector<char> nothing;
    model.read(*model.find("empty"), nothing);
    CHECK(throws(st::Status::buffer_size, [&] { model.read(f32, st::span<float>(array).first(1)); }));
    CHECK((model.read_slice<float>(f32, {{}, {1}}) == std::vector<float>{-2}));
    model.read_slice(f32, {{}, {0, -1}}, array);
    CHECK(array[0] == 1.5F);
    const auto shape = st::slice_shape(f32, {{}, {-1, INT64_MAX, 1}});
    CHECK((shape.shape == std::vector<std::int64_t>{1, 1}) && shape.size == 4);
    CHECK(throws(st::Status::invalid_argument, [&] { model.read_slice<float>(f32, {{0, 2}}); }));
    CHECK(throws(st::Status::invalid_argument, [&] { st::slice_shape(f32, {{}, {}, {}}); }));
}

void lookups(const st::Checkpoint &model, const std::string &scratch)
{
    CHECK(model.find("f32")->data() == model.get("f32").data() && !model.find("f3") && !model.find("") && !model.find({}));
    CHECK(model.find(std::string_view("f32 and more", 3)) && !model.try_get(std::string_view("f32\0", 4)));
    CHECK(throws(st::Status::not_found, [&] { model.get("no\nsuch"); }, "no\\nsuch"));

    // Read and not mapped: found without bytes, got with them.
    const std::string path = scratch + "/contract.safetensors";
    check::write_file(path, mixed());
    st::OpenOptions options;
    options.access = st::Access::read;
    const auto read = st::Checkpoint::open(path, options);
    CHECK(read.shards()[0].access() == st::Access::read && read.shards()[0].path() == path);
    CHECK(!read.shards()[0].reason().empty());
    CHECK(read.find("f32")->data() == nullptr && read.find("empty")->bytes().empty());
    CHECK(throws(st::Status::invalid_argument, [&] { read.find("f32")->as<float>(); }, "get"));
    CHECK(read.get("odd").as<float>()[0] == -2);
    CHECK(read.get("f32").data() == read.get("f32").data());
    options.access = st::Access::map;
    const auto mapped = st::Checkpoint::open(std::filesystem::path(path), options);
    CHECK(mapped.find("f32")->as<float>()[1] == -2);
    options.max_tensors = 5;
    CHECK(throws(st::Status::header_too_large, [&] { st::Checkpoint::open(path, options); }));
    options.max_tensors = 0;
    options.access = static_cast<st::Access>(77);
    CHECK(throws(st::Status::invalid_argument, [&] { st::Checkpoint::open(path, options); }));
}

void hostile_names()
{
    const std::string bytes = check::file(
        R"({"\u0000\u001b[2J\u2028\"":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"x":{"dtype":"W\u00079","shape":[1],"data_offsets":[0,1]}})", "x");
    st::OpenOptions options;
    CHECK(throws(st::Status::dtype, [&] { st::Checkpoint::open_memory(bytes.data(), bytes.size(), options); }));
    options.tolerate_unknown_dtype = true;
    const auto model = st::Checkpoint::open_memory(bytes.data(), bytes.size(), options);
    const auto found = model.find(std::string_view("\0\x1B[2J\xE2\x80\xA8\"", 9));
    if (CHECK(found)) {
        CHECK(throws(st::Status::invalid_argument, [&] { found->as<int>(); }, R"("\x00\x1b[2J\xe2\x80\xa8\x22" is F32)"));
    }
    CHECK(model.find("x")->dtype() == st::Dtype::unknown);
    CHECK(throws(st::Status::invalid_argument, [&] { model.find("x")->as<int>(); }, "is UNKNOWN"));
}

void validation(const std::string &scratch)
{
    const std::string path = scratch + "/invalid.safetensors";
    check::write_file(path, check::file(R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,2]}})", "xyz"));
    std::vector<st::Status> codes;
    const auto collect = [&](const st::Problem &problem) {
        codes.push_back(problem.code);
        CHECK(problem.file == path && problem.fatal && !problem.text.empty() && problem.position < 200);
        if (problem.code == st::Status::dtype)
            CHECK(problem.tensor == "a" && !problem.fatal_tolerated);
    };
    const auto result = st::try_validate(path, collect);
    CHECK(!result && codes.size() >= 2 && result.error().code() == codes[0]);
    CHECK(std::count(codes.begin(), codes.end(), st::Status::dtype) == 1);
    CHECK(std::count(codes.begin(), codes.end(), st::Status::size_mismatch) == 1);
    CHECK(throws(codes[0], [&] { st::validate(path); }));
    CHECK(throws(st::Status::cancelled, [&] { st::validate(path, [](const st::Problem &) { return false; }); }));
    CHECK(check::throws_mine(4, [&] { (void)st::try_validate(path, [](const st::Problem &) { throw check::Mine(4); }); }));
    CHECK(throws(st::Status::io, [&] { st::validate(path + ".gone"); }));
    check::write_file(path, mixed());
    st::validate(path, collect);
}

void owners(const std::string &bytes)
{
    auto model = st::Checkpoint::open_memory(bytes.data(), bytes.size());
    const st::Tensor tensor = model.get("f32");
    st::Checkpoint moved = std::move(model);
    // NOLINTBEGIN(bugprone-use-after-move): that is what is tested.
    CHECK(!model && moved && tensor.as<float>()[0] == 1.5F);
    CHECK(model.tensors().empty() && model.shards().empty() && model.metadata().empty() && !model.metadata().present());
    CHECK(!model.metadata().copy() && !model.metadata().find("a") && !model.find("f32") && model.handle() == nullptr);
    float room[2];
    const auto bad = st::Status::invalid_argument;
    CHECK(throws(bad, [&] { model.get("f32"); }) && throws(bad, [&] { model.read(tensor, room); }));
    CHECK(throws(bad, [&] { model.read<float>(tensor); }) && throws(bad, [&] { model.read_slice(tensor, {}, room); }));
    CHECK(!model.share());
    model = std::move(moved);
    CHECK(model && !moved && model.get("f32").data() == tensor.data());

    // A handle is closed with its last owner.
    st::Checkpoint other = model.share();
    CHECK(other.handle() == model.handle());
    model = st::Checkpoint();
    CHECK(!model && other.get("f32").as<float>()[1] == -2);
    st::Checkpoint adopted(st_retain(other.handle()));
    other = st::Checkpoint();
    CHECK(adopted.get("f32").data() == tensor.data());
    auto &same = adopted;
    adopted = std::move(same);
    CHECK(adopted.find("f32"));

    st::Writer writer, none(std::move(writer));
    CHECK(!writer && !none && throws(bad, [&] { writer.write(0, 0, room); }) && throws(bad, [&] { writer.finish(); }));
    auto buffer = st::serialize({{"x", {2}, std::vector<float>{1, 2}}});
    const std::byte *place = buffer.data();
    st::Buffer taken(std::move(buffer));
    CHECK(buffer.data() == nullptr && buffer.empty() && buffer.bytes().empty() && taken.data() == place);
    st::Buffer target = st::serialize({});
    target = std::move(taken);
    const auto read_back = st::Checkpoint::open_memory(target.data(), target.size());
    CHECK(taken.empty() && target.data() == place && read_back.find("x"));
    // NOLINTEND(bugprone-use-after-move)
}

void numbers()
{
    CHECK(std::string(st::version()) == st_version());
    st::check_version();
    CHECK(std::string(st::name(st::Status::sub_byte)) == "ST_ERROR_SUB_BYTE" && st::name(static_cast<st::Status>(999)) != nullptr);
    for (int number = 1; number <= ST_DTYPE_U64; number++) {
        const auto dtype = static_cast<st::Dtype>(number);
        CHECK(st::bits(dtype) != 0 && st::dtype_from_name(st::name(dtype)) == dtype);
    }
    CHECK(!st::dtype_from_name("bf16") && !st::dtype_from_name("") && !st::dtype_from_name(std::string("F32\0", 4)));
    CHECK(st::bits(st::Dtype::as_stored) == 0 && st::bits(st::Dtype::F4) == 4 && st::bits(st::Dtype::C64) == 64);
    using st::Dtype;
    using st::Element;
    CHECK(Element<char>::dtype == (std::is_signed_v<char> ? Dtype::I8 : Dtype::U8) && Element<long>::dtype == Element<long long>::dtype);
    CHECK(Element<std::uint16_t>::dtype == Dtype::U16 && Element<std::complex<float>>::dtype == Dtype::C64);
    CHECK(Element<std::int32_t>::dtype == Dtype::I32 && Element<std::uint64_t>::dtype == Dtype::U64);
}

} // namespace

int check_contract(const char *, const char *scratch)
{
    const std::string bytes = mixed();
    const auto aligned = st::Buffer(st::serialize({{"x", {1}, std::vector<float>{1}}})); // only to have a block
    CHECK(reinterpret_cast<std::uintptr_t>(bytes.data()) % 8 == 0 && !aligned.empty());
    const auto model = st::Checkpoint::open_memory(bytes.data(), bytes.size());
    errors(scratch);
    ranges(model);
    views(model);
    lookups(model, scratch);
    hostile_names();
    validation(scratch);
    owners(bytes);
    numbers();
    return check::result();
}

CHECK_PROGRAM(check_contract)
