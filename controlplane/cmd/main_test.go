package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// asCommand in the environment makes this binary the command itself, with the arguments that it holds, one a line: a
// process that a test can kill.
const asCommand = "UMBRA_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if arguments := os.Getenv(asCommand); arguments != "" {
		os.Args = append(os.Args[:1], strings.Split(arguments, "\n")...)
		main()
		return
	}
	if member := os.Getenv(asMember); member != "" {
		if err := serveMember(member); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
