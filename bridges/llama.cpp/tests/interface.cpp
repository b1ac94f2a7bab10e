// SPDX-License-Identifier: Apache-2.0
// Tests of st_gguf.h and st_llama.h as a program uses them:
//
//     interface calls FOLDER SCRATCH             every function, and what it refuses
//     interface quantised FOLDER SCRATCH TYPE N  the bytes that llama.cpp's own quantiser (file type N) makes
#include <st_llama.h>

#include <ggml.h>
#include <gguf.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

static void check(bool holds, const char *what, const std::string &more = "") {
    if (holds) return;
    std::fprintf(stderr, "failed: %s %s\n", what, more.c_str());
    std::exit(1);
}

static std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

static bool exists(const std::string &path) { return std::ifstream(path).good(); }

struct Bytes {
    ggml_type type;
    std::vector<uint8_t> data;
};

// Tensors of a GGUF file, through a stream.
static std::map<std::string, Bytes> tensors_of(FILE *file) {
    gguf_init_params params{};
    ggml_context *context = nullptr;
    params.ctx = &context;
    params.no_alloc = false;
    gguf_context *gguf = gguf_init_from_file_ptr(file, params);
    check(gguf != nullptr, "gguf.h reads the stream");
    std::map<std::string, Bytes> out;
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf); i++) {
        ggml_tensor *tensor = ggml_get_tensor(context, gguf_get_tensor_name(gguf, i));
        auto data = static_cast<const uint8_t *>(tensor->data);
        out[tensor->name] = {tensor->type, std::vector<uint8_t>(data, data + ggml_nbytes(tensor))};
    }
    gguf_free(gguf);
    ggml_free(context);
    return out;
}

static std::map<std::string, Bytes> tensors_of(const std::string &path) {
    FILE *file = std::fopen(path.c_str(), "rb");
    check(file != nullptr, "the file opens", path);
    auto out = tensors_of(file);
    std::fclose(file);
    return out;
}

static std::map<std::string, Bytes> tensors_of(st_gguf *gguf) {
    st_error error;
    FILE *file = st_gguf_file(gguf, &error);
    check(file != nullptr, "a stream", error.message);
    auto out = tensors_of(file);
    std::fclose(file);
    return out;
}

static bool same(const std::map<std::string, Bytes> &a, const std::map<std::string, Bytes> &b) {
    if (a.size() != b.size()) return false;
    for (const auto &[name, bytes] : a) {
        auto other = b.find(name);
        if (other == b.end() || other->second.type != bytes.type || other->second.data != bytes.data) return false;
    }
    return true;
}

// A file in memory behind callbacks, whose reads fail after so many bytes of data.
struct Disk {
    std::string bytes;
    int64_t good;
};

static st_status read_at(void *user_data, uint64_t offset, void *dst, size_t size, size_t *done, st_error *error) {
    auto *disk = static_cast<Disk *>(user_data);
    if (disk->good < int64_t(size)) {
        error->code = ST_ERROR_IO;
        error->os_errno = 5;
        std::snprintf(error->message, sizeof error->message, "the disk failed at byte %llu", static_cast<unsigned long long>(offset));
        return ST_ERROR_IO;
    }
    disk->good -= int64_t(size);
    std::memcpy(dst, disk->bytes.data() + offset, size);
    *done = size;
    return ST_OK;
}

static st_gguf *open_disk(Disk &disk, const std::string &config, const st_gguf_options *options) {
    st_error error;
    st_io io = ST_IO_INIT;
    io.size = disk.bytes.size();
    io.read_at = read_at;
    io.user_data = &disk;
    st_checkpoint *checkpoint = st_open_io(&io, nullptr, &error);
    check(checkpoint != nullptr, "a checkpoint behind callbacks", error.message);
    st_gguf *gguf = st_gguf_open_checkpoint(checkpoint, config.c_str(), nullptr, options, &error);
    check(gguf != nullptr, "a GGUF behind callbacks", error.message);
    st_free(checkpoint);
    return gguf;
}

