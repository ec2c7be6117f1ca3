package main

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// asCommand in the environment makes this binary the command itself, with the arguments that it holds, one a line.
const asCommand = "UMBRA_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if arguments := os.Getenv(asCommand); arguments != "" {
		os.Args = append(os.Args[:1], strings.Split(arguments, "\n")...)
		main()
		return
	}
	goleak.VerifyTestMain(m)
}
