// SPDX-License-Identifier: Apache-2.0
#include "write.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace bridge {

namespace {

// A file under a name of its own beside the target, which goes with it unless it is given its name.
class Temporary {
  public:
    explicit Temporary(const std::string &target) : target(target) {
        auto slash = target.rfind('/');
        folder = slash == std::string::npos ? "." : slash == 0 ? "/" : target.substr(0, slash);
        name = (slash == std::string::npos ? "" : target.substr(0, slash + 1)) + "." + target.substr(slash == std::string::npos ? 0 : slash + 1) + ".XXXXXX.gguf-tmp";
        fd = mkstemps(name.data(), 9);
        if (fd < 0) fail_errno("a temporary file beside " + in_quotes(target) + " can't be created", errno);
        set_mode();
    }

    ~Temporary() {
        if (fd < 0) return;
        close(fd);
        unlink(name.c_str());
    }

    void write(const uint8_t *data, size_t size) {
        while (size > 0) {
            ssize_t done = ::write(fd, data, size);
            if (done < 0 && errno == EINTR) continue;
            if (done < 0) fail_errno(in_quotes(target) + " can't be written", errno);
            data += done;
            size -= size_t(done);
        }
    }

    void finish() {
        if (fsync(fd) != 0) fail_errno(in_quotes(target) + " can't be brought to the disk", errno);
        if (rename(name.c_str(), target.c_str()) != 0) fail_errno(in_quotes(target) + " can't be given its name", errno);
        close(fd);
        fd = -1;
        int directory = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0) return;
        fsync(directory);
        close(directory);
    }

  private:
    // mkstemp's files are for their owner alone; a replaced file keeps its mode, a new one has the umask's.
    void set_mode() {
        struct stat older;
        mode_t mask = umask(0);
        umask(mask);
        fchmod(fd, stat(target.c_str(), &older) == 0 ? older.st_mode & 07777 : 0666 & ~mask);
    }

    std::string target, folder, name;
    int fd = -1;
};

} // namespace

void write_file(Gguf &gguf, const std::string &path) {
    const Layout layout(gguf.metadata(), gguf.outputs(), file_alignment);
    const st_gguf_options &options = gguf.options();
    const uint64_t total = gguf.tensor_bytes();
    // A symbolic link is followed, so that the file that it points to is replaced.
    std::error_code unknown;
    auto target = std::filesystem::is_symlink(path, unknown) ? std::filesystem::weakly_canonical(path).string() : path;
    Temporary file(target);

    std::vector<uint8_t> buffer(size_t(1) << 20);
    for (uint64_t offset = 0; offset < layout.front_size();) {
        size_t count = std::min<uint64_t>(buffer.size(), layout.front_size() - offset);
        layout.read_front(offset, buffer.data(), count);
        file.write(buffer.data(), count);
        offset += count;
    }
    uint64_t done = 0;
    const std::vector<uint8_t> zeros(file_alignment);
    for (size_t i = 0; i < gguf.outputs().size(); i++) {
        const uint64_t size = gguf.outputs()[i].size();
        for (uint64_t offset = 0; offset < size;) {
            size_t count = std::min<uint64_t>(buffer.size(), size - offset);
            gguf.read_tensor(i, offset, buffer.data(), count);
            file.write(buffer.data(), count);
            offset += count;
            done += count;
            if (options.progress && options.progress(options.user_data, done, total) != 0) fail(ST_ERROR_CANCELLED, "cancelled by progress");
        }
        file.write(zeros.data(), size_t((file_alignment - size % file_alignment) % file_alignment));
    }
    file.finish();
}

} // namespace bridge
