// SPDX-License-Identifier: Apache-2.0

// Package kit is shared by the tests of clone4. It has the ABIs, the encoding of arguments,
// names for messages, scripts of raw system calls, and the environments that a test binary
// runs in.
//
// A test of the system call runs inside the kernel that it tests. TestMain of such a package
// is
//
//	func TestMain(m *testing.M) {
//		kit.Main(m, kit.Suite{Package: "runsc-ext/test/syscalls"})
//	}
//
// and the tests can use clone4:
//
//	func TestExample(t *testing.T) {
//		kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
//			s := kit.NewScript(t)
//			call := a.Clone4(s.List, kit.SIGCHLD, linux.Clone4Args{}, s.Exiting(7))
//			wait, status := s.Wait(call, 0)
//			s.Run()
//			s.OK(call, wait)
//			if got := kit.Status(*status); got != "exit status 7" {
//				t.Errorf("the child: %s, want exit status 7", got)
//			}
//		})
//	}
package kit
