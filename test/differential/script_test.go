// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"runsc-ext/internal/rawclone"
)

// await appends a wait until a word differs from value.
func await(l *rawclone.List, word *uintptr, value int, timeout *uintptr) *rawclone.Op {
	return l.FutexWait(word, value, timeout)
}

// tell appends operations that set a word to 1 and wake its waiters.
func tell(l *rawclone.List, word *uintptr) {
	l.Sys(rawclone.TrapStore, word, 1)
	l.FutexWake(word, 100)
}

// waited is a call of wait4.
type waited struct {
	*rawclone.Op
	status *uintptr
}

// wait appends a wait4.
func wait(l *rawclone.List, pid any, options int) waited {
	o, status := l.Wait(pid, options)
	return waited{o, status}
}
