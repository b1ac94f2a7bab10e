// SPDX-License-Identifier: Apache-2.0
/*
 * safetensors.hpp: read and write safetensors checkpoints from C++17 or newer.
 *
 * One header over safetensors.h, which says more about the format and about
 * each function than is repeated here; a name there is found by its words here.
 *
 *     #include <safetensors.hpp>
 *
 *     auto model = safetensors::Checkpoint::open("model.safetensors");
 *     for (safetensors::Tensor tensor : model.tensors())
 *         std::cout << tensor.name() << ": " << tensor.dtype_name() << '\n';
 *     auto weight = model.get("weight").as<float>();     // span<const float>, not copied
 *
 * RULES FOR EVERYTHING HERE
 *
 * Errors. Each function that can fail has two forms. The plain one throws
 *   safetensors::Error, which has a code, the system's errno and a message that
 *   is safe to print. The one that begins with try_ returns a Result instead,
 *   which is the value or the Error. Everything compiles with -fno-exceptions
 *   too: use the try_ functions there, as a plain one that fails then aborts.
 *   Where the wrapper itself allocates (a vector of records to write, say), it
 *   does as the standard containers do: std::bad_alloc.
 * Callbacks are lambdas or whatever can be called. An exception thrown inside
 *   one comes out of the call that needed it (also out of a try_ function, and
 *   from whatever thread it was thrown on) and never crosses C code. Instead of
 *   throwing, a callback may return a Result with an Error in it; that one
 *   travels through the library, which adds which file and tensor it was about.
 * Ownership. Checkpoint, Writer and Buffer own, can be moved and not copied.
 *   One that has been moved from is empty: it lists and finds nothing, and what
 *   can fail fails with Status::invalid_argument. Tensor, Shard, Entry, and all
 *   ranges, spans and string_views are views: small, copied freely, valid until
 *   the last Checkpoint that shares their handle is gone. Moving a Checkpoint
 *   leaves them valid. A temporary gives none: give the checkpoint a name first.
 *   What is passed into a function is borrowed for the call,
 *   but for the memory of open_memory and the callbacks of open_io.
 * Threads. Any number of them may call const functions of one Checkpoint at the
 *   same time, or write different tensors through one Writer.
 * Units. Shapes, ranges and counts are in elements, in C order; sizes, offsets
 *   and strides in bytes. Data is little-endian.
 *
 * CONTENTS: configuration, numbers and their names, errors, element types,
 * views of memory, callbacks, records, options, checkpoint, writing, validate,
 * helpers.
 */

#ifndef SAFETENSORS_HPP
#define SAFETENSORS_HPP

#if defined(_MSVC_LANG) ? _MSVC_LANG < 201703L : __cplusplus < 201703L
#error "safetensors.hpp needs C++17 or newer: compile with -std=c++17"
#else

#include "safetensors.h"

#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#if defined(__has_include)
#if __has_include(<version>)
#include <version>
#endif
#endif

// ==== Configuration ====

static_assert(SAFETENSORS_ABI_VERSION == 1 && SAFETENSORS_VERSION_MAJOR == 0 && SAFETENSORS_VERSION_MINOR == 1,
              "safetensors.hpp and safetensors.h are of different releases: install both from one");

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define SAFETENSORS_EXCEPTIONS 1
#else
#define SAFETENSORS_EXCEPTIONS 0
#endif

// Whether span is std::span, or a small one of our own. Types in which a span
// occurs have another name in each case, so that units of C++17 and of C++20 in
// one program don't take one for the other; Error and Result are the same in both.
#if defined(__cpp_lib_span)
#include <span>
#define SAFETENSORS_DIALECT with_std_span
#else
#define SAFETENSORS_DIALECT with_own_span
#endif

#if defined(__STDCPP_FLOAT16_T__) || defined(__STDCPP_BFLOAT16_T__)
#include <stdfloat>
#endif

// An exception is caught by its type, also where that type crosses from one
// shared object to another, and some systems then compare types by address.
#if defined(__GNUC__)
#define SAFETENSORS_EXPORTED __attribute__((visibility("default")))
#else
#define SAFETENSORS_EXPORTED
#endif

// On a function whose result points into the object it is called on: clang then
// warns where the result outlives that object.
#if defined(__has_cpp_attribute)
#if __has_cpp_attribute(clang::lifetimebound)
#define SAFETENSORS_LIFETIMEBOUND [[clang::lifetimebound]]
#endif
#endif
#if !defined(SAFETENSORS_LIFETIMEBOUND)
#define SAFETENSORS_LIFETIMEBOUND
#endif

namespace safetensors {

// ==== Numbers and their names ====

// What went wrong; safetensors.h says what each means (ST_ERROR_*). A newer
// library may have codes that are not listed here.
enum class Status : st_status {
    ok = ST_OK,
    invalid_argument = ST_ERROR_INVALID_ARGUMENT,
    out_of_memory = ST_ERROR_OUT_OF_MEMORY,
    io = ST_ERROR_IO,
    not_found = ST_ERROR_NOT_FOUND,
    buffer_size = ST_ERROR_BUFFER_SIZE,
    cancelled = ST_ERROR_CANCELLED,
    unsupported = ST_ERROR_UNSUPPORTED,
    internal = ST_ERROR_INTERNAL,
    truncated = ST_ERROR_TRUNCATED,
    header_too_large = ST_ERROR_HEADER_TOO_LARGE,
    header_length = ST_ERROR_HEADER_LENGTH,
    header_start = ST_ERROR_HEADER_START,
    header_utf8 = ST_ERROR_HEADER_UTF8,
    header_json = ST_ERROR_HEADER_JSON,
    duplicate_key = ST_ERROR_DUPLICATE_KEY,
    metadata = ST_ERROR_METADATA,
    dtype = ST_ERROR_DTYPE,
    shape = ST_ERROR_SHAPE,
    offsets = ST_ERROR_OFFSETS,
    size_mismatch = ST_ERROR_SIZE_MISMATCH,
    data_not_covered = ST_ERROR_DATA_NOT_COVERED,
    sub_byte = ST_ERROR_SUB_BYTE,
    index = ST_ERROR_INDEX,
    shard = ST_ERROR_SHARD,
    plan = ST_ERROR_PLAN,
    group = ST_ERROR_GROUP,
    config = ST_ERROR_CONFIG,
};

// Element types, spelled as in files.
enum class Dtype : st_dtype {
    as_stored = ST_DTYPE_AS_STORED, // where a dtype may be chosen: none other
    BOOL = ST_DTYPE_BOOL,
    F4 = ST_DTYPE_F4,
    F6_E2M3 = ST_DTYPE_F6_E2M3,
    F6_E3M2 = ST_DTYPE_F6_E3M2,
    U8 = ST_DTYPE_U8,
    I8 = ST_DTYPE_I8,
    F8_E5M2 = ST_DTYPE_F8_E5M2,
    F8_E4M3 = ST_DTYPE_F8_E4M3,
    F8_E8M0 = ST_DTYPE_F8_E8M0,
    F8_E4M3FNUZ = ST_DTYPE_F8_E4M3FNUZ,
    F8_E5M2FNUZ = ST_DTYPE_F8_E5M2FNUZ,
    I16 = ST_DTYPE_I16,
    U16 = ST_DTYPE_U16,
    F16 = ST_DTYPE_F16,
    BF16 = ST_DTYPE_BF16,
    I32 = ST_DTYPE_I32,
    U32 = ST_DTYPE_U32,
    F32 = ST_DTYPE_F32,
    C64 = ST_DTYPE_C64,
    F64 = ST_DTYPE_F64,
    I64 = ST_DTYPE_I64,
    U64 = ST_DTYPE_U64,
    unknown = ST_DTYPE_UNKNOWN, // kept on request: OpenOptions::tolerate_unknown_dtype
};

// How the bytes of a file are reached. The last two are found in shards only.
enum class Access : std::int32_t {
    automatic = ST_ACCESS_AUTO, // map on file systems known to be local, read elsewhere
    map = ST_ACCESS_MAP,        // zero-copy: every tensor has data
    read = ST_ACCESS_READ,      // nothing is mapped: a failing disk is an Error, never a SIGBUS
    memory = ST_ACCESS_MEMORY,
    callback = ST_ACCESS_CALLBACK,
};

enum class Prefetch : std::int32_t {
    none = ST_PREFETCH_NONE,
    advise = ST_PREFETCH_ADVISE,     // tell the system to read ahead, and don't wait
    populate = ST_PREFETCH_POPULATE, // mapped files are in memory when opening returns
};

enum class LoadIo : std::int32_t {
    automatic = ST_IO_AUTO, // what is in the page cache from there, the rest past it
    cached = ST_IO_CACHED,  // through the page cache
    direct = ST_IO_DIRECT,  // past it, where the file system can
};

enum class Order : std::int32_t {
    reference = ST_ORDER_REFERENCE, // widest dtype first, then by name, as the reference implementation writes
    given = ST_ORDER_GIVEN,
};

enum class Sync : std::int32_t {
    full = ST_SYNC_FULL, // files and their names are on the disk when the call returns
    none = ST_SYNC_NONE, // the system writes them when it likes
};

enum class Overwrite : std::int32_t {
    replace = ST_OVERWRITE_REPLACE, // in one step
    refuse = ST_OVERWRITE_REFUSE,   // an older file stays: Status::io with EEXIST
};

// The constant's spelling in C, as "ST_ERROR_IO". Static.
inline const char *name(Status status) noexcept { return st_status_name(static_cast<st_status>(status)); }

// The spelling in files, as "BF16". Static.
inline const char *name(Dtype dtype) noexcept { return st_dtype_name(static_cast<st_dtype>(dtype)); }

// Bits of one element: 4, 6, 8, 16, 32 or 64; 0 for as_stored and unknown.
inline std::uint32_t bits(Dtype dtype) noexcept { return st_dtype_bits(static_cast<st_dtype>(dtype)); }

// The dtype that files spell so; case matters.
inline std::optional<Dtype> dtype_from_name(const std::string &name)
{
    const st_dtype found = name.find('\0') == std::string::npos ? st_dtype_from_name(name.c_str()) : 0;
    return found != 0 ? std::optional<Dtype>(static_cast<Dtype>(found)) : std::nullopt;
}

// ==== Errors ====

// What is thrown, and what a Result holds. Plain memory: copying one allocates
// nothing and can't fail.
class SAFETENSORS_EXPORTED Error : public std::exception {
public:
    // One of your own, for a callback to throw or return. Text after the 503rd
    // byte is cut off.
    explicit Error(Status code, std::string_view message, int os_errno = 0) noexcept
    {
        error_.code = static_cast<st_status>(code);
        error_.os_errno = os_errno;
        const std::size_t size = message.size() < sizeof error_.message ? message.size() : sizeof error_.message - 1;
        std::memcpy(error_.message, message.data(), size);
        error_.message[size] = '\0';
    }

