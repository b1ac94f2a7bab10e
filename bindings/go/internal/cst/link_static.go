// SPDX-License-Identifier: Apache-2.0

//go:build safetensors_static

package cst

// bindings/go/bundle puts the archive and its header there. The compiler's
// own runtime is put into the program too (-static-libgcc): nothing but the C
// library has to be installed where it runs.

// #cgo CFLAGS: -I${SRCDIR}/lib/include -DSAFETENSORS_STATIC
// #cgo linux,amd64 LDFLAGS: ${SRCDIR}/lib/linux_amd64/libsafetensors.a
// #cgo linux,arm64 LDFLAGS: ${SRCDIR}/lib/linux_arm64/libsafetensors.a
// #cgo darwin,amd64 LDFLAGS: ${SRCDIR}/lib/darwin_amd64/libsafetensors.a
// #cgo darwin,arm64 LDFLAGS: ${SRCDIR}/lib/darwin_arm64/libsafetensors.a
// #cgo linux LDFLAGS: -static-libgcc -lpthread -lm -ldl -lrt -lutil
// #cgo darwin LDFLAGS: -lpthread -lm
import "C"
