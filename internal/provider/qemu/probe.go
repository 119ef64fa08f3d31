package qemu

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// probeLimit is how long the probe's firmware may run. It takes about a tenth of
// a second where acceleration works.
const probeLimit = 5 * time.Second

// probeAMD64 is made from firmware/probe_amd64.S (TestProbeFirmwareIsItsSource).
//
//go:embed firmware/probe_amd64.bin
var probeAMD64 []byte

// probe runs a small firmware on a virtual CPU and reports why that did not
// work within patience, or nil. A device file that opens proves nothing: on some hosts, cloud
// machines foremost, a virtual machine can be created and hangs as soon as a
// 64-bit kernel runs (seen in November 2026).
func probe(ctx context.Context, binary, arch, accel string, patience time.Duration) error {
	image, args, good := probeImageAMD64(), []string{
		"-machine", "q35,usb=off,smbus=off,sata=off", "-m", "16",
		"-device", "isa-debug-exit,iobase=0x501,iosize=4",
	}, 85
	if arch == "arm64" {
		image, args, good = probeImageARM64(), []string{"-machine", "virt,gic-version=max", "-m", "64"}, 0
	}
	firmware, err := nameless(image)
	if err != nil {
		return fmt.Errorf("writing the acceleration probe: %w", err)
	}
	defer firmware.Close()
	args = append(args, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", accel, "-cpu", cpuModel(accel), "-bios", "/dev/fd/3")
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(limit, binary, args...)
	cmd.ExtraFiles = []*os.File{firmware} // its descriptor 3
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limit.Err() != nil:
		return fmt.Errorf("a 64-bit guest hangs under %s", strings.ToUpper(accel))
	case err == nil && good == 0, errors.As(err, &exit) && exit.ExitCode() == good:
		return nil
	}
	if lines := printableLines(out); len(lines) > 0 {
		return fmt.Errorf("a test guest does not run under %s: %s", strings.ToUpper(accel), lines[0])
	}
	return fmt.Errorf("a test guest does not run under %s: %v", strings.ToUpper(accel), err)
}

// nameless is an open file that holds data and goes away with its last user,
// killed or not.
func nameless(data []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "rootcell-probe")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// probeImageAMD64 is the firmware as a 64 KiB flat image: its code at the
// beginning, and at the reset vector 16 bytes below the end a jump to it.
func probeImageAMD64() []byte {
	image := make([]byte, 64<<10)
	copy(image, probeAMD64)
	copy(image[0xfff0:], []byte{0xe9, 0x0d, 0x00}) // jmp 0x0000: 0xfff3 + 0x000d, modulo 64 KiB
	return image
}

// probeImageARM64 asks the hypervisor to switch the machine off (PSCI
// SYSTEM_OFF, Arm DEN 0022), which ends QEMU with exit status 0.
func probeImageARM64() []byte {
	image := make([]byte, 64<<10)
	for i, instruction := range []uint32{
		0x52800100, // mov  w0, #0x0008
		0x72b08000, // movk w0, #0x8400, lsl #16
		0xd4000002, // hvc  #0
		0x14000000, // b    .
	} {
		binary.LittleEndian.PutUint32(image[4*i:], instruction)
	}
	return image
}
