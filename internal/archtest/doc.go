// Package archtest holds the repository to its own rules: which package may import which, one doc comment a package,
// file sizes, and what must never appear in tests. It has no code of its own, only tests.
package archtest
