package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// resting are the states in which a pair is left to itself.
var resting = states(none, replicating, failedOver, failError, committed)

// rest waits until the pair is at rest, and returns it.
func (w *world) rest(ctx context.Context) (*umbrav1.DRPair, error) {
	for {
		pair, err := w.pair(ctx)
		if err != nil {
			return nil, err
		}
		if slices.Contains(resting, pair.GetState()) {
			return pair, nil
		}
		w.usersStartServers(ctx)
		if err := pauseFor(ctx, retryEvery); err != nil {
			return nil, fmt.Errorf("it is %v: %v", pair.GetState(), pair)
		}
	}
}

// settle waits until the pair is at rest, with the servers running that should.
func (w *world) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	pair, err := w.rest(ctx)
	if err != nil {
		return err
	}
	if state := pair.GetState(); state == failedOver || state == committed {
		// A fault may have stopped it after the operation: then its user starts it.
		w.act.mainRuns, w.act.shadowRuns = false, true
		return eventually(ctx, eventualMax, func(ctx context.Context) error {
			w.usersStartServers(ctx)
			if !w.serverRuns(ctx, w.Shadow) {
				return fmt.Errorf("%w: the pair is %v, and its shadow server does not run", errPromise, state)
			}
			return nil
		})
	}
	return nil
}

// startAnew gives the scene back its beginning after a pair is gone: no shadow server, and the main server runs with its
// network. What is left of a committed server belongs to its user, who is this.
func (w *world) startAnew(ctx context.Context) error {
	w.dropCopies()
	state, err := w.power(ctx, w.Shadow)
	if err != nil {
		return err
	}
	if state != absent {
		if state != "shut off" {
			if _, err := w.Shadow.Virsh(ctx, "destroy", guest); err != nil {
				return err
			}
		}
		if _, err := w.Shadow.Virsh(ctx, "undefine", guest, "--checkpoints-metadata"); err != nil {
			return err
		}
	}
	servers, err := filepath.Glob(filepath.Join(w.Shadow.Dir, "umbra", "servers", "*"))
	if err != nil {
		return err
	}
	for _, dir := range servers {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing a committed server's disks: %w", err)
		}
	}
	return w.mainServerAnew(ctx)
}

func (w *world) mainServerAnew(ctx context.Context) error {
	xml, err := w.Main.Virsh(ctx, "dumpxml", "--inactive", guest)
	if err != nil {
		return err
	}
	if strings.Contains(xml, "<link state='down'/>") {
		_, mac, _ := strings.Cut(xml, "<mac address='")
		mac, _, _ = strings.Cut(mac, "'")
		if _, err := w.Main.Virsh(ctx, "domif-setlink", guest, mac, "up", "--config"); err != nil {
			return err
		}
		if w.serverRuns(ctx, w.Main) {
			if _, err := w.Main.Virsh(ctx, "domif-setlink", guest, mac, "up"); err != nil {
				return err
			}
		}
	}
	if w.serverRuns(ctx, w.Main) {
		return nil
	}
	report, err := w.Main.StartGuest(ctx, guest, startTimeout)
	if err == nil && !report.Intact() {
		return fmt.Errorf("the main server's own ledger is not whole: %+v", report)
	}
	return err
}

// eventually asks until there is no error. When the time is up it returns the last error that was not made by that.
func eventually(ctx context.Context, most time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("still after %v: %w", most, last)
		case <-time.After(retryEvery):
		}
	}
}
