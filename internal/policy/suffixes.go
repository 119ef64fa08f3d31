package policy

import "strings"

// IsPublicSuffix reports whether domain, in normal form, is one below which
// unrelated people register names: a top-level domain, one of the common
// second-level registries, or a service that hands out host names to its
// users. It is a small list for warnings and hints about wildcards, not a copy
// of the Public Suffix List, and no decision depends on it.
func IsPublicSuffix(domain string) bool {
	return domain != "" && (!strings.Contains(domain, ".") || isRegistry(domain) || IsUserContent(domain))
}

// isRegistry knows second-level registries: co.uk, com.au, or.jp and their kin
// all are a generic word below a country code.
func isRegistry(domain string) bool {
	word, country, _ := strings.Cut(domain, ".")
	if len(country) != 2 {
		return false
	}
	switch word {
	case "ac", "co", "com", "edu", "gob", "gov", "gouv", "ltd", "me", "mil", "ne", "net", "nom", "or", "org", "plc", "sch":
		return true
	}
	return false
}

// IsUserContent reports whether the names below domain are handed out to
// whoever asks: content networks, object stores, hosting. A wildcard there
// allows sending data to anybody.
func IsUserContent(domain string) bool {
	switch domain {
	case "akamaihd.net", "akamaized.net", "amazonaws.com", "appspot.com", "azureedge.net", "azurefd.net",
		"azurewebsites.net", "b-cdn.net", "blob.core.windows.net", "cloudapp.azure.com", "cloudflare-ipfs.com",
		"cloudfront.net", "cloudfunctions.net", "core.windows.net", "deno.dev", "digitaloceanspaces.com",
		"edgekey.net", "fastly.net", "firebaseapp.com", "firebaseio.com", "fly.dev", "github.io", "gitlab.io",
		"githubusercontent.com", "glitch.me", "googleusercontent.com", "herokuapp.com", "hf.space", "ngrok.app", "ngrok.dev",
		"ngrok.io", "ngrok-free.app", "netlify.app", "onrender.com", "pages.dev", "r2.dev", "railway.app", "repl.co", "replit.dev",
		"run.app", "s3.amazonaws.com", "surge.sh", "supabase.co", "trycloudflare.com", "vercel.app", "web.app",
		"windows.net", "workers.dev":
		return true
	}
	return false
}
