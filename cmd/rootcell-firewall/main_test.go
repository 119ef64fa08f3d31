package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// The test binary plays several parts, chosen by this variable: the real main of
// this command, an SSH ProxyCommand, or the tests inside a network namespace.
const role = "ROOTCELL_FIREWALL_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "main":
		main()
	case "connect":
		os.Exit(proxyCommand(os.Args[1], os.Args[2]))
	case "tests":
		if err := loopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	default:
		os.Exit(inNamespace(m))
	}
}

// inNamespace runs the tests again in a network namespace of their own, where
// ports 22 and 443 of loopback addresses are free for the far side. It needs no
// privilege where user namespaces are allowed; elsewhere the tests that need a far
// side are skipped.
func inNamespace(m *testing.M) int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), role+"=tests")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "tests without a network namespace: %v\n", err)
		return m.Run()
	}
	err := cmd.Wait()
	if exited, ok := errors.AsType[*exec.ExitError](err); ok {
		return exited.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func loopbackUp() error {
	link, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding the loopback interface: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting the loopback interface up: %w", err)
	}
	return nil
}

// proxyCommand connects standard input and output to target through the CONNECT
// proxy, and prints what the proxy says when it refuses.
func proxyCommand(proxy, target string) int {
	conn, err := net.Dial("tcp", proxy)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer conn.Close()
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if response.StatusCode != http.StatusOK {
		_, _ = io.Copy(os.Stderr, response.Body)
		return 1
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(os.Stdout, reader)
	return 0
}
