package sshx

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// liar is an SFTP server that says what a test wants it to.
type liar struct {
	entries map[string][]os.FileInfo // by directory
	endless string                   // a directory whose listing never ends
	content string                   // of every file
	target  string                   // of every link
}

type lie struct {
	name string
	mode fs.FileMode
	size int64
}

func (l lie) Name() string       { return l.name }
func (l lie) Size() int64        { return l.size }
func (l lie) Mode() fs.FileMode  { return l.mode }
func (l lie) ModTime() time.Time { return time.Unix(0, 0) }
func (l lie) IsDir() bool        { return l.mode.IsDir() }
func (l lie) Sys() any           { return nil }

type infos []os.FileInfo

func (i infos) ListAt(list []os.FileInfo, offset int64) (int, error) {
	if offset >= int64(len(i)) {
		return 0, io.EOF
	}
	n := copy(list, i[offset:])
	if n < len(list) {
		return n, io.EOF
	}
	return n, nil
}

type endless struct{}

func (endless) ListAt(list []os.FileInfo, _ int64) (int, error) {
	for i := range list {
		list[i] = lie{name: strings.Repeat("x", 250), mode: 0o644}
	}
	return len(list), nil
}

func (l *liar) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	switch {
	case r.Method == "Readlink":
		return infos{lie{name: l.target}}, nil
	case r.Method == "Stat":
		if _, isDir := l.entries[r.Filepath]; isDir || r.Filepath == l.endless {
			return infos{lie{name: filepath.Base(r.Filepath), mode: fs.ModeDir | 0o777}}, nil
		}
		return infos{lie{name: filepath.Base(r.Filepath), mode: 0o644, size: 1 << 40}}, nil
	case r.Filepath == l.endless:
		return endless{}, nil
	}
	return infos(l.entries[r.Filepath]), nil
}

func (l *liar) Fileread(*sftp.Request) (io.ReaderAt, error) { return strings.NewReader(l.content), nil }

func (l *liar) connect(t *testing.T) *Client {
	server := newTestServer(t)
	server.session = func(channel ssh.Channel, requests <-chan *ssh.Request) {
		for request := range requests {
			_ = request.Reply(request.Type == "subsystem", nil)
			if request.Type == "subsystem" {
				handlers := sftp.NewRequestServer(channel, sftp.Handlers{FileGet: l, FileList: l})
				go func() {
					_ = handlers.Serve()
					_ = channel.Close()
				}()
			}
		}
	}
	return connect(t, server.options(t))
}

