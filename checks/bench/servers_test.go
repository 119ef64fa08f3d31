//go:build linux

package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// bodySmall is the answer that requests per second are counted with.
const bodySmall = 1024

// startNginx serves files over HTTP/1.1 and HTTP/2 at every candidate's web address.
func (b *bench) startNginx(t *testing.T) {
	b.files = b.path("files")
	if err := os.Mkdir(b.files, 0o755); err != nil {
		t.Fatal(err)
	}
	b.write(t, "files/small", strings.Repeat("x", bodySmall))
	for name, mib := range map[string]int{"bulk": b.sizeMiB, "bulk-mitm": b.mitmMiB} {
		b.write(t, "files/"+name, "")
		if err := os.Truncate(b.path("files/"+name), int64(mib)<<20); err != nil {
			t.Fatal(err)
		}
	}
	var listen strings.Builder
	for _, c := range b.candidates {
		fmt.Fprintf(&listen, "    listen %s:443 ssl http2;\n", c.webAddr())
	}
	conf := b.write(t, "nginx.conf", fmt.Sprintf(`daemon off;
user root;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.err;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  http2_max_concurrent_streams 256;
  client_body_temp_path %[1]s/nginx.body;
  proxy_temp_path %[1]s/nginx.proxy;
  fastcgi_temp_path %[1]s/nginx.fastcgi;
  uwsgi_temp_path %[1]s/nginx.uwsgi;
  scgi_temp_path %[1]s/nginx.scgi;
  server {
%[2]s    server_name _;
    ssl_certificate %[1]s/leaf.pem;
    ssl_certificate_key %[1]s/leaf.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    root %[3]s;
  }
}
`, b.lab.Dir, listen.String(), b.files))
	b.start(t, b.lab.Internet, "nginx", "-c", conf)
	b.await(t, b.lab.Internet, b.candidate(direct).webAddr()+":443")
}

// await waits until something listens.
func (b *bench) await(t *testing.T, ns *netlab.Namespace, addr string) {
	netlab.Await(t, 30*time.Second, "a listener at "+addr, func() bool {
		c, err := ns.Dial(context.Background(), "tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

const (
	events        = 60
	eventInterval = 10 * time.Millisecond
)

// serveOrigin serves what nginx cannot: timed events and uploads on 443, and SSH's opening followed by bulk on 22.
func serveOrigin(t *testing.T, ns *netlab.Namespace, addr string, cert tls.Certificate) {
	ln, err := ns.Listen("tcp4", addr+":443")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		flusher := w.(http.Flusher)
		ticker := time.NewTicker(eventInterval)
		defer ticker.Stop()
		for range events {
			<-ticker.C
			_, _ = fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
			flusher.Flush()
		}
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintln(w, n)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, bodySmall)) })
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = server.Close() })

	bulk, err := ns.Listen("tcp4", addr+":22")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bulk.Close() })
	go func() {
		for {
			c, err := bulk.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go serveBulk(c)
			}
		}
	}()
}

// serveBulk is an SSH server as far as its identification; then it sends as many bytes as the next line says.
func serveBulk(c net.Conn) {
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "SSH-2.0-bench\r\n")
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	left, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return
	}
	for chunk := make([]byte, 256<<10); left > 0; {
		n, err := c.Write(chunk[:min(left, int64(len(chunk)))])
		if err != nil {
			return
		}
		left -= int64(n)
	}
}

// serveDNS answers every A query at once, the servers' names with their addresses: the cheapest authority there can be, so that
// forwarders are what is measured. Names that begin with "once" may be kept for a second, others for an hour.
func serveDNS(t *testing.T, ns *netlab.Namespace, at []string, addresses map[string]string) {
	for _, addr := range at {
		pc, err := ns.ListenPacket("udp4", addr+":53")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		go func() {
			buffer := make([]byte, 1500)
			for {
				n, from, err := pc.ReadFrom(buffer)
				if err != nil {
					return
				}
				if answer := answerA(buffer[:n], addresses); answer != nil {
					_, _ = pc.WriteTo(answer, from)
				}
			}
		}()
	}
}

// answerA makes a response of a query with one question, nil of anything else.
func answerA(query []byte, addresses map[string]string) []byte {
	end, name := 12, ""
	for end < len(query) && query[end] != 0 {
		label := int(query[end])
		if end+1+label > len(query) {
			return nil
		}
		name += strings.ToLower(string(query[end+1:end+1+label])) + "."
		end += 1 + label
	}
	if end+5 > len(query) {
		return nil
	}
	ttl, addr := uint32(3600), net.IPv4(11, 22, 33, 99)
	if strings.HasPrefix(name, "once") {
		ttl = 1
	}
	if a, ok := addresses[strings.TrimSuffix(name, ".")]; ok {
		addr = net.ParseIP(a)
	}
	out := append([]byte{}, query[:end+5]...)
	out[2], out[3] = out[2]|0x84, 0x80
	binary.BigEndian.PutUint16(out[10:], 0) // EDNS is left out
	if binary.BigEndian.Uint16(query[end+1:]) != 1 {
		return out
	}
	binary.BigEndian.PutUint16(out[6:], 1)
	out = append(out, 0xc0, 12, 0, 1, 0, 1)
	out = binary.BigEndian.AppendUint32(out, ttl)
	return append(append(out, 0, 4), addr.To4()...)
}
