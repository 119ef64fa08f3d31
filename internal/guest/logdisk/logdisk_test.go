//go:build linux

package logdisk

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

// superblock is the start of an ext4 disk, as far as it is looked at.
func superblock(label string, state uint16) []byte {
	disk := make([]byte, blankProbe)
	super := disk[superblockAt:]
	binary.LittleEndian.PutUint16(super[magicAt:], magicExt)
	binary.LittleEndian.PutUint16(super[stateAt:], state)
	copy(super[labelAt:], label)
	return disk
}

func TestInspect(t *testing.T) {
	cases := map[string]struct {
		disk []byte
		want Content
	}{
		"an empty disk":               {make([]byte, 1<<20), Blank},
		"our file system":             {superblock(guestcfg.LogDiskLabel, 1), Ours},
		"ours with errors":            {superblock(guestcfg.LogDiskLabel, 2), OursDamaged},
		"another file system":         {superblock("data", 1), Foreign},
		"a longer label":              {superblock(guestcfg.LogDiskLabel+"s", 1), Foreign},
		"a partition table":           {append([]byte{0xeb, 0x63}, make([]byte, 1<<16)...), Foreign},
		"a disk too small to look at": {make([]byte, 512), Foreign},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Inspect(bytes.NewReader(tc.disk))
			if err != nil || got != tc.want {
				t.Errorf("Inspect = %d, %v; want %d", got, err, tc.want)
			}
			if damaged := Damaged(bytes.NewReader(tc.disk)); damaged != (tc.want == OursDamaged) {
				t.Errorf("Damaged = %v", damaged)
			}
		})
	}
}

func TestInspectKnowsWhatMke2fsMakes(t *testing.T) {
	mke2fs, err := exec.LookPath("mke2fs")
	if err != nil {
		t.Skip("no mke2fs here")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mke2fs, "-q", "-F", "-t", "ext4", "-L", guestcfg.LogDiskLabel, disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := Inspect(f); err != nil || got != Ours {
		t.Errorf("Inspect = %d, %v", got, err)
	}
}
