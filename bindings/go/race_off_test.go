// SPDX-License-Identifier: Apache-2.0

//go:build !race

package safetensors_test

const raceEnabled = false
