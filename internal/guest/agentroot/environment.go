package agentroot

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// caVariables name, for the programs that do not look into the system's
// certificates, the bundle that holds them and the instance's CA.
func caVariables() map[string]string {
	const bundle = "/" + caBundle
	return map[string]string{
		"NODE_EXTRA_CA_CERTS": "/" + caSource, // added to Node's own list
		"SSL_CERT_FILE":       bundle,         // OpenSSL, Go, Rust (native-certs), Python's ssl
		"REQUESTS_CA_BUNDLE":  bundle,         // Python requests
		"CURL_CA_BUNDLE":      bundle,
		"GIT_SSL_CAINFO":      bundle,
		"PIP_CERT":            bundle,
		"AWS_CA_BUNDLE":       bundle,
		"CARGO_HTTP_CAINFO":   bundle,
		"NIX_SSL_CERT_FILE":   bundle,
		"DENO_TLS_CA_STORE":   "system",
		"UV_NATIVE_TLS":       "true",
		"UV_SYSTEM_CERTS":     "true",
	}
}

func caVariableNames() []string { return slices.Sorted(maps.Keys(caVariables())) }

// environment writes the variables of every session into /etc/environment,
// between markers: lines around them are the agent's.
func environment(root *os.Root, extra map[string]string) error {
	variables := caVariables()
	variables["LANG"] = "C.UTF-8"
	maps.Copy(variables, extra)
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		fmt.Fprintf(&lines, "%s=\"%s\"\n", name, variables[name])
	}
	old, err := root.ReadFile("etc/environment")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return write(root, file{name: "etc/environment", text: block(string(old), "#", []byte(lines.String()))})
}
