// SPDX-License-Identifier: Apache-2.0

// Package storm has the test that a sandbox survives a guest which throws calls of
// clone4 at it, from all sides at once, and that nothing of them is left afterwards.
//
// The test binary is the guest as well; see guest_test.go.
package storm
