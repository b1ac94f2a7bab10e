// SPDX-License-Identifier: Apache-2.0
// config.json, read by key: every value is checked where it is read, and an error names its key.
#pragma once

#include "failure.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

namespace bridge {

using Json = nlohmann::json;

// Largest config.json or other small JSON file, in bytes.
constexpr size_t max_config_bytes = size_t(16) << 20;

// Parses the text of a small file; name is for messages.
Json parse_small_json(std::string_view text, const char *name);

// An object of config.json: the root, or one inside it such as rope_parameters.
class Config {
  public:
    // where: what comes before a key in messages: "" or "rope_parameters.".
    explicit Config(const Json &object, std::string where = "") : json(object), prefix(std::move(where)) {}

    // Whether the key is there and not null, which mean the same in config.json.
    bool has(const char *key) const;

    // Whether the key is there, if only as null.
    bool mentions(const char *key) const;

    // A count: a whole number from 1 to 2^31 - 1.
    int64_t count(const char *key) const;
    int64_t count(const char *key, int64_t otherwise) const;

    // A number that is finite and within [least, most].
    double number(const char *key, double least, double most) const;
    double number(const char *key, double least, double most, double otherwise) const;

    bool flag(const char *key, bool otherwise) const;
    std::string text(const char *key, const std::string &otherwise) const;

    // The object at the key; has(key) must hold.
    Config object(const char *key) const;

    // The raw value; null where there is none.
    const Json &value(const char *key) const;

    // The key as messages name it.
    std::string name(const char *key) const { return prefix + key; }

    // Throws: this value of the key is not supported, and what is.
    [[noreturn]] void refuse(const char *key, const std::string &allowed) const;

  private:
    const Json &json;
    std::string prefix;
};

} // namespace bridge
