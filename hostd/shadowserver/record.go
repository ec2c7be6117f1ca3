package shadowserver

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
)

// record is what is remembered of a pair. It is written before the effect that it speaks of.
type record struct {
	UID        string // the pair's; empty if it was not known yet
	Generation uint64 // the newest assignment that was taken up

	// Server and UUID name the server that we may have defined; Server is empty when there is none.
	Server string
	UUID   string

	Attempts []attempt // of which something may exist: folders, views, the server
	// Current is the attempt whose server counts: it passed its verification, and no later one has. 0: none.
	Current uint64

	Commit       commitState
	Suspending   bool   // the commit may have paused the server, and has to resume it
	CommitReport []byte // the ShadowReport of a complete commit
}

// attempt is one boot of the server from one point.
type attempt struct {
	Number uint64
	Point  string
	Force  bool
	Dir    string // absolute
	State  attemptState
	// Booted: its server may have been started, so its overlays may hold what nobody else has.
	Booted bool
	// Switched: the server of another attempt may have been stopped for this one; OldOn: it was on then.
	Switched bool
	OldOn    bool
	XML      string // the definition, from before it was given to the hypervisor; in a commit with the images that its disks are on
	Report   []byte // the ShadowReport of its result: attempt, steps, failure
}

type attemptState string

const (
	attemptPreparing attemptState = "preparing" // overlays are being made; nothing of them is worth keeping
	attemptPrepared  attemptState = "prepared"  // overlays are complete
	attemptVerified  attemptState = "verified"  // the server ran and passed its verification
	attemptFailing   attemptState = "failing"   // it failed, and is being cleaned up
	attemptFailed    attemptState = "failed"    // it failed; Report says why
)

type commitState string

const (
	commitNone       commitState = ""
	commitFlattening commitState = "flattening" // it has begun, and will finish
	commitFlattened  commitState = "flattened"  // the disks stand alone, for the definition too
	commitComplete   commitState = "complete"
)

// committed tells whether the server stands alone, so that nothing may touch it any more.
func (r *record) committed() bool {
	return r.Commit == commitFlattened || r.Commit == commitComplete
}

func (r *record) attempt(number uint64) *attempt {
	for i := range r.Attempts {
		if r.Attempts[i].Number == number {
			return &r.Attempts[i]
		}
	}
	return nil
}

// usesPoint tells whether an attempt other than the given one may need the point's view. One that failed before
// its server was ever started has left nothing that could.
func (r *record) usesPoint(point string, except uint64) bool {
	return slices.ContainsFunc(r.Attempts, func(a attempt) bool {
		return a.Point == point && a.Number != except && (a.Booted || a.State != attemptFailed)
	})
}

// attemptOf finds the attempt whose folder a disk lies in; 0 means none.
func (r *record) attemptOf(path string) uint64 {
	for _, a := range r.Attempts {
		if strings.HasPrefix(path, a.Dir+"/") {
			return a.Number
		}
	}
	return 0
}

func (w *worker) load(loaded *bool) error {
	if *loaded {
		return nil
	}
	rec, _, err := journal.Load[record](w.cfg.Journal, journal.ShadowServer, w.pair)
	if err != nil {
		return err
	}
	w.rec, *loaded = rec, true
	return nil
}

// save changes the record and makes it durable. The change is undone in memory when that fails.
func (w *worker) save(change func(*record)) error {
	next := w.rec
	next.Attempts = slices.Clone(w.rec.Attempts)
	change(&next)
	if err := w.cfg.faults("before-save"); err != nil {
		return err
	}
	if err := journal.Save(w.cfg.Journal, journal.ShadowServer, w.pair, next); err != nil {
		return err
	}
	w.rec = next
	return w.cfg.faults("after-save")
}

// saveAttempt changes one attempt of the record, which must be there.
func (w *worker) saveAttempt(number uint64, change func(*attempt)) error {
	if w.rec.attempt(number) == nil {
		return fmt.Errorf("attempt %d is not in the record", number)
	}
	return w.save(func(r *record) { change(r.attempt(number)) })
}

func (w *worker) eraseRecord() error {
	if err := w.cfg.faults("before-erase"); err != nil {
		return err
	}
	if err := journal.Delete(w.cfg.Journal, journal.ShadowServer, w.pair); err != nil {
		return err
	}
	w.rec = record{}
	return w.cfg.faults("after-erase")
}

func encodeReport(r *umbrav1.ShadowReport) ([]byte, error) {
	data, err := proto.Marshal(&umbrav1.ShadowReport{Attempt: r.GetAttempt(), Steps: r.GetSteps(), Failure: r.GetFailure()})
	if err != nil {
		return nil, fmt.Errorf("encoding the result of attempt %d: %w", r.GetAttempt(), err)
	}
	return data, nil
}

func decodeReport(data []byte) (*umbrav1.ShadowReport, error) {
	if len(data) == 0 {
		return nil, errors.New("the journal holds no result")
	}
	r := &umbrav1.ShadowReport{}
	if err := proto.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("decoding a stored result: %w", err)
	}
	return r, nil
}
