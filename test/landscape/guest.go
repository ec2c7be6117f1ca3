package landscape

import (
	"context"
	"fmt"
	"regexp"

	"github.com/umbra-dr/umbra/pkg/lab/console"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

var bootLine = regexp.MustCompile(regexp.QuoteMeta(ledger.Prefix) + `boot [^\r\n]*\r?\n`)

// NextBoot waits until a guest says on its console what it has found in its ledger, and returns that.
func (l *Landscape) NextBoot(ctx context.Context, guest *console.Console) (ledger.Report, error) {
	line, err := guest.Wait(ctx, bootLine)
	if err != nil {
		return ledger.Report{}, err
	}
	boots := ledger.ReadConsole(line[0]).Boots
	if len(boots) != 1 {
		return ledger.Report{}, fmt.Errorf("the console says %q, which is no report", line[0])
	}
	return boots[0], nil
}
