package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/umbra-dr/umbra/pkg/lab"
)

const (
	syncServer = "sync"
	syncBytes  = 4 * gib
	syncQuick  = gib
)

// syncSize is how large the disk of a full sync is.
func (b *bench) syncSize() int64 {
	if b.quick {
		return syncQuick
	}
	return syncBytes
}

// syncDense is row 1: a disk full of noise.
func syncDense(ctx context.Context, b *bench) error {
	return plainSync(ctx, b, "full sync, plain", content{size: b.syncSize(), noise: []part{{0, b.syncSize()}}}, 1.0, 1.2)
}

// syncSparse is row 2: a quarter noise, in pieces of 8 MiB, a quarter zeros that were written, the rest holes.
func syncSparse(ctx context.Context, b *bench) error {
	c := content{size: b.syncSize()}
	for off := int64(0); off < b.syncSize(); off += 32 * mib {
		c.noise = append(c.noise, part{off, 8 * mib})
		c.zeroed = append(c.zeroed, part{off + 16*mib, 8 * mib})
	}
	return plainSync(ctx, b, "full sync, 25 % full, plain", c, 1.0, 1.5)
}

// plainSync compares a full sync without encryption with the tools that a user has, each to a file of the shadow host's.
func plainSync(ctx context.Context, b *bench, name string, c content, must, aim float64) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		if err := makeImage(ctx, disk(s.Main, syncServer), c); err != nil {
			return err
		}
		if err := s.startIdle(ctx, syncServer); err != nil {
			return err
		}
		if b.builds != "" {
			return s.compareBuilds(ctx)
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		sides := []side{s.nodeSide(ourSide, self)}
		for _, p := range copyTools {
			sides = append(sides, side{p.name, nil, func(ctx context.Context) (float64, error) { return s.peerSync(ctx, syncServer, c.size, p) }})
		}
		got, err := b.alternate(ctx, sides...)
		if err != nil {
			return err
		}
		best := got.bestPeer()
		b.faster(fmt.Sprintf("%s, %d GiB", name, c.size/gib), got[ourSide], got[best], best, must, aim)
		return nil
	})
}

// compareBuilds measures builds of this command in turn, for a look at a change before and after.
func (s *site) compareBuilds(ctx context.Context) error {
	var sides []side
	for _, one := range strings.Split(s.bench.builds, ",") {
		name, path, _ := strings.Cut(one, "=")
		sides = append(sides, s.nodeSide(name, path))
	}
	got, err := s.bench.alternate(ctx, sides...)
	if err != nil {
		return err
	}
	for _, one := range sides {
		f := figureOf(got[one.name])
		s.bench.note("%s: median %s s, %s", one.name, number(f.Median), f.spread())
	}
	return nil
}

func (s *site) nodeSide(name, build string) side {
	return side{name, nil, func(ctx context.Context) (float64, error) { return s.nodeSync(ctx, build) }}
}

// nodeSync measures from the assignment to the durable recovery point; the backup job begins and ends within it.
func (s *site) nodeSync(ctx context.Context, build string) (took float64, err error) {
	dirs := map[*lab.Host]string{s.Main: filepath.Join(s.Main.Dir, "node"), s.Shadow: filepath.Join(s.Shadow.Dir, "node")}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	uuid, err := s.Main.Virsh(ctx, "domuuid", syncServer)
	if err != nil {
		return 0, err
	}
	address := lab.ShadowAddress + ":7555"
	shadow, err := startNode(ctx, build, s.Shadow, "-role", "shadow", "-dir", dirs[s.Shadow], "-address", address, "-profile", os.Getenv("UMBRA_SHADOW_PROFILE"))
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, shadow.end())
		s.bench.note("the shadow node used %.1f s of processor time", shadow.processorSeconds())
	}()
	main, err := startNode(ctx, build, s.Main, "-role", "main", "-dir", dirs[s.Main], "-address", address, "-server", syncServer,
		"-uuid", strings.TrimSpace(uuid), "-profile", os.Getenv("UMBRA_MAIN_PROFILE"))
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, main.end(), s.dropCheckpoints(ctx, syncServer))
		s.bench.note("the main node used %.1f s of processor time", main.processorSeconds())
	}()
	return timed(func() error {
		if err := main.begin(); err != nil {
			return err
		}
		return shadow.expect("point")
	})
}

// dropCheckpoints removes what a node that was ended has left.
func (s *site) dropCheckpoints(ctx context.Context, server string) error {
	names, err := s.Main.Virsh(ctx, "checkpoint-list", server, "--name")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(names) {
		if _, err := s.Main.Virsh(ctx, "checkpoint-delete", server, name); err != nil {
			return err
		}
	}
	return nil
}

// peerSync measures one tool from its start to the end of the sync, with the export there already.
func (s *site) peerSync(ctx context.Context, server string, size int64, p copyTool) (took float64, err error) {
	if err := s.beginExport(ctx, server); err != nil {
		return 0, err
	}
	defer func() { _, ended := s.Main.Virsh(ctx, "domjobabort", server); err = errors.Join(err, ended) }()
	target := filepath.Join(s.Shadow.ImagesDir(), "copy.qcow2")
	if _, err := command(ctx, "qemu-img", "create", "-q", "-f", "qcow2", target, fmt.Sprint(size)); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(target)) }()
	return timed(func() error {
		args := p.command(fmt.Sprintf("nbd://%s:%d/vda", lab.MainAddress, exportPort), target)
		if _, err := finish(s.Shadow.Command(ctx, args[0], args[1:]...)); err != nil {
			return err
		}
		_, err := command(ctx, "sync", target)
		return err
	})
}
