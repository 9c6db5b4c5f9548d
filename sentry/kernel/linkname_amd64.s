// An assembly file, though an empty one, lets a package declare a function whose
// body is elsewhere: see seccomp_unsafe.go.