    explicit Error(const st_error &error) noexcept : error_(error) {}

    Status code() const noexcept { return static_cast<Status>(error_.code); }

    // The operating system's errno, or 0 where it had none.
    int os_errno() const noexcept { return error_.os_errno; }

    // File, tensor, rule and numbers; safe to print.
    const char *message() const noexcept { return error_.message; }
    const char *what() const noexcept override { return error_.message; }

    // The code's spelling in C, as "ST_ERROR_IO".
    const char *name() const noexcept { return safetensors::name(code()); }

    // Throws it; aborts where there are no exceptions.
    [[noreturn]] void raise() const
    {
#if SAFETENSORS_EXCEPTIONS
        throw *this;
#else
        std::abort();
#endif
    }

private:
    st_error error_ = {};
};

// A value, or why there is none: what try_ functions return.
//
//     auto model = Checkpoint::try_open(path);
//     if (!model)
//         return log(model.error().message());
//     use(model->tensors());
template <class T> class [[nodiscard]] Result {
public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(const Error &error) noexcept : state_(std::in_place_index<1>, error) {}

    bool has_value() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    // The value; throws the Error where there is none.
    T &value() &
    {
        check();
        return **this;
    }
    const T &value() const &
    {
        check();
        return **this;
    }
    T &&value() &&
    {
        check();
        return std::move(**this);
    }

    // The value, which has to be there.
    T &operator*() & noexcept { return *std::get_if<0>(&state_); }
    const T &operator*() const & noexcept { return *std::get_if<0>(&state_); }
    T &&operator*() && noexcept { return std::move(*std::get_if<0>(&state_)); }
    T *operator->() & noexcept { return std::get_if<0>(&state_); }
    const T *operator->() const & noexcept { return std::get_if<0>(&state_); }

    // A temporary Result would take what it owns with it: try_open(path)->tensors().
    template <class U = T, class = typename U::owns_what_it_shows> T *operator->() && = delete;

    // The Error, where there is no value.
    const Error &error() const noexcept { return *std::get_if<1>(&state_); }

private:
    void check() const
    {
        if (!has_value())
            error().raise();
    }

    std::variant<T, Error> state_;
};

// Success, or why there was none.
template <> class [[nodiscard]] Result<void> {
public:
    Result() noexcept = default;
    Result(const Error &error) noexcept : error_(error) {}

    bool has_value() const noexcept { return !error_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }

    // Throws the Error, if there is one.
    void value() const
    {
        if (error_)
            error_->raise();
    }

    // The Error, where there is one.
    const Error &error() const noexcept { return *error_; }

private:
    std::optional<Error> error_;
};

// The version of the library that runs, as "0.1.0"; SAFETENSORS_VERSION is the
// one compiled against. Static.
inline const char *version() noexcept { return st_version(); }

// Whether the library that runs fits this header: Status::unsupported with both
// versions where it does not. All that opens, writes or converts asks first.
inline Result<void> try_check_version()
{
    if (st_abi_version() == SAFETENSORS_ABI_VERSION)
        return {};
    const std::string header = std::to_string(SAFETENSORS_VERSION_MAJOR) + '.' +
                               std::to_string(SAFETENSORS_VERSION_MINOR) + '.' +
                               std::to_string(SAFETENSORS_VERSION_PATCH);
    return Error(Status::unsupported,
                 "compiled with safetensors.hpp " + header + " (ABI " + std::to_string(SAFETENSORS_ABI_VERSION) +
                     "), but the library that runs is libsafetensors " + st_version() + " (ABI " +
                     std::to_string(st_abi_version()) + "): install the one that fits, or compile again");
}

inline void check_version() { try_check_version().value(); }

// ==== Element types ====

// IEEE 754 half precision, as bits. To convert more than a few: convert().
struct float16 {
    std::uint16_t bits;

    explicit operator float() const noexcept
    {
        float value = 0;
        st_convert(ST_DTYPE_F16, &bits, ST_DTYPE_F32, &value, 1, nullptr);
        return value;
    }
};

// The upper half of a float, as bits.
struct bfloat16 {
    std::uint16_t bits;

