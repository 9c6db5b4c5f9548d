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

// cgroup accounts for the CPU time and the memory of all processes of a target: the guest,
// and for a sandbox the sentry, the gofer and the processes of the platform. A field is
// empty where this user cannot make a cgroup of that controller.
type cgroup struct {
	cpu, memory       string // directories
	cpuFile, heldFile string
}

// controllers are where a controller can be: version 2 of cgroups alone, version 2 beside
// version 1, version 1.
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

// mkdirIn makes a cgroup of the first controller that there is.
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

// procs are the files by which a process enters the cgroup.
func (c cgroup) procs() []string {
	var files []string
	for _, dir := range []string{c.cpu, c.memory} {
		if dir != "" {
			files = append(files, filepath.Join(dir, "cgroup.procs"))
		}
	}
	return files
}

// remove removes the cgroup, whose processes are about to be gone.
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

// cpuTime returns the nanoseconds of CPU time so far.
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
		return 0, fmt.Errorf("%s has no usage_usec: %q", c.cpuFile, b)
	}
	us, err := strconv.ParseFloat(string(m[1]), 64)
	return us * 1000, err
}

var cachedPattern = regexp.MustCompile(`(?m)^(?:in)?active_file (\d+)$`)

// held returns the bytes of memory, with the kernel's for the processes and without what is
// cached of files.
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
