// SPDX-License-Identifier: Apache-2.0

package rawclone

// LowMemory is 0: no ABI of arm64 has 32-bit words.
const LowMemory = 0
