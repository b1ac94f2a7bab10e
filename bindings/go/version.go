// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"fmt"
	"sync"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// Version is the version of this package, and the oldest version of the library
// that it works with.
const Version = "0.1.0"

// LibraryVersion returns the version of the C library that the program runs with.
func LibraryVersion() string { return cst.Version() }

// compatible is an error where the program runs with another library than it
// was compiled for. The first call of every kind asks.
var compatible = sync.OnceValue(func() error {
	return mismatch(cst.HeaderABI, cst.HeaderVersion, cst.ABIVersion(), cst.Version())
})

// mismatch compares the header that this was compiled against with the library
// that is running: the same binary interface, and not older.
func mismatch(headerABI, headerVersion, abi uint32, version string) error {
	var major, minor, patch uint32
	_, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch)
	number := major*1_000_000 + minor*1000 + patch
	if err == nil && abi == headerABI && number >= headerVersion {
		return nil
	}
	compiled := fmt.Sprintf("%d.%d.%d", headerVersion/1_000_000, headerVersion/1000%1000, headerVersion%1000)
	return &Error{Code: ErrUnsupported, Message: fmt.Sprintf(
		"the program was built for libsafetensors %s (ABI %d) or newer and runs with %s (ABI %d): "+
			"install the library it was built for, or build the program again", compiled, headerABI, version, abi)}
}
