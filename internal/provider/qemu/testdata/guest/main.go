// Command guest is the init of the small Linux guests in the tests of package
// qemu. The firewall answers on TCP port 22 with an SSH version line that names
// the token it heard last over the private link; the agent sends its token over
// the link for ever, and reboots once when it hears that it should.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

type config struct {
	Role, Cell, Uplink string // hardware addresses

	Reboot bool
}

func main() {
	err := run()
	fmt.Println("guest ends:", err)
	time.Sleep(time.Second) // let the console drain
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for _, m := range []struct{ what, where string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		os.MkdirAll(m.where, 0o755)
		if err := unix.Mount(m.what, m.where, m.what, 0, ""); err != nil {
			return err
		}
	}
	if console, err := os.OpenFile("/dev/console", os.O_RDWR, 0); err == nil {
		os.Stdout, os.Stderr = console, console
	}
	modules, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, path := range modules { // in the order of their numbered names
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		flags := 0
		if filepath.Ext(path) != ".ko" {
			flags = unix.MODULE_INIT_COMPRESSED_FILE
		}
		if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		f.Close()
	}
	data, err := os.ReadFile("/sys/firmware/qemu_fw_cfg/by_name/opt/rootcell/guest.json/raw")
	if err != nil {
		return err
	}
	var c config
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	token, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	token = bytes.TrimSpace(token)
	fmt.Printf("guest %s boots as %s\n", c.Role, token)
	if c.Role == "firewall" {
		return firewall(c)
	}
	return agent(c, token)
}

func configure(mac, address string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().HardwareAddr.String() != mac {
			continue
		}
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}
	return fmt.Errorf("no interface %s", mac)
}

func firewall(c config) error {
	if err := configure(c.Cell, "192.168.77.10/24"); err != nil {
		return err
	}
	if err := configure(c.Uplink, "10.0.2.15/24"); err != nil {
		return err
	}
	link, err := net.ListenPacket("udp4", "192.168.77.10:7")
	if err != nil {
		return err
	}
	var heard atomic.Value
	heard.Store("nothing")
	go func() {
		for buf := make([]byte, 100); ; {
			n, from, err := link.ReadFrom(buf)
			if err != nil {
				return
			}
			heard.Store(string(buf[:n]))
			link.WriteTo(buf[:n], from)
		}
	}()
	l, err := net.Listen("tcp4", ":22")
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintf(conn, "SSH-2.0-%s\r\n", heard.Load())
		conn.Close()
	}
}

func agent(c config, token []byte) error {
	if err := configure(c.Cell, "192.168.77.11/24"); err != nil {
		return err
	}
	conn, err := net.Dial("udp4", "192.168.77.10:7")
	if err != nil {
		return err
	}
	for buf := make([]byte, 100); ; {
		conn.Write(token)
		conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := conn.Read(buf)
		if err != nil {
			time.Sleep(100 * time.Millisecond) // refused at once while the firewall starts
			continue
		}
		if !c.Reboot || !bytes.Equal(buf[:n], token) {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		time.Sleep(2 * time.Second) // for the test to see this boot's token
		fmt.Println("guest reboots")
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
}
