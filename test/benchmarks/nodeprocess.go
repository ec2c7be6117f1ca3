package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/umbra-dr/umbra/pkg/lab"
)

// nodeProcess is a running node.
type nodeProcess struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
}

// startNode starts a node of a build of this command on a host and returns when it is ready.
func startNode(ctx context.Context, build string, on *lab.Host, args ...string) (n *nodeProcess, err error) {
	n = &nodeProcess{command: on.Command(ctx, build, append([]string{"node"}, args...)...)}
	n.command.Stderr = io.Discard
	if path := os.Getenv("UMBRA_NODE_LOG"); path != "" {
		log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		defer func() { _ = log.Close() }() // the node has its own descriptor
		n.command.Stderr = log
	}
	if n.in, err = n.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := n.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	n.out = bufio.NewScanner(out)
	if err := n.command.Start(); err != nil {
		return nil, fmt.Errorf("start a node: %w", err)
	}
	if err := n.expect("ready"); err != nil {
		return nil, errors.Join(err, n.end())
	}
	return n, nil
}

// expect waits for a line that the node says next.
func (n *nodeProcess) expect(line string) error {
	if !n.out.Scan() || n.out.Text() != line {
		return fmt.Errorf("a node said %q where %q was due: %w", n.out.Text(), line, errors.Join(n.out.Err(), io.ErrUnexpectedEOF))
	}
	return nil
}

// begin tells a main node to begin.
func (n *nodeProcess) begin() error {
	_, err := io.WriteString(n.in, "go\n")
	return err
}

// end ends the node in order.
func (n *nodeProcess) end() error {
	return errors.Join(n.in.Close(), n.command.Wait())
}

// processorSeconds is what the node has used of the processors. It must have ended.
func (n *nodeProcess) processorSeconds() float64 {
	return (n.command.ProcessState.UserTime() + n.command.ProcessState.SystemTime()).Seconds()
}
