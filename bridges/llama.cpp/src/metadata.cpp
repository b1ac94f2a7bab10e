// SPDX-License-Identifier: Apache-2.0
#include "metadata.h"

#include <gguf.h>

#include <cstring>

namespace bridge {

void Bytes::number(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) text.push_back(char(value >> (8 * i)));
}

void Bytes::f32(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    u32(bits);
}

void Bytes::string(std::string_view value) {
    u64(value.size());
    append(value);
}

void Metadata::begin(const char *key, uint32_t type) {
    entries.string(key[0] == '.' ? arch + key : std::string(key));
    entries.u32(type);
    entry_count++;
}

void Metadata::u32(const char *key, uint64_t value) {
    begin(key, GGUF_TYPE_UINT32);
    entries.u32(uint32_t(value));
}

void Metadata::i32(const char *key, int32_t value) {
    begin(key, GGUF_TYPE_INT32);
    entries.u32(uint32_t(value));
}

void Metadata::f32(const char *key, double value) {
    begin(key, GGUF_TYPE_FLOAT32);
    entries.f32(float(value));
}

void Metadata::flag(const char *key, bool value) {
    begin(key, GGUF_TYPE_BOOL);
    entries.u8(value);
}

void Metadata::string(const char *key, std::string_view value) {
    begin(key, GGUF_TYPE_STRING);
    entries.string(value);
}

void Metadata::strings(const char *key, const StringList &values) {
    begin(key, GGUF_TYPE_ARRAY);
    entries.u32(GGUF_TYPE_STRING);
    entries.u64(values.count);
    entries.append(values.bytes.str());
}

void Metadata::i32s(const char *key, const std::vector<int32_t> &values) {
    begin(key, GGUF_TYPE_ARRAY);
    entries.u32(GGUF_TYPE_INT32);
    entries.u64(values.size());
    for (int32_t value : values) entries.u32(uint32_t(value));
}

void Metadata::f32s(const char *key, const std::vector<float> &values) {
    begin(key, GGUF_TYPE_ARRAY);
    entries.u32(GGUF_TYPE_FLOAT32);
    entries.u64(values.size());
    for (float value : values) entries.f32(value);
}

} // namespace bridge
