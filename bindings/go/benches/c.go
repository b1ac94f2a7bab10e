// SPDX-License-Identifier: Apache-2.0

package main

// #cgo pkg-config: safetensors
// #include <safetensors.h>
// #include <stdlib.h>
//
// // What a C program does, each in one call from Go.
//
// static uint64_t open_and_list(const char *path)
// {
//     st_checkpoint *model = st_open(path, NULL);
//     size_t count;
//     const st_tensor *tensors = st_tensors(model, &count);
//     uint64_t sum = 0;
//     for (size_t i = 0; i < count; i++)
//         sum += tensors[i].size + tensors[i].name_len + (uint64_t)tensors[i].shape[0];
//     st_free(model);
//     return sum;
// }
//
// static uint64_t find_all(const st_checkpoint *model, char **names, size_t count)
// {
//     uint64_t sum = 0;
//     for (size_t i = 0; i < count; i++)
//         sum += st_find_tensor(model, names[i])->size;
//     return sum;
// }
//
// static st_status load_all(const st_checkpoint *model, unsigned char *dst)
// {
//     size_t count;
//     const st_tensor *tensors = st_tensors(model, &count);
//     st_load_item *items = calloc(count, sizeof *items);
//     for (size_t i = 0; i < count; dst += tensors[i++].size)
//         items[i] = (st_load_item){.tensor = &tensors[i], .dst = dst, .dst_size = (size_t)tensors[i].size};
//     st_status status = st_load(model, items, count, NULL, NULL);
//     free(items);
//     return status;
// }
//
// static uint64_t nothing(uint64_t value) { return value; }
import "C"

import (
	"log"
	"unsafe"
)

func cOpenAndList(path string) uint64 {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	return uint64(C.open_and_list(name))
}

// A cModel is a checkpoint that C has opened.
type cModel struct{ handle *C.st_checkpoint }

func cOpen(path string) cModel {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	return cModel{C.st_open(name, nil)}
}

func (m cModel) close() { C.st_free(m.handle) }

// cNames are names in C memory, each by itself.
type cNames struct{ names []*C.char }

func newCNames(names []string) cNames {
	c := cNames{unsafe.Slice((**C.char)(C.calloc(C.size_t(len(names)), C.size_t(unsafe.Sizeof(uintptr(0))))), len(names))}
	for i, name := range names {
		c.names[i] = C.CString(name)
	}
	return c
}

func (c cNames) free() {
	for _, name := range c.names {
		C.free(unsafe.Pointer(name))
	}
	C.free(unsafe.Pointer(&c.names[0]))
}

func (m cModel) findAll(names cNames) uint64 {
	return uint64(C.find_all(m.handle, &names.names[0], C.size_t(len(names.names))))
}

func (m cModel) loadAll(dst []byte) {
	if C.load_all(m.handle, (*C.uchar)(&dst[0])) != 0 {
		log.Fatal("the load in C failed")
	}
}

// cross calls C and back.
func cross(value uint64) uint64 { return uint64(C.nothing(C.uint64_t(value))) }
