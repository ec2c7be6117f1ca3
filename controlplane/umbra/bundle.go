package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type bundleCommand struct {
	Pair string `arg:"" help:"The pair."`
	Out  string `help:"The file; without it, PAIR-support.tar.gz here." placeholder:"FILE"`
}

// Help is shown by --help.
func (bundleCommand) Help() string {
	return "No disk bytes and no secrets are in it.\n\nExamples:\n  umbra support-bundle web"
}

// Run fetches a support bundle.
func (b bundleCommand) Run(c *client) (err error) {
	stream, err := c.failover.GetSupportBundle(c.ctx, &umbrav1.GetSupportBundleRequest{Name: pairName(b.Pair)})
	if err != nil {
		return err
	}
	part, err := stream.Recv() // a refusal leaves no file
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	name := b.Out
	if name == "" {
		name = short(b.Pair) + "-support.tar.gz"
	}
	file, createErr := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if createErr != nil {
		return fmt.Errorf("writing the support bundle: %w", createErr)
	}
	for ; err == nil; part, err = stream.Recv() {
		if _, err := file.Write(part.GetChunk()); err != nil {
			return errors.Join(fmt.Errorf("writing the support bundle: %w", err), file.Close())
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	c.say("%s", name)
	return nil
}
