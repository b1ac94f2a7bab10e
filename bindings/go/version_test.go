// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"errors"
	"strings"
	"testing"
)

func TestOtherLibrariesAreRefused(t *testing.T) {
	for _, c := range []struct {
		abi     uint32
		version string
		fits    bool
	}{
		{1, "0.1.0", true}, {1, "0.1.7", true}, {1, "1.0.0", true},
		{2, "0.1.0", false}, {0, "0.1.0", false}, {1, "0.0.9", false}, {1, "", false}, {1, "new", false},
	} {
		err := mismatch(1, 1000, c.abi, c.version)
		if (err == nil) != c.fits {
			t.Errorf("ABI %d, version %q: %v", c.abi, c.version, err)
		}
		if err != nil && (!errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "0.1.0 (ABI 1)")) {
			t.Errorf("ABI %d, version %q: %v", c.abi, c.version, err)
		}
	}
	if err := compatible(); err != nil {
		t.Error(err)
	}
}
