package sshserver

import (
	"context"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

// direct connects a channel to the agent's SSH server.
//
// Invariant: the destination is compared with the one address this server
// knows, and that one is dialled, never what the client sent (TestDirect).
func (s *Server) direct(ctx context.Context, request ssh.NewChannel) {
	var want struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(request.ExtraData(), &want); err != nil {
		reject(request, ssh.ConnectionFailed, "malformed request")
		return
	}
	if want.Host != s.agentHost || want.Port != s.agentPort {
		reject(request, ssh.Prohibited, "only the agent's SSH port is reached through the firewall")
		return
	}
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	upstream, err := s.opts.Dial(dialing, "tcp", s.opts.Agent)
	if err != nil {
		s.opts.Log.Info("dialing the agent", "err", err)
		reject(request, ssh.ConnectionFailed, "the agent's SSH server does not answer")
		return
	}
	defer upstream.Close()
	channel, requests, err := request.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	go ssh.DiscardRequests(requests)
	defer context.AfterFunc(ctx, func() { upstream.Close(); channel.Close() })()

	// Each direction ends on its own, so that a half-closed connection keeps
	// carrying what the other side still sends.
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.Copy(channel, upstream)
		if err == nil {
			err = channel.CloseWrite()
		}
		if err != nil {
			channel.Close()
		}
	})
	_, err = io.Copy(upstream, channel)
	if half, ok := upstream.(interface{ CloseWrite() error }); ok && err == nil {
		err = half.CloseWrite()
	}
	if err != nil {
		upstream.Close()
	}
	wg.Wait()
}

// session runs one command of the fixed set. Requests for a terminal, an
// environment, a shell, a subsystem or agent forwarding are refused.
func (s *Server) session(ctx context.Context, request ssh.NewChannel) {
	channel, requests, err := request.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var line string
	started := false
	for r := range requests {
		var exec struct{ Line string }
		if r.Type == "exec" && ssh.Unmarshal(r.Payload, &exec) == nil {
			line, started = exec.Line, true
			answer(r, true)
			break
		}
		answer(r, false)
		if r.Type == "shell" || r.Type == "subsystem" {
			io.WriteString(channel.Stderr(), "rootcell firewall: no shell here; use `rootcell` on the host\r\n")
			exit(channel, 1)
			return
		}
	}
	if !started {
		return
	}
	go func() {
		// The channel's requests end when the client closes it.
		for r := range requests {
			answer(r, false)
		}
		cancel()
	}()
	status := s.opts.Run(ctx, line, channel, channel, channel.Stderr())
	exit(channel, status)
}

func answer(r *ssh.Request, ok bool) {
	if r.WantReply {
		// An error means that the connection is gone.
		_ = r.Reply(ok, nil)
	}
}

func exit(channel ssh.Channel, status int) {
	_ = channel.CloseWrite()
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
}
