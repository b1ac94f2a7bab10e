// SPDX-License-Identifier: Apache-2.0

//go:build !safetensors_static

package cst

// #cgo pkg-config: safetensors
import "C"
