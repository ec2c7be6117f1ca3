package replicate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func TestEveryErrorThatIsDecidedOnHasItsReason(t *testing.T) {
	const p = "ERROR_REASON_"
	for _, c := range []struct {
		err    error
		reason string
		side   umbrav1.Side
	}{
		{errServerOff, "SERVER_NOT_RUNNING", umbrav1.Side_SIDE_MAIN},
		{errNotConfirmed, "SERVER_NOT_RUNNING", umbrav1.Side_SIDE_MAIN},
		{hypervisor.ErrNotRunning, "SERVER_NOT_RUNNING", umbrav1.Side_SIDE_MAIN},
		{hypervisor.ErrNotFound, "SERVER_MISSING", umbrav1.Side_SIDE_MAIN},
		{hypervisor.ErrBackupBusy, "BACKUP_BUSY", umbrav1.Side_SIDE_MAIN},
		{hypervisor.ErrUnavailable, "HYPERVISOR", umbrav1.Side_SIDE_MAIN},
		{errNoDisks, "DISKS_CHANGED", umbrav1.Side_SIDE_MAIN},
		{errScratchLimit, "NO_SPACE", umbrav1.Side_SIDE_MAIN},
		{errScratchSpace, "NO_SPACE", umbrav1.Side_SIDE_MAIN},
		{errStalled, "DEADLINE", umbrav1.Side_SIDE_SHADOW},
		{&sourceError{"vda", io.ErrUnexpectedEOF}, "HYPERVISOR", umbrav1.Side_SIDE_MAIN},
		{&streamError{io.EOF}, "SHADOW_HOST_UNREACHABLE", umbrav1.Side_SIDE_SHADOW},
		{errors.New("a surprise"), "INTERNAL", umbrav1.Side_SIDE_MAIN},
	} {
		now := time.Unix(7, 0)
		f := failureOf(fmt.Errorf("while working: %w", c.err), now)
		if f.GetReason().String() != p+c.reason || f.GetSide() != c.side {
			t.Errorf("%v: %v on %v", c.err, f.GetReason(), f.GetSide())
		}
		if f.GetMessage() != "while working: "+c.err.Error() || len(f.GetRecommendedActions()) == 0 || !f.GetOccurTime().AsTime().Equal(now) {
			t.Errorf("%v: a person is told %v", c.err, f)
		}
	}
}

func TestUEFIVariablesAreReadFromTheFileOfTheDefinition(t *testing.T) {
	r := build(t)
	path := filepath.Join(t.TempDir(), "web_VARS.fd")
	xml := fmt.Sprintf("<domain><name>web</name><os><nvram template='x'>%s</nvram></os></domain>", path)
	if got := nvramOf(xml, r.cfg.Log); got != nil {
		t.Errorf("read %d bytes of no file", len(got))
	}
	if err := os.WriteFile(path, []byte("variables"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := nvramOf(xml, r.cfg.Log); string(got) != "variables" {
		t.Errorf("read %q", got)
	}
	if err := os.Truncate(path, nvramBytesMax+1); err != nil {
		t.Fatal(err)
	}
	if got := nvramOf(xml, r.cfg.Log); got != nil {
		t.Errorf("read %d bytes, more than a message holds", len(got))
	}
}

// Everything that the shadow host says may come into the main host's reports, and must not make them too long to send.
func TestAShadowHostCannotMakeAFailureLong(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	refusal := &umbrav1.Failure{
		Reason: umbrav1.ErrorReason_ERROR_REASON_NO_SPACE, Message: "x" + long, PossibleCauses: slices.Repeat([]string{long}, 1000), RecommendedActions: []string{"Make space.", long},
	}
	for _, err := range []error{&refusedError{refusal}, &streamError{errors.New(long)}} {
		f := failureOf(err, time.Unix(7, 0))
		if size := proto.Size(f); size > 256<<10 || !utf8.ValidString(f.GetMessage()) || len(f.GetRecommendedActions()) == 0 {
			t.Errorf("the failure takes %d bytes and begins %.100v", size, f)
		}
	}
	if len(refusal.GetMessage()) <= len(long) {
		t.Error("what was received was changed")
	}
}
