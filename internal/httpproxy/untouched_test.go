package httpproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

func TestHalfClosedClientsGetTheirAnswer(t *testing.T) {
	release := make(chan struct{})
	w := build(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		fmt.Fprint(w, "late")
	}))
	c := w.open(ok)
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", ok)
	if err := c.CloseWrite(); err != nil { // the closing alert alone
		t.Fatal(err)
	}
	close(release)
	if res, body := readResponse(t, bufio.NewReader(c), "GET"); res.StatusCode != 200 || body != "late" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

func TestLargeHeadersPass(t *testing.T) {
	for proto, size := range map[string]int{"HTTP/1.1": 250_000, "HTTP/2": 900_000} {
		t.Run(proto, func(t *testing.T) {
			w := build(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, len(r.Header.Get("X-Large")))
			}))
			req := request(t, "GET", "https://"+ok+"/", "X-Large", strings.Repeat("a", size))
			res, err := both12(w)[proto].Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != fmt.Sprint(size) {
				t.Errorf("%d %q %v", res.StatusCode, body, err)
			}
		})
	}
}

func TestCompressedBodiesAndRangesAreUntouched(t *testing.T) {
	zipped := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\x07\x00\x86\xa6\x10\x36\x05\x00\x00\x00"
	both(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Range", "bytes 0-24/100")
		w.Header().Set("X-Saw", r.Header.Get("Range")+" "+r.Header.Get("Accept-Encoding"))
		w.WriteHeader(206)
		fmt.Fprint(w, zipped)
	}, func(t *testing.T, w *world, c *http.Client) {
		res, err := c.Do(request(t, "GET", "https://"+ok+"/", "Range", "bytes=0-24", "Accept-Encoding", "gzip, br"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != zipped || res.StatusCode != 206 || res.Header.Get("Content-Encoding") != "gzip" || res.Header.Get("X-Saw") != "bytes=0-24 gzip, br" {
			t.Errorf("%d %v %q %v", res.StatusCode, res.Header, body, err)
		}
	})
}

func TestNothingIsAddedToResponses(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		w.Header()["Content-Type"] = nil
		w.Header().Set("X-Saw", strings.Join(r.Header["User-Agent"], "|")+"/"+strings.Join(r.Header["Accept-Encoding"], "|"))
		fmt.Fprint(w, "<html>")
	}, func(t *testing.T, w *world, c *http.Client) {
		res, err := c.Do(request(t, "GET", "https://"+ok+"/", "User-Agent", ""))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.Header.Get("Date") != "" || res.Header.Get("Content-Type") != "" || res.Header.Get("X-Saw") != "/" {
			t.Errorf("header %v", res.Header)
		}
	})
}

func TestStreamsThatEndWithTheirHead(t *testing.T) {
	// gRPC answers errors with one HEADERS frame that ends the stream.
	w := build(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "5")
		w.Header()["Content-Length"] = nil
	}))
	c := w.h2(ok)
	c.headers(1, true, ":method", "POST", ":scheme", "https", ":authority", ok, ":path", "/x", "content-type", "application/grpc", "te", "trailers")
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			for _, field := range h.Fields {
				if field.Name == "content-length" {
					t.Errorf("%v was added", field)
				}
			}
			if !h.StreamEnded() {
				t.Error("the stream goes on after its head")
			}
			return
		}
	}
}
