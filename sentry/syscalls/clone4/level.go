// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"fmt"
	"strings"
)

// Level says how much of clone4 a sandbox has, as CONFIG_CLONE4 in the patch does for a
// kernel. A higher level includes the lower ones.
type Level int

const (
	// LevelOff is gVisor without clone4.
	LevelOff Level = iota

	// LevelOn is clone4 as the patch of March 2015 defines it. It is the default.
	LevelOn

	// LevelFD adds CLONE_FD and CLONE_AUTOREAP, from later patches.
	LevelFD
)

// levelNames are the names of the levels in files and annotations.
var levelNames = [...]string{LevelOff: "off", LevelOn: "on", LevelFD: "fd"}

// String returns the name of the level in files and annotations.
func (l Level) String() string {
	return levelNames[l]
}

// ParseLevel returns the level with the name s. The error names s and the valid levels.
func ParseLevel(s string) (Level, error) {
	for i, name := range levelNames {
		if s == name {
			return Level(i), nil
		}
	}
	return LevelOff, fmt.Errorf("unknown clone4 level %q: the levels are %s", s, strings.Join(levelNames[:], ", "))
}
