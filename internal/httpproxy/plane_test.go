package httpproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/audit"
)

func get(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestAllowedRequestsReachTheServer(t *testing.T) {
	w := build(t, nil)
	for proto, c := range map[string]*http.Client{"HTTP/1.1": w.client(), "HTTP/2.0": w.client2()} {
		for range 3 {
			res, body := get(t, c, "https://"+ok+"/a%2Fb//c/../d;x=1?q=%7e")
			if want := proto + " GET /a%2Fb//c/../d;x=1?q=%7e"; res.StatusCode != 200 || body != want {
				t.Errorf("%d %q, want %q", res.StatusCode, body, want)
			}
		}
	}
	e := w.events.wait(t, "allowed", func(e audit.Event) bool { return e.Verdict == audit.Allow })
	if e.Host != ok || e.Method != "GET" || e.Status != 200 || e.BytesDown == 0 || e.Upstream == "" || e.Rule == "" {
		t.Errorf("incomplete event %+v", e)
	}
	if n := len(w.dials()); n != 2 {
		t.Errorf("%d upstream connections for six requests, want one for each protocol", n)
	}
}

func TestHeadIsPassedOnByteForByte(t *testing.T) {
	got := make(chan string, 1)
	w := build(t, nil, func(_ *httpConfig, s *sink) {
		s.raw = func(c connection) {
			br := bufio.NewReader(c)
			var head strings.Builder
			for {
				line, err := br.ReadString('\n')
				head.WriteString(line)
				if err != nil || line == "\r\n" {
					break
				}
			}
			got <- head.String()
			io.WriteString(c, "HTTP/1.1 299 Very  Well\r\nx-lOwer: 1\r\nAlt-Svc: h3=\":443\"\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nhi")
		}
	})
	sent := "GET /a%2Fb//c/../d;x=1 HTTP/1.1\r\nhOST:  " + ok + "\r\nX-B: 2\r\nx-a:   1 \r\nX-B: 1\r\n\r\n"
	c := w.open(ok)
	io.WriteString(c, sent)
	if g := <-got; g != sent {
		t.Errorf("upstream got\n%q, want\n%q", g, sent)
	}
	answer := make([]byte, 200)
	n, err := io.ReadFull(c, answer[:len("HTTP/1.1 299 Very  Well\r\nx-lOwer: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nhi")])
	if want := "HTTP/1.1 299 Very  Well\r\nx-lOwer: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nhi"; err != nil || string(answer[:n]) != want {
		t.Errorf("client got %q (%v), want %q", answer[:n], err, want)
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	w := build(t, nil)
	c := w.open(ok)
	for i := range 5 {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, ok)
	}
	br := bufio.NewReader(c)
	for i := range 5 {
		if _, body := readResponse(t, br, "GET"); body != fmt.Sprintf("HTTP/1.1 GET /%d", i) {
			t.Errorf("answer %d is %q", i, body)
		}
	}
}
