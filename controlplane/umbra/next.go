package main

import (
	"fmt"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// nextText is what to do next, as commands to type.
func nextText(pair *umbrav1.DRPair) string {
	var text strings.Builder
	text.WriteString("What to do next\n")
	if pair.GetNextStep() != "" {
		fmt.Fprintf(&text, "  %s\n", pair.GetNextStep())
	}
	for _, command := range nextCommands(pair) {
		fmt.Fprintf(&text, "    %s\n", command)
	}
	return text.String()
}

// nextCommands are the commands for what the pair allows; while an operation runs, the one that watches it.
func nextCommands(pair *umbrav1.DRPair) []string {
	if len(pair.GetAllowedActions()) == 0 && pair.GetCurrentOperation() != "" {
		return []string{"umbra operations watch " + short(pair.GetCurrentOperation())}
	}
	name := short(pair.GetName())
	var commands []string
	for _, action := range pair.GetAllowedActions() {
		switch action {
		case umbrav1.DRPairAction_DR_PAIR_ACTION_FAILOVER:
			commands = append(commands, "umbra points list "+name, "umbra failover "+name+" --dry-run", "umbra failover "+name)
		case umbrav1.DRPairAction_DR_PAIR_ACTION_CHANGE_RECOVERY_POINT:
			commands = append(commands, "umbra points list "+name, "umbra change-recovery-point "+name+" --point ID")
		case umbrav1.DRPairAction_DR_PAIR_ACTION_COMMIT_FAILOVER:
			commands = append(commands, "umbra commit "+name)
		case umbrav1.DRPairAction_DR_PAIR_ACTION_RESTART_REPLICATION:
			commands = append(commands, "umbra restart-replication "+name)
		case umbrav1.DRPairAction_DR_PAIR_ACTION_PAUSE_REPLICATION:
			commands = append(commands, "umbra pause "+name)
		case umbrav1.DRPairAction_DR_PAIR_ACTION_RESUME_REPLICATION:
			commands = append(commands, "umbra resume "+name)
		}
	}
	if pair.GetFailure() != nil {
		commands = append(commands, "umbra support-bundle "+name)
	}
	return commands
}
