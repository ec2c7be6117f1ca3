package main

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type pairsCommands struct {
	List  pairsList  `cmd:"" help:"List pairs."`
	Show  pairsShow  `cmd:"" help:"Show a pair, what it allows, and what to do next."`
	Watch pairsWatch `cmd:"" help:"Show pairs whenever they change."`
	Held  pairsHeld  `cmd:"" help:"Show pairs that hosts hold and the control plane has no record of."`
}

type pairsList struct {
	Filter string `help:"Only those: state = REPLICATING, main.host = hosts/a, joined by AND." placeholder:"TERMS"`
}

// Help is shown by --help.
func (pairsList) Help() string {
	return "Examples:\n  umbra pairs list\n  umbra pairs list --filter 'state = REPLICATION_ERROR AND main.host = hosts/rack1'\n  umbra pairs list -o json | jq -r '.drPairs[].name'"
}

// Run lists pairs.
func (l pairsList) Run(c *client) error {
	pairs, err := pages(0, func(token string) ([]*umbrav1.DRPair, string, error) {
		answer, err := call(c, c.failover.ListDRPairs, &umbrav1.ListDRPairsRequest{PageSize: pageSize, PageToken: token, Filter: l.Filter})
		return answer.GetDrPairs(), answer.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	return c.print(&umbrav1.ListDRPairsResponse{DrPairs: pairs}, pairsTable(pairs))
}

type pairsShow struct {
	Pair string `arg:"" help:"The pair."`
}

// Help is shown by --help.
func (pairsShow) Help() string {
	return "Examples:\n  umbra pairs show web\n  umbra pairs show web -o json | jq -r .state"
}

// Run shows a pair.
func (s pairsShow) Run(c *client) error {
	pair, err := c.pair(s.Pair)
	if err != nil {
		return err
	}
	return c.print(pair, pairPage(pair, c.view()))
}

func (c *client) pair(name string) (*umbrav1.DRPair, error) {
	answer, err := call(c, c.failover.GetDRPair, &umbrav1.GetDRPairRequest{Name: pairName(name)})
	return answer.GetDrPair(), err
}

type pairsWatch struct {
	Pair []string `arg:"" optional:"" help:"The pairs; without any, all."`
}

// Help is shown by --help.
func (pairsWatch) Help() string {
	return "Watching goes on until it is interrupted; when the connection breaks it is taken up again.\n\nExamples:\n  umbra pairs watch\n  umbra pairs watch web mail"
}

// Run watches pairs.
func (w pairsWatch) Run(c *client) error {
	request := &umbrav1.WatchDRPairsRequest{}
	for _, pair := range w.Pair {
		request.Names = append(request.Names, pairName(pair))
	}
	return c.again(func(heard func()) error {
		stream, err := c.failover.WatchDRPairs(c.ctx, request)
		if err != nil {
			return err
		}
		for {
			message, err := stream.Recv()
			if status.Code(err) == codes.OutOfRange { // too old to go on from: begin anew
				request.ResumeToken = ""
				return status.Error(codes.Unavailable, err.Error())
			}
			if err != nil {
				return err
			}
			heard()
			request.ResumeToken = message.GetResumeToken()
			pair := message.GetDrPair()
			if pair == nil {
				continue
			}
			text := pairLine(pair, c.view())
			if message.GetKind() == umbrav1.WatchKind_WATCH_KIND_DELETED {
				text = short(pair.GetName()) + ": deleted"
			}
			if err := c.print(message, text); err != nil {
				return err
			}
		}
	})
}

func stateOf(pair *umbrav1.DRPair) string { return word(pair.GetState().String(), "DR_PAIR_STATE_") }

// pairLine is a pair in one line of a log.
func pairLine(pair *umbrav1.DRPair, v view) string {
	r := pair.GetReplication()
	line := fmt.Sprintf("%s  %s: %s, %d points", v.now.In(v.zone).Format("15:04:05 MST"), short(pair.GetName()), stateOf(pair), r.GetRecoveryPointCount())
	if rpo := r.GetRpo(); rpo != nil {
		line += ", newest " + length(rpo.AsDuration()) + " old"
	}
	if progress := r.GetProgress(); progress.GetTotalBytes() > 0 {
		line += ", " + progressText(progress)
	}
	if failure := pair.GetFailure(); failure != nil {
		line += ", " + word(failure.GetReason().String(), "ERROR_REASON_") + ": " + failure.GetMessage()
	}
	return line
}

func pairsTable(pairs []*umbrav1.DRPair) string {
	rows := make([][]string, len(pairs))
	for i, pair := range pairs {
		r := pair.GetReplication()
		rpo := none
		if r.GetRpo() != nil {
			rpo = length(r.GetRpo().AsDuration())
		}
		rows[i] = []string{
			short(pair.GetName()), stateOf(pair), short(pair.GetMain().GetHost()) + "/" + pair.GetMain().GetServer(),
			short(pair.GetShadow().GetHost()), rpo, fmt.Sprint(r.GetRecoveryPointCount()), size(r.GetStoreBytes()), ready(pair),
		}
	}
	return table([]string{"PAIR", "STATE", "MAIN", "SHADOW", "RPO", "POINTS", "STORE", "READY"}, rows)
}

// ready is whether a failover would work, and if not, why.
func ready(pair *umbrav1.DRPair) string {
	for _, condition := range pair.GetConditions() {
		if condition.GetType() != "ReadyForFailover" {
			continue
		}
		if condition.GetStatus() == umbrav1.ConditionStatus_CONDITION_STATUS_TRUE {
			return "yes"
		}
		return lower(condition.GetStatus().String(), "CONDITION_STATUS_") + ": " + condition.GetReason()
	}
	return none
}

func pairPage(pair *umbrav1.DRPair, v view) string {
	r := pair.GetReplication()
	newest := "none"
	if r.GetNewestRecoveryPoint() != "" {
		newest = fmt.Sprintf("%s of %s, %s old", short(r.GetNewestRecoveryPoint()), v.at(r.GetNewestRecoveryPointTime()), v.ago(r.GetNewestRecoveryPointTime()))
	}
	rows := [][2]string{
		{"Pair", short(pair.GetName())},
		{"State", stateOf(pair)},
		{"Main", fmt.Sprintf("%s on %s, %s", pair.GetMain().GetServer(), pair.GetMain().GetHost(), power(pair.GetMain().GetPowerState()))},
		{"Shadow", fmt.Sprintf("%s on %s, %s", pair.GetShadow().GetServer(), pair.GetShadow().GetHost(), power(pair.GetShadow().GetPowerState()))},
		{"Newest", newest},
		{"Points", fmt.Sprintf("%d in %s", r.GetRecoveryPointCount(), size(r.GetStoreBytes()))},
		{"Runs from", short(pair.GetActiveRecoveryPoint())},
		{"Operation", short(pair.GetCurrentOperation())},
	}
	if r.GetProgress().GetTotalBytes() > 0 {
		rows = append(rows, [2]string{"Progress", progressText(r.GetProgress())})
	}
	for _, condition := range pair.GetConditions() {
		rows = append(rows, [2]string{"Fact", conditionText(condition)})
	}
	rows = append(rows, policyRows(pair.GetPolicy())...)
	rows = append(rows, [2]string{"Allowed", allowedText(pair.GetAllowedActions())})
	text := page(rows)
	if pair.GetFailure() != nil {
		text += "\nWhat is wrong\n" + failureText(pair.GetFailure())
	}
	return text + "\n" + nextText(pair)
}

func power(state umbrav1.PowerState) string {
	if state == umbrav1.PowerState_POWER_STATE_UNSPECIFIED {
		return "power not known"
	}
	return lower(state.String(), "POWER_STATE_")
}

func allowedText(actions []umbrav1.DRPairAction) string {
	words := make([]string, len(actions))
	for i, action := range actions {
		words[i] = lower(action.String(), "DR_PAIR_ACTION_")
	}
	return strings.Join(words, ", ")
}