func TestHostileServerCannotLeaveTheDestination(t *testing.T) {
	dir, link := fs.ModeDir|0o777, fs.ModeSymlink|0o777
	tests := map[string]struct {
		server liar
		want   map[string]string // below the destination
		fails  bool
	}{
		"names that climb lose their directories": {
			server: liar{entries: map[string][]os.FileInfo{"/w": {lie{name: "../../escaped", mode: 0o644}}}},
			want:   map[string]string{"w": "d", "w/escaped": "-"},
		},
		"a name that is the parent is passed over": {
			server: liar{entries: map[string][]os.FileInfo{"/w": {lie{name: "..", mode: dir}, lie{name: ".", mode: dir}}}},
			want:   map[string]string{"w": "d"},
		},
		"a name that ends in the parent": {
			server: liar{entries: map[string][]os.FileInfo{"/w": {lie{name: "x/..", mode: dir}}}},
			want:   map[string]string{"w": "d"},
			fails:  true,
		},
		"a root for a name": {
			server: liar{entries: map[string][]os.FileInfo{"/w": {lie{name: "/", mode: 0o644}}}},
			want:   map[string]string{"w": "d"},
			fails:  true,
		},
		"a name with a zero byte": {
			server: liar{entries: map[string][]os.FileInfo{"/w": {lie{name: "a\x00b", mode: 0o644}}}},
			want:   map[string]string{"w": "d"},
			fails:  true,
		},
		"a link and then a directory of its name": {
			server: liar{target: ".", entries: map[string][]os.FileInfo{
				"/w":   {lie{name: "l", mode: link}, lie{name: "l", mode: dir}},
				"/w/l": {lie{name: "escaped", mode: 0o644}},
			}},
			want:  map[string]string{"w": "d", "w/l": "L"},
			fails: true,
		},
		"a link and then a file of its name": {
			server: liar{target: "victim", entries: map[string][]os.FileInfo{
				"/w": {lie{name: "l", mode: link}, lie{name: "l", mode: 0o644}},
			}},
			want:  map[string]string{"w": "d", "w/l": "L"},
			fails: true,
		},
		"a link to outside and then a file of its name": {
			server: liar{target: "../../victim", entries: map[string][]os.FileInfo{
				"/w": {lie{name: "l", mode: link}, lie{name: "l", mode: 0o644}},
			}},
			want: map[string]string{"w": "d", "w/l": "-"},
		},
		"devices and sockets": {
			server: liar{entries: map[string][]os.FileInfo{"/w": {
				lie{name: "disk", mode: fs.ModeDevice | 0o666}, lie{name: "tty", mode: fs.ModeDevice | fs.ModeCharDevice | 0o666},
				lie{name: "socket", mode: fs.ModeSocket | 0o666}, lie{name: "pipe", mode: fs.ModeNamedPipe | 0o666},
			}}},
			want: map[string]string{"w": "d"},
		},
		"an unreadable directory mode": {
			server: liar{entries: map[string][]os.FileInfo{"/w": {lie{name: "d", mode: fs.ModeDir}}, "/w/d": {lie{name: "f", mode: 0}}}},
			want:   map[string]string{"w": "d", "w/d": "d", "w/d/f": "-"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			outer := t.TempDir()
			fill(t, outer, map[string]string{"victim": "mine", "in/": ""})
			test.server.content = "theirs"
			err := test.server.connect(t).Copy(t.Context(), CopyOptions{Sources: []string{":/w"}, Destination: outer + "/in", Recursive: true})
			if (err != nil) != test.fails {
				t.Errorf("Copy = %v, want an error: %v", err, test.fails)
			}
			got := map[string]string{}
			for name, content := range tree(t, outer+"/in") {
				got[name] = map[byte]string{'d': "d", '-': "-", 'l': "L"}[content[0]]
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("unexpected files (-want +got):\n%s", diff)
			}
			delete(test.want, "")
			for name, content := range tree(t, outer) {
				if !strings.HasPrefix(name, "in") && (name != "victim" || content != "-rw-r--r-- mine") {
					t.Errorf("outside of the destination there is %s: %q", name, content)
				}
			}
		})
	}
}

func TestHostileServerCannotGoOnForEver(t *testing.T) {
	nested := map[string][]os.FileInfo{}
	for path := "/w"; len(path) < 2000; path += "/d" {
		nested[path] = []os.FileInfo{lie{name: "d", mode: fs.ModeDir | 0o755}}
	}
	tests := map[string]struct {
		server liar
		want   string
	}{
		"directories in directories": {liar{entries: nested}, "nested more than"},
		"a listing without end":      {liar{endless: "/w"}, "reading directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.server.connect(t).Copy(t.Context(), CopyOptions{Sources: []string{":/w"}, Destination: t.TempDir(), Recursive: true})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Copy = %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestHostileNamesAreQuotedInMessages(t *testing.T) {
	server := liar{target: "/\x1b]0;title\a", entries: map[string][]os.FileInfo{
		"/w": {lie{name: "\x1b[2J\u202e", mode: fs.ModeSocket}, lie{name: "l\x1b[2J", mode: fs.ModeSymlink}, lie{name: "\x1b.git", mode: fs.ModeDir}, lie{name: "\x1b\x00", mode: 0o644}},
	}}
	var said []string
	err := server.connect(t).Copy(t.Context(), CopyOptions{
		Sources: []string{":/w"}, Destination: t.TempDir(), Recursive: true,
		Note: func(text string) { said = append(said, text) },
	})
	said = append(said, errors.Join(err).Error())
	if len(said) != 4 {
		t.Errorf("want three notes and an error, got %q", said)
	}
	for _, text := range said {
		if strings.ContainsAny(text, "\x1b\a\u202e\x00") {
			t.Errorf("%q reaches the terminal", text)
		}
	}
}
