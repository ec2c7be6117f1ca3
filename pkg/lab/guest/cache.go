package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Cache holds what every guest has in common. Open it with OpenCache, and Close it.
type Cache struct {
	dir  string
	lock *os.File
}

// lockPoll is how often a cache that another process fills is tried; the kernel's lock knows no deadline.
const lockPoll = 20 * time.Millisecond

// OpenCache waits, as long as ctx allows, until no other process fills the cache in dir, which is made if
// it is missing.
func OpenCache(ctx context.Context, dir string) (*Cache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the cache: %w", err)
	}
	if err := waitLock(ctx, lock); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the cache %s: %w", dir, err), lock.Close())
	}
	return &Cache{dir: dir, lock: lock}, nil
}

func waitLock(ctx context.Context, lock *os.File) error {
	beat := time.NewTicker(lockPoll)
	defer beat.Stop()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
		}
	}
}

// Close lets other processes at the cache.
func (c *Cache) Close() error { return c.lock.Close() }

// Boot is a finished boot partition.
type Boot struct {
	Partition string // file that holds the FAT file system
	Bytes     int64
	Key       string // changes with whatever it was made from
}

// Boot returns the boot partition whose guest runs the program initBinary, making it unless the cache
// has it. The first time it downloads the kernel's package from the configured Debian mirror.
func (c *Cache) Boot(ctx context.Context, initBinary string) (Boot, error) {
	kernel, err := c.kernel(ctx)
	if err != nil {
		return Boot{}, err
	}
	sum, err := digest(initBinary)
	if err != nil {
		return Boot{}, err
	}
	hash := sha256.New()
	// Hashing into memory cannot fail.
	_, _ = fmt.Fprintln(hash, kernel.release, sum, modules, bootBytes, fixedCommandLine)
	key := hex.EncodeToString(hash.Sum(nil))[:16]
	boot := Boot{Partition: filepath.Join(c.dir, "boot-"+key+".img"), Bytes: bootBytes, Key: key}
	if _, err := os.Stat(boot.Partition); err == nil {
		return boot, nil
	}
	return boot, c.makeBoot(ctx, kernel, initBinary, boot.Partition)
}

// BuildInit compiles the guest's program into the cache and returns its path. It needs the Go toolchain
// and a working directory inside this module.
func (c *Cache) BuildInit(ctx context.Context) (string, error) {
	path := filepath.Join(c.dir, "init")
	err := build(ctx, path, "github.com/umbra-dr/umbra/pkg/lab/guest/init")
	if err != nil {
		return "", fmt.Errorf("build the guest's program: %w", err)
	}
	return path, nil
}

func digest(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
