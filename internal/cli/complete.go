package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/rootcell-ai/rootcell/internal/cell"
)

// completeCmd is what the completion scripts call: it prints the candidates
// for the last of the words that follow "rootcell" on the command line. It
// reads names of instances and creates nothing.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

func (c *completeCmd) Run(a *app) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, candidate := range candidates(a.model, words, a.instanceNames) {
		fmt.Fprintln(a.Stdout, candidate)
	}
	return nil
}

// instanceNames lists instances for completion; a state root that cannot be
// read has none.
func (a *app) instanceNames() []string {
	root, err := cell.FindRoot(a.getenv, a.WorkDir)
	if err != nil {
		return nil
	}
	names, err := root.Instances()
	if err != nil {
		return nil
	}
	return names
}

// candidates completes the last of words from the command model.
func candidates(node *kong.Node, words []string, instances func() []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	positionals := 0
	for i := 0; i < len(words)-1; i++ {
		word := words[i]
		switch {
		case word == "--":
			return nil // what follows is a command of the agent
		case strings.HasPrefix(word, "-") && word != "-":
			if !takesNext(node, word) {
				continue
			}
			if i == len(words)-2 {
				return matching(flagValues(flagOf(node, word), instances), last, "")
			}
			i++
		case child(node, word) != nil:
			node, positionals = child(node, word), 0
		case len(node.Children) > 0:
			return nil // no such command
		default:
			if positionals < len(node.Positional) && node.Positional[positionals].Passthrough {
				return nil
			}
			positionals++
		}
	}
	if name, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(name, "--") {
		return matching(flagValues(flagOf(node, name), instances), value, name+"=")
	}
	if strings.HasPrefix(last, "-") {
		return matching(flagNames(node), last, "")
	}
	if len(node.Children) > 0 {
		return matching(visible(node), last, "")
	}
	if positionals >= len(node.Positional) && len(node.Positional) > 0 {
		positionals = len(node.Positional) - 1
		if !node.Positional[positionals].IsCumulative() {
			return nil
		}
	}
	if positionals < len(node.Positional) {
		return matching(values(node.Positional[positionals], instances), last, "")
	}
	return nil
}

func flagOf(node *kong.Node, word string) *kong.Flag {
	if name, ok := strings.CutPrefix(word, "--"); ok {
		return flag(node, func(f *kong.Flag) bool { return f.Name == name })
	}
	short := []rune(word)
	return flag(node, func(f *kong.Flag) bool { return f.Short == short[len(short)-1] })
}

func flagNames(node *kong.Node) []string {
	var names []string
	for ; node != nil; node = node.Parent {
		for _, f := range node.Flags {
			if !f.Hidden {
				names = append(names, "--"+f.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func flagValues(f *kong.Flag, instances func() []string) []string {
	if f == nil {
		return nil
	}
	return values(f.Value, instances)
}

// values are what a flag or argument may be: its enumeration, or what its
// `complete` tag names.
func values(v *kong.Value, instances func() []string) []string {
	if v.Enum != "" {
		return slices.DeleteFunc(v.EnumSlice(), func(s string) bool { return s == "" })
	}
	if v.Tag.Get("complete") == "instance" {
		return instances()
	}
	return nil
}

func matching(all []string, prefix, before string) []string {
	var found []string
	for _, s := range all {
		if strings.HasPrefix(s, prefix) {
			found = append(found, before+s)
		}
	}
	return found
}

// completionCmd prints a script that asks `rootcell __complete`.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (c *completionCmd) Run(a *app) error {
	_, err := io.WriteString(a.Stdout, completionScripts[c.Shell])
	return err
}

// Where no candidate fits, shells fall back to file names, which is what the
// remaining arguments (cp, policy test) are.
var completionScripts = map[string]string{
	"bash": `# rootcell completion for bash: source <(rootcell completion bash)
_rootcell() {
	local IFS=$'\n' word
	local -a words=()
	# bash splits --flag=value into three words: join the first two to what
	# the flag takes, so that the value alone is completed.
	for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
		[[ $word == = ]] || words+=("$word")
	done
	[[ ${COMP_WORDS[COMP_CWORD]} == = ]] && words+=("")
	COMPREPLY=($(rootcell __complete -- "${words[@]}" 2>/dev/null))
}
complete -o default -F _rootcell rootcell
`,
	"zsh": `#compdef rootcell
# rootcell completion for zsh: source <(rootcell completion zsh)
_rootcell() {
	local -a found
	found=("${(@f)$(rootcell __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	found=("${(@)found:#}")
	if (( ${#found} )); then
		compadd -a found
	else
		_files
	fi
}
compdef _rootcell rootcell
`,
	"fish": `# rootcell completion for fish: rootcell completion fish | source
function __rootcell_complete
	set -l words (commandline -opc) (commandline -ct)
	rootcell __complete -- $words[2..-1] 2>/dev/null
end
complete -c rootcell -a '(__rootcell_complete)'
`,
}
