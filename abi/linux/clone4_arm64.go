// SPDX-License-Identifier: Apache-2.0

package linux

// SYS_CLONE4 is the number of clone4 on this architecture.
const SYS_CLONE4 = SYS_CLONE4_GENERIC
