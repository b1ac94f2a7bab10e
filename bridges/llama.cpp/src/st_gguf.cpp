// SPDX-License-Identifier: Apache-2.0
// st_gguf.h: the C interface of the virtual file.
#include "stream.h"
#include "write.h"

using namespace bridge;

static void need(const void *argument, const char *name) {
    if (!argument) fail(ST_ERROR_INVALID_ARGUMENT, std::string(name) + " is NULL");
}

st_gguf *st_gguf_open(const char *folder, const st_gguf_options *options, st_error *error) {
    return guard(error, static_cast<st_gguf *>(nullptr), [&] {
        need(folder, "folder");
        st_gguf_options settings = read_options(options);
        // A type that is misspelled is found before anything is opened.
        parse_type(settings.type);
        ModelFiles files = read_folder(folder, settings.tokenizer != ST_GGUF_TOKENIZER_NONE);
        st_error inner;
        Checkpoint checkpoint(st_open(folder, &inner));
        if (!checkpoint) pass_on(inner);
        return new st_gguf{Gguf(std::move(checkpoint), files, settings)};
    });
}

st_gguf *st_gguf_open_checkpoint(st_checkpoint *checkpoint, const char *config_json, const char *tokenizer_json, const st_gguf_options *options,
                                 st_error *error) {
    return guard(error, static_cast<st_gguf *>(nullptr), [&] {
        need(checkpoint, "checkpoint");
        need(config_json, "config_json");
        st_gguf_options settings = read_options(options);
        ModelFiles files;
        files.config = config_json;
        if (tokenizer_json) files.tokenizer.tokenizer = tokenizer_json;
        return new st_gguf{Gguf(Checkpoint(st_retain(checkpoint)), files, settings)};
    });
}

void st_gguf_free(st_gguf *gguf) { delete gguf; }

uint64_t st_gguf_size(const st_gguf *gguf) { return gguf ? gguf->gguf.layout().size() : 0; }

st_status st_gguf_read(st_gguf *gguf, uint64_t offset, void *dst, size_t size, st_error *error) {
    return guard_status(error, [&] {
        need(gguf, "gguf");
        if (size == 0) return;
        need(dst, "dst");
        uint64_t end = gguf->gguf.layout().size();
        if (offset > end || size > end - offset)
            fail(ST_ERROR_INVALID_ARGUMENT, "bytes " + std::to_string(offset) + " + " + std::to_string(size) + " are past the file's end at " + std::to_string(end));
        gguf->gguf.read(offset, static_cast<uint8_t *>(dst), size);
    });
}

FILE *st_gguf_file(st_gguf *gguf, st_error *error) {
    return guard(error, static_cast<FILE *>(nullptr), [&] {
        need(gguf, "gguf");
        return open_stream(gguf->gguf);
    });
}

st_status st_gguf_write(st_gguf *gguf, const char *path, st_error *error) {
    return guard_status(error, [&] {
        need(gguf, "gguf");
        need(path, "path");
        write_file(gguf->gguf, path);
    });
}

const char *st_gguf_tokenizer_problem(const st_gguf *gguf) { return gguf ? gguf->gguf.tokenizer_problem() : nullptr; }
