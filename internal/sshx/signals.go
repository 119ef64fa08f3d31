package sshx

import (
	"os"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// signalTable has the signals that RFC 4254, section 6.10, names.
func signalTable() map[ssh.Signal]syscall.Signal {
	return map[ssh.Signal]syscall.Signal{
		ssh.SIGABRT: syscall.SIGABRT,
		ssh.SIGALRM: syscall.SIGALRM,
		ssh.SIGFPE:  syscall.SIGFPE,
		ssh.SIGHUP:  syscall.SIGHUP,
		ssh.SIGILL:  syscall.SIGILL,
		ssh.SIGINT:  syscall.SIGINT,
		ssh.SIGKILL: syscall.SIGKILL,
		ssh.SIGPIPE: syscall.SIGPIPE,
		ssh.SIGQUIT: syscall.SIGQUIT,
		ssh.SIGSEGV: syscall.SIGSEGV,
		ssh.SIGTERM: syscall.SIGTERM,
	}
}

func signalName(s os.Signal) (ssh.Signal, bool) {
	for name, number := range signalTable() {
		if number == s {
			return name, true
		}
	}
	return "", false
}

// signalNumber is 0 for a name that is not in the table; a command that died
// of something odd still does not look successful.
func signalNumber(name string) int {
	return int(signalTable()[ssh.Signal(name)])
}
