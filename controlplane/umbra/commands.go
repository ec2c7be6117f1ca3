package main

import (
	"github.com/umbra-dr/umbra/pkg/about"
	"github.com/umbra-dr/umbra/pkg/settings"
)

const description = `The command-line client of Umbra.

Names may be short: "web" for drPairs/web, "rp-000000000042" for a recovery point of the pair, "op-..." for an operation.

Examples:
  umbra pairs list                                # what is protected, and how well
  umbra failover web --dry-run                    # what would happen, and what stands in the way
  umbra failover web                              # the newest recovery point
  umbra change-recovery-point web --before-age 10m
  umbra commit web

Exit codes: 0 done, 1 the operation failed, 2 wrong usage or not confirmed, 3 refused in this state, 4 not found,
5 not allowed, 6 the control plane cannot be reached, 130 interrupted.`

type commands struct {
	about.Self
	settings.Flags
	Connection connection `embed:"" group:"Connection"`
	Output     string     `help:"table, or json: the API's messages." enum:"table,json" default:"table" short:"o"`

	Pairs      pairsCommands      `cmd:"" help:"Show DR pairs."`
	Points     pointsCommands     `cmd:"" help:"Show recovery points."`
	Hosts      hostsCommands      `cmd:"" help:"Show hosts; let them enrol; revoke them."`
	Operations operationsCommands `cmd:"" help:"Show operations."`
	Clients    clientsCommands    `cmd:"" help:"Revoke people and services."`
	Audit      auditCommand       `cmd:"" help:"Show who asked for what."`

	Failover            failoverCommand `cmd:"" help:"Stop replication and boot the shadow server from a recovery point."`
	ChangeRecoveryPoint changeCommand   `cmd:"" help:"Boot the shadow server from another recovery point."`
	Commit              commitCommand   `cmd:"" help:"Make the shadow server the primary server, for good."`
	RestartReplication  restartCommand  `cmd:"" help:"Replicate from the beginning: read and compare every block."`

	Protect       protectCommand `cmd:"" help:"Protect a server."`
	Adopt         adoptCommand   `cmd:"" help:"Make the records of pairs from what their hosts hold."`
	Update        updateCommand  `cmd:"" help:"Change a pair's policy."`
	Pause         pauseCommand   `cmd:"" help:"Make no recovery points for now."`
	Resume        resumeCommand  `cmd:"" help:"Make recovery points again."`
	Delete        deleteCommand  `cmd:"" help:"End the protection and delete every recovery point."`
	SupportBundle bundleCommand  `cmd:"" help:"Fetch what support needs to know of a pair."`

	Completion completionCommand `cmd:"" help:"Print a script with which a shell completes command lines."`
}
