module github.com/libsafetensors/libsafetensors/bindings/go/benches

go 1.22

require github.com/libsafetensors/libsafetensors/bindings/go v0.1.0

replace github.com/libsafetensors/libsafetensors/bindings/go => ..
