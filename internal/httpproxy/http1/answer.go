package http1

import (
	"fmt"
	"net/http"
	"strings"
)

// Answer writes a response of the proxy's own: the head and, unless the method
// is HEAD, the body. last announces that the connection closes.
func Answer(status int, method string, last bool, fields []Field, body []byte) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	if last {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	if method != http.MethodHead {
		b.Write(body)
	}
	return []byte(b.String())
}
