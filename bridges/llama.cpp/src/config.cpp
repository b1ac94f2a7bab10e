// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include <nlohmann/json.hpp>

#include <cmath>

namespace bridge {

Json parse_small_json(std::string_view text, const char *name) {
    if (text.size() > max_config_bytes)
        fail(ST_ERROR_CONFIG, std::string(name) + " is longer than " + std::to_string(max_config_bytes) + " bytes");
    try {
        // Its parser and its destructor use no recursion, so depth is no danger.
        return Json::parse(text.begin(), text.end());
    } catch (const Json::parse_error &error) {
        fail(ST_ERROR_CONFIG, std::string(name) + " is not JSON: byte " + std::to_string(error.byte));
    }
}

const Json &Config::value(const char *key) const {
    static const Json none;
    auto found = json.find(key);
    return found == json.end() ? none : *found;
}

bool Config::mentions(const char *key) const { return json.contains(key); }

bool Config::has(const char *key) const { return !value(key).is_null(); }

static std::string shown(const Json &value) {
    // Containers may be large: name their kind.
    if (value.is_structured()) return value.type_name();
    return value.is_string() ? in_quotes(value.get_ref<const std::string &>()) : value.dump();
}

void Config::refuse(const char *key, const std::string &allowed) const {
    fail(ST_ERROR_UNSUPPORTED, "config.json: " + name(key) + " is " + shown(value(key)) +
                                   ", which llama.cpp does not compute for this architecture (supported: " + allowed + ")");
}

[[noreturn]] static void malformed(const Config &config, const char *key, const Json &value, const std::string &expected) {
    if (value.is_null()) fail(ST_ERROR_CONFIG, "config.json has no " + config.name(key) + " (" + expected + ")");
    fail(ST_ERROR_CONFIG, "config.json: " + config.name(key) + " is " + shown(value) + ", not " + expected);
}

int64_t Config::count(const char *key) const {
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    const Json &found = value(key);
    bool whole = found.is_number_integer() && !(found.is_number_unsigned() && found.get<uint64_t>() > uint64_t(most));
    if (whole) {
        auto result = found.get<int64_t>();
        if (result >= 1 && result <= most) return result;
    }
    malformed(*this, key, found, "a whole number from 1 to 2147483647");
}

int64_t Config::count(const char *key, int64_t otherwise) const { return has(key) ? count(key) : otherwise; }

double Config::number(const char *key, double least, double most) const {
    const Json &found = value(key);
    if (found.is_number()) {
        auto result = found.get<double>();
        if (std::isfinite(result) && result >= least && result <= most) return result;
    }
    char range[80];
    std::snprintf(range, sizeof range, "a number from %g to %g", least, most);
    malformed(*this, key, found, range);
}

double Config::number(const char *key, double least, double most, double otherwise) const {
    return has(key) ? number(key, least, most) : otherwise;
}

bool Config::flag(const char *key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!value(key).is_boolean()) malformed(*this, key, value(key), "true or false");
    return value(key).get<bool>();
}

std::string Config::text(const char *key, const std::string &otherwise) const {
    if (!has(key)) return otherwise;
    if (!value(key).is_string()) malformed(*this, key, value(key), "a string");
    return value(key).get<std::string>();
}

Config Config::object(const char *key) const {
    if (!value(key).is_object()) malformed(*this, key, value(key), "an object");
    return Config(value(key), prefix + key + ".");
}

} // namespace bridge