static void test_sources(const std::string &folder) {
    st_error error;
    st_gguf *plain = st_gguf_open(folder.c_str(), nullptr, &error);
    check(plain != nullptr, "st_gguf_open", error.message);
    auto expected = tensors_of(plain);
    std::string config = read_file(folder + "/config.json");
    std::string file = read_file(folder + "/model.safetensors");

    st_checkpoint *memory = st_open_memory(file.data(), file.size(), nullptr, &error);
    st_gguf *from_memory = st_gguf_open_checkpoint(memory, config.c_str(), nullptr, nullptr, &error);
    st_free(memory);
    check(from_memory && same(tensors_of(from_memory), expected), "from memory as from a folder");
    Disk disk{file, INT64_MAX};
    st_gguf *from_disk = open_disk(disk, config, nullptr);
    check(same(tensors_of(from_disk), expected), "behind callbacks as from a folder");

    // Any bytes in any order are the bytes of one read from front to back.
    const uint64_t size = st_gguf_size(plain);
    std::vector<uint8_t> whole(size), piece;
    check(st_gguf_read(plain, 0, whole.data(), whole.size(), &error) == ST_OK, "all at once", error.message);
    uint64_t state = 1;
    for (int i = 0; i < 200; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t offset = (state >> 16) % size;
        piece.resize(std::min<uint64_t>((state >> 40) % 5000 + 1, size - offset));
        check(st_gguf_read(plain, offset, piece.data(), piece.size(), &error) == ST_OK, "a piece", error.message);
        check(std::memcmp(piece.data(), whole.data() + offset, piece.size()) == 0, "a piece equals the whole");
    }
    check(st_gguf_read(plain, size - 1, whole.data(), 2, &error) == ST_ERROR_INVALID_ARGUMENT, "past the end");
    check(st_gguf_read(plain, size, nullptr, 0, &error) == ST_OK, "nothing at the end");

    // Windows of the least size, and other numbers of threads, change nothing.
    st_gguf_options options = ST_GGUF_OPTIONS_INIT;
    options.window_bytes = 65536;
    options.threads = 1;
    st_gguf *small = st_gguf_open(folder.c_str(), &options, &error);
    check(small && same(tensors_of(small), expected), "small windows");
    for (st_gguf *each : {plain, from_memory, from_disk, small}) st_gguf_free(each);
}

static void test_failing_disk(const std::string &folder, const std::string &scratch) {
    st_error error;
    std::string config = read_file(folder + "/config.json");
    std::string file = read_file(folder + "/model.safetensors");
    const std::string target = scratch + "/kept.gguf";
    std::ofstream(target) << "the older file";
    for (int way = 0; way < 3; way++) {
        Disk disk{file, INT64_MAX};
        st_gguf *gguf = open_disk(disk, config, nullptr);
        disk.good = int64_t(file.size() / 2);
        if (way == 2) {
            check(st_gguf_write(gguf, target.c_str(), &error) == ST_ERROR_IO, "a write on a failing disk");
            check(read_file(target) == "the older file", "the older file stays");
        } else {
            auto load = way == 0 ? st_llama_load_gguf : st_llama_load_user;
            check(load(gguf, llama_model_default_params(), &error) == nullptr, "a load on a failing disk");
            check(error.code == ST_ERROR_IO && error.os_errno == 5, "its errno");
        }
        check(std::strstr(error.message, "the disk failed at byte") != nullptr, "the disk's own message", error.message);
        st_gguf_free(gguf);
    }
}

static int32_t stop(void *user_data, uint64_t done, uint64_t total) {
    check(done <= total, "progress within its total");
    return ++*static_cast<int *>(user_data) > 3;
}

static void test_progress(const std::string &folder, const std::string &scratch) {
    st_error error;
    int calls = 0;
    st_gguf_options options = ST_GGUF_OPTIONS_INIT;
    options.progress = stop;
    options.user_data = &calls;
    check(st_llama_load(folder.c_str(), llama_model_default_params(), &options, &error) == nullptr && error.code == ST_ERROR_CANCELLED, "a cancelled load");
    calls = 0;
    st_gguf *gguf = st_gguf_open(folder.c_str(), &options, &error);
    const std::string target = scratch + "/cancelled.gguf";
    check(st_gguf_write(gguf, target.c_str(), &error) == ST_ERROR_CANCELLED, "a cancelled write");
    check(!exists(target), "nothing is left");
    calls = -1000000;
    check(st_gguf_write(gguf, target.c_str(), &error) == ST_OK, "a write", error.message);
    check(same(tensors_of(target), tensors_of(gguf)), "the file has the stream's tensors");
    check(st_gguf_write(gguf, (scratch + "/no/such/folder.gguf").c_str(), &error) == ST_ERROR_IO && error.os_errno == ENOENT, "a folder that is not there");
    st_gguf_free(gguf);
}

