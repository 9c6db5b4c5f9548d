// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"strings"
	"testing"
)

// TestParseLevel checks that only the exact names are levels, and that the error lists them.
func TestParseLevel(t *testing.T) {
	for s, want := range map[string]Level{"off": LevelOff, "on": LevelOn, "fd": LevelFD} {
		got, err := ParseLevel(s)
		if got != want || err != nil {
			t.Errorf("ParseLevel(%q) = %v, %v, want %v", s, got, err, want)
		}
		if got.String() != s {
			t.Errorf("level %d has the name %q, want %q", got, got, s)
		}
	}
	for _, s := range []string{"", "ON", "Off", " on", "on\n", "1", "true", "o", "on,off", "FD", "clonefd", "\x00"} {
		got, err := ParseLevel(s)
		if err == nil {
			t.Errorf("ParseLevel(%q) = %v, want an error", s, got)
			continue
		}
		if got != LevelOff {
			t.Errorf("ParseLevel(%q) = %v beside the error, want off", s, got)
		}
		if !strings.Contains(err.Error(), "off, on, fd") {
			t.Errorf("ParseLevel(%q): %q does not say which levels there are", s, err)
		}
	}
}

// TestLevelOrder checks that off is the lowest level and fd the highest, and that the zero
// value is off.
func TestLevelOrder(t *testing.T) {
	if LevelOff >= LevelOn || LevelOn >= LevelFD {
		t.Errorf("off is %d, on is %d, fd is %d: want them in this order", LevelOff, LevelOn, LevelFD)
	}
	var zero Level
	if zero != LevelOff {
		t.Errorf("the zero level is %v, want off", zero)
	}
}
