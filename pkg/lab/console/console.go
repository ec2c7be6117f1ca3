// Package console follows what a guest writes to its serial console, which the lab keeps in a file.
//
// A Console has a place in the log, from which it reads on; it is used by one goroutine at a time, and
// any number of them may follow one file. The kernel wakes a waiting reader; nothing polls.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// pendingBytesMax bounds what is held of a log in which the awaited text does not come.
const pendingBytesMax = 64 << 20

// Console reads one log, which need not exist yet; its folder must.
type Console struct {
	path    string
	offset  int64  // of the first byte that was not read
	pending []byte // read, but not yet matched
}

// Open begins at the beginning of the log.
func Open(path string) *Console { return &Console{path: path} }

// Path is the file of the log.
func (c *Console) Path() string { return c.path }

// SkipToEnd passes over what is there already.
func (c *Console) SkipToEnd() error {
	info, err := os.Stat(c.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("skip to the end of the console: %w", err)
	}
	c.offset, c.pending = info.Size(), nil
	return nil
}

// Wait returns the next match of pattern and of its groups, and goes on after it the next time. When
// the context ends first, the error holds the last lines that came.
func (c *Console) Wait(ctx context.Context, pattern *regexp.Regexp) ([]string, error) {
	events, err := watch(filepath.Dir(c.path))
	if err != nil {
		return nil, fmt.Errorf("follow the console %s: %w", c.path, err)
	}
	defer func() { _ = events.Close() }() // nothing is written to it
	stop := context.AfterFunc(ctx, func() {
		// It fails only on a closed file, and then nobody waits.
		_ = events.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	buffer := make([]byte, 16<<10)
	for {
		if err := c.read(); err != nil {
			return nil, fmt.Errorf("follow the console %s: %w", c.path, err)
		}
		if at := pattern.FindSubmatchIndex(c.pending); at != nil {
			return c.take(at), nil
		}
		if _, err := events.Read(buffer); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return nil, fmt.Errorf("wait for %q on the console %s: %w; the end of what came: %q", pattern, c.path, err, tail(c.pending))
		}
	}
}

// Follow copies the log, from where the Console stands, to out until the context ends.
func (c *Console) Follow(ctx context.Context, out io.Writer) error {
	for {
		got, err := c.Wait(ctx, anything)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, got[0]); err != nil {
			return fmt.Errorf("show the console: %w", err)
		}
	}
}

var anything = regexp.MustCompile(`(?s).+`)

// Ledger reads the log from its beginning, wherever the Console stands, and returns what it says about
// the guest's ledger. A log that does not exist says nothing.
func (c *Console) Ledger() (ledger.Console, error) {
	log, err := os.ReadFile(c.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return ledger.Console{}, fmt.Errorf("read the console: %w", err)
	}
	return ledger.ReadConsole(string(log)), nil
}

// take returns the groups of a match and drops the log up to its end.
func (c *Console) take(at []int) []string {
	groups := make([]string, len(at)/2)
	for i := range groups {
		if at[2*i] >= 0 {
			groups[i] = string(c.pending[at[2*i]:at[2*i+1]])
		}
	}
	c.pending = c.pending[at[1]:]
	return groups
}

// read takes in what the log has beyond the offset. A log that became shorter was begun anew.
func (c *Console) read() error {
	file, err := os.Open(c.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // read only
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < c.offset {
		c.offset, c.pending = 0, nil
	}
	if info.Size()-c.offset+int64(len(c.pending)) > pendingBytesMax {
		return fmt.Errorf("more than %d bytes without the text that is waited for", pendingBytesMax)
	}
	fresh := make([]byte, info.Size()-c.offset)
	n, err := file.ReadAt(fresh, c.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	c.offset += int64(n)
	c.pending = append(c.pending, fresh[:n]...)
	return nil
}

// watch returns a descriptor that becomes readable when a file in dir is made or written.
func watch(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MODIFY|unix.IN_MOVED_TO); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", dir, err), events.Close())
	}
	return events, nil
}

func tail(log []byte) string {
	const shown = 600
	return string(log[max(0, len(log)-shown):])
}
