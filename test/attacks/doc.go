// SPDX-License-Identifier: Apache-2.0

// Package attacks has the tests that attack a sandbox through clone4. Package guest has
// what the attackers do; here is what a sandbox has to be afterwards.
//
//	go test ./test/attacks -run TestAttack/flip/x32
//	go test ./test/attacks -run TestAttack/flip/x32 -tries=100000 -timeout=1h
package attacks
