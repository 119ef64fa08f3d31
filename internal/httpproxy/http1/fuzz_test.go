package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
)

// FuzzReadResponse is differential like FuzzReadRequest: net/http, as the agent's client, reads from the bytes that are
// passed on the same status and body as was decided here, and the same bytes are left for the next answer.
func FuzzReadResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAlt-Svc: h3=\":443\"\r\n\r\nhiHTTP/1.1",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nX: y\r\n\r\nrest",
		"HTTP/1.0 404 Not Found\r\n\r\nuntil the end",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 \r\n\r\n",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			f.Add(s, method)
		}
	}
	f.Fuzz(func(t *testing.T, input, method string) {
		if method != http.MethodHead {
			method = http.MethodGet
		}
		br := bufio.NewReader(strings.NewReader(input))
		ours, err := ReadResponse(br, method, limits)
		if err != nil {
			return
		}
		if !strings.HasPrefix(input, string(ours.Raw)) {
			t.Fatalf("the head %q is not what was sent", ours.Raw)
		}
		if ours.Status < 200 {
			return // has no body, and net/http reads on
		}
		head := ours.Without("Alt-Svc")
		var body bytes.Buffer
		_, bodyErr := CopyBody(&body, br, ours.Framing, ours.Length, limits)
		rest, _ := io.ReadAll(br)
		if !strings.HasSuffix(input, string(ours.Raw)+body.String()+string(rest)) && bodyErr == nil {
			t.Fatalf("head, body %q and rest %q are not what was sent", body.String(), rest)
		}
		sent := bufio.NewReader(io.MultiReader(bytes.NewReader(head), &body, bytes.NewReader(rest)))
		theirs, err := http.ReadResponse(sent, &http.Request{Method: method})
		if err != nil {
			if ours.Framing == NoBody {
				return // it is stricter about a length that counts for nothing
			}
			t.Fatalf("net/http refuses %q: %v", head, err)
		}
		if theirs.StatusCode != ours.Status || theirs.Header.Get("Alt-Svc") != "" {
			t.Fatalf("status %d, net/http reads %d with Alt-Svc %q", ours.Status, theirs.StatusCode, theirs.Header.Get("Alt-Svc"))
		}
		if bodyErr != nil {
			return
		}
		content, err := io.ReadAll(theirs.Body)
		if err != nil && !strings.Contains(err.Error(), "trailer") {
			t.Fatalf("net/http refuses the body of %q: %v", input, err)
		}
		theirRest, _ := io.ReadAll(sent)
		if err == nil && !bytes.Equal(theirRest, rest) {
			t.Fatalf("left %q, net/http leaves %q after %q", rest, theirRest, content)
		}
	})
}

// FuzzChunked holds the chunked coding against net/http's reader: what is passed on is a beginning of what came, only
// whole, well-formed chunks end without an error, and they mean the same to the next reader.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\nGET", "a;ext=\"v\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n", "3\nabc\n0\n\n",
		"0x3\r\nabc\r\n0\r\n\r\n", "ffffffffffffffff\r\n", "-1\r\n", "3 \r\nabc\r\n0\r\n\r\n", "2\r\nabc\r\n0\r\n\r\n", "0\r\nContent-Length: 5\r\n\r\n",
	} {
		f.Add(s, 4)
	}
	f.Fuzz(func(t *testing.T, input string, size int) {
		src := bufio.NewReaderSize(strings.NewReader(input), 16+(size&0xff))
		var sent bytes.Buffer
		n, err := CopyBody(&sent, src, ChunkedBody, 0, limits)
		if n != int64(sent.Len()) || !strings.HasPrefix(input, sent.String()) {
			t.Fatalf("%d bytes counted, %q sent of %q", n, sent.String(), input)
		}
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(src)
		if sent.String()+string(rest) != input {
			t.Fatalf("%q sent and %q left of %q", sent.String(), rest, input)
		}
		// ChunkedReader ends before the trailer section.
		theirs := bufio.NewReader(&sent)
		if _, err := io.ReadAll(httputil.NewChunkedReader(theirs)); err != nil {
			t.Fatalf("net/http refuses %q: %v", input, err)
		}
		trailer, _ := io.ReadAll(theirs)
		if !bytes.HasSuffix(trailer, []byte("\r\n")) || bytes.Contains(bytes.TrimSuffix(trailer, []byte("\r\n\r\n")), []byte("\r\n\r\n")) {
			t.Fatalf("%q is left behind the last chunk of %q", trailer, input)
		}
	})
}
