package libvirt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

const (
	// A job that was aborted is gone after a millisecond or so, or when a busy disk lets go of it.
	jobPollMin = time.Millisecond
	jobPollMax = 100 * time.Millisecond
	// hiddenJobMax is how long work that may be the beginning of a backup job is waited for. It may as well be a migration.
	hiddenJobMax = 3 * time.Second
)

// job is the backup job that runs on a server, or hypervisor.ErrNotFound.
func (h *Hypervisor) job(ctx context.Context, dom rpc.Domain) (*libvirtxml.DomainBackup, error) {
	text, err := ask(ctx, h, fmt.Sprintf("get the backup job of server %q", dom.Name), func(l *rpc.Libvirt) (string, error) {
		return l.DomainBackupGetXMLDesc(dom, 0)
	})
	if err != nil {
		return nil, err
	}
	var job libvirtxml.DomainBackup
	if err := job.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read the backup job of server %q: %w", dom.Name, err)
	}
	return &job, nil
}

// ours tells a job of Umbra's by its socket: in runDir, or of the name that no one else gives it, for a host whose
// folders have moved.
func ours(job *libvirtxml.DomainBackup, runDir string) bool {
	if job.Pull == nil || job.Pull.Server == nil || job.Pull.Server.UNIX == nil {
		return false
	}
	socket := job.Pull.Server.UNIX.Socket
	return filepath.Base(socket) == socketName || filepath.Dir(socket) == filepath.Clean(runDir)
}

// endJob ends Umbra's job and returns when it is gone. No job is no error; a foreign one is hypervisor.ErrBackupBusy, and
// one that libvirt has lost hypervisor.ErrJobLost.
func (h *Hypervisor) endJob(ctx context.Context, dom rpc.Domain, runDir string) error {
	aborted := false
	hiddenUntil := h.clock.Now().Add(hiddenJobMax)
	for wait := jobPollMin; ; wait = min(2*wait, jobPollMax) {
		job, err := h.job(ctx, dom)
		switch {
		case errors.Is(err, hypervisor.ErrNotFound):
			work, err := h.workOf(ctx, dom)
			switch {
			case err != nil:
				return err
			case work == noWork && aborted:
				return h.resumeAfterFailedWrite(ctx, dom)
			case work == noWork:
				return nil
			case h.clock.Now().Before(hiddenUntil):
			case work == unknownBackup:
				return fmt.Errorf("server %q: %w", dom.Name, hypervisor.ErrJobLost)
			default:
				return nil
			}
		case err != nil:
			return err
		case !ours(job, runDir):
			return fmt.Errorf("server %q: %w", dom.Name, hypervisor.ErrBackupBusy)
		case !aborted:
			if err := h.abort(ctx, dom); err != nil {
				return err
			}
			aborted = true
			continue
		}
		if err := h.clock.Wait(ctx, wait); err != nil {
			return fmt.Errorf("wait for the backup job of server %q to end: %w", dom.Name, err)
		}
	}
}

// work is what libvirt says that it is at on a server, for long.
type work int

const (
	noWork work = iota
	// unknownBackup is a backup job that does not show as one: it is being begun for a caller who has given up, or libvirtd
	// was killed while it began it. It wrote down that the server is being backed up before it wrote down by which job, so
	// that after its restart there is none to be ended (seen with libvirt 9.0; until the server's QEMU ends).
	unknownBackup
	otherWork
)

func (h *Hypervisor) workOf(ctx context.Context, dom rpc.Domain) (work, error) {
	what := fmt.Sprintf("look for work under way on server %q", dom.Name)
	kind, err := ask(ctx, h, what, func(l *rpc.Libvirt) (int32, error) {
		kind, _, _, _, _, _, _, _, _, _, _, _, err := l.DomainGetJobInfo(dom)
		return kind, err
	})
	switch {
	case code(err) == rpc.ErrOperationInvalid || errors.Is(err, hypervisor.ErrNotFound):
		// The server is off, or gone.
		return noWork, nil
	case code(err) == rpc.ErrInternalError:
		// "Backup job data missing": it is known to be a backup job, and not which.
		return unknownBackup, nil
	case err != nil:
		return noWork, err
	case rpc.DomainJobType(kind) == rpc.DomainJobNone:
		return noWork, nil
	}
	return otherWork, nil
}

// abort asks for the end of the job. One that has ended by itself meanwhile is no error.
func (h *Hypervisor) abort(ctx context.Context, dom rpc.Domain) error {
	err := h.call(ctx, fmt.Sprintf("abort the backup job of server %q", dom.Name), func(l *rpc.Libvirt) error {
		return l.DomainAbortJob(dom)
	})
	if code(err) == rpc.ErrOperationInvalid || errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	return err
}

// resumeAfterFailedWrite lets a server go on that QEMU has paused since a write failed. While a job runs that is the job's
// fault, when there is no room in its scratch file for what the write overwrites; the write is then done again. If it was
// another's, the server is paused again.
func (h *Hypervisor) resumeAfterFailedWrite(ctx context.Context, dom rpc.Domain) error {
	paused, err := ask(ctx, h, fmt.Sprintf("get the state of server %q", dom.Name), func(l *rpc.Libvirt) (bool, error) {
		state, reason, err := l.DomainGetState(dom, 0)
		return rpc.DomainState(state) == rpc.DomainPaused && rpc.DomainPausedReason(reason) == rpc.DomainPausedIoerror, err
	})
	if errors.Is(err, hypervisor.ErrNotFound) || err == nil && !paused {
		return nil
	}
	if err != nil {
		return err
	}
	telemetry.From(ctx, h.log).ErrorContext(ctx, "a write of the server failed during a backup job; it is resumed", "server", dom.Name)
	return h.Resume(ctx, dom.Name)
}
