// SPDX-License-Identifier: Apache-2.0
// The conformance table through the C++ header: every file and folder, opened
// in every way, gives the status and holds the contents that the table says.

#include "check.hpp"

#include <algorithm>
#include <map>
#include <sstream>

namespace {

using Cells = std::vector<std::string>;

std::vector<Cells> table(const std::string &path)
{
    std::vector<Cells> rows;
    std::istringstream lines(check::read_file(path));
    for (std::string line; std::getline(lines, line);) {
        if (line[0] == '#')
            continue;
        std::istringstream cells(line);
        rows.emplace_back();
        for (std::string cell; std::getline(cells, cell, '\t');)
            rows.back().push_back(cell);
    }
    return rows;
}

// Percent-encoded text; "-" is none.
std::string decoded(const std::string &text)
{
    std::string plain;
    for (std::size_t i = 0; text != "-" && i < text.size(); i++) {
        if (text[i] == '%') {
            plain += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
            i += 2;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

st::Status status_of(const std::string &name)
{
    for (int code = ST_OK; code <= ST_ERROR_CONFIG; code++)
        if (name == st::name(static_cast<st::Status>(code)))
            return static_cast<st::Status>(code);
    throw std::runtime_error("no such status: " + name);
}

st::OpenOptions options_of(const std::string &text)
{
    st::OpenOptions options;
    std::istringstream all(text);
    for (std::string option; std::getline(all, option, ',');) {
        const std::size_t equals = option.find('=');
        const std::string name = option.substr(0, equals);
        if (name == "variant") {
            options.variant = option.substr(equals + 1);
            continue;
        }
        const std::uint64_t value = equals != option.npos ? std::stoull(option.substr(equals + 1)) : 0;
        if (name == "trailing_bytes")
            options.tolerate_trailing_bytes = true;
        else if (name == "unknown_dtype")
            options.tolerate_unknown_dtype = true;
        else if (name == "max_header_size")
            options.max_header_size = value;
        else if (name == "max_tensors")
            options.max_tensors = value;
        else if (name == "max_name_length")
            options.max_name_length = value;
        else if (name == "max_set_bytes")
            options.max_set_bytes = value;
        else if (name != "-")
            throw std::runtime_error("no such option: " + name);
    }
    return options;
}

std::string shape_of(st::Tensor tensor)
{
    std::string text;
    for (const std::int64_t size : tensor.shape())
        text += (text.empty() ? "" : "x") + std::to_string(size);
    return text.empty() ? "-" : text;
}

void check_tensor(const st::Checkpoint &model, const Cells &row)
{
    const std::string name = decoded(row[2]), dtype = decoded(row[3]);
    const auto found = model.find(name);
    const auto got = model.try_get(name);
    if (!CHECK(found) || !CHECK(got))
        return;
    CHECK(found->name() == name && found->dtype_name() == dtype && shape_of(*found) == row[4]);
    CHECK(found->dtype() == st::Dtype::unknown ? !st::dtype_from_name(dtype) : dtype == st::name(found->dtype()));
    CHECK(found->shard() == std::stoul(row[5]) && found->offset() == std::stoull(row[6]) && found->size() == std::stoull(row[7]));
    std::uint64_t elements = 1;
    for (const std::int64_t size : found->shape())
        elements *= static_cast<std::uint64_t>(size);
    CHECK(elements == found->element_count());
    const std::uint64_t hash = std::stoull(row[8], nullptr, 16);
    const auto bytes = got->bytes();
    CHECK(check::fnv1a(bytes.data(), bytes.size()) == hash);
    CHECK(found->data() != nullptr ? &got->record() == &found->record() : reinterpret_cast<std::uintptr_t>(got->data()) % 64 == 0);
    std::vector<std::byte> copy(bytes.size());
    model.read(*found, copy);
    CHECK(check::fnv1a(copy.data(), copy.size()) == hash);
}

void check_contents(const st::Checkpoint &model, const Cells &wanted, const std::vector<Cells> &rows)
{
    const auto tensors = model.tensors();
    CHECK(tensors.size() == std::stoul(wanted[4]));
    CHECK(std::is_sorted(tensors.begin(), tensors.end(), [](st::Tensor a, st::Tensor b) {
        return a.shard() != b.shard() ? a.shard() < b.shard() : a.offset() < b.offset();
    }));
    CHECK(std::all_of(tensors.begin(), tensors.end(), [&](st::Tensor t) { return t.shard() < model.shards().size(); }));
    st::Metadata metadata;
    std::size_t count = 0;
    for (const Cells &row : rows) {
        if (row[1] == "metadata") {
            metadata.emplace_back(decoded(row[2]), decoded(row.at(3)));
        } else {
            check_tensor(model, row);
            count++;
        }
    }
    CHECK(count == tensors.size());
    CHECK(model.metadata().present() == (wanted[5] != "-") && model.metadata().copy().value_or(st::Metadata()) == metadata);
    for (const auto &[key, value] : metadata)
        CHECK(model.metadata().find(key) == value);
}

void check_opened(const st::Result<st::Checkpoint> &opened, const Cells &wanted, const std::vector<Cells> &rows)
{
    const st::Status status = status_of(wanted[3]);
    const int before = check::failures;
    if (opened)
        CHECK(status == st::Status::ok), check_contents(*opened, wanted, rows);
    else
        CHECK(check::throws(status, [&] { (void)opened.value(); }));
    if (check::failures != before)
        std::fprintf(stderr, "in the case %s\n", wanted[0].c_str());
}

} // namespace

int check_corpus(const char *corpus, const char *)
{
    const std::string root = std::string(corpus) + '/';
    std::map<std::string, std::vector<Cells>> contents;
    for (const Cells &row : table(root + "contents.tsv"))
        contents[row[0]].push_back(row);
    const auto cases = table(root + "corpus.tsv");
    CHECK(cases.size() > 400);
    for (const Cells &wanted : cases) {
        const auto &rows = contents[wanted[0]];
        const std::string path = root + wanted[1];
        st::OpenOptions options = options_of(wanted[2]);
        for (const auto access : {st::Access::automatic, st::Access::map, st::Access::read}) {
            options.access = access;
            check_opened(st::Checkpoint::try_open(path, options), wanted, rows);
        }
        if (wanted[1].compare(0, 6, "files/") != 0)
            continue;
        const std::string text = check::read_file(path);
        const auto bytes = check::exactly(text);
        const char nothing = 0;
        check_opened(st::Checkpoint::try_open_memory(bytes.empty() ? &nothing : bytes.data(), bytes.size(), options), wanted, rows);
        for (const std::size_t most : {std::size_t{0}, std::size_t{9}}) {
            std::atomic<int> alive{0};
            check_opened(st::Checkpoint::try_open_io(check::io_over(text, alive, most), options), wanted, rows);
            CHECK(alive == 0);
        }
    }
    return check::result();
}

CHECK_PROGRAM(check_corpus)
