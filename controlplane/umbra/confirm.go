package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
)

// confirm asks for the name of what cannot be had back, unless yes was said on the command line.
func (c *client) confirm(yes bool, name, lost string) error {
	if yes {
		return nil
	}
	c.say("%s: %s", name, lost)
	if !c.asks {
		return usageError{"this cannot be undone, and there is nobody to ask: give --yes"}
	}
	_, _ = fmt.Fprintf(c.err, "Type %q to go on: ", name)
	typed := make(chan string, 1)
	go func() { // ends with the process if it is interrupted here: a read from a terminal cannot be
		line, _ := bufio.NewReader(c.in).ReadString('\n') // what was typed before an error counts
		typed <- strings.TrimSpace(line)
	}()
	select {
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case answer := <-typed:
		if answer != name {
			return usageError{"not confirmed; nothing was done"}
		}
		return nil
	}
}
