// Package policyfile reads and edits the three allowlists, the text form of
// package policy's rules, and reports every error with its place and a hint.
//
// # Syntax
//
// A list is UTF-8 text with one rule a line. White space (spaces and tabs)
// around a line does not matter, and blank lines are ignored.
//
//	allowed-dns.txt     SUFFIX
//	allowed-https.txt   HOST-GLOB
//	allowed-https.txt   HOST-GLOB REGEX
//	allowed-ssh.txt     HOST-GLOB
//
// A line whose first character is `#` is a comment. After a host, white space
// and `#` begin a comment that runs to the end of the line, in every list: in
// an HTTPS line, too, what begins with `#` is a comment and never a regex. A
// regex runs to the end of its line, so no comment can follow it. A regex with
// white space and `#` inside is an error, not a comment: no request can match
// it, because a request target holds neither, and guessing would change what a
// rule means. `#` inside a word is no comment (`github.com#x` is an error).
//
// Files with Windows line ends and with a UTF-8 byte order mark are accepted
// as if they had none. UTF-16, bytes that are not UTF-8, control characters
// other than tabs, and characters that reorder text on the screen are errors
// everywhere, in comments too. A list holds at most MaxBytes, a line at most
// MaxLine bytes, and all lists together at most MaxPathRules regexes.
//
// A file with an error is refused whole: no rule of it counts. Warnings are
// about rules that work and are likely not what was meant.
package policyfile