    explicit operator float() const noexcept
    {
        const std::uint32_t wide = std::uint32_t{bits} << 16;
        float value;
        std::memcpy(&value, &wide, sizeof value);
        return value;
    }
};

template <Dtype D> struct ElementOf {
    static constexpr Dtype dtype = D;
};

// Which dtype a C++ type holds: what as<T>() and the other typed functions go
// by. For a type of your own (a vendor's half, an FP8):
//
//     template <> struct safetensors::Element<my::half>
//         : safetensors::ElementOf<safetensors::Dtype::F16> {};
//
// There is none for bool, since a file's BOOL may hold other bytes than 0 and
// 1, and such a bool is undefined behaviour: view BOOL as std::uint8_t.
template <class T, class = void> struct Element;

template <class T>
struct Element<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool> && sizeof(T) <= 8>>
    : ElementOf<sizeof(T) == 1   ? (std::is_signed_v<T> ? Dtype::I8 : Dtype::U8)
                : sizeof(T) == 2 ? (std::is_signed_v<T> ? Dtype::I16 : Dtype::U16)
                : sizeof(T) == 4 ? (std::is_signed_v<T> ? Dtype::I32 : Dtype::U32)
                                 : (std::is_signed_v<T> ? Dtype::I64 : Dtype::U64)> {};
template <> struct Element<float> : ElementOf<Dtype::F32> {};
template <> struct Element<double> : ElementOf<Dtype::F64> {};
template <> struct Element<std::complex<float>> : ElementOf<Dtype::C64> {};
template <> struct Element<float16> : ElementOf<Dtype::F16> {};
template <> struct Element<bfloat16> : ElementOf<Dtype::BF16> {};
#if defined(__STDCPP_FLOAT16_T__)
template <> struct Element<std::float16_t> : ElementOf<Dtype::F16> {};
#endif
#if defined(__STDCPP_BFLOAT16_T__)
template <> struct Element<std::bfloat16_t> : ElementOf<Dtype::BF16> {};
#endif

// Whether elements of a dtype may be looked at as T: its own dtype, and for
// std::uint8_t BOOL too.
template <class T> constexpr bool views(Dtype dtype) noexcept
{
    static_assert(!std::is_same_v<T, bool>, "BOOL may hold other bytes than 0 and 1: view it as std::uint8_t");
    return dtype == Element<T>::dtype || (std::is_same_v<T, std::uint8_t> && dtype == Dtype::BOOL);
}

// ==== Views of memory ====

inline namespace SAFETENSORS_DIALECT {

namespace detail {

// What the elements of contiguous containers are: vectors, arrays, spans.
template <class C> using Contained = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>;

template <class C, class T>
using IfContainerOf = std::enable_if_t<std::is_convertible_v<Contained<C> (*)[], T (*)[]> &&
                                       std::is_convertible_v<decltype(std::size(std::declval<C &>())), std::size_t>>;

template <class C>
using IfBytes = std::enable_if_t<std::is_trivially_copyable_v<Contained<C>> &&
                                 std::is_convertible_v<decltype(std::size(std::declval<C &>())), std::size_t>>;

// Whether C, as deduced for a C &&, is a temporary that takes its elements with
// it: a vector or an array. A span is none; what tells them apart is that a
// constant vector's elements are constant, too.
template <class C>
constexpr bool is_temporary_owner =
    !std::is_lvalue_reference_v<C> &&
    !std::is_same_v<Contained<std::remove_const_t<C>>, Contained<const std::remove_const_t<C>>>;
template <class C> using IfOutlives = std::enable_if_t<!is_temporary_owner<C>>;
template <class C> using IfTemporary = std::enable_if_t<is_temporary_owner<C>>;

// Which dtype memory of T is for; as_stored: bytes, which may hold any.
template <class T> constexpr Dtype memory_dtype() noexcept
{
    if constexpr (std::is_same_v<T, std::byte> || std::is_same_v<T, char> || std::is_same_v<T, unsigned char>)
        return Dtype::as_stored;
    else
        return Element<T>::dtype; // an unknown type: specialise Element for it, or give an address and a size
}

} // namespace detail

#if defined(__cpp_lib_span)
template <class T> using span = std::span<T>;
#else
// What is used of std::span, where there is none.
template <class T> class span {
public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using size_type = std::size_t;
    using difference_type = std::ptrdiff_t;
    using pointer = T *;
    using reference = T &;
    using iterator = T *;

    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = detail::IfContainerOf<C, T>,
              class = std::enable_if_t<!std::is_same_v<std::remove_cv_t<std::remove_reference_t<C>>, span>>>
    constexpr span(C &&container) : data_(std::data(container)), size_(std::size(container))
    {
    }

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr std::size_t size_bytes() const noexcept { return size_ * sizeof(T); }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T &operator[](std::size_t i) const { return data_[i]; }
    constexpr T &front() const { return data_[0]; }
    constexpr T &back() const { return data_[size_ - 1]; }
    constexpr iterator begin() const noexcept { return data_; }
    constexpr iterator end() const noexcept { return data_ + size_; }
    constexpr span first(std::size_t count) const { return {data_, count}; }
    constexpr span last(std::size_t count) const { return {data_ + (size_ - count), count}; }
    constexpr span subspan(std::size_t offset) const { return {data_ + offset, size_ - offset}; }
    constexpr span subspan(std::size_t offset, std::size_t count) const { return {data_ + offset, count}; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
#endif

// Bytes to read from: any vector, array or span of plain elements, or a pointer
// and a size. An argument; it owns nothing.
class Bytes {
public:
    constexpr Bytes() noexcept = default;
    constexpr Bytes(const void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = detail::IfBytes<const C>>
    constexpr Bytes(const C &container)
        : data_(std::data(container)), size_(std::size(container) * sizeof(detail::Contained<const C>))
    {
    }

    constexpr const void *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    const void *data_ = nullptr;
    std::size_t size_ = 0;
};

// Memory to write to, from the same, but no temporary vector, which would be
// gone before anybody looks. Elements of a type other than std::byte, char and
// std::uint8_t take their own dtype only (Element<T>).
class MutableBytes {
public:
    constexpr MutableBytes() noexcept = default;
    constexpr MutableBytes(void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = detail::IfBytes<C>, class = std::enable_if_t<!std::is_const_v<detail::Contained<C>>>,
              class = detail::IfOutlives<C>>
    constexpr MutableBytes(C &&container)
        : data_(std::data(container)), size_(std::size(container) * sizeof(detail::Contained<C>)),
          dtype_(detail::memory_dtype<std::remove_all_extents_t<detail::Contained<C>>>())
    {
    }
    template <class C, class = detail::IfBytes<C>, class = detail::IfTemporary<C>> MutableBytes(C &&) = delete;

    constexpr void *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

    // What it is for; as_stored: bytes, which may hold any dtype.
    constexpr Dtype dtype() const noexcept { return dtype_; }

private:
    void *data_ = nullptr;
    std::size_t size_ = 0;
    Dtype dtype_ = Dtype::as_stored;
};

// A path in the system's bytes: a C string, a std::string or a
// std::filesystem::path. An argument; it owns nothing.
class Path {
public:
    Path(const char *path) noexcept : path_(path) {}
    Path(const std::string &path) noexcept : path_(path.c_str()), whole_(path.find('\0') == std::string::npos) {}
    template <class P, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<const P &>().native()),
                                                                      const std::string &>>>
    Path(const P &path) noexcept : Path(path.native())
    {
    }

    const char *c_str() const noexcept { return path_; }

    // A NUL inside would cut it short unnoticed.
    Result<void> check() const
    {
        return whole_ ? Result<void>() : Error(Status::invalid_argument, "there is a NUL byte inside the path");
    }

private:
    const char *path_;
    bool whole_ = true;
};

// A block of memory from the library.
class Buffer {
public:
    Buffer() noexcept = default;

    // Takes over what a C function has filled in.
    explicit Buffer(st_buffer buffer) noexcept : buffer_(buffer) {}
    Buffer(Buffer &&other) noexcept : buffer_(std::exchange(other.buffer_, st_buffer{})) {}
    Buffer &operator=(Buffer &&other) noexcept
    {
        Buffer taken(std::move(other));
        std::swap(buffer_, taken.buffer_);
        return *this;
    }
    ~Buffer() { st_buffer_free(&buffer_); }

    std::byte *data() & noexcept SAFETENSORS_LIFETIMEBOUND { return static_cast<std::byte *>(buffer_.data); }
    const std::byte *data() const & noexcept SAFETENSORS_LIFETIMEBOUND
    {
        return static_cast<const std::byte *>(buffer_.data);
    }
    std::size_t size() const noexcept { return buffer_.size; }
    bool empty() const noexcept { return buffer_.size == 0; }
    span<std::byte> bytes() & noexcept SAFETENSORS_LIFETIMEBOUND { return {data(), size()}; }
    span<const std::byte> bytes() const & noexcept SAFETENSORS_LIFETIMEBOUND { return {data(), size()}; }

    // A temporary's bytes are gone at the end of the line: give the Buffer a name.
    void data() const && = delete;
    void bytes() const && = delete;
    using owns_what_it_shows = void;

private:
    st_buffer buffer_ = {};
};

// ==== Callbacks ====

// Holds what is to be called: a lambda that returns R, or Result<R>. One that
// can only be moved will do. Where R is bool, it returns bool or nothing, which
// is true; int is refused there, as 0 means the opposite in C.
template <class Signature> class Callback;

template <class R, class... Arguments> class Callback<R(Arguments...)> {
public:
    Callback() noexcept = default;
    Callback(std::nullptr_t) noexcept {}
    template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, Callback> &&
                                                std::is_invocable_v<std::decay_t<F> &, Arguments...>>>
    Callback(F &&function)
    {
        using Function = std::decay_t<F>;
        using Given = std::invoke_result_t<Function &, Arguments...>;
        if constexpr (std::is_same_v<R, bool>)
            static_assert(std::is_same_v<Given, bool> || std::is_void_v<Given>,
                          "this callback returns bool (true to go on), or nothing");
        else
            static_assert(std::is_same_v<Given, Result<R>> || std::is_convertible_v<Given, R>,
                          "this callback returns something else than it should");
        if (is_none(function))
            return;
        auto held = std::make_shared<Function>(std::forward<F>(function));
        call_ = [held](Arguments... arguments) -> Result<R> {
            if constexpr (std::is_same_v<Given, Result<R>>) {
                return (*held)(static_cast<Arguments>(arguments)...);
            } else if constexpr (std::is_void_v<Given>) {
                (*held)(static_cast<Arguments>(arguments)...);
                if constexpr (std::is_void_v<R>)
                    return {};
                else
                    return true;
            } else if constexpr (std::is_same_v<Given, R>) {
                return (*held)(static_cast<Arguments>(arguments)...);
            } else {
                return static_cast<R>((*held)(static_cast<Arguments>(arguments)...));
            }
        };
    }

    explicit operator bool() const noexcept { return static_cast<bool>(call_); }

    Result<R> operator()(Arguments... arguments) const { return call_(static_cast<Arguments>(arguments)...); }

private:
    template <class F> static bool is_none(const F &) noexcept { return false; }
    template <class F> static bool is_none(F *function) noexcept { return function == nullptr; }
    template <class S> static bool is_none(const std::function<S> &function) noexcept { return !function; }

    std::function<Result<R>(Arguments...)> call_;
};

// Told now and then how much is done. Returns true (or nothing) to go on, and
// false to end the call with Status::cancelled. Bytes.
using Progress = Callback<bool(std::uint64_t done, std::uint64_t total)>;

// Your own bytes: HTTP, object stores, asset packs.
struct Io {
    // Bytes in the file.
    std::uint64_t size = 0;

    // Reads up to to.size() bytes at offset, and returns how many: fewer is
    // fine, 0 is an error. Called from several threads at once.
    Callback<std::size_t(std::uint64_t offset, span<std::byte> to)> read_at;

    // The request size that suits you best, in bytes; 0: no preference.
    std::size_t preferred_read = 0;

    // How many calls may be under way at once; 0: any number.
    std::size_t max_parallel = 0;
};

// Gives the file or index of a name: the one that was to be opened, then each
// shard's, with the same folder before it. Called on the thread that opens.
using Resolver = Callback<Io(const std::string &name)>;

namespace detail {

class CItems;

inline st_status filled(st_error *error, st_status code, int os_errno, const char *message) noexcept
{
    if (error != nullptr) {
        const Error made(static_cast<Status>(code), message, os_errno);
        error->code = code;
        error->os_errno = os_errno;
        std::memcpy(error->message, made.message(), std::strlen(made.message()) + 1);
    }
    return code;
}

// An Error that is to travel through C. Success would be no answer.
inline st_status filled(st_error *error, const Error &from) noexcept
{
    const st_status code = from.code() == Status::ok ? ST_ERROR_INTERNAL : static_cast<st_status>(from.code());
    return filled(error, code, from.os_errno(), from.message());
}

// Runs a callback's body, which returns Result<void>. What it throws goes to
// `keep`, which returns the errno to go on with, and ends here.
template <class Keep, class Body> st_status guarded(st_error *error, Keep keep, Body body) noexcept
{
#if SAFETENSORS_EXCEPTIONS
    try {
        try {
            const Result<void> result = body();
            return result ? ST_OK : filled(error, result.error());
        } catch (const std::exception &thrown) {
            return filled(error, ST_ERROR_IO, keep(std::current_exception()), thrown.what());
        } catch (...) {
            return filled(error, ST_ERROR_IO, keep(std::current_exception()), "a callback threw no std::exception");
        }
    } catch (...) { // there was no memory to keep it
        return filled(error, ST_ERROR_OUT_OF_MEMORY, 0, "no memory to keep what a callback threw");
    }
#else
    (void)keep;
    const Result<void> result = body();
    return result ? ST_OK : filled(error, result.error());
#endif
}

// What the callbacks of one call threw: the first of it comes out of the call.
// The library calls them one at a time.
class Thrown {
public:
    template <class Body> st_status run(st_error *error, Body body) noexcept
    {
        return guarded(error, [this](std::exception_ptr thrown) { return keep(std::move(thrown)); }, body);
    }

    void rethrow()
    {
        if (first_)
            std::rethrow_exception(std::exchange(first_, nullptr));
    }

private:
    int keep(std::exception_ptr thrown) noexcept
    {
        if (!first_)
            first_ = std::move(thrown);
        return 0;
    }

    std::exception_ptr first_;
};

// What read_at threw. It belongs to a checkpoint and not to a call: calls from
// several threads are under way at once, and the library has threads of its
// own. So each exception gets a number, which goes through the library as errno
// (no system has any that high), and the call that fails with it finds it here.
class Faults {
public:
    template <class Body> st_status run(st_error *error, Body body) noexcept
    {
        return guarded(error, [this](std::exception_ptr thrown) { return keep(std::move(thrown)); }, body);
    }

    void rethrow(int number)
    {
        if (number < first_number)
            return;
        std::exception_ptr found;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            for (auto kept = kept_.begin(); kept != kept_.end(); ++kept) {
                if (kept->first == number) {
                    found = std::move(kept->second);
                    kept_.erase(kept);
                    break;
                }
            }
        }
        if (found)
            std::rethrow_exception(std::move(found));
    }

private:
    static constexpr int first_number = 1 << 30;

    // Where several reads of one call fail, one is reported and nobody asks for
    // the others: of those that nobody has asked for, the latest stay.
    static constexpr std::size_t most = 1024;

    int keep(std::exception_ptr thrown)
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (kept_.size() == most)
            kept_.pop_front();
        last_ = last_ == std::numeric_limits<int>::max() ? first_number : last_ + 1;
        kept_.emplace_back(last_, std::move(thrown));
        return last_;
    }

    std::mutex mutex_;
    std::deque<std::pair<int, std::exception_ptr>> kept_;
    int last_ = first_number;
};

// A struct of the C header with its size, and zero in all other fields.
template <class T> T sized() noexcept
{
    T made{};
    made.struct_size = sizeof made;
    return made;
}

// An Io that the library holds until it calls release.
struct HeldIo {
    Io io;
    std::shared_ptr<Faults> faults;

    static st_io made(Io io, std::shared_ptr<Faults> faults)
    {
        st_io made = sized<st_io>();
        made.size = io.size;
        made.read_at = io.read_at ? read_at : nullptr;
        made.release = release;
        made.preferred_read = io.preferred_read;
        made.max_parallel = io.max_parallel;
        made.user_data = new HeldIo{std::move(io), std::move(faults)};
        return made;
    }

    static st_status read_at(void *user_data, std::uint64_t offset, void *to, std::size_t size, std::size_t *done,
                             st_error *error) noexcept
    {
        const HeldIo &held = *static_cast<const HeldIo *>(user_data);
        return held.faults->run(error, [&]() -> Result<void> {
            const auto read = held.io.read_at(offset, {static_cast<std::byte *>(to), size});
            if (!read)
                return read.error();
            *done = *read;
            return {};
        });
    }

    static void release(void *user_data) noexcept { delete static_cast<HeldIo *>(user_data); }
};

struct HeldResolver {
    const Resolver &resolver;
    const std::shared_ptr<Faults> &faults;
    Thrown thrown = {};

    static st_status open(void *user_data, const char *name, st_io *out, st_error *error) noexcept
    {
        HeldResolver &held = *static_cast<HeldResolver *>(user_data);
        return held.thrown.run(error, [&]() -> Result<void> {
            auto io = held.resolver(name);
            if (!io)
                return io.error();
            *out = HeldIo::made(std::move(*io), held.faults);
            return {};
        });
    }
};

// A Progress as C has it.
struct HeldProgress {
    const Progress &progress;
    Thrown &thrown;

    static std::int32_t call(void *user_data, std::uint64_t done, std::uint64_t total) noexcept
    {
        HeldProgress &held = *static_cast<HeldProgress *>(user_data);
        bool go_on = false;
        const st_status status = held.thrown.run(nullptr, [&]() -> Result<void> {
            go_on = held.progress(done, total).value();
            return {};
        });
        return status == ST_OK && go_on ? 0 : 1;
    }
};

} // namespace detail

// ==== Records ====

// A checkpoint's records, as a range of views: for `for`, algorithms, and
// lookup by number. Valid as long as the checkpoint.
template <class View, class Record> class Records {
public:
    // Gives views by value, as there are none in memory to refer to.
    class iterator {
    public:
        // What C++20 sees, and what algorithms of C++17 may do with it.
        using iterator_concept = std::random_access_iterator_tag;
        using iterator_category = std::random_access_iterator_tag;
        using value_type = View;
        using difference_type = std::ptrdiff_t;
        using reference = View;
        class pointer {
        public:
            explicit pointer(View view) : view_(view) {}
            const View *operator->() const noexcept { return &view_; }

        private:
            View view_;
        };

        iterator() noexcept = default;
        explicit iterator(const Record *record) noexcept : at_(record) {}

        View operator*() const noexcept { return View(*at_); }
        pointer operator->() const noexcept { return pointer(View(*at_)); }
        View operator[](difference_type n) const noexcept { return View(at_[n]); }
        iterator &operator++() noexcept { return *this += 1; }
        iterator &operator--() noexcept { return *this -= 1; }
        iterator operator++(int) noexcept { return iterator(at_++); }
        iterator operator--(int) noexcept { return iterator(at_--); }
        iterator &operator+=(difference_type n) noexcept
        {
            at_ += n;
            return *this;
        }
        iterator &operator-=(difference_type n) noexcept { return *this += -n; }
        friend iterator operator+(iterator i, difference_type n) noexcept { return i += n; }
        friend iterator operator+(difference_type n, iterator i) noexcept { return i += n; }
        friend iterator operator-(iterator i, difference_type n) noexcept { return i -= n; }
        friend difference_type operator-(iterator a, iterator b) noexcept { return a.at_ - b.at_; }
        friend bool operator==(iterator a, iterator b) noexcept { return a.at_ == b.at_; }
        friend bool operator!=(iterator a, iterator b) noexcept { return a.at_ != b.at_; }
        friend bool operator<(iterator a, iterator b) noexcept { return a.at_ < b.at_; }
        friend bool operator>(iterator a, iterator b) noexcept { return a.at_ > b.at_; }
        friend bool operator<=(iterator a, iterator b) noexcept { return a.at_ <= b.at_; }
        friend bool operator>=(iterator a, iterator b) noexcept { return a.at_ >= b.at_; }

    private:
        const Record *at_ = nullptr;
    };
    using const_iterator = iterator;
    using value_type = View;
    using reference = View;
    using difference_type = std::ptrdiff_t;
    using size_type = std::size_t;

    Records() noexcept = default;
    Records(const Record *records, std::size_t count) noexcept : records_(records), count_(count) {}

    iterator begin() const noexcept { return iterator(records_); }
    iterator end() const noexcept { return iterator(records_ + count_); }
    std::size_t size() const noexcept { return count_; }
    bool empty() const noexcept { return count_ == 0; }
    View operator[](std::size_t i) const noexcept { return View(records_[i]); }
    View front() const noexcept { return View(records_[0]); }
    View back() const noexcept { return View(records_[count_ - 1]); }

    // The C records, one array of size() of them.
    const Record *data() const noexcept { return records_; }

private:
    const Record *records_ = nullptr;
    std::size_t count_ = 0;
};

// One tensor: its name, what it holds and where its bytes are. A view of eight
// bytes.
class Tensor {
public:
    explicit Tensor(const st_tensor &record) noexcept : record_(&record) {}

    // UTF-8; may contain NUL, and whatever else a stranger put there.
    std::string_view name() const noexcept { return {record_->name, record_->name_len}; }
    Dtype dtype() const noexcept { return static_cast<Dtype>(record_->dtype); }

    // As the file spells it.
    std::string_view dtype_name() const noexcept { return record_->dtype_name; }

    // Outermost dimension first; a scalar has none.
    span<const std::int64_t> shape() const noexcept { return {record_->shape, record_->rank}; }
    std::size_t rank() const noexcept { return record_->rank; }
    std::uint64_t element_count() const noexcept { return record_->element_count; }

    // Which of the checkpoint's shards it is in, where it begins in that file,
    // and how many bytes it takes.
    std::uint32_t shard() const noexcept { return record_->shard; }
    std::uint64_t offset() const noexcept { return record_->offset; }
    std::uint64_t size() const noexcept { return record_->size; }

    // Its bytes in memory. nullptr where the shard is read and not mapped:
    // then Checkpoint::get reads them, and gives a Tensor that has them.
    const void *data() const noexcept { return record_->data; }

    // Its bytes. Status::invalid_argument where there is no data.
    Result<span<const std::byte>> try_bytes() const
    {
        if (record_->data == nullptr && record_->size != 0)
            return refused("has not been read: Checkpoint::get gives it with its bytes");
        if (record_->size > std::numeric_limits<std::size_t>::max())
            return refused("takes more bytes than there are addresses");
        const auto *first = static_cast<const std::byte *>(record_->data);
        return span<const std::byte>(first, static_cast<std::size_t>(record_->size));
    }
    span<const std::byte> bytes() const { return try_bytes().value(); }

    // Its elements where they are, not copied. T's dtype has to be the
    // tensor's (std::uint8_t will do for BOOL). Status::invalid_argument where
    // it is not, and where there is no data; Status::unsupported where the data
    // begins at no multiple of alignof(T), which the format allows: open with
    // Access::read, or read a copy.
    template <class T> Result<span<const T>> try_as() const
    {
        if (auto good = viewed_as<std::remove_cv_t<T>>(); !good)
            return good.error();
        auto all = try_bytes();
        if (!all)
            return all.error();
        if (all->empty()) // of no elements, wherever they would begin
            return span<const T>();
        if (reinterpret_cast<std::uintptr_t>(all->data()) % alignof(T) != 0)
            return refused("begins at no multiple of " + std::to_string(alignof(T)) + " bytes", Status::unsupported);
        if (sizeof(T) > 1 && !little_endian())
            return refused("is little-endian, and this machine is not", Status::unsupported);
        return span<const T>(static_cast<const T *>(record_->data), all->size() / sizeof(T));
    }
    template <class T> span<const T> as() const { return try_as<T>().value(); }

    // The C record.
    const st_tensor &record() const noexcept { return *record_; }

private:
    friend class Checkpoint;
    friend class detail::CItems;

    template <class T> Result<void> viewed_as() const
    {
        if (views<T>(dtype()))
            return {};
        return refused(std::string("is ") + safetensors::name(dtype()) + ", and not " + safetensors::name(Element<T>::dtype));
    }

    // Whether memory is for what arrives there, converted or as stored.
    Result<void> fits(const MutableBytes &memory, Dtype converted = Dtype::as_stored) const
    {
        const Dtype arrives = converted == Dtype::as_stored ? dtype() : converted;
        if (memory.dtype() == Dtype::as_stored || memory.dtype() == arrives)
            return {};
        return refused(std::string("arrives as ") + safetensors::name(arrives) + " in memory of " +
                       safetensors::name(memory.dtype()) + ": name that dtype in the item to convert to it, or give bytes");
    }

    // A message about it, safe to print.
    Error refused(const std::string &why, Status code = Status::invalid_argument) const
    {
        static const char digits[] = "0123456789abcdef";
        std::string text = "tensor \"";
        for (const char c : name().substr(0, 256)) {
            const auto byte = static_cast<unsigned char>(c);
            if (byte >= 0x20 && byte < 0x7F && c != '"' && c != '\\')
                text += c;
            else
                (text += "\\x") += {digits[byte >> 4], digits[byte & 15]};
        }
        return Error(code, text + (name().size() > 256 ? "...\" " : "\" ") + why);
    }

    static bool little_endian() noexcept
    {
        const std::uint16_t one = 1;
        unsigned char first;
        std::memcpy(&first, &one, 1);
        return first == 1;
    }

    const st_tensor *record_;
};

// One file of a checkpoint. A view.
class Shard {
public:
    explicit Shard(const st_shard &record) noexcept : record_(&record) {}

    // Its path, or the resolver's name for it; nothing for memory and a lone Io.
    std::optional<std::string_view> path() const noexcept
    {
        if (record_->path == nullptr)
            return std::nullopt;
        return std::string_view(record_->path, record_->path_len);
    }
    std::uint64_t size() const noexcept { return record_->size; }
    std::uint64_t data_offset() const noexcept { return record_->data_offset; }
    std::uint64_t data_size() const noexcept { return record_->data_size; }

    // What was chosen, and why, for people.
    Access access() const noexcept { return static_cast<Access>(record_->access); }
    std::string_view reason() const noexcept { return record_->reason; }

    // The C record.
    const st_shard &record() const noexcept { return *record_; }

private:
    const st_shard *record_;
};

// One entry of the metadata: for (auto [key, value] : model.metadata()). A view.
struct Entry {
    explicit Entry(const st_metadata &record) noexcept
        : key(record.key, record.key_len), value(record.value, record.value_len)
    {
    }

    std::string_view key;
    std::string_view value;
};

using Tensors = Records<Tensor, st_tensor>;
using Shards = Records<Shard, st_shard>;

// Metadata to write: keys and values, both UTF-8.
using Metadata = std::vector<std::pair<std::string, std::string>>;

// All metadata entries of a checkpoint.
class Entries : public Records<Entry, st_metadata> {
public:
    using Records::Records;

    // Metadata without entries is something else than none.
    bool present() const noexcept { return data() != nullptr; }

    // The value of a key.
    std::optional<std::string_view> find(std::string_view key) const noexcept
    {
        for (const Entry entry : *this)
            if (entry.key == key)
                return entry.value;
        return std::nullopt;
    }

    // A copy to write elsewhere; nothing where there is none.
    std::optional<Metadata> copy() const
    {
        if (!present())
            return std::nullopt;
        Metadata all;
        for (const Entry entry : *this)
            all.emplace_back(entry.key, entry.value);
        return all;
    }
};

// What a slice takes from one dimension: start, start + step, ... before stop.
// Negative bounds count from the end; as it stands, the whole dimension. Nothing
// is clamped: bounds out of range are Status::invalid_argument.
struct Range {
    std::int64_t start = 0;
    std::int64_t stop = INT64_MAX;
    std::int64_t step = 1;
};

// The ranges of a slice, outermost dimension first; those left out are whole.
using Ranges = std::vector<Range>;

// ==== Options: as they stand, all are the default ====

// Limits hold for each file by itself, but for max_set_bytes; 0 is the default.
struct OpenOptions {
    Access access = Access::automatic;
    bool tolerate_trailing_bytes = false;
    bool tolerate_unknown_dtype = false;
    Prefetch prefetch = Prefetch::none;
    std::uint64_t max_header_size = 0; // bytes; 100,000,000
    std::uint64_t max_tensors = 0;
    std::uint64_t max_rank = 0;
    std::uint64_t max_name_length = 0; // bytes
    std::string variant;               // of a folder, the files of this variant: "fp16"; empty: those of none
    std::uint64_t max_set_bytes = 0;   // headers and index of all files together; 1,000,000,000
};

// One thing to load.
struct LoadItem {
    // Into memory: the result, dense or with strides. Memory of floats, say,
    // wants a tensor of F32 or F32 as what to convert to.
    LoadItem(Tensor which, MutableBytes to, Dtype converted = Dtype::as_stored)
        : tensor(which), destination(to), dtype(converted)
    {
    }

    // Through a Sink.
    explicit LoadItem(Tensor which, Dtype converted = Dtype::as_stored) : tensor(which), dtype(converted) {}

    Tensor tensor;
    MutableBytes destination;          // more room than needed is fine
    Dtype dtype;                       // what to convert to on the way (pairs as for convert)
    Ranges ranges;                     // empty: all of it
    std::vector<std::int64_t> strides; // bytes from one element of the result to the next, one a dimension; empty: dense
};

// Part of the result of items[item], from its byte `offset` on, in a Sink's
// buffer of that number.
struct Chunk {
    std::size_t buffer;
    std::size_t item;
    std::uint64_t offset;
    span<const std::byte> bytes;
};

// Takes results in pieces, instead of plain destinations: the library fills
// buffers of yours in turn, and you copy each to where it belongs, a device
// say, while the next is being filled.
struct Sink {
    // At least one, of at least 4096 bytes each; with more than there are
    // threads, reading never waits for the copies, if they are as fast.
    std::vector<MutableBytes> buffers;

    // May start a copy and return. Called on the loading thread. What it throws
    // or returns as an Error ends the load.
    Callback<void(const Chunk &chunk)> chunk;

    // Returns when the copy out of that buffer is over: called once for each
    // chunk, before the buffer is filled again or the load returns, also when
    // it failed. Without one, chunk is done with its buffer when it returns.
    Callback<void(std::size_t buffer)> wait;
};

struct LoadOptions {
    std::uint32_t threads = 0;       // most at work, the calling one among them; 0: as many as are useful
    LoadIo io = LoadIo::automatic;
    std::uint64_t staging_bytes = 0; // most memory for staging, 65536 or more; 0: 16 MiB
    bool drop_cache = false;         // what was read through the page cache is dropped from it
    Progress progress;               // bytes for destinations; on the calling thread
    const Sink *sink = nullptr;      // nullptr: plain destinations
};

// What a load would do; the fields are explained at st_plan.
using Plan = st_plan;

class Checkpoint;

struct SaveOptions {
    Order order = Order::reference;
    std::uint32_t alignment = 0;        // of the data section: a power of two from 8 to 2097152; 0: 8
    std::uint64_t max_shard_size = 0;   // bytes of tensors in one file; 0: one file
    Sync sync = Sync::full;
    Overwrite overwrite = Overwrite::replace;
    std::uint64_t header_reserve = 0;   // spare bytes in the header, for a later set_metadata
    Progress progress;                  // bytes of tensors written; one call at a time, from any thread. Not in a Writer
    const Checkpoint *source = nullptr; // tensors of this checkpoint are read from its files. Not in a Writer
};

struct MetadataOptions {
    bool in_place = false; // may overwrite the header where it is: st_metadata_options says what a crash can cost
    Sync sync = Sync::full;
};

// A tensor to write. Its name and shape are its own; data is borrowed, but for a
// temporary vector's.
struct NewTensor {
    // `bytes` may be left out for a Writer.
    NewTensor(std::string its_name, Dtype its_dtype, std::vector<std::int64_t> its_shape, Bytes bytes = {})
        : name(std::move(its_name)), dtype(its_dtype), shape(std::move(its_shape)), data(bytes.data()), size(bytes.size())
    {
    }

    // With the dtype that the elements of a vector, array or span have.
    template <class C, class = detail::IfBytes<const C>, class = detail::IfOutlives<C>>
    NewTensor(std::string its_name, std::vector<std::int64_t> its_shape, C &&values)
        : NewTensor(std::move(its_name), Element<std::remove_cv_t<detail::Contained<C>>>::dtype, std::move(its_shape),
                    Bytes(values))
    {
    }

    // The same of a temporary vector, which is moved in and kept.
    template <class C, class = detail::IfBytes<const C>, class = detail::IfTemporary<C>, class = void>
    NewTensor(std::string its_name, std::vector<std::int64_t> its_shape, C &&values)
        : NewTensor(std::move(its_name), Element<std::remove_cv_t<detail::Contained<C>>>::dtype, std::move(its_shape),
                    std::move(values))
    {
    }
    template <class C, class = detail::IfBytes<const C>, class = detail::IfTemporary<C>>
    NewTensor(std::string its_name, Dtype its_dtype, std::vector<std::int64_t> its_shape, C &&values)
        : name(std::move(its_name)), dtype(its_dtype), shape(std::move(its_shape))
    {
        const auto moved = std::make_shared<const C>(std::move(values));
        const Bytes bytes(*moved);
        data = bytes.data();
        size = bytes.size();
        kept = moved;
    }

    // One of a checkpoint. Where it has no data, that is to be SaveOptions::source.
    NewTensor(Tensor tensor)
        : name(tensor.name()), dtype(tensor.dtype()), shape(tensor.shape().begin(), tensor.shape().end()),
          data(tensor.data()), size(tensor.size()), shard(tensor.shard()), offset(tensor.offset())
    {
    }

    std::string name;
    Dtype dtype;
    std::vector<std::int64_t> shape;
    const void *data;
    std::uint64_t size; // bytes; 0: what dtype and shape take
    std::uint32_t shard = 0;
    std::uint64_t offset = 0;
    std::shared_ptr<const void> kept; // what was a temporary
};

// The shape of a slice, and the bytes it takes.
struct SliceShape {
    std::vector<std::int64_t> shape;
    std::uint64_t size;
};

namespace detail {

inline std::vector<st_range> c_ranges(const Ranges &ranges)
{
    std::vector<st_range> all;
    all.reserve(ranges.size());
    for (const Range &range : ranges)
        all.push_back({range.start, range.stop, range.step});
    return all;
}

inline st_open_options c_options(const OpenOptions &from) noexcept
{
    auto options = sized<st_open_options>();
    options.access = static_cast<std::int32_t>(from.access);
    options.tolerate = (from.tolerate_trailing_bytes ? std::uint32_t{ST_TOLERATE_TRAILING_BYTES} : 0) |
                       (from.tolerate_unknown_dtype ? std::uint32_t{ST_TOLERATE_UNKNOWN_DTYPE} : 0);
    options.prefetch = static_cast<std::int32_t>(from.prefetch);
    options.max_header_size = from.max_header_size;
    options.max_tensors = from.max_tensors;
    options.max_rank = from.max_rank;
    options.max_name_length = from.max_name_length;
    options.variant = from.variant.c_str();
    options.max_set_bytes = from.max_set_bytes;
    return options;
}

// Room for elements, or Status::out_of_memory.
template <class T> Result<std::vector<T>> allocated(std::uint64_t bytes)
{
#if SAFETENSORS_EXCEPTIONS
    try {
#endif
        if (bytes <= std::numeric_limits<std::size_t>::max() / 2)
            return std::vector<T>(static_cast<std::size_t>(bytes) / sizeof(T));
#if SAFETENSORS_EXCEPTIONS
    } catch (const std::bad_alloc &) {
    }
#endif
    return Error(Status::out_of_memory, "no memory for " + std::to_string(bytes) + " bytes of elements");
}

// What is to be loaded as C has it, from the vector that outlives it.
class CItems {
public:
    explicit CItems(const std::vector<LoadItem> &items)
    {
        items_.reserve(items.size());
        ranges_.reserve(items.size());
        for (const LoadItem &item : items) {
            ranges_.push_back(c_ranges(item.ranges));
            st_load_item made{};
            made.tensor = &item.tensor.record();
            made.ranges = item.ranges.empty() ? nullptr : ranges_.back().data();
            made.range_count = item.ranges.size();
            made.dtype = static_cast<st_dtype>(item.dtype);
            made.dst = item.destination.data();
            made.dst_size = item.destination.size();
            made.dst_strides = item.strides.empty() ? nullptr : item.strides.data();
            items_.push_back(made);
        }
    }

    // The C function reads one stride for each dimension, however many there are.
    static Result<void> check(const std::vector<LoadItem> &items)
    {
        for (std::size_t i = 0; i < items.size(); i++)
            if (!items[i].strides.empty() && items[i].strides.size() != items[i].tensor.rank())
                return Error(Status::invalid_argument,
                             "item " + std::to_string(i) + ": " + std::to_string(items[i].strides.size()) +
                                 " strides for " + std::to_string(items[i].tensor.rank()) + " dimensions");
        return {};
    }

    // C knows nothing of the types of destinations.
    static Result<void> fits(const std::vector<LoadItem> &items)
    {
        for (std::size_t i = 0; i < items.size(); i++)
            if (auto fits = items[i].tensor.fits(items[i].destination, items[i].dtype); !fits)
                return Error(fits.error().code(), "item " + std::to_string(i) + ": " + fits.error().message());
        return {};
    }

    const st_load_item *data() const noexcept { return items_.data(); }
    std::size_t size() const noexcept { return items_.size(); }

private:
    std::vector<st_load_item> items_;
    std::vector<std::vector<st_range>> ranges_;
};

// LoadOptions as C has them, with what its callbacks threw.
class CLoad {
public:
    explicit CLoad(const LoadOptions &from) : progress_{from.progress, thrown}, from_(from.sink)
    {
        options.threads = from.threads;
        options.io = static_cast<std::int32_t>(from.io);
        options.staging_bytes = from.staging_bytes;
        options.drop_cache = from.drop_cache ? 1 : 0;
        if (from.progress) {
            options.progress = HeldProgress::call;
            options.user_data = &progress_;
        }
        if (from_ == nullptr)
            return;
        for (const MutableBytes &buffer : from_->buffers)
            buffers_.push_back({buffer.data(), buffer.size()});
        sink_.buffers = buffers_.data();
        sink_.buffer_count = buffers_.size();
        sink_.chunk = from_->chunk ? chunk : nullptr;
        sink_.wait = from_->wait ? wait : nullptr;
        sink_.user_data = this;
        options.sink = &sink_;
    }
    CLoad(const CLoad &) = delete;
    CLoad &operator=(const CLoad &) = delete;

    st_load_options options = sized<st_load_options>();
    Thrown thrown;

private:
    static st_status chunk(void *user_data, std::size_t buffer, std::size_t item, std::uint64_t offset,
                           std::size_t size, st_error *error) noexcept
    {
        CLoad &load = *static_cast<CLoad *>(user_data);
        const auto *bytes = static_cast<const std::byte *>(load.buffers_[buffer].data);
        return load.thrown.run(error, [&] { return load.from_->chunk(Chunk{buffer, item, offset, {bytes, size}}); });
    }

    static st_status wait(void *user_data, std::size_t buffer, st_error *error) noexcept
    {
        CLoad &load = *static_cast<CLoad *>(user_data);
        return load.thrown.run(error, [&] { return load.from_->wait(buffer); });
    }

    HeldProgress progress_;
    const Sink *from_;
    std::vector<st_buffer> buffers_;
    st_sink sink_ = sized<st_sink>();
};

} // namespace detail

// ==== Checkpoint ====

// One opened set of named tensors: a file, an index with its shards, a folder,
// memory, or what is read through callbacks.
class Checkpoint {
public:
    Checkpoint() noexcept = default;

    // Takes over one ownership of a C handle.
    explicit Checkpoint(st_checkpoint *handle) noexcept : handle_(handle) {}
    Checkpoint(Checkpoint &&) noexcept = default;
    Checkpoint &operator=(Checkpoint &&) noexcept = default;

    // A .safetensors file, a .safetensors.index.json with its shards beside it,
    // or a folder. Everything the headers say has been checked when this
    // returns. Status::io with errno where it can't be reached, or the rule of
    // the format that it breaks.
    static Result<Checkpoint> try_open(const Path &path, const OpenOptions &options = {})
    {
        if (auto whole = path.check(); !whole)
            return whole.error();
        return made(nullptr, [&](const st_open_options *given, st_error *error) {
            return st_open_with(path.c_str(), given, error);
        }, options);
    }
    static Checkpoint open(const Path &path, const OpenOptions &options = {}) { return try_open(path, options).value(); }

    // One file's bytes, which are in memory already and stay there, unchanged,
    // as long as the checkpoint does: tensors point into them.
    static Result<Checkpoint> try_open_memory(const void *data, std::size_t size, const OpenOptions &options = {})
    {
        return made(nullptr, [&](const st_open_options *given, st_error *error) {
            return st_open_memory(data, size, given, error);
        }, options);
    }
    static Checkpoint open_memory(const void *data, std::size_t size, const OpenOptions &options = {})
    {
        return try_open_memory(data, size, options).value();
    }

    // One file through your own read_at, which is destroyed with the
    // checkpoint, or before a failed open returns.
    static Result<Checkpoint> try_open_io(Io io, const OpenOptions &options = {})
    {
        auto faults = std::make_shared<detail::Faults>();
        return made(faults, [&](const st_open_options *given, st_error *error) {
            const st_io held = detail::HeldIo::made(std::move(io), faults);
            return st_open_io(&held, given, error);
        }, options);
    }
    static Checkpoint open_io(Io io, const OpenOptions &options = {}) { return try_open_io(std::move(io), options).value(); }

    // A file, or (where the name ends in .index.json) an index with its shards,
    // through your own resolver. A shard that it reports as Status::io is
    // Status::shard.
    static Result<Checkpoint> try_open_resolved(const Resolver &resolver, const Path &name, const OpenOptions &options = {})
    {
        if (auto whole = name.check(); !whole)
            return whole.error();
        auto faults = std::make_shared<detail::Faults>();
        detail::HeldResolver held{resolver, faults};
        auto given = detail::sized<st_resolver>();
        given.open = resolver ? detail::HeldResolver::open : nullptr;
        given.user_data = &held;
        auto checkpoint = made(faults, [&](const st_open_options *c, st_error *error) {
            return st_open_resolved(&given, name.c_str(), c, error);
        }, options);
        held.thrown.rethrow();
        return checkpoint;
    }
    static Checkpoint open_resolved(const Resolver &resolver, const Path &name, const OpenOptions &options = {})
    {
        return try_open_resolved(resolver, name, options).value();
    }

    // One more owner of the same handle: it is closed with the last one.
    Checkpoint share() const noexcept
    {
        Checkpoint other(st_retain(handle_.get()));
        other.faults_ = faults_;
        return other;
    }

    // False once it has been moved from.
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    // The C handle, still owned by the checkpoint.
    st_checkpoint *handle() const & noexcept SAFETENSORS_LIFETIMEBOUND { return handle_.get(); }

    // ---- Inspect: none of these does I/O ----

    // All tensors, by shard and offset.
    Tensors tensors() const & noexcept SAFETENSORS_LIFETIMEBOUND
    {
        std::size_t count;
        const st_tensor *all = st_tensors(handle_.get(), &count);
        return {all, count};
    }

    // The tensor of this name, with data only where it is mapped or in memory.
    std::optional<Tensor> find(std::string_view name) const & noexcept SAFETENSORS_LIFETIMEBOUND
    {
        const st_tensor *found = st_find_tensor_n(handle_.get(), name.data(), name.size());
        return found != nullptr ? std::optional<Tensor>(*found) : std::nullopt;
    }

    Entries metadata() const & noexcept SAFETENSORS_LIFETIMEBOUND
    {
        std::size_t count;
        const st_metadata *all = st_metadata_entries(handle_.get(), &count);
        return {all, count};
    }

    // Its files, by name; Tensor::shard is a number among them.
    Shards shards() const & noexcept SAFETENSORS_LIFETIMEBOUND
    {
        std::size_t count;
        const st_shard *all = st_shards(handle_.get(), &count);
        return {all, count};
    }

    // ---- Read ----

    // The tensor of this name with its bytes. Where nothing is mapped, the
    // first call reads them into memory of the checkpoint, aligned to 64 bytes,
    // where they stay. Status::not_found, Status::io, Status::out_of_memory.
    Result<Tensor> try_get(std::string_view name) const & SAFETENSORS_LIFETIMEBOUND
    {
        st_error error;
        const st_tensor *found = st_get_tensor_n(handle_.get(), name.data(), name.size(), &error);
        if (found == nullptr)
            return failure(error);
        return Tensor(*found);
    }
    Tensor get(std::string_view name) const & SAFETENSORS_LIFETIMEBOUND { return try_get(name).value(); }

    // What a temporary checkpoint shows is gone before it can be used:
    // Checkpoint::open(path).tensors(). Give the checkpoint a name.
    void handle() const && = delete;
    void tensors() const && = delete;
    void find(std::string_view name) const && = delete;
    void metadata() const && = delete;
    void shards() const && = delete;
    void try_get(std::string_view name) const && = delete;
    void get(std::string_view name) const && = delete;
    using owns_what_it_shows = void;

    // Copies a tensor's bytes from its file, never through a mapping.
    // Status::buffer_size where there is too little room; Status::invalid_argument
    // for memory of another dtype.
    Result<void> try_read(Tensor tensor, MutableBytes to) const
    {
        if (auto fits = tensor.fits(to); !fits)
            return fits;
        st_error error;
        if (st_read_tensor(handle_.get(), &tensor.record(), place(to), to.size(), &error) != ST_OK)
            return failure(error);
        return {};
    }
    void read(Tensor tensor, MutableBytes to) const { try_read(tensor, to).value(); }

    // The same into a vector of T, whose dtype has to be the tensor's.
    template <class T> Result<std::vector<T>> try_read(Tensor tensor) const { return try_read_slice<T>(tensor, {}); }
    template <class T> std::vector<T> read(Tensor tensor) const { return try_read<T>(tensor).value(); }

    // Copies part of a tensor from its file: what the ranges pick, dense, in C
    // order; slice_shape() says how much that is.
    Result<void> try_read_slice(Tensor tensor, const Ranges &ranges, MutableBytes to) const
    {
        if (auto fits = tensor.fits(to); !fits)
            return fits;
        st_error error;
        const auto given = detail::c_ranges(ranges);
        if (st_read_slice(handle_.get(), &tensor.record(), given.data(), given.size(), place(to), to.size(), &error) != ST_OK)
            return failure(error);
        return {};
    }
    void read_slice(Tensor tensor, const Ranges &ranges, MutableBytes to) const
    {
        try_read_slice(tensor, ranges, to).value();
    }

    // The same into a vector of T, whose dtype has to be the tensor's.
    template <class T> Result<std::vector<T>> try_read_slice(Tensor tensor, const Ranges &ranges) const;
    template <class T> std::vector<T> read_slice(Tensor tensor, const Ranges &ranges) const
    {
        return try_read_slice<T>(tensor, ranges).value();
    }

    // Fills memory of your own with any number of tensors or parts of them,
    // converted on the way: in file order, in large reads, on several threads.
    // All arguments are checked before the first byte is read, also that no two
    // destinations share a byte and that none is of other elements than arrive. An Error names the item; after one, or after
    // Status::cancelled, nothing is under way any more.
    //
    //     std::vector<float> to(tensor.element_count());
    //     model.load({{tensor, to, Dtype::F32}});
    Result<void> try_load(const std::vector<LoadItem> &items, const LoadOptions &options = {}) const
    {
        if (auto good = detail::CItems::check(items); !good)
            return good.error();
        if (!detail::CItems::fits(items))
            return try_plan(items, options).error();
        const detail::CItems given(items);
        detail::CLoad load(options);
        st_error error;
        const st_status status = st_load(handle_.get(), given.data(), given.size(), &load.options, &error);
        load.thrown.rethrow();
        if (status != ST_OK)
            return failure(error);
        return {};
    }
    void load(const std::vector<LoadItem> &items, const LoadOptions &options = {}) const
    {
        try_load(items, options).value();
    }

    // What load() would do with the same arguments. No callback is called.
    Result<Plan> try_plan(const std::vector<LoadItem> &items, const LoadOptions &options = {}) const
    {
        if (auto good = detail::CItems::check(items); !good)
            return good.error();
        const detail::CItems given(items);
        detail::CLoad load(options);
        st_error error;
        Plan plan{};
        if (st_load_plan(handle_.get(), given.data(), given.size(), &load.options, &plan, &error) != ST_OK)
            return failure(error);
        if (auto fits = detail::CItems::fits(items); !fits)
            return fits.error();
        return plan;
    }
    Plan plan(const std::vector<LoadItem> &items, const LoadOptions &options = {}) const
    {
        return try_plan(items, options).value();
    }

    // Brings these tensors, or all, into memory before they are used through a
    // mapping. A hint: what the system declines is not an error.
    Result<void> try_prefetch(const std::vector<Tensor> &tensors) const
    {
        std::vector<const st_tensor *> records;
        records.reserve(tensors.size() + 1); // so that none is not nullptr, which means all
        for (const Tensor tensor : tensors)
            records.push_back(&tensor.record());
        st_error error;
        if (st_prefetch(handle_.get(), records.data(), records.size(), &error) != ST_OK)
            return failure(error);
        return {};
    }
    Result<void> try_prefetch() const
    {
        st_error error;
        if (st_prefetch(handle_.get(), nullptr, 0, &error) != ST_OK)
            return failure(error);
        return {};
    }
    void prefetch(const std::vector<Tensor> &tensors) const { try_prefetch(tensors).value(); }
    void prefetch() const { try_prefetch().value(); }

    // The Error of a C call on handle(); throws what its read_at threw, if that
    // was it.
    Error failure(const st_error &error) const
    {
        if (faults_)
            faults_->rethrow(error.os_errno);
        return Error(error);
    }

private:
    struct Free {
        void operator()(st_checkpoint *handle) const noexcept { st_free(handle); }
    };

    template <class Open>
    static Result<Checkpoint> made(std::shared_ptr<detail::Faults> faults, Open open, const OpenOptions &options)
    {
        if (auto fits = try_check_version(); !fits)
            return fits.error();
        const st_open_options given = detail::c_options(options);
        st_error error;
        Checkpoint checkpoint(open(&given, &error));
        checkpoint.faults_ = std::move(faults);
        if (!checkpoint)
            return checkpoint.failure(error);
        return checkpoint;
    }

    // An empty vector has no address; a tensor without bytes asks for one.
    static void *place(MutableBytes to) noexcept
    {
        static unsigned char nowhere;
        return to.data() == nullptr && to.size() == 0 ? &nowhere : to.data();
    }

    std::unique_ptr<st_checkpoint, Free> handle_;
    std::shared_ptr<detail::Faults> faults_; // where bytes come through callbacks
};

// The shape and size of what Checkpoint::read_slice gives for these ranges.
inline Result<SliceShape> try_slice_shape(Tensor tensor, const Ranges &ranges)
{
    const auto given = detail::c_ranges(ranges);
    SliceShape result{std::vector<std::int64_t>(tensor.rank()), 0};
    st_error error;
    if (st_slice_shape(&tensor.record(), given.data(), given.size(), result.shape.data(), &result.size, &error) != ST_OK)
        return Error(error);
    return result;
}
inline SliceShape slice_shape(Tensor tensor, const Ranges &ranges) { return try_slice_shape(tensor, ranges).value(); }

template <class T> Result<std::vector<T>> Checkpoint::try_read_slice(Tensor tensor, const Ranges &ranges) const
{
    if (auto good = tensor.viewed_as<T>(); !good)
        return good.error();
    const auto shape = try_slice_shape(tensor, ranges);
    if (!shape)
        return shape.error();
    auto values = detail::allocated<T>(shape->size);
    if (!values)
        return values.error();
    if (auto done = try_read_slice(tensor, ranges, *values); !done)
        return done.error();
    return values;
}

// ==== Writing ====

namespace detail {

// What is to be written, as C has it, from what outlives it.
class Given {
public:
    Given(const std::vector<NewTensor> &tensors, const std::optional<Metadata> &metadata)
    {
        tensors_.reserve(tensors.size());
        for (const NewTensor &tensor : tensors) {
            st_tensor made{};
            made.name = tensor.name.data();
            made.name_len = tensor.name.size();
            made.dtype = static_cast<st_dtype>(tensor.dtype);
            made.rank = tensor.shape.size();
            made.shape = tensor.shape.data();
            made.shard = tensor.shard;
            made.offset = tensor.offset;
            made.size = tensor.size;
            // A size of 0 would be taken for "as much as the shape says".
            made.data = tensor.size != 0 ? tensor.data : nullptr;
            tensors_.push_back(made);
        }
        if (!metadata)
            return;
        entries_.reserve(metadata->size() + 1); // so that no entries are not nullptr, which means no metadata
        for (const auto &[key, value] : *metadata) {
            st_metadata made{};
            made.key = key.data();
            made.key_len = key.size();
            made.value = value.data();
            made.value_len = value.size();
            entries_.push_back(made);
        }
    }

    const st_tensor *tensors() const noexcept { return tensors_.data(); }
    std::size_t count() const noexcept { return tensors_.size(); }
    const st_metadata *entries() const noexcept { return entries_.data(); }
    std::size_t entry_count() const noexcept { return entries_.size(); }

private:
    std::vector<st_tensor> tensors_;
    std::vector<st_metadata> entries_;
};

// SaveOptions as C has them, with what its callback threw.
class CSave {
public:
    explicit CSave(const SaveOptions &from) : source_(from.source), progress_{from.progress, thrown_}
    {
        options.order = static_cast<std::int32_t>(from.order);
        options.alignment = from.alignment;
        options.max_shard_size = from.max_shard_size;
        options.sync = static_cast<std::int32_t>(from.sync);
        options.overwrite = static_cast<std::int32_t>(from.overwrite);
        options.header_reserve = from.header_reserve;
        options.source = from.source != nullptr ? from.source->handle() : nullptr;
        if (from.progress) {
            options.progress = HeldProgress::call;
            options.user_data = &progress_;
        }
    }
    CSave(const CSave &) = delete;
    CSave &operator=(const CSave &) = delete;

    // How a call with these options has ended.
    Result<void> ended(bool good, const st_error &error)
    {
        thrown_.rethrow();
        if (good)
            return {};
        return source_ != nullptr ? source_->failure(error) : Error(error);
    }

    st_save_options options = sized<st_save_options>();

private:
    const Checkpoint *source_;
    Thrown thrown_;
    HeldProgress progress_;
};

inline Result<void> usable(const Path &path)
{
    auto fits = try_check_version();
    return fits ? path.check() : fits;
}

} // namespace detail

// Writes a file, byte for byte as the reference implementation does, or with
// max_shard_size several and their index: whole or not at all. What could not be
// read back is refused before anything is written. Without metadata there is
// none, which differs from Metadata{}.
//
//     save("out.safetensors", {{"w", {2, 3}, values}}, Metadata{{"format", "pt"}});
//     save("copy.safetensors", {tensors.begin(), tensors.end()}, model.metadata().copy());
inline Result<void> try_save(const Path &path, const std::vector<NewTensor> &tensors,
                             const std::optional<Metadata> &metadata = std::nullopt, const SaveOptions &options = {})
{
    if (auto good = detail::usable(path); !good)
        return good;
    const detail::Given given(tensors, metadata);
    detail::CSave save(options);
    st_error error;
    const st_status status = st_save(path.c_str(), given.tensors(), given.count(), given.entries(), given.entry_count(),
                                     &save.options, &error);
    return save.ended(status == ST_OK, error);
}
inline void save(const Path &path, const std::vector<NewTensor> &tensors,
                 const std::optional<Metadata> &metadata = std::nullopt, const SaveOptions &options = {})
{
    try_save(path, tensors, metadata, options).value();
}

// The bytes of the file that save would write.
inline Result<Buffer> try_serialize(const std::vector<NewTensor> &tensors,
                                    const std::optional<Metadata> &metadata = std::nullopt, const SaveOptions &options = {})
{
    if (auto fits = try_check_version(); !fits)
        return fits.error();
    const detail::Given given(tensors, metadata);
    detail::CSave save(options);
    st_error error;
    st_buffer out{};
    const st_status status = st_serialize(given.tensors(), given.count(), given.entries(), given.entry_count(),
                                          &save.options, &out, &error);
    Buffer buffer(out);
    if (auto ended = save.ended(status == ST_OK, error); !ended)
        return ended.error();
    return buffer;
}
inline Buffer serialize(const std::vector<NewTensor> &tensors, const std::optional<Metadata> &metadata = std::nullopt,
                        const SaveOptions &options = {})
{
    return try_serialize(tensors, metadata, options).value();
}

// Replaces all metadata of one file without rewriting its tensors; nothing
// removes it. st_set_metadata says how, and when the header has to fit.
inline Result<void> try_set_metadata(const Path &path, const std::optional<Metadata> &metadata,
                                     const MetadataOptions &options = {})
{
    if (auto good = detail::usable(path); !good)
        return good;
    const detail::Given given({}, metadata);
    auto c = detail::sized<st_metadata_options>();
    c.in_place = options.in_place ? 1 : 0;
    c.sync = static_cast<std::int32_t>(options.sync);
    st_error error;
    if (st_set_metadata(path.c_str(), given.entries(), given.entry_count(), &c, &error) != ST_OK)
        return Error(error);
    return {};
}
inline void set_metadata(const Path &path, const std::optional<Metadata> &metadata, const MetadataOptions &options = {})
{
    try_set_metadata(path, metadata, options).value();
}

// A file being written in pieces, in any order. Destroyed before finish() has
// succeeded, it leaves nothing behind, and an older file as it was.
class Writer {
public:
    // An empty one, which can write nothing.
    Writer() noexcept = default;

    // Takes over a C handle.
    explicit Writer(st_writer *handle) noexcept : handle_(handle) {}
    Writer(Writer &&) noexcept = default;
    Writer &operator=(Writer &&) noexcept = default;

    // Begins a file of these tensors, whose data is ignored.
    static Result<Writer> try_open(const Path &path, const std::vector<NewTensor> &tensors,
                                   const std::optional<Metadata> &metadata = std::nullopt, const SaveOptions &options = {})
    {
        if (auto good = detail::usable(path); !good)
            return good.error();
        const detail::Given given(tensors, metadata);
        detail::CSave save(options);
        st_error error;
        Writer writer(st_writer_open(path.c_str(), given.tensors(), given.count(), given.entries(), given.entry_count(),
                                     &save.options, &error));
        if (!writer)
            return Error(error);
        return writer;
    }
    static Writer open(const Path &path, const std::vector<NewTensor> &tensors,
                       const std::optional<Metadata> &metadata = std::nullopt, const SaveOptions &options = {})
    {
        return try_open(path, tensors, metadata, options).value();
    }

    // Writes bytes of one tensor, from its byte `offset` on. `tensor` is its
    // number in the vector given to open. Status::invalid_argument past its
    // end, and for bytes that are written already.
    Result<void> try_write(std::size_t tensor, std::uint64_t offset, Bytes bytes)
    {
        st_error error;
        if (st_writer_write(handle_.get(), tensor, offset, bytes.data(), bytes.size(), &error) != ST_OK)
            return Error(error);
        return {};
    }
    void write(std::size_t tensor, std::uint64_t offset, Bytes bytes) { try_write(tensor, offset, bytes).value(); }

    // Brings the file to the disk and gives it its name.
    // Status::data_not_covered while bytes are missing: write them, and finish.
    Result<void> try_finish()
    {
        st_error error;
        if (st_writer_finish(handle_.get(), &error) != ST_OK)
            return Error(error);
        return {};
    }
    void finish() { try_finish().value(); }

    // False once it has been moved from.
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    // The C handle, still owned by the writer.
    st_writer *handle() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(st_writer *handle) const noexcept { st_writer_free(handle); }
    };

    std::unique_ptr<st_writer, Free> handle_;
};

// ==== Validate ====

// One rule that a file breaks. Valid during the call that reports it.
struct Problem {
    explicit Problem(const st_problem &record) noexcept
        : code(static_cast<Status>(record.code)), fatal((record.fatal & ST_FATAL_STRICT) != 0),
          fatal_tolerated((record.fatal & ST_FATAL_TOLERANT) != 0), position(record.position),
          file(record.file, record.file_len), text(record.text)
    {
        if (record.tensor != nullptr)
            tensor.emplace(record.tensor, record.tensor_len);
    }

    Status code;
    bool fatal;             // open refuses the file for it
    bool fatal_tolerated;   // also with everything tolerated that can be
    std::uint64_t position; // the byte in the file where it shows
    std::string_view file;
    std::optional<std::string_view> tensor; // a stranger's text
    std::string_view text;                  // with the numbers; safe to print
};

// Returns true (or nothing) to go on, and false to end with Status::cancelled.
using Report = Callback<bool(const Problem &problem)>;

// Reports every rule that a file, an index and its shards, or a folder breaks,
// where open stops at the first, on the calling thread. Fails with what open
// with these options would say.
inline Result<void> try_validate(const Path &path, const Report &report = {}, const OpenOptions &options = {})
{
    if (auto good = detail::usable(path); !good)
        return good;
    struct Held {
        const Report &report;
        detail::Thrown thrown = {};

        static std::int32_t call(void *user_data, const st_problem *problem) noexcept
        {
            Held &held = *static_cast<Held *>(user_data);
            bool go_on = false;
            (void)held.thrown.run(nullptr, [&]() -> Result<void> {
                go_on = !held.report || held.report(Problem(*problem)).value();
                return {};
            });
            return go_on ? 0 : 1;
        }
    } held{report};
    const auto given = detail::c_options(options);
    st_error error;
    const st_status status = st_validate(path.c_str(), &given, Held::call, &held, &error);
    held.thrown.rethrow();
    if (status != ST_OK)
        return Error(error);
    return {};
}
inline void validate(const Path &path, const Report &report = {}, const OpenOptions &options = {})
{
    try_validate(path, report, options).value();
}

// ==== Helpers ====

// Converts all elements of `from`, each rounded once, and returns how many;
// st_convert lists the pairs of dtypes. Status::size_mismatch where the bytes
// are not a whole number of elements, Status::buffer_size where `to` is too small.
inline Result<std::size_t> try_convert(Dtype from_dtype, Bytes from, Dtype to_dtype, MutableBytes to)
{
    if (auto fits = try_check_version(); !fits)
        return fits.error();
    const std::size_t from_bits = bits(from_dtype), to_bits = bits(to_dtype);
    // Where a dtype is none, the C function says so.
    const std::size_t count = from_bits == 0 ? 0 : from.size() / from_bits * 8 + from.size() % from_bits * 8 / from_bits;
    if (from_bits != 0 && from.size() % from_bits * 8 % from_bits != 0)
        return Error(Status::size_mismatch,
                     std::to_string(from.size()) + " bytes are not a whole number of " + name(from_dtype));
    if (to_bits != 0 && count > to.size() / to_bits * 8 + to.size() % to_bits * 8 / to_bits)
        return Error(Status::buffer_size, std::to_string(to.size()) + " bytes are too few for " + std::to_string(count) +
                                              " elements of " + name(to_dtype));
    if (to.dtype() != Dtype::as_stored && to.dtype() != to_dtype)
        return Error(Status::invalid_argument,
                     std::string("memory of ") + name(to.dtype()) + " is given for " + name(to_dtype));
    st_error error;
    if (st_convert(static_cast<st_dtype>(from_dtype), from.data(), static_cast<st_dtype>(to_dtype), to.data(), count,
                   &error) != ST_OK)
        return Error(error);
    return count;
}
inline std::size_t convert(Dtype from_dtype, Bytes from, Dtype to_dtype, MutableBytes to)
{
    return try_convert(from_dtype, from, to_dtype, to).value();
}

// The same between vectors, arrays or spans, with the dtypes of their elements.
template <class From, class To, class = detail::IfBytes<const From>, class = detail::IfBytes<To>>
Result<std::size_t> try_convert(const From &from, To &&to)
{
    return try_convert(Element<std::remove_cv_t<detail::Contained<const From>>>::dtype, from,
                       Element<detail::Contained<To>>::dtype, to);
}
template <class From, class To, class = detail::IfBytes<const From>, class = detail::IfBytes<To>>
std::size_t convert(const From &from, To &&to)
{
    return try_convert(from, std::forward<To>(to)).value();
}

} // namespace SAFETENSORS_DIALECT

} // namespace safetensors

#if defined(__cpp_lib_span)
// Its iterators outlive a temporary range, as they point to the records.
template <class View, class Record>
inline constexpr bool std::ranges::enable_borrowed_range<safetensors::Records<View, Record>> = true;
template <> inline constexpr bool std::ranges::enable_borrowed_range<safetensors::Entries> = true;
#endif

#endif // C++17 or newer
#endif // SAFETENSORS_HPP
