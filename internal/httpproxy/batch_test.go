package httpproxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Many streams write at once through the batches of both sides; every byte must arrive, in order, on its own stream.
func TestManyStreamsKeepTheirBytes(t *testing.T) {
	w := build(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for i := 0; i < len(body); i += 700 {
			_, _ = rw.Write(body[i:min(i+700, len(body))])
			rw.(http.Flusher).Flush()
		}
	}))
	c := w.client2()
	var wg sync.WaitGroup
	for stream := range 40 {
		wg.Go(func() {
			sent := bytes.Repeat(fmt.Appendf(nil, "stream %d;", stream), 10_000)
			res, err := c.Post("https://"+ok+"/", "text/plain", bytes.NewReader(sent))
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("stream %d: %d bytes of %d, %v", stream, len(got), len(sent), err)
			}
		})
	}
	wg.Wait()
}

// A head whose body stays away, and the last byte of a stream that stays open, may wait for company but not for long.
func TestNothingWaitsForTheEndOfTheStream(t *testing.T) {
	bodyWanted, endWanted := make(chan struct{}), make(chan struct{})
	w := build(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "4")
		rw.(http.Flusher).Flush()
		<-bodyWanted
		_, _ = rw.Write([]byte("body"))
		rw.(http.Flusher).Flush()
		<-endWanted
	}))
	defer close(endWanted)
	c := w.client2()
	c.Timeout = 10 * time.Second
	res, err := c.Get("https://" + ok + "/")
	if err != nil {
		t.Fatalf("no head before the body: %v", err)
	}
	defer res.Body.Close()
	close(bodyWanted)
	if _, err := io.ReadFull(res.Body, make([]byte, 4)); err != nil {
		t.Errorf("no body before the end of the stream: %v", err)
	}
}
