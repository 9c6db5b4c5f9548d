package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gvisor.dev/gvisor/runsc/cmd/util"

	"runsc-ext/sentry/syscalls/clone4"
)

// LevelAnnotation is the OCI annotation by which a sandbox asks for a level of
// clone4 no higher than the operator's. Engines pass on annotations of gVisor's
// own name space where they are configured for gVisor at all.
const LevelAnnotation = "dev.gvisor.ext.clone4"

// LevelFileSuffix is what the operator's file has after the name of the binary
// that it is for. There is no flag: a sentry gets none that runsc does not know,
// an empty environment, and no inherited file. It can see where its binary is.
const LevelFileSuffix = ".clone4"

// levelEnv tells the operator's level to a sentry that executed itself again, in
// a root directory where the file is out of sight. Only the sentry sets it: runsc
// starts one with an empty environment.
const levelEnv = "RUNSC_EXT_CLONE4"

// settleLevel returns the level of clone4 for the process that inv describes: the
// sandbox's if it is to be a sentry, else the operator's.
//
// The commands that start a sentry check all that it will check. It could tell
// nobody why it refuses: they can.
func settleLevel(inv invocation) (clone4.Level, error) {
	operator, err := operatorLevel(inv.command == bootCommand)
	if err != nil {
		return clone4.LevelOff, err
	}
	if inv.startsSandbox() && inv.sentryIsNobody() {
		if err := visibleToAll(levelFile()); err != nil {
			return clone4.LevelOff, fmt.Errorf("the sentry will run as nobody and cannot see the level of clone4: %w", err)
		}
	}
	if spec := inv.spec(); spec != nil {
		sandbox, err := sandboxLevel(spec, operator)
		if err != nil {
			return clone4.LevelOff, err
		}
		if inv.command == bootCommand {
			return sandbox, nil
		}
	}
	return operator, nil
}

// operatorLevel returns the level for all sandboxes that do not lower it.
func operatorLevel(sentry bool) (clone4.Level, error) {
	if sentry {
		if value, ok := os.LookupEnv(levelEnv); ok {
			return clone4.ParseLevel(value)
		}
	}
	name := levelFile()
	level := clone4.LevelOn
	switch contents, err := os.ReadFile(name); {
	case err == nil:
		if level, err = clone4.ParseLevel(strings.TrimSpace(string(contents))); err != nil {
			return clone4.LevelOff, fmt.Errorf("%s: %w", name, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return clone4.LevelOff, fmt.Errorf("reading the level of clone4: %w", err)
	default:
		if _, err := os.Lstat(name); err == nil {
			return clone4.LevelOff, fmt.Errorf("reading the level of clone4: %s is a symbolic link to nowhere", name)
		}
	}
	if sentry {
		if err := os.Setenv(levelEnv, level.String()); err != nil {
			return clone4.LevelOff, err
		}
	}
	return level, nil
}

// levelFile returns the name of the operator's file.
func levelFile() string {
	exe, err := os.Executable()
	if err != nil {
		util.Fatalf("finding the file with the level of clone4: %v", err) // no /proc
	}
	return exe + LevelFileSuffix
}

// visibleToAll returns an error if some user cannot see whether a file is there,
// or cannot read it.
func visibleToAll(name string) error {
	if fi, err := os.Stat(name); err == nil && fi.Mode()&0o4 == 0 {
		return fmt.Errorf("%s is not readable for all: chmod o+r", name)
	}
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		if fi, err := os.Stat(dir); err != nil || fi.Mode()&0o1 == 0 {
			return fmt.Errorf("%s is not open to all: chmod o+x", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// sandboxLevel returns the level of the sandbox with the given OCI spec. To ask
// for more than the operator's is an error, as it is for gVisor's own annotations.
func sandboxLevel(spec io.Reader, operator clone4.Level) (clone4.Level, error) {
	var s struct{ Annotations map[string]string }
	if err := json.NewDecoder(spec).Decode(&s); err != nil {
		return operator, nil // runsc itself says what is wrong with it.
	}
	value, ok := s.Annotations[LevelAnnotation]
	if !ok {
		return operator, nil
	}
	level, err := clone4.ParseLevel(value)
	if err != nil {
		return clone4.LevelOff, fmt.Errorf("annotation %s: %w", LevelAnnotation, err)
	}
	if level > operator {
		return clone4.LevelOff, fmt.Errorf("annotation %s=%q: an annotation can lower the level of clone4, not raise it, and the operator's is %q (file %s beside the binary)", LevelAnnotation, value, operator, LevelFileSuffix)
	}
	return level, nil
}
