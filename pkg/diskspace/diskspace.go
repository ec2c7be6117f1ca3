// Package diskspace tells how much room there is where files are kept.
package diskspace

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Of is the size of the file system that a folder or file lies in, and what is free of it for those who are not root, both in
// bytes. It may be called concurrently.
func Of(path string) (total, free int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, 0, fmt.Errorf("looking at the space of %s: %w", path, err)
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize, nil //nolint:gosec // a file system has less than 8 EiB
}

// Free is what is free of it alone.
func Free(path string) (int64, error) {
	_, free, err := Of(path)
	return free, err
}
