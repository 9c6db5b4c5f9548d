package clone4

import (
	"fmt"
	"strings"
)

// Level says how much of clone4 a sandbox has: the CONFIG_CLONE4 of the patch,
// per sandbox. Levels are ordered: a higher one has all that a lower one has.
type Level int

const (
	// LevelOff is gVisor without clone4.
	LevelOff Level = iota

	// LevelOn is clone4 as the patch defines it, and the default.
	LevelOn

	// LevelFD adds what later patches gave to it: CLONE_FD and CLONE_AUTOREAP.
	LevelFD
)

// levelNames are the levels as users write them.
var levelNames = [...]string{LevelOff: "off", LevelOn: "on", LevelFD: "fd"}

// String returns the level as users write it.
func (l Level) String() string {
	return levelNames[l]
}

// ParseLevel is the reverse of String. The error names s and the levels that
// there are.
func ParseLevel(s string) (Level, error) {
	for i, name := range levelNames {
		if s == name {
			return Level(i), nil
		}
	}
	return LevelOff, fmt.Errorf("unknown clone4 level %q: the levels are %s", s, strings.Join(levelNames[:], ", "))
}
