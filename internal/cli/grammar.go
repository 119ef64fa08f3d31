package cli

import "github.com/alecthomas/kong"

// globals are understood before and after the command; the last one given wins.
type globals struct {
	Instance string           `short:"i" placeholder:"NAME" complete:"instance" help:"The instance to work on (default: the selected one, else \"default\")."`
	JSON     bool             `help:"Print the answer as JSON with a schemaVersion."`
	NoColor  bool             `help:"Print without colours; so does NO_COLOR."`
	NoWait   bool             `help:"Fail instead of waiting while another command works on the instance."`
	Verbose  bool             `short:"v" help:"Print debug messages."`
	InitEnv  string           `placeholder:"PROVIDER" default:"" enum:",macos-lima,aws-ec2,linux-qemu" help:"The same as \"init\", by the provider names of the TypeScript rootcell: macos-lima, aws-ec2 or linux-qemu."`
	Version  kong.VersionFlag `help:"Print the version."`
}

// grammar is the whole command line. The order is that of the help text.
type grammar struct {
	globals

	Enter     enterCmd     `cmd:"" hidden:"" help:"Open a login shell in the agent."`
	Run       runCmd       `cmd:"" group:"cell" help:"Run a command in the agent; so does \"rootcell -- CMD\"."`
	Up        upCmd        `cmd:"" group:"cell" help:"Bring both machines to the configured state."`
	Provision provisionCmd `cmd:"" group:"cell" help:"Apply the system configuration again, even where it looks current."`
	Stop      stopCmd      `cmd:"" group:"cell" help:"Stop both machines."`
	Remove    removeCmd    `cmd:"" group:"cell" help:"Delete the machines; keep configuration, allowlists, CA and subnet."`
	Reset     resetCmd     `cmd:"" group:"cell" help:"Throw the agent's disk away and start it fresh."`

	Allow  allowCmd  `cmd:"" group:"policy" help:"Push the allowlists to the running firewall; with hosts, add them first."`
	Edit   editCmd   `cmd:"" group:"policy" help:"Open a file of the instance in your editor and check it."`
	Log    logCmd    `cmd:"" group:"policy" help:"Show the firewall's decisions, newest last."`
	Verify verifyCmd `cmd:"" group:"policy" help:"Probe the boundary from inside the agent and at the firewall."`
	Policy policyCmd `cmd:"" group:"policy" help:"Check, explain and test the allowlists."`

	List      listCmd      `cmd:"" group:"use" help:"List instances and the state of their machines."`
	Status    statusCmd    `cmd:"" group:"use" help:"Show the details of one instance."`
	Cp        cpCmd        `cmd:"" group:"use" help:"Copy files between host and agent; \":/path\" is in the agent."`
	Forward   forwardCmd   `cmd:"" group:"use" help:"Make ports of the agent reachable on 127.0.0.1."`
	Pubkey    pubkeyCmd    `cmd:"" group:"use" help:"Print the agent's own SSH public key."`
	SSHConfig sshConfigCmd `cmd:"" name:"ssh-config" group:"use" help:"Print an OpenSSH configuration that reaches both machines."`

	Init       initCmd       `cmd:"" group:"setup" help:"Create the instance's directory and configuration; start nothing."`
	Select     selectCmd     `cmd:"" group:"setup" help:"Make an instance the default for later commands."`
	Image      imageCmd      `cmd:"" group:"setup" help:"List, build and prune guest images."`
	Doctor     doctorCmd     `cmd:"" group:"setup" help:"Check tools, acceleration, disk and permissions of the host."`
	Completion completionCmd `cmd:"" group:"setup" help:"Print a completion script for a shell."`

	Complete completeCmd `cmd:"" name:"__complete" hidden:""`
	Dial     dialCmd     `cmd:"" name:"__dial" hidden:""`
}

var groups = []kong.Group{
	{Key: "cell", Title: "The cell:"},
	{Key: "policy", Title: "What it may reach:"},
	{Key: "use", Title: "Using it:"},
	{Key: "setup", Title: "Setting up:"},
}

const description = `Give a coding agent root in a disposable virtual machine, with one guarded way out.

Without a command, rootcell brings the cell up if needed and opens a login shell in
the agent; "rootcell -- CMD" runs CMD there.

Exit codes: 0 done, 1 failed, 2 usage or invalid configuration, 3 a policy test or
verify says no, 130 interrupted; commands in the agent return their own status, 255
when the connection broke.`
