package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// Kinds of secret providers. All but kindCommand work under their own name
// without an entry in [secret_providers].
const (
	kindKeychain      = "macos-keychain"
	kindSecretService = "secret-service"
	kindAWS           = "aws-secrets-manager"
	kindCommand       = "command"
	kindEnv           = "env"
)

var kinds = []string{kindKeychain, kindSecretService, kindAWS, kindCommand, kindEnv}

var (
	variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	providerPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	headerPattern   = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
)

// report notes a fault at a dotted path of the document being read.
type report func(path string, f *fault)

// readSecrets checks the [secrets] table. Faults never quote a reference:
// what stands there may be a secret put in the wrong place.
func readSecrets(table any, into map[string]Secret, report report) {
	entries, ok := asTable(table, "secrets", report)
	if !ok {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		path := join("secrets", name)
		if !variablePattern.MatchString(name) {
			report(path, faultf("use letters, digits and _, e.g. GITHUB_TOKEN", "%q cannot be an environment variable", name))
			continue
		}
		if secret, ok := readSecret(path, entries[name], report); ok {
			into[name] = secret
		}
	}
}

func readSecret(path string, v any, report report) (Secret, bool) {
	switch v := v.(type) {
	case string:
		return readReference(path, v, report)
	case map[string]any:
		if unknown(path, v, report, "from", "broker") {
			return Secret{}, false
		}
		from, isText := v["from"].(string)
		if !isText {
			report(path, faultf(`write from = "PROVIDER:REFERENCE"`, "the secret has no source"))
			return Secret{}, false
		}
		secret, ok := readReference(join(path, "from"), from, report)
		if broker, present := v["broker"]; present && ok {
			secret.Broker, ok = readBroker(join(path, "broker"), broker, report)
		}
		return secret, ok
	}
	report(path, faultf(`write "PROVIDER:REFERENCE" or { from = "PROVIDER:REFERENCE", broker = { host = "HOST" } }`, "a secret is a string or a table"))
	return Secret{}, false
}

func readReference(path, text string, report report) (Secret, bool) {
	provider, reference, found := strings.Cut(text, ":")
	switch {
	case !found:
		report(path, faultf(`write "PROVIDER:REFERENCE", e.g. "macos-keychain:github-token"`, "the source names no provider"))
	case !providerPattern.MatchString(provider):
		report(path, faultf("provider ids are letters, digits and . _ -", "the part before the colon is no provider id"))
	case reference == "":
		report(path, faultf("write what to ask the provider for behind the colon", "the reference for provider %q is empty", provider))
	case strings.ContainsFunc(reference, func(r rune) bool { return r < ' ' || r == 0x7f }):
		report(path, faultf("remove it", "the reference has a control character"))
	default:
		return Secret{Provider: provider, Reference: reference}, true
	}
	return Secret{}, false
}

func readBroker(path string, v any, report report) (*Broker, bool) {
	table, ok := asTable(v, path, report)
	if !ok || unknown(path, table, report, "host", "header") {
		return nil, false
	}
	host, _ := table["host"].(string)
	name, err := hostname.ParseUser(host)
	if err != nil {
		report(join(path, "host"), faultf(`write the one host that gets the secret, e.g. "api.github.com"`, "%q is no host name", host))
		return nil, false
	}
	header := "authorization"
	if value, present := table["header"]; present {
		header, _ = value.(string)
	}
	if !headerPattern.MatchString(header) {
		report(join(path, "header"), faultf(`write for instance "authorization" or "x-api-key"`, "%q is no header name", header))
		return nil, false
	}
	return &Broker{Host: name.String(), Header: strings.ToLower(header)}, true
}

// readProviders checks the [secret_providers] table.
func readProviders(table any, into map[string]SecretProvider, report report) {
	entries, ok := asTable(table, "secret_providers", report)
	if !ok {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		path := join("secret_providers", id)
		switch entry, ok := asTable(entries[id], path, report); {
		case !ok:
		case !providerPattern.MatchString(id):
			report(path, faultf("use letters, digits and . _ -", "%q cannot be a provider id", id))
		case slices.Contains(kinds, id):
			report(path, faultf("take another id", "%q is the name of a kind of provider", id))
		default:
			if provider, ok := readProvider(path, entry, report); ok {
				into[id] = provider
			}
		}
	}
}

func readProvider(path string, table map[string]any, report report) (SecretProvider, bool) {
	kind, _ := table["kind"].(string)
	if f := oneOf(kinds...)(kind); f != nil {
		if _, present := table["kind"]; !present {
			f = faultf("write kind = "+choice(kinds), "the provider has no kind")
			report(path, f)
			return SecretProvider{}, false
		}
		report(join(path, "kind"), f)
		return SecretProvider{}, false
	}
	allowed := map[string][]string{
		kindAWS:     {"kind", "profile", "region"},
		kindCommand: {"kind", "command"},
	}[kind]
	if allowed == nil {
		allowed = []string{"kind"}
	}
	if unknown(path, table, report, allowed...) {
		return SecretProvider{}, false
	}
	provider, ok := SecretProvider{Kind: kind}, true
	text := func(name string, into *string, check func(string) *fault) {
		value, present := table[name]
		if !present {
			return
		}
		s, f := asString(value)
		if f == nil {
			f = check(s)
		}
		if f != nil {
			report(join(path, name), f)
			ok = false
		}
		*into = s
	}
	text("profile", &provider.Profile, nonEmpty)
	text("region", &provider.Region, region)
	if kind == kindCommand {
		var good bool
		provider.Command, good = readCommand(join(path, "command"), table["command"], report)
		ok = ok && good
	}
	return provider, ok
}

func readCommand(path string, v any, report report) ([]string, bool) {
	const hint = `write program and arguments, e.g. ["pass", "show"]; the reference is added as the last one`
	array, isArray := v.([]any)
	if !isArray || len(array) == 0 {
		at := path
		if v == nil {
			at = strings.TrimSuffix(path, ".command")
		}
		report(at, faultf(hint, "the command is no list of words"))
		return nil, false
	}
	var command []string
	for i, item := range array {
		s, isText := item.(string)
		if !isText || (i == 0 && program(s) != nil) {
			report(fmt.Sprintf("%s[%d]", path, i), faultf(hint, "word %d of the command is no usable string", i+1))
			return nil, false
		}
		command = append(command, s)
	}
	return command, true
}

func asTable(v any, path string, report report) (map[string]any, bool) {
	table, ok := v.(map[string]any)
	if !ok {
		report(path, wrongType(v, "a table"))
	}
	return table, ok
}
