// Command relay is the bare limit that the bench measures against: it ends TLS, opens TLS to the server and copies bytes
// between them. It knows no HTTP, decides nothing and writes nothing down.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
)

func main() {
	log.SetFlags(0)
	certFile := flag.String("cert", "", "certificate chain shown to clients, PEM")
	keyFile := flag.String("key", "", "its key, PEM")
	rootsFile := flag.String("roots", "", "roots that verify servers, PEM")
	flag.Parse()
	if err := run(*certFile, *keyFile, *rootsFile, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// run serves routes of the form LISTEN=SERVER until one fails.
func run(certFile, keyFile, rootsFile string, routes []string) error {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(rootsFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("reading %q: no certificate in it", rootsFile)
	}
	failed := make(chan error)
	for _, route := range routes {
		listen, server, ok := strings.Cut(route, "=")
		if !ok {
			return fmt.Errorf("route %q is not LISTEN=SERVER", route)
		}
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go serve(c, cert, roots, server)
			}
		}()
	}
	return <-failed
}

// serve relays one connection. The server chooses among the protocols that the client offers.
func serve(raw net.Conn, cert tls.Certificate, roots *x509.CertPool, server string) {
	defer func() { _ = raw.Close() }()
	var up *tls.Conn
	client := tls.Server(raw, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		var err error
		up, err = tls.Dial("tcp", server, &tls.Config{
			ServerName: hello.ServerName, RootCAs: roots, NextProtos: hello.SupportedProtos, DynamicRecordSizingDisabled: true,
		})
		if err != nil {
			return nil, err
		}
		config := &tls.Config{Certificates: []tls.Certificate{cert}, DynamicRecordSizingDisabled: true}
		if chosen := up.ConnectionState().NegotiatedProtocol; chosen != "" {
			config.NextProtos = []string{chosen}
		}
		return config, nil
	}})
	err := client.Handshake()
	if up != nil {
		defer func() { _ = up.Close() }()
	}
	if err != nil {
		if !errors.Is(err, io.EOF) {
			log.Print(err)
		}
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { copyHalf(up, client) })
	copyHalf(client, up)
	wg.Wait()
}

// copyHalf copies one direction and passes its end on.
func copyHalf(dst, src *tls.Conn) {
	_, _ = io.Copy(dst, src)
	_ = dst.CloseWrite()
}
