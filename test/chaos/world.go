package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/test/landscape"
)

const (
	pairID   = "web"
	pairName = "drPairs/" + pairID
	guest    = "web"
)

// world is everything that a cycle may look at.
type world struct {
	*landscape.Landscape
	cfg   Config
	began time.Time
	tally *Tally

	unbounded bool // the stores' file systems are the computer's own

	announced *landscape.Announcements // what the main server has flushed, and when that was seen
	stop      func()                   // ends the following of its console

	now     Cycle
	act     act
	mended  chan struct{} // closed when the cycle's fault is over
	booting *booting
	booted  *umbrav1.RecoveryPoint // what the shadow server was booted from last
	history history
	grown   int64 // MiB by which the second disk was made larger
}

// guestSpec is two small disks, so that every point is of one moment of both, and a cycle is over in seconds.
func guestSpec() lab.GuestSpec {
	return lab.GuestSpec{Name: guest, DiskBytes: []int64{48 << 20, 16 << 20}, RecordsPerSecond: 10}
}

// startTimeout bounds the boot of a guest, also on a machine that has other things to do.
const startTimeout = 3 * time.Minute

// newWorld brings up a landscape whose names are this process's alone, with a guest that runs.
func newWorld(ctx context.Context, cfg Config) (w *world, err error) {
	w = &world{cfg: cfg, began: time.Now(), stop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.down(context.WithoutCancel(ctx), false))
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return w, fmt.Errorf("making the folder of the run: %w", err)
	}
	for _, name := range []string{landscape.MainHost, landscape.ShadowHost} {
		if err := mountSmall(ctx, filepath.Join(cfg.Dir, name+"-store")); err != nil {
			w.note("without file systems of their own for the stores, none can be filled: %v", err)
			w.unbounded = true
		}
	}
	w.Landscape, err = landscape.Up(ctx, landscape.Config{
		Name: "c" + strconv.FormatInt(int64(os.Getpid()), 36), Dir: filepath.Join(cfg.Dir, "lab"),
		CacheDir: cfg.CacheDir, Binaries: cfg.Binaries, Keep: true,
		HostdArgs: []string{"--store-dir=" + filepath.Join(cfg.Dir, "{name}-store", "pairs")},
	})
	if err != nil {
		return w, err
	}
	if err := w.Main.DefineGuest(ctx, guestSpec()); err != nil {
		return w, err
	}
	w.announced, w.stop = landscape.FollowAnnouncements(ctx, w.Main.Console(guest))
	if _, err := w.Main.StartGuest(ctx, guest, startTimeout); err != nil {
		return w, err
	}
	w.note("two hosts, the control plane and a guest are up")
	return w, nil
}

// down takes everything down; the files stay when they are to be looked at.
func (w *world) down(ctx context.Context, keep bool) error {
	w.stop()
	var failed []error
	if w.Landscape != nil {
		failed = append(failed, w.Landscape.Down(ctx))
	}
	for _, name := range []string{landscape.MainHost, landscape.ShadowHost} {
		if keep {
			w.note("the stores stay mounted at %s", filepath.Join(w.cfg.Dir, name+"-store"))
			continue
		}
		failed = append(failed, unmountSmall(filepath.Join(w.cfg.Dir, name+"-store")))
	}
	if err := errors.Join(failed...); err != nil || keep {
		return err
	}
	return os.RemoveAll(w.cfg.Dir)
}

// note tells whoever watches the run.
func (w *world) note(format string, args ...any) {
	_, _ = fmt.Fprintf(w.cfg.Out, "%7.1fs "+format+"\n", append([]any{time.Since(w.began).Seconds()}, args...)...)
}

const logTail = 4000

// explain shows the ends of the logs.
func (w *world) explain() {
	logs := []string{w.ControlPlane.LogPath()}
	for _, h := range w.Lab.Hosts() {
		logs = append(logs, h.Hostd.LogPath(), h.Libvirtd.LogPath())
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, _ = fmt.Fprintf(w.cfg.Out, "--- %s\n%s\n", path, text[max(0, len(text)-logTail):])
	}
}

// serverRuns tells whether the host's server has a QEMU. A host that cannot say has none that counts.
func (w *world) serverRuns(ctx context.Context, h *lab.Host) bool {
	state, err := w.power(ctx, h)
	return err == nil && state != "shut off" && state != absent
}

// absent is the power of a server that is not defined.
const absent = "absent"

// power is the state of the host's server, in virsh's words.
func (w *world) power(ctx context.Context, h *lab.Host) (string, error) {
	state, err := h.Virsh(ctx, "domstate", guest)
	if err != nil && strings.Contains(err.Error(), "failed to get domain") {
		return absent, nil
	}
	return state, err
}
