package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSet(t *testing.T) {
	tests := map[string]struct {
		text  string
		key   string
		value any
		want  string
	}{
		"a value is replaced and its comment kept": {
			"# mine\nschema = 1\nprovider  =  'lima' # because\n", "provider", "qemu",
			"# mine\nschema = 1\nprovider  =  \"qemu\" # because\n",
		},
		"the same value changes nothing": {
			"schema=1\nprovider='qemu'", "provider", "qemu", "schema=1\nprovider='qemu'",
		},
		"an array over several lines is replaced": {
			"schema = 1\n[guest]\nharness = [ # two\n  \"pi\",\n]\nuser = \"me\"\n", "guest.harness", []string{"claude", "pi"},
			"schema = 1\n[guest]\nharness = [\"claude\", \"pi\"]\nuser = \"me\"\n",
		},
		"a key is added below its comment": {
			"schema = 1\n# which?\n# provider = \"auto\"\n\n# sizes\n[agent]\n", "provider", "qemu",
			"schema = 1\n# which?\n# provider = \"auto\"\nprovider = \"qemu\"\n\n# sizes\n[agent]\n",
		},
		"a key is added at the end of its table": {
			"schema = 1\n[agent]\ncpus = 1 # one\n# more about the firewall\n[firewall]\ncpus = 1\n", "agent.memory", "4GiB",
			"schema = 1\n[agent]\ncpus = 1 # one\nmemory = \"4GiB\"\n# more about the firewall\n[firewall]\ncpus = 1\n",
		},
		"a key is added to an empty table": {
			"schema = 1\n[agent]\n[firewall]\n", "agent.cpus", 4,
			"schema = 1\n[agent]\ncpus = 4\n[firewall]\n",
		},
		"a comment of another table is not taken": {
			"schema = 1\n[agent]\n[firewall]\n# cpus = 1\n", "agent.cpus", 4,
			"schema = 1\n[agent]\ncpus = 4\n[firewall]\n# cpus = 1\n",
		},
		"a missing table is appended": {
			"schema = 1", "spy.enabled", true, "schema = 1\n\n[spy]\nenabled = true\n",
		},
		"a file without a last line end": {
			"schema = 1", "provider", "qemu", "schema = 1\nprovider = \"qemu\"\n",
		},
		"line ends of other systems stay": {
			"schema = 1\r\n[aws]\r\nprofile = \"a\"\r\n", "aws.region", "us-west-2",
			"schema = 1\r\n[aws]\r\nprofile = \"a\"\r\nregion = \"us-west-2\"\r\n",
		},
		"a value in an inline table": {
			"schema = 1\nagent = { cpus = 1, memory = \"1GiB\" }\n", "agent.cpus", 2,
			"schema = 1\nagent = { cpus = 2, memory = \"1GiB\" }\n",
		},
		"quotes and backslashes": {
			"schema = 1\n", "lima.limactl", `/a "b"\c`,
			"schema = 1\n\n[lima]\nlimactl = \"/a \\\"b\\\"\\\\c\"\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Set([]byte(test.text), test.key, test.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("unexpected text (-want +got):\n%s", diff)
			}
			again, err := Set(got, test.key, test.value)
			if err != nil || string(again) != string(got) {
				t.Errorf("setting it again: %v, changed: %v", err, string(again) != string(got))
			}
		})
	}
}

func TestSetEveryKeyInTheSeed(t *testing.T) {
	text := Seed()
	defaults := Default()
	for _, k := range keys() {
		value := k.get(&defaults)
		var err error
		if text, err = Set(text, k.path, value); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(Sources{Instance: write(t, "rootcell.toml", string(text))})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys() {
		if got.Origin(k.path).Source != Instance {
			t.Errorf("%s was not set", k.path)
		}
	}
	kept := strings.ReplaceAll(string(text), "\n# ", "\n")
	for _, line := range strings.Split(strings.ReplaceAll(string(Seed()), "\n# ", "\n"), "\n") {
		if !strings.Contains(kept, line) {
			t.Errorf("the line %q is lost", line)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	tests := map[string]struct {
		text, key string
		value     any
		want      string
	}{
		"a bad value":          {"schema = 1\n", "provider", "docker", `setting provider: "docker" is not known here; write "auto"*`},
		"an unknown key":       {"schema = 1\n", "providr", "qemu", `setting providr: did you mean "provider"?`},
		"a broken file":        {"schema = \n", "provider", "qemu", `rootcell.toml:1:10: *`},
		"a new key in one row": {"schema = 1\nagent = { cpus = 1 }\n", "agent.memory", "1GiB", `setting agent.memory: the file has an unusual shape; write agent.memory = "1GiB" into it by hand`},
		"a table for a value":  {"schema = 1\n[provider]\n", "provider", "qemu", `setting provider: the file has an unusual shape; *`},
		"a dotted table":       {"schema = 1\nagent.cpus = 1\n", "agent.memory", "1GiB", `setting agent.memory: the file has an unusual shape; *`},
		"a line break":         {"schema = 1\n", "lima.limactl", "a\nprovider = \"x\"", `setting lima.limactl: * has a control character; remove it`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Set([]byte(test.text), test.key, test.value)
			compareProblems(t, []string{test.want}, err)
		})
	}
}

func FuzzSet(f *testing.F) {
	f.Add(annotated, "policy.deny_style", "reset")
	f.Add("schema = 1\n[a]\n# provider = 1\n", "provider", "qemu")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		got, err := Set([]byte(text), key, value)
		if err != nil {
			return
		}
		doc, problem := parse("x", got)
		if problem != nil {
			t.Fatal(problem)
		}
		if lookup(doc.values, key) != any(value) {
			t.Errorf("%s is %v, want %q", key, lookup(doc.values, key), value)
		}
	})
}
