package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// part is a range of a disk's content.
type part struct{ off, bytes int64 }

// content says what a disk holds: noise that no tool can compress, zeros that were written, and holes elsewhere.
type content struct {
	size   int64
	noise  []part
	zeroed []part
}

// makeImage makes a qcow2 image of that content, all of it on stable storage.
func makeImage(ctx context.Context, path string, c content) error {
	raw := path + ".raw"
	defer func() { _ = os.Remove(raw) }() // it is gone or of no use
	if err := writeNoise(raw, c); err != nil {
		return fmt.Errorf("make the content of %s: %w", path, err)
	}
	if _, err := command(ctx, "qemu-img", "convert", "-t", "none", "-T", "none", "-W", "-f", "raw", "-O", "qcow2", raw, path); err != nil {
		return err
	}
	for _, p := range c.zeroed {
		// Without -z these are written as data, and so allocated.
		if _, err := command(ctx, "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -P 0 %d %d", p.off, p.bytes), path); err != nil {
			return err
		}
	}
	_, err := command(ctx, "sync", path)
	return err
}

func writeNoise(path string, c content) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it is synced
	if err := file.Truncate(c.size); err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{1})
	for _, p := range c.noise {
		if _, err := io.CopyBuffer(io.NewOffsetWriter(file, p.off), io.LimitReader(noise, p.bytes), make([]byte, mib)); err != nil {
			return err
		}
	}
	return file.Sync()
}

// command runs a tool of this machine and returns what it said.
func command(ctx context.Context, name string, args ...string) (string, error) {
	return finish(exec.CommandContext(ctx, name, args...))
}

// finish runs a prepared command; the error holds what it said.
func finish(c *exec.Cmd) (string, error) {
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
