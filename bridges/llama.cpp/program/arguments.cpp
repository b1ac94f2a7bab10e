// SPDX-License-Identifier: Apache-2.0
#include "arguments.h"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

const char *const usage =
    "usage: st-llama --model DIR [--type stored|f32|f16|bf16|q8_0|q4_0|q4_k|...] ACTION\n"
    "\n"
    "  --tokens 1,2,3 [--logits FILE] [--generate N]   run ids\n"
    "  --text STRING [--logits FILE] [--generate N]    run a text\n"
    "  --chat                                          talk (one line a turn, end of input ends)\n"
    "  --prompt STRING [--generate N]                  continue a text, printed as it comes\n"
    "  --sentence STRING --sentence STRING ...         how alike sentences are (an encoder)\n"
    "  --check                                         is it supported, what is missing\n"
    "  --write-gguf FILE                               convert\n"
    "  --rpc HOST:PORT,...                             spread the layers over these hosts\n"
    "  --serve HOST:PORT                               be such a host (needs no --model)\n"
    "\n"
    "  --threads N   --context N   --window BYTES   --ids-only   --user-way   --verbose\n"
    "\n"
    "--logits writes F32, little-endian, [tokens][columns]: logits, or an encoder's last hidden\n"
    "state. The last line of standard output is one JSON object: columns, tokens, generated, text.\n";

static int64_t whole(const std::string &text, int64_t least, int64_t most, const std::string &name) {
    char *end;
    errno = 0;
    long long value = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end || errno || value < least || value > most)
        throw Trouble(name + " is not a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    return value;
}

static std::vector<int32_t> ids(const std::string &list) {
    std::vector<int32_t> out;
    for (size_t begin = 0; begin <= list.size();) {
        size_t end = std::min(list.find(',', begin), list.size());
        out.push_back(int32_t(whole(list.substr(begin, end - begin), 0, INT32_MAX, "an id in --tokens")));
        begin = end + 1;
    }
    return out;
}

Arguments read_arguments(int count, char **values) {
    Arguments out;
    for (int i = 1; i < count; i++) {
        const std::string name = values[i];
        auto next = [&]() -> std::string {
            if (++i >= count) throw Trouble(name + " needs a value (see --help)");
            return values[i];
        };
        if (name == "--model") out.model = next();
        else if (name == "--type") out.type = next();
        else if (name == "--tokens") out.tokens = ids(next());
        else if (name == "--text") out.text = next(), out.has_text = true;
        else if (name == "--logits") out.logits = next();
        else if (name == "--generate") out.generate = int32_t(whole(next(), 0, 1 << 20, name));
        else if (name == "--prompt") out.prompt = next(), out.action = Action::chat;
        else if (name == "--chat") out.action = Action::chat;
        else if (name == "--sentence") out.sentences.push_back(next()), out.action = Action::compare;
        else if (name == "--check") out.action = Action::check;
        else if (name == "--write-gguf") out.write_gguf = next(), out.action = Action::write_gguf;
        else if (name == "--rpc") out.rpc = next();
        else if (name == "--serve") out.serve = next(), out.action = Action::serve;
        else if (name == "--threads") out.threads = uint32_t(whole(next(), 1, 1024, name));
        else if (name == "--window") out.window = uint64_t(whole(next(), 65536, int64_t(1) << 40, name));
        else if (name == "--context") out.context = int32_t(whole(next(), 1, INT32_MAX, name));
        else if (name == "--ids-only") out.ids_only = true;
        else if (name == "--user-way") out.user_way = true;
        else if (name == "--verbose") out.verbose = true;
        else if (name == "--help") out.action = Action::help;
        else throw Trouble("unknown argument " + name + " (see --help)");
    }
    if (out.action == Action::help || out.action == Action::serve) return out;
    if (out.model.empty()) throw Trouble("--model is missing (see --help)");
    if (out.action == Action::run && out.tokens.empty() && !out.has_text) throw Trouble("nothing to do: --tokens, --text, --chat, ... (see --help)");
    if (!out.tokens.empty() && out.has_text) throw Trouble("--tokens and --text exclude each other");
    return out;
}
