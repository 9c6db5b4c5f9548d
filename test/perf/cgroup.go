// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// cgroup counts the CPU time and the memory of all processes of a target: the guest, and in
// a sandbox also the sentry, the gofer and the processes of the platform. The fields of a
// controller are empty if this user cannot create a cgroup of that controller.
type cgroup struct {
	cpu, memory       string // directories of the cgroup
	cpuFile, heldFile string
}

// controllers lists the places where each controller can be mounted: cgroup v2, cgroup v2
// beside v1 (only for the CPU time), and cgroup v1.
var controllers = struct{ cpu, memory []controller }{
	cpu: []controller{
		{"/sys/fs/cgroup", "cpu.stat"},
		{"/sys/fs/cgroup/unified", "cpu.stat"},
		{"/sys/fs/cgroup/cpuacct", "cpuacct.usage"},
	},
	memory: []controller{
		{"/sys/fs/cgroup", "memory.current"},
		{"/sys/fs/cgroup/memory", "memory.usage_in_bytes"},
	},
}

type controller struct{ parent, file string }

func newCgroup() cgroup {
	var c cgroup
	c.cpu, c.cpuFile = mkdirIn(controllers.cpu)
	c.memory, c.heldFile = mkdirIn(controllers.memory)
	return c
}

// mkdirIn creates a cgroup in the first place where this user can, and returns the cgroup's
// directory and file. If this user can create none, both results are empty.
func mkdirIn(all []controller) (dir, file string) {
	for _, c := range all {
		dir, err := os.MkdirTemp(c.parent, "runsc-ext-perf-*")
		if err != nil {
			continue
		}
		file := filepath.Join(dir, c.file)
		if _, err := os.Stat(file); err == nil {
			return dir, file
		}
		os.Remove(dir)
	}
	return "", ""
}

// procs returns the files of the cgroup. A process enters the cgroup by writing its ID to
// each.
func (c cgroup) procs() []string {
	var files []string
	for _, dir := range []string{c.cpu, c.memory} {
		if dir != "" {
			files = append(files, filepath.Join(dir, "cgroup.procs"))
		}
	}
	return files
}

// remove removes the cgroup. It tries for a second, because the last processes of the cgroup
// may still be exiting.
func (c cgroup) remove() error {
	for _, dir := range []string{c.cpu, c.memory} {
		if dir == "" {
			continue
		}
		err := os.Remove(dir)
		for range 100 {
			if err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
			err = os.Remove(dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var usagePattern = regexp.MustCompile(`(?m)^usage_usec (\d+)$`)

// cpuTime returns the CPU time that the cgroup has used, in nanoseconds.
func (c cgroup) cpuTime() (float64, error) {
	b, err := os.ReadFile(c.cpuFile)
	if err != nil {
		return 0, err
	}
	if filepath.Base(c.cpuFile) != "cpu.stat" {
		return strconv.ParseFloat(string(bytes.TrimSpace(b)), 64)
	}
	m := usagePattern.FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("%s has no line usage_usec: %q", c.cpuFile, b)
	}
	us, err := strconv.ParseFloat(string(m[1]), 64)
	return us * 1000, err
}

var cachedPattern = regexp.MustCompile(`(?m)^(?:in)?active_file (\d+)$`)

// held returns the memory of the cgroup in bytes. The memory includes what the kernel holds
// for the processes, and excludes the cache of files.
func (c cgroup) held() (float64, error) {
	b, err := os.ReadFile(c.heldFile)
	if err != nil {
		return 0, err
	}
	held, err := strconv.ParseFloat(string(bytes.TrimSpace(b)), 64)
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile(filepath.Join(c.memory, "memory.stat"))
	if err != nil {
		return 0, err
	}
	for _, m := range cachedPattern.FindAllSubmatch(stat, -1) {
		cached, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return 0, err
		}
		held -= cached
	}
	return held, nil
}
