// SPDX-License-Identifier: Apache-2.0
#include "remote.h"

#include "arguments.h"

#include <algorithm>
#include <netdb.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

static void *rpc_function(const char *name) {
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    void *function = rpc ? ggml_backend_reg_get_proc_address(rpc, name) : nullptr;
    if (!function) throw Trouble("this llama.cpp was built without its RPC backend (GGML_RPC=ON)");
    return function;
}

static std::pair<std::string, std::string> split(const std::string &endpoint) {
    size_t colon = endpoint.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == endpoint.size() || endpoint.find_first_not_of("0123456789", colon + 1) != std::string::npos)
        throw Trouble("\"" + endpoint + "\" is not HOST:PORT");
    return {endpoint.substr(0, colon), endpoint.substr(colon + 1)};
}

// llama.cpp aborts where it can't connect, so that is tried first.
static void try_connection(const std::string &endpoint) {
    auto [host, port] = split(endpoint);
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    int code = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
    if (code != 0) throw Trouble("host \"" + endpoint + "\": " + gai_strerror(code));
    bool connected = false;
    for (addrinfo *each = found; each && !connected; each = each->ai_next) {
        int fd = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
        if (fd < 0) continue;
        timeval limit{5, 0};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        connected = connect(fd, each->ai_addr, each->ai_addrlen) == 0;
        close(fd);
    }
    freeaddrinfo(found);
    if (!connected) throw Trouble("nobody serves at \"" + endpoint + "\" (start one there: st-llama --serve HOST:PORT)");
}

std::vector<ggml_backend_dev_t> remote_devices(const std::string &hosts) {
    using AddServer = ggml_backend_reg_t (*)(const char *);
    auto add_server = reinterpret_cast<AddServer>(rpc_function("ggml_backend_rpc_add_server"));
    std::vector<ggml_backend_dev_t> devices;
    for (size_t begin = 0; begin <= hosts.size();) {
        size_t end = std::min(hosts.find(',', begin), hosts.size());
        std::string endpoint = hosts.substr(begin, end - begin);
        begin = end + 1;
        try_connection(endpoint);
        ggml_backend_reg_t server = add_server(endpoint.c_str());
        if (!server) throw Trouble("host \"" + endpoint + "\" speaks another version of the protocol");
        ggml_backend_register(server);
        for (size_t i = 0; i < ggml_backend_reg_dev_count(server); i++) devices.push_back(ggml_backend_reg_dev_get(server, i));
    }
    return devices;
}

void serve(const std::string &endpoint, uint32_t threads) {
    using StartServer = void (*)(const char *, const char *, size_t, size_t, ggml_backend_dev_t *);
    split(endpoint);
    auto start = reinterpret_cast<StartServer>(rpc_function("ggml_backend_rpc_start_server"));
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
    if (!device) device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!device) throw Trouble("there is no device to serve");
    start(endpoint.c_str(), nullptr, threads ? threads : std::max(1u, std::thread::hardware_concurrency()), 1, &device);
    throw Trouble("serving at \"" + endpoint + "\" ended");
}
