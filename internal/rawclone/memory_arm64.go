// SPDX-License-Identifier: Apache-2.0

package rawclone

// LowMemory is a flag for mmap where there are ABIs with 32-bit words: not here.
const LowMemory = 0
