package httpproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
)

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

// BenchmarkKeptAlive is one request after the other on one connection; client
// and server are part of it.
func BenchmarkKeptAlive(b *testing.B) {
	b.Run("HTTP/1.1", func(b *testing.B) {
		w := build(b, http.HandlerFunc(hello))
		c := w.open(ok)
		br := bufio.NewReader(c)
		request := fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", ok)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Write(request)
			readResponse(b, br, "GET")
		}
	})
	b.Run("HTTP/2", func(b *testing.B) {
		w := build(b, http.HandlerFunc(hello))
		c := w.client2()
		b.ReportAllocs()
		for b.Loop() {
			get(b, c, "https://"+ok+"/")
		}
	})
}

// BenchmarkNewConnection is a TLS connection a request.
func BenchmarkNewConnection(b *testing.B) {
	w := build(b, http.HandlerFunc(hello))
	request := "GET / HTTP/1.1\r\nHost: " + ok + "\r\n\r\n"
	for b.Loop() {
		c := w.open(ok)
		_, _ = io.WriteString(c, request)
		readResponse(b, bufio.NewReader(c), "GET")
		c.Close()
	}
}

func BenchmarkDownload(b *testing.B) {
	const size = 64 << 20
	w := build(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = io.CopyN(w, zeroes{}, size)
	}))
	for name, c := range both12(w) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				res, err := c.Get("https://" + ok + "/")
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}

// BenchmarkIdleConnections reports the memory of a kept connection: the client's
// and the server's ends are part of it.
func BenchmarkIdleConnections(b *testing.B) {
	w := build(b, http.HandlerFunc(hello))
	request := "GET / HTTP/1.1\r\nHost: " + ok + "\r\n\r\n"
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 200
	for b.Loop() {
		for range n {
			c := w.open(ok)
			_, _ = io.WriteString(c, request)
			readResponse(b, bufio.NewReader(c), "GET")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/float64(n*b.N)/1024, "KiB/conn")
}
