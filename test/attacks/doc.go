// SPDX-License-Identifier: Apache-2.0

// Package attacks attacks a sandbox through clone4. Package guest has the attacks. The tests
// here start a guest in a sandbox, and check the sandbox after an attack.
//
//	go test ./test/attacks -run TestAttack/flip/x32
//	go test ./test/attacks -run TestAttack/flip/x32 -tries=100000 -limit=2m -timeout=1h
//
// The second command makes more tries, for up to 2 minutes in each attack. A guest must answer
// within 3 minutes, so -limit must be lower.
package attacks
