// Package policy is the meaning of rootcell's policy language: what a rule
// stands for and what a list of rules decides. This text is the language's
// specification; package policyfile has the files' syntax. The package is
// pure: no I/O, no clock, no log, and decisions depend on nothing but the
// rules and the request.
//
// # Kinds
//
// There are three lists. Each decides flows of its own kind, and denies what
// no line allows. There are no deny rules, and the order of lines never
// matters to a verdict.
//
//   - dns: suffixes. `github.com` allows resolving github.com and every name
//     below it, at label boundaries: not evilgithub.com. A lone `*` allows
//     every name. There are no other wildcards.
//   - https: `HOST-GLOB [REGEX]`, port 443.
//   - ssh: host globs, port 22.
//
// An empty list denies everything with no-rule. A list that is missing or has
// an error denies everything of its kind with bad-policy; there is no state in
// which the absence of rules allows.
//
// # Names
//
// Names are compared in the normal form of package hostname: lower case,
// A-labels, no trailing dot, at least two labels, never an IP address.
//
// # Globs
//
// A glob is compared with the whole name. `*` stands for any characters but
// the dot, so for a label or a part of one; `**` stands for any characters, so
// it crosses dots. Both may stand for nothing where they are a part of a
// label; as a whole label they stand for at least one character, because names
// have no empty labels.
//
//	api.github.com        api.github.com alone
//	*.github.com          api.github.com; not github.com, not a.b.github.com
//	**.github.com         api.github.com, a.b.github.com; not github.com
//	api-*.example.com     api-eu.example.com, api--1.example.com; not api.example.com
//	bedrock-runtime.*.amazonaws.com
//	**                    every host
//
// Refused, because a stranger can register a name that matches: a wildcard
// that is a part of the label to register (`*ok.com` matches evilok.com) and
// a wildcard at the end (`github.*`). A lone `*` is refused because it matches
// nothing: no name has a single label.
//
// # Path rules
//
// REGEX is RE2 as Go's package regexp has it, compiled as `\A(?:REGEX)` and
// matched, case-sensitively, from the start of
//
//	METHOD /path?query
//
// which is the request's method, one space and its target byte for byte as it
// will be sent upstream. It is not anchored at the end: `GET /public` also
// matches `GET /publications`, so end a regex with `/`, `$` or `(?:[/?]|$)`
// when that matters. `$` is the end of the target.
//
// # Scoping never widens
//
// All lines whose glob matches the host count, wildcards included. If none of
// them has a regex, every request to the host is allowed. If any has, one of
// the regexes must match, and lines without a regex give nothing for that
// host. Adding a path rule for a host therefore only ever narrows what host
// lines allow, wherever the line stands and however broad its glob is.
//
// At the ClientHello, before there is a request, any line that matches the
// host lets the handshake go on.
//
// # Requests with more than one reading
//
// A method is a token (RFC 9110, 5.6.2) and case-sensitive: `get` is not GET.
// A target is in origin-form, or `*` for OPTIONS, without spaces, control
// characters or a fragment; anything else is denied as malformed on every
// host. An absolute-form target is for the HTTP proxy to take apart.
//
// Where a path rule applies to the host, a request whose path can be read in
// more than one way is denied with ambiguous-path, even if a regex matches,
// because the rule would judge one reading and the server may act on another.
// Nothing is rewritten: what is decided is what is sent. AmbiguousTarget finds
// these in the path; the query is opaque to it and may hold any of them:
//
//   - `.` and `..` segments, and empty segments other than the last (`//`)
//   - `\`, `;` and bytes outside printable ASCII, as they stand
//   - `%` without two hexadecimal digits after it (`%u002e`)
//   - encoded `/ \ ; ? #`, encoded control characters (`%00`, `%0a`, `%7f`)
//   - encoded letters, digits and `- . _ ~`, whose encoding means nothing and
//     only dodges a rule (RFC 3986, 6.2.2.2)
//   - `%25` before two hexadecimal digits or `u`: a second encoding
//   - encoded bytes that are not UTF-8, over-long forms included, and
//     characters that compatibility normalisation turns into `. / \ ; ? # %`
//
// There is one exception, for interfaces that put a slash into a segment, such
// as package names with a scope or resource names in a cloud. A regex that
// itself spells an encoded slash, `%2f`, `%2F` or `%2[fF]`, is also matched
// against paths in which encoded slashes are all that is ambiguous, and which
// would have no dot or empty segment if those were decoded. It counts for that
// rule alone:
//
//	registry.example.com ^GET /@[a-z0-9-]+%2[fF][a-z0-9-]+$
//
// A host that needs other such paths is allowed by a line without a regex. On
// such hosts nothing of this is looked at: the target passes as it stands.
//
// # Which rule decided
//
// A decision names the first line, in file order, of those that settle it:
// that allow, or for path-rule and ambiguous-path that scope the host. It
// names none for no-rule, malformed and bad-policy.
package policy
