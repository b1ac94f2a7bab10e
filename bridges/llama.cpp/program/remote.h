// SPDX-License-Identifier: Apache-2.0
// Other hosts, by llama.cpp's own RPC backend.
#pragma once

#include <ggml-backend.h>

#include <string>
#include <vector>

// The devices of the hosts in a list "host:port,host:port". Throws Trouble.
std::vector<ggml_backend_dev_t> remote_devices(const std::string &hosts);

// Serves this host's processors at host:port until the program is ended. Throws Trouble.
void serve(const std::string &endpoint, uint32_t threads);
