package main

import (
	"fmt"
	"strconv"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type pairsHeld struct{}

// Help is shown by --help.
func (pairsHeld) Help() string {
	return "For a control plane whose records were lost, or restored from a backup older than a pair.\n\nExamples:\n  umbra pairs held"
}

// Run lists what hosts hold without a record.
func (pairsHeld) Run(c *client) error {
	answer, err := call(c, c.protection.ListHeldPairs, &umbrav1.ListHeldPairsRequest{})
	if err != nil {
		return err
	}
	for _, host := range answer.GetSilentHosts() {
		c.say("Warning: %s did not answer; what it holds is not here", host)
	}
	return c.print(answer, heldTable(answer.GetHeldPairs()))
}

func heldTable(pairs []*umbrav1.HeldPair) string {
	rows := make([][]string, 0, len(pairs))
	for _, held := range pairs {
		pair, note := held.GetDrPair(), "can be adopted"
		if held.GetBlocker() != nil {
			note = held.GetBlocker().GetMessage()
		}
		rows = append(rows, []string{
			short(pair.GetName()), pair.GetUid(), short(pair.GetMain().GetHost()) + "/" + pair.GetMain().GetServer(), short(pair.GetShadow().GetHost()),
			strconv.FormatInt(held.GetRecoveryPointCount(), 10), note,
		})
	}
	return table([]string{"PAIR", "UID", "MAIN", "SHADOW", "POINTS", "NOTE"}, rows)
}

type adoptCommand struct {
	Pair      []string `arg:"" optional:"" help:"The pairs."`
	All       bool     `help:"Every pair that can be adopted."`
	UID       string   `name:"uid" help:"The uid, when several pairs of a name are held." placeholder:"UID"`
	RequestID string   `help:"Id of this request; a repeated one finds the first one's result." placeholder:"ID"`
}

// Help is shown by --help.
func (adoptCommand) Help() string {
	return `Replication goes on, and servers run on, from where the hosts are; recovery points stay.

Examples:
  umbra pairs held
  umbra adopt web
  umbra adopt --all`
}

// Run adopts pairs.
func (a adoptCommand) Run(c *client) error {
	names := a.Pair
	switch {
	case a.All && len(names) == 0 && a.UID == "":
		answer, err := call(c, c.protection.ListHeldPairs, &umbrav1.ListHeldPairsRequest{})
		if err != nil {
			return err
		}
		for _, held := range answer.GetHeldPairs() {
			if held.GetBlocker() == nil {
				names = append(names, held.GetDrPair().GetName())
			}
		}
	case a.All || len(names) == 0 || len(names) > 1 && (a.UID != "" || a.RequestID != ""):
		return usageError{"name the pairs, or say --all; --uid and --request-id go with one pair; see umbra adopt --help"}
	}
	var adopted []string
	response := &umbrav1.ListDRPairsResponse{}
	for _, name := range names {
		answer, err := call(c, c.protection.AdoptDRPair, &umbrav1.AdoptDRPairRequest{Name: pairName(name), Uid: a.UID, RequestId: a.RequestID})
		if err != nil {
			return fmt.Errorf("adopting %s (adopted before it: %s): %w", short(name), strings.Join(adopted, ", "), err)
		}
		adopted = append(adopted, short(name))
		response.DrPairs = append(response.DrPairs, answer.GetDrPair())
	}
	return c.print(response, fmt.Sprintf("%d adopted. To see where they are: umbra pairs list", len(adopted)))
}
