// SPDX-License-Identifier: Apache-2.0

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
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/sentry/syscalls/clone4"
)

// LevelAnnotation is the OCI annotation by which a sandbox asks for a level of clone4. The
// level cannot exceed the operator's. The name begins with dev.gvisor, because engines that are
// configured for gVisor pass such annotations on.
const LevelAnnotation = "dev.gvisor.ext.clone4"

// The operator's level is in two files with the binary's name and LevelFileSuffix: one beside
// the binary, and one in LevelDir. A flag would not reach the sentry: runsc passes on only its
// own flags, an empty environment and its own files. The sentry can see the name of its
// binary.
const (
	LevelFileSuffix = ".clone4"
	LevelDir        = "/etc/runsc-ext"
)

// levelEnv passes the operator's level on to a sentry that executes itself again in a root
// directory without the files. Only the sentry sets levelEnv, because runsc starts a sentry
// with an empty environment.
const levelEnv = "RUNSC_EXT_CLONE4"

// maxLevelSize is how many bytes of a file or annotation are read and reported. No level is
// longer.
const maxLevelSize = 64

// setting is a level of clone4, and what set it: "default", the name of a file, or an
// annotation.
type setting struct {
	level  clone4.Level
	source string
}

// resolveLevel returns the level of clone4 for this process: the sandbox's if the process
// becomes a sentry, else the operator's.
//
// A command that starts a sentry makes every check that the sentry will make, because nobody
// sees an error of a sentry that has no log yet.
func resolveLevel(c *commandLine) (setting, error) {
	operator, err := operatorLevel(c)
	if err != nil {
		return setting{}, err
	}
	spec := c.spec()
	if spec == nil {
		return operator, nil
	}
	sandbox, err := sandboxLevel(spec, operator)
	if err != nil || c.isSentry() {
		return sandbox, err
	}
	return operator, nil
}

// operatorLevel returns the level of sandboxes that ask for no lower one.
func operatorLevel(c *commandLine) (setting, error) {
	if value, ok := os.LookupEnv(levelEnv); ok && c.isSentry() {
		level, err := clone4.ParseLevel(value)
		return setting{level, "the operator's level"}, err
	}
	files, err := levelFiles()
	if err != nil {
		return setting{}, err
	}
	if c.starts && c.sentryIsNobody() {
		for _, name := range files {
			if err := visibleToAll(name); err != nil {
				return setting{}, fmt.Errorf("the sentry runs as nobody and cannot read the level of clone4: %w", err)
			}
		}
	}
	operator, err := lowestLevel(files)
	if err == nil && c.isSentry() {
		err = os.Setenv(levelEnv, operator.level.String())
	}
	return operator, err
}

// levelFiles returns the names of the operator's files.
func levelFiles() ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the files with the level of clone4: %w", err) // no /proc
	}
	return []string{
		exe + LevelFileSuffix,
		filepath.Join(LevelDir, filepath.Base(exe)+LevelFileSuffix),
	}, nil
}

// lowestLevel returns the lowest level in the files that exist, or the default if none exists.
func lowestLevel(files []string) (setting, error) {
	lowest := setting{clone4.LevelOn, "default"}
	found := false
	for _, name := range files {
		level, ok, err := readLevel(name)
		if err != nil {
			return setting{}, fmt.Errorf("the level of clone4 in %s: %w", name, err)
		}
		if ok && (!found || level < lowest.level) {
			lowest, found = setting{level, name}, true
		}
	}
	return lowest, nil
}

// readLevel reads a level from a file. It returns false if the file does not exist.
func readLevel(name string) (clone4.Level, bool, error) {
	contents, err := readLevelFile(name)
	// A file that somebody writes in place is empty for a moment.
	for range 20 {
		if err != nil || len(contents) != 0 || contents == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
		contents, err = readLevelFile(name)
	}
	if err != nil || contents == nil {
		return 0, false, err
	}
	// Editors on other systems write a byte-order mark and CRLF.
	level, err := parseLevel(strings.TrimSpace(strings.TrimPrefix(string(contents), "\ufeff")))
	return level, true, err
}

// readLevelFile returns the start of a file, or nil if the file does not exist.
func readLevelFile(name string) ([]byte, error) {
	// O_NONBLOCK keeps the open of a FIFO from waiting.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(name); err == nil {
			return nil, errors.New("a symbolic link to nowhere: remove it, or write off, on or fd into its target")
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: make the file readable, or remove it", errors.Unwrap(err))
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file (%v): replace it by a file with off, on or fd in it, or remove it", fi.Mode().Type())
	}
	return io.ReadAll(io.LimitReader(f, maxLevelSize+1))
}

// parseLevel is clone4.ParseLevel with a bounded error message.
func parseLevel(s string) (clone4.Level, error) {
	if len(s) > maxLevelSize {
		s = s[:maxLevelSize] + "..."
	}
	return clone4.ParseLevel(s)
}

// visibleToAll returns an error if a file is unreadable for some user, or in a directory where
// some user cannot see whether the file exists.
func visibleToAll(name string) error {
	names := []string{name}
	if target, err := filepath.EvalSymlinks(name); err == nil && target != name {
		names = append(names, target)
	}
	for _, name := range names {
		if fi, err := os.Stat(name); err == nil && fi.Mode()&0o4 == 0 {
			return fmt.Errorf("%s is not readable for all: chmod o+r %[1]s", name)
		}
		for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
			// A missing directory hides nothing.
			if fi, err := os.Stat(dir); err == nil && fi.Mode()&0o1 == 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is not open to all: chmod o+x %[1]s", dir)
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return nil
}

// sandboxLevel returns the level of the sandbox with the given OCI spec. A level above the
// operator's is an error, as it is for gVisor's own annotations.
func sandboxLevel(spec []byte, operator setting) (setting, error) {
	var s struct{ Annotations map[string]string }
	if json.Unmarshal(spec, &s) != nil {
		return operator, nil // runsc reports the error in the spec.
	}
	value, ok := s.Annotations[LevelAnnotation]
	if !ok {
		return operator, nil
	}
	level, err := parseLevel(value)
	if err != nil {
		return setting{}, fmt.Errorf("annotation %s: %w", LevelAnnotation, err)
	}
	if level > operator.level {
		return setting{}, fmt.Errorf("annotation %s=%q: an annotation can lower the operator's level of clone4, not raise it, and that level is %q (%s): ask for %[3]q or less, or raise the level in the operator's files, *%[5]s", LevelAnnotation, value, operator.level, operator.source, LevelFileSuffix)
	}
	return setting{level, "annotation " + LevelAnnotation}, nil
}
