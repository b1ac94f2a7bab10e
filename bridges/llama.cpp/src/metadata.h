// SPDX-License-Identifier: Apache-2.0
// The key-value section of a GGUF file, as bytes. Written here and not by gguf.h: a context of
// strings takes several times the memory of the text, and its alignment can't be set later.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bridge {

// Little-endian numbers and strings, as GGUF spells them.
class Bytes {
  public:
    void u8(uint8_t value) { text.push_back(char(value)); }
    void u32(uint32_t value) { number(value, 4); }
    void u64(uint64_t value) { number(value, 8); }
    void f32(float value);
    void string(std::string_view value);
    void append(std::string_view bytes) { text.append(bytes); }
    void pad(uint64_t alignment) { text.append((alignment - text.size() % alignment) % alignment, '\0'); }
    const std::string &str() const { return text; }

  private:
    void number(uint64_t value, int bytes);
    std::string text;
};

// A list of strings in GGUF's spelling, made while it is read.
struct StringList {
    Bytes bytes;
    uint64_t count = 0;

    void add(std::string_view value) {
        bytes.string(value);
        count++;
    }
};

class Metadata {
  public:
    // Keys that begin with "." get the architecture in front.
    explicit Metadata(std::string architecture) : arch(std::move(architecture)) {}

    void u32(const char *key, uint64_t value);
    void i32(const char *key, int32_t value);
    void f32(const char *key, double value);
    void flag(const char *key, bool value);
    void string(const char *key, std::string_view value);
    void strings(const char *key, const StringList &values);
    void i32s(const char *key, const std::vector<int32_t> &values);
    void f32s(const char *key, const std::vector<float> &values);

    const std::string &bytes() const { return entries.str(); }
    uint64_t count() const { return entry_count; }

  private:
    void begin(const char *key, uint32_t type);
    std::string arch;
    Bytes entries;
    uint64_t entry_count = 0;
};

} // namespace bridge
