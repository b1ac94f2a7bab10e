// SPDX-License-Identifier: Apache-2.0
#include "progress.h"

#include <cstdio>
#include <string>
#include <unistd.h>

static bool on_terminal() {
    static const bool terminal = isatty(STDERR_FILENO);
    return terminal;
}

int32_t draw_progress(void *, uint64_t done, uint64_t total) {
    static int drawn = -1;
    if (!on_terminal() || total == 0) return 0;
    int percent = int(double(done) * 100 / double(total));
    if (percent == drawn) return 0;
    drawn = percent;
    const int width = 40, filled = percent * width / 100;
    std::fprintf(stderr, "\rloading [%s%s] %3d %%  %llu of %llu MiB", std::string(size_t(filled), '#').c_str(), std::string(size_t(width - filled), '.').c_str(), percent,
                 static_cast<unsigned long long>(done >> 20), static_cast<unsigned long long>(total >> 20));
    return 0;
}

void clear_progress() {
    if (on_terminal()) std::fprintf(stderr, "\r\033[K");
}
