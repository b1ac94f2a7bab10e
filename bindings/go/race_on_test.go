// SPDX-License-Identifier: Apache-2.0

//go:build race

package safetensors_test

// The race detector keeps memory of its own.
const raceEnabled = true
