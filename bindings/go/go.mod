module github.com/libsafetensors/libsafetensors/bindings/go

go 1.22