static void test_arguments(const std::string &folder) {
    st_error error;
    check(!st_gguf_open(nullptr, nullptr, &error) && error.code == ST_ERROR_INVALID_ARGUMENT, "no folder");
    st_gguf *unasked = st_gguf_open(folder.c_str(), nullptr, nullptr);
    check(unasked != nullptr, "no error wanted");
    st_gguf_free(unasked);
    check(!st_gguf_open_checkpoint(nullptr, "{}", nullptr, nullptr, &error) && error.code == ST_ERROR_INVALID_ARGUMENT, "no checkpoint");
    check(!st_gguf_open((folder + "/nothing").c_str(), nullptr, nullptr), "no error wanted, and none to have");
    check(!st_llama_load_gguf(nullptr, llama_model_default_params(), &error) && error.code == ST_ERROR_INVALID_ARGUMENT, "no GGUF");
    check(st_gguf_size(nullptr) == 0 && !st_gguf_tokenizer_problem(nullptr), "nothing of nothing");
    check(st_gguf_read(nullptr, 0, nullptr, 0, &error) == ST_ERROR_INVALID_ARGUMENT && !st_gguf_file(nullptr, &error), "reads of nothing");
    st_gguf_free(nullptr);

    st_gguf_options options = ST_GGUF_OPTIONS_INIT;
    options.struct_size = 0;
    check(!st_gguf_open(folder.c_str(), &options, &error) && error.code == ST_ERROR_INVALID_ARGUMENT, "struct_size 0");
    options = ST_GGUF_OPTIONS_INIT;
    options.tokenizer = 3;
    check(!st_gguf_open(folder.c_str(), &options, &error) && error.code == ST_ERROR_INVALID_ARGUMENT, "tokenizer 3");
    options = ST_GGUF_OPTIONS_INIT;
    options.window_bytes = 1;
    check(!st_gguf_open(folder.c_str(), &options, &error) && error.code == ST_ERROR_INVALID_ARGUMENT, "window_bytes 1");
    options = ST_GGUF_OPTIONS_INIT;
    options.type = "q9_9";
    check(!st_gguf_open(folder.c_str(), &options, &error) && error.code == ST_ERROR_INVALID_ARGUMENT && std::strstr(error.message, "q8_0"), "type q9_9");
    options.type = "iq2_xxs";
    check(!st_gguf_open(folder.c_str(), &options, &error) && error.code == ST_ERROR_INVALID_ARGUMENT, "a type with an importance matrix");
    options = ST_GGUF_OPTIONS_INIT;
    options.tokenizer = ST_GGUF_TOKENIZER_REQUIRED;
    check(!st_gguf_open(folder.c_str(), &options, &error) && error.code == ST_ERROR_UNSUPPORTED && std::strstr(error.message, "ids only"), "no tokenizer");

    // A caller with a longer struct, all of whose new fields are zero, and one that sets such a field.
    struct Longer {
        st_gguf_options options;
        uint64_t more;
    } longer{ST_GGUF_OPTIONS_INIT, 0};
    longer.options.struct_size = sizeof longer;
    st_gguf *gguf = st_gguf_open(folder.c_str(), &longer.options, &error);
    check(gguf != nullptr, "a longer struct", error.message);
    st_gguf_free(gguf);
    longer.more = 1;
    check(!st_gguf_open(folder.c_str(), &longer.options, &error) && error.code == ST_ERROR_UNSUPPORTED, "a field of a newer header");

    options = ST_GGUF_OPTIONS_INIT;
    options.type_for = [](void *, const char *name) -> const char * { return std::strcmp(name, "output.weight") == 0 ? "F16" : nullptr; };
    gguf = st_gguf_open(folder.c_str(), &options, &error);
    check(gguf != nullptr, "type_for", error.message);
    auto tensors = tensors_of(gguf);
    check(tensors.at("output.weight").type == GGML_TYPE_F16 && tensors.at("token_embd.weight").type == GGML_TYPE_F32, "a type for one tensor");
    st_gguf_free(gguf);

    auto count = [](void *user_data, const char *) -> int32_t {
        ++*static_cast<int *>(user_data);
        return 0;
    };
    int lines = 0;
    check(st_llama_check(folder.c_str(), nullptr, count, &lines, &error) == ST_OK && lines == 2, "a check");
    check(st_llama_check(folder.c_str(), nullptr, [](void *, const char *) -> int32_t { return 1; }, nullptr, &error) == ST_ERROR_CANCELLED, "a cancelled check");
}

static void test_quantised(const std::string &folder, const std::string &scratch, const char *type, int file_type) {
    st_error error;
    st_gguf_options options = ST_GGUF_OPTIONS_INIT;
    const std::string whole = scratch + "/f32.gguf", theirs = scratch + "/theirs.gguf";
    st_gguf *gguf = st_gguf_open(folder.c_str(), &options, &error);
    check(gguf && st_gguf_write(gguf, whole.c_str(), &error) == ST_OK, "the F32 file", error.message);
    st_gguf_free(gguf);
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = llama_ftype(file_type);
    params.pure = true;
    check(llama_model_quantize(whole.c_str(), theirs.c_str(), &params) == 0, "llama.cpp quantises");
    options.type = type;
    gguf = st_gguf_open(folder.c_str(), &options, &error);
    check(gguf != nullptr, "a quantised GGUF", error.message);
    auto ours = tensors_of(gguf), expected = tensors_of(theirs);
    st_gguf_free(gguf);
    size_t compared = 0;
    for (const auto &[name, bytes] : ours) {
        if (!ggml_is_quantized(bytes.type)) continue;
        const Bytes &other = expected.at(name);
        check(other.type == bytes.type, "the type of", name + ": theirs is " + ggml_type_name(other.type) + ", ours " + ggml_type_name(bytes.type));
        check(other.data == bytes.data, "the bytes of", name);
        compared++;
    }
    check(compared >= 8, "matrices were compared");
}

int main(int count, char **values) {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    check(count > 3, "arguments");
    const std::string what = values[1], folder = values[2], scratch = values[3];
    if (what == "quantised") {
        test_quantised(folder, scratch, values[4], std::atoi(values[5]));
        return 0;
    }
    test_arguments(folder);
    test_sources(folder);
    test_failing_disk(folder, scratch);
    test_progress(folder, scratch);
    return 0;
}
