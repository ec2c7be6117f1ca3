// Package labtest gives a test a lab of its own, which is taken down when the test ends. Several tests,
// also of several processes, may have labs at the same time.
package labtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/umbra-dr/umbra/pkg/lab"
)

var labs atomic.Int64

// Config returns the configuration of a lab for this test: a name and a folder that no other has, and a
// cache that all tests of the checkout share.
func Config(t testing.TB) lab.Config {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	// The test's own temporary folder is for root only, and its long name leaves no room for a socket's.
	dir, err := os.MkdirTemp("", "umbra-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return lab.Config{
		Name:     fmt.Sprintf("t%s%d", strconv.FormatInt(int64(os.Getpid()), 36), labs.Add(1)),
		Dir:      filepath.Join(dir, "lab"),
		CacheDir: filepath.Join(root, "build", "lab-cache"),
	}
}

// Up brings a lab up and takes it down when the test ends. Where a lab cannot run the test fails and
// says what is missing; a test that must not need one does not call this.
func Up(t testing.TB, config lab.Config) *lab.Lab {
	t.Helper()
	l, err := lab.Up(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// moduleRoot is the folder of the go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = parent
	}
}
