// SPDX-License-Identifier: Apache-2.0

package syscalls

// installABIs does nothing: arm64 has one ABI, and gVisor has its table.
func installABIs([]Entry, *stracer) error { return nil }

// mayBeABICall returns false: arm64 has one ABI.
func mayBeABICall(uintptr) bool { return false }

// observeABIs does nothing: arm64 has one ABI.
func observeABIs([]Entry, func(ABI)) {}
