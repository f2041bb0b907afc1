package parts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// childPoll is how often a starting server is looked at.
	childPoll = 10 * time.Millisecond
	// childAnswer bounds one look.
	childAnswer = time.Second
	// childPorts is how many sets of ports are tried: another program may take a free one before the server does.
	childPorts = 5
)

// child is one life of a server that is a single process. The log gets its output.
type child struct {
	cmd    *exec.Cmd
	log    string
	from   int64         // where its output begins in log
	exited chan struct{} // closed when the process was waited for
}

// startChild starts a program with its output appended to the file log.
func startChild(program, log string, args ...string) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	before, err := out.Stat()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(program, args...), log: log, from: before.Size(), exited: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	c.cmd.SysProcAttr = serverAttr(nil)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // how it ended is in its log
		close(c.exited)
	}()
	return c, nil
}

// until waits until ready returns nil. The error says what the child has said when it ended before.
func (c *child) until(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(childPoll)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("the server ended: %s\n%s", c.cmd.ProcessState, readFrom(c.log, c.from))
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// kill ends the process at once, as kill -9 does, and returns when it is gone.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.exited
	return nil
}

func (c *child) signal(sig syscall.Signal) error { return c.cmd.Process.Signal(sig) }

// lookClient asks starting servers; each question has a connection of its own.
var lookClient = &http.Client{Timeout: childAnswer, Transport: &http.Transport{DisableKeepAlives: true}}
