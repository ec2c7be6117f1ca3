package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/diskspace"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// How often a settled pair is looked at, and how long each step of work may take.
const (
	beatInterval      = 10 * time.Second
	readinessInterval = 30 * time.Second
	retryMin          = time.Second
	retryMax          = 30 * time.Second

	callTimeout    = time.Minute // one call of the hypervisor
	applyTimeout   = time.Minute
	prepareTimeout = 5 * time.Minute
	defineTimeout  = time.Minute
	startTimeout   = 2 * time.Minute
	stopTimeout    = 2 * time.Minute
	restoreTimeout = 3 * time.Minute
	deleteTimeout  = 15 * time.Minute

	// DefaultScanBeforeBoot is how long a point is read back before its server is started.
	DefaultScanBeforeBoot = 2 * time.Second

	// DefaultFreeBytesMin is what must be free where stores and servers are, to be ready for a failover: a
	// server's writes since its boot go there.
	DefaultFreeBytesMin = 1 << 30
	// DefaultCopyCostMax is the share of a disk's time that a commit takes from a server at work.
	DefaultCopyCostMax = 0.1
)

// Config is what the role needs. Everything without a default is required.
type Config struct {
	StoreDir   string // where the recovery-point stores are
	ServersDir string // where the disks of shadow servers are made; absolute, not inside StoreDir
	Replica    Replica
	Target     hypervisor.Target
	Journal    *journal.Journal
	Clock      clock.Clock
	Log        *slog.Logger
	// Tracer gets spans of the steps. Default: none.
	Tracer trace.Tracer
	// Report gets every report; the latest of a pair is all that counts. It must not block.
	Report func(*umbrav1.AssignmentReport)

	// FreeBytesMin defaults to DefaultFreeBytesMin.
	FreeBytesMin int64
	// ScanBeforeBoot bounds the reading back of a point before its server is started; the rest is read while the
	// server is verified. It is time added to a failover. Default: DefaultScanBeforeBoot; negative: none.
	ScanBeforeBoot time.Duration
	// CopyCostMax is the share of the disk's time that a commit's copy may take while the server is at work. 1: the server is not
	// spared. Default: DefaultCopyCostMax.
	CopyCostMax float64
	// FreeBytes is the space that is free in the file system of a folder. Default: what the system says.
	FreeBytes func(dir string) (int64, error)
	// LinkExists tells whether the host has a network device of that name. Default: what the system says.
	LinkExists func(name string) bool
	// Dial tries a TCP connection for the policy's probe. Default: the network.
	Dial func(ctx context.Context, address string) error

	faults func(place string) error // a test's crash between two effects
}

func (c Config) withDefaults() (Config, error) {
	if c.Replica == nil || c.Target == nil || c.Journal == nil || c.Clock == nil || c.Log == nil || c.Report == nil {
		return c, errors.New("the shadow role needs a replica, a target, a journal, a clock, a log and a report function")
	}
	if !filepath.IsAbs(c.StoreDir) || !filepath.IsAbs(c.ServersDir) {
		return c, fmt.Errorf("the folders of stores (%q) and servers (%q) must be absolute", c.StoreDir, c.ServersDir)
	}
	c.StoreDir, c.ServersDir = filepath.Clean(c.StoreDir), filepath.Clean(c.ServersDir)
	if within(c.StoreDir, c.ServersDir) {
		return c, fmt.Errorf("the servers' folder %s lies inside the stores' folder %s: deleting a store would take a committed server's disks",
			c.ServersDir, c.StoreDir)
	}
	if c.Tracer == nil {
		c.Tracer = tracing.Off()
	}
	if c.FreeBytesMin == 0 {
		c.FreeBytesMin = DefaultFreeBytesMin
	}
	if c.ScanBeforeBoot == 0 {
		c.ScanBeforeBoot = DefaultScanBeforeBoot
	}
	if c.CopyCostMax == 0 {
		c.CopyCostMax = DefaultCopyCostMax
	}
	if c.FreeBytes == nil {
		c.FreeBytes = diskspace.Free
	}
	if c.LinkExists == nil {
		c.LinkExists = linkExists
	}
	if c.Dial == nil {
		c.Dial = dialTCP
	}
	if c.faults == nil {
		c.faults = func(string) error { return nil }
	}
	return c, nil
}

// within tells whether path is dir or lies inside it. Both are clean.
func within(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func linkExists(name string) bool {
	if name == "" || name != filepath.Base(name) {
		return false
	}
	return fileExists(filepath.Join("/sys/class/net", name))
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func dialTCP(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
