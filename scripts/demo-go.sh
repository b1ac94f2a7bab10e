# SPDX-License-Identifier: Apache-2.0
# Sourced by scripts/demo: the same model in Go, against the installed library.

demo_go() {
    need pkg-config pkg-config
    need_go
    local config
    config=$(dirname "$(find "$PWD/build/prefix" -name safetensors.pc)")
    say "voice activity in Go: examples/go/vad"
    PKG_CONFIG_PATH=$config CGO_LDFLAGS="-O2 -g -Wl,-rpath,$(dirname "$config")" \
        go build -C examples/go -o "$PWD/build/vad-go" ./vad
    build/vad-go examples/data/silero_vad_16k.safetensors examples/data/speech.wav
}
