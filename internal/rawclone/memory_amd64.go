// SPDX-License-Identifier: Apache-2.0

package rawclone

import "golang.org/x/sys/unix"

// LowMemory is a flag for mmap that returns memory below 2 GB. Its addresses fit into
// the words of x32 and i386.
const LowMemory = unix.MAP_32BIT
