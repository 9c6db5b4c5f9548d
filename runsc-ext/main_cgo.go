//go:build cgo

// Command runsc-ext is gVisor's OCI runtime, runsc, with an extended sentry: the
// programs in its sandboxes can call clone4. Every command and flag of runsc
// works as it does there.
package main

import (
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// The sentry executes its own binary again where there is nothing else, no C
// library and no dynamic linker, and its seccomp filters are made for a program
// without C: so it has to be built with CGO_ENABLED=0. The go command sets cgo
// on where it finds a C compiler, and a package cannot say that it wants none.
// What is compiled then is this: it builds the real runsc-ext and becomes it.
func main() {
	if err := rebuild(); err != nil {
		fmt.Fprintf(os.Stderr, "runsc-ext: this binary was built with cgo, which the sentry cannot be, and building it again failed: %v\nBuild it with: CGO_ENABLED=0 go build ./runsc-ext\n", err)
		os.Exit(128)
	}
}

func rebuild() error {
	_, file, _, _ := runtime.Caller(0)
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	// One for each copy of the source.
	hash := fnv.New64a()
	hash.Write([]byte(file))
	bin := filepath.Join(cache, "runsc-ext", fmt.Sprintf("%x", hash.Sum64()), "runsc-ext")
	if _, err := os.Stat(bin); err != nil {
		fmt.Fprintln(os.Stderr, "runsc-ext: building without cgo; this takes a minute or two the first time")
		start := time.Now()
		ticker := time.NewTicker(20 * time.Second)
		defer ticker.Stop()
		go func() {
			for range ticker.C {
				fmt.Fprintf(os.Stderr, "runsc-ext: still building, for %v\n", time.Since(start).Round(time.Second))
			}
		}()
	}
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Dir = filepath.Dir(file)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("%v in %s: %w", build, build.Dir, err)
	}
	return syscall.Exec(bin, os.Args, os.Environ())
}
