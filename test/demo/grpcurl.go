package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// call calls a method with grpcurl as a person would, shows the command, and reads the answer.
func (d *demo) call(ctx context.Context, method string, request, response proto.Message) error {
	return d.stream(ctx, method, request, func(message json.RawMessage) (bool, error) {
		return true, protojson.Unmarshal(message, response)
	})
}

// stream calls a method that answers with a stream, until each returns false or the stream ends.
func (d *demo) stream(ctx context.Context, method string, request proto.Message, each func(json.RawMessage) (more bool, err error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	data, err := protojson.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding the request of %s: %w", method, err)
	}
	args := []string{"-plaintext", "-unix", "-d", string(data), d.scape.Socket, method}
	fmt.Printf("\033[36m$ %s -plaintext -unix -d '%s' %s %s\033[0m\n", filepath.Base(d.grpcurl), data, d.scape.Socket, method)
	command := exec.CommandContext(ctx, d.grpcurl, args...)
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		return fmt.Errorf("calling %s: %w", method, err)
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("calling %s: %w", method, err)
	}
	decoder := json.NewDecoder(out)
	for more := true; more; {
		var message json.RawMessage
		err := decoder.Decode(&message)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(fmt.Errorf("reading the answer of %s: %w", method, err), command.Wait())
		}
		if more, err = each(message); err != nil {
			return errors.Join(fmt.Errorf("reading the answer of %s: %w", method, err))
		}
		if !more {
			cancel()
			_ = command.Wait() // ended by us
			return nil
		}
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("calling %s: %w", method, err)
	}
	return nil
}
