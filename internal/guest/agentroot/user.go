package agentroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// account is the agent's login.
type account struct {
	name     string
	uid, gid int
	home     string // below the root, without a leading slash
}

const firstUID = 1000

// ensureUser finds the user in the password file or adds it, with a home
// directory and sudo without a password.
func ensureUser(root *os.Root, name string) (account, error) {
	passwd, err := root.ReadFile("etc/passwd")
	if err != nil {
		return account{}, fmt.Errorf("reading the users: %w", err)
	}
	user, found := findUser(string(passwd), name)
	if !found {
		if user, err = addUser(root, string(passwd), name); err != nil {
			return account{}, err
		}
	}
	if err := ensureHome(root, user); err != nil {
		return user, err
	}
	sudoers := "# Written at every boot by rootcell.\n" + name + " ALL=(ALL:ALL) NOPASSWD: ALL\n" +
		"Defaults env_keep += \"" + strings.Join(caVariableNames(), " ") + "\"\n"
	return user, write(root, file{name: "etc/sudoers.d/rootcell", text: sudoers, mode: 0o440})
}

func findUser(passwd, name string) (account, bool) {
	for line := range strings.Lines(passwd) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) < 7 || fields[0] != name {
			continue
		}
		uid, uidErr := strconv.Atoi(fields[2])
		gid, gidErr := strconv.Atoi(fields[3])
		if uidErr != nil || gidErr != nil {
			return account{}, false
		}
		return account{name: name, uid: uid, gid: gid, home: strings.TrimPrefix(path.Clean(fields[5]), "/")}, true
	}
	return account{}, false
}

func addUser(root *os.Root, passwd, name string) (account, error) {
	taken := map[int]bool{}
	for line := range strings.Lines(passwd) {
		if fields := strings.Split(line, ":"); len(fields) > 2 {
			if id, err := strconv.Atoi(fields[2]); err == nil {
				taken[id] = true
			}
		}
	}
	id := firstUID
	for taken[id] {
		id++
	}
	user := account{name: name, uid: id, gid: id, home: "home/" + name}
	lines := []struct {
		file, text string
		mode       fs.FileMode
	}{
		{"etc/group", fmt.Sprintf("%s:x:%d:\n", name, id), 0o644},
		{"etc/gshadow", fmt.Sprintf("%s:!::\n", name), 0o640},
		// No password: the account is entered by key, and root by sudo.
		{"etc/shadow", fmt.Sprintf("%s:*:20000:0:99999:7:::\n", name), 0o640},
		{"etc/passwd", fmt.Sprintf("%s:x:%d:%d:rootcell agent:/%s:/bin/bash\n", name, id, id, user.home), 0o644},
	}
	for _, l := range lines {
		old, err := root.ReadFile(l.file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return account{}, fmt.Errorf("reading %q: %w", l.file, err)
		}
		kept := withoutEntry(string(old), name)
		if err := write(root, file{name: l.file, text: kept + l.text, mode: l.mode}); err != nil {
			return account{}, err
		}
	}
	return user, nil
}

// withoutEntry removes a name's line, which an interrupted start left behind.
func withoutEntry(text, name string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name+":") {
			continue
		}
		kept.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	return kept.String()
}

// ensureHome makes the home directory from the skeleton when there is none.
func ensureHome(root *os.Root, user account) error {
	if _, err := root.Stat(user.home); err == nil {
		return nil
	}
	if err := root.MkdirAll(user.home, 0o755); err != nil {
		return fmt.Errorf("making the home directory: %w", err)
	}
	entries, err := fs.ReadDir(root.FS(), "etc/skel")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the skeleton: %w", err)
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		text, err := root.ReadFile(path.Join("etc/skel", entry.Name()))
		if err != nil {
			return fmt.Errorf("reading the skeleton: %w", err)
		}
		f := file{name: path.Join(user.home, entry.Name()), text: string(text), uid: user.uid, gid: user.gid}
		if err := write(root, f); err != nil {
			return err
		}
	}
	if os.Geteuid() != 0 {
		return nil
	}
	if err := root.Lchown(user.home, user.uid, user.gid); err != nil {
		return fmt.Errorf("giving the home directory to its user: %w", err)
	}
	return nil
}
