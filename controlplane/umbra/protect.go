package main

import (
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type protectCommand struct {
	asked
	policyFlags
	MainHost     string `help:"The host that the server runs on." required:"" placeholder:"HOST"`
	MainServer   string `help:"The server's name at libvirt; without it, the pair's name." placeholder:"NAME"`
	ShadowHost   string `help:"The host that keeps the shadow." required:"" placeholder:"HOST"`
	ShadowServer string `help:"The shadow server's name after a failover; without it, the main server's." placeholder:"NAME"`
	DryRun       bool   `help:"Only check, change nothing."`
}

// Help is shown by --help.
func (protectCommand) Help() string {
	return `PAIR is the name that the pair gets.

Examples:
  umbra protect web --main-host rack1 --shadow-host rack2 --dry-run
  umbra protect web --main-host rack1 --shadow-host rack2 --interval 5s
  # Every point of the last hour, one in 15 minutes of the last day; another network there; a web server must answer:
  umbra protect web --main-host rack1 --shadow-host rack2 --keep 1h --keep 24h:15m --network lan=dr-lan --verify-tcp 10.0.0.9:443
  umbra pairs watch web                       # the initial sync`
}

// Run protects a server.
func (p protectCommand) Run(c *client) error {
	policy, _, err := p.policy()
	if err != nil {
		return err
	}
	if policy.GetRetention() != nil && len(p.Keep) == 0 {
		return usageError{"--store-bytes-max goes with --keep: say which recovery points are kept, too"}
	}
	server := p.MainServer
	if server == "" {
		server = short(p.Pair)
	}
	request := &umbrav1.CreateDRPairRequest{DrPairId: short(p.Pair), ValidateOnly: p.DryRun, DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: hostName(p.MainHost), Server: server},
		Shadow: &umbrav1.ShadowServer{Host: hostName(p.ShadowHost), Server: p.ShadowServer}, Policy: policy,
	}}
	if !p.DryRun {
		request.RequestId = p.id(c)
	}
	answer, err := call(c, c.protection.CreateDRPair, request)
	if err != nil {
		return err
	}
	for _, warning := range answer.GetWarnings() {
		c.say("Warning:\n%s", failureText(warning))
	}
	if p.DryRun {
		return c.print(answer.GetDrPair(), "It can be protected.")
	}
	return c.print(answer.GetDrPair(), "Protected; the initial sync begins. To watch it: umbra pairs watch "+short(p.Pair))
}

type updateCommand struct {
	asked
	policyFlags
	Reset  []string `help:"Parts of the policy that get their defaults again: interval, bandwidth, fence_timeout, on_main_return, consistency, retention, networks, verification." enum:"interval,bandwidth,fence_timeout,on_main_return,consistency,retention,networks,verification" placeholder:"PART"`
	DryRun bool     `help:"Only check, change nothing."`
}

// Help is shown by --help.
func (updateCommand) Help() string {
	return `What is not named stays as it is. --keep and --network replace all that were there.

Examples:
  umbra update web --interval 1m
  umbra update web --verify-guest-agent --verify-timeout 5m
  umbra update web --keep 2h --keep 168h:1h --store-bytes-max 500000000000
  umbra update web --reset networks,bandwidth    # no mapping, no limit`
}

// Run changes a policy.
func (u updateCommand) Run(c *client) error {
	policy, paths, err := u.policy()
	if err != nil {
		return err
	}
	for _, part := range u.Reset {
		paths = append(paths, resettable[part])
	}
	if len(paths) == 0 {
		return usageError{"say what to change; see umbra update --help"}
	}
	request := &umbrav1.UpdateDRPairRequest{
		DrPair: &umbrav1.DRPair{Name: pairName(u.Pair), Policy: policy}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, ValidateOnly: u.DryRun,
	}
	if !u.DryRun {
		request.RequestId = u.id(c)
	}
	answer, err := call(c, c.protection.UpdateDRPair, request)
	if err != nil {
		return err
	}
	return c.print(answer.GetDrPair(), pairPage(answer.GetDrPair(), c.view()))
}

type pauseCommand struct{ asked }

// Help is shown by --help.
func (pauseCommand) Help() string { return "Examples:\n  umbra pause web" }

// Run pauses replication.
func (p pauseCommand) Run(c *client) error {
	answer, err := call(c, c.protection.PauseReplication, &umbrav1.PauseReplicationRequest{Name: pairName(p.Pair), RequestId: p.id(c)})
	if err != nil {
		return err
	}
	return c.print(answer.GetDrPair(), pairPage(answer.GetDrPair(), c.view()))
}

type resumeCommand struct{ asked }

// Help is shown by --help.
func (resumeCommand) Help() string { return "Examples:\n  umbra resume web" }

// Run resumes replication.
func (r resumeCommand) Run(c *client) error {
	answer, err := call(c, c.protection.ResumeReplication, &umbrav1.ResumeReplicationRequest{Name: pairName(r.Pair), RequestId: r.id(c)})
	if err != nil {
		return err
	}
	return c.print(answer.GetDrPair(), pairPage(answer.GetDrPair(), c.view()))
}

type deleteCommand struct {
	lasting
	Force bool `help:"Do not wait for hosts that are gone for good."`
}

// Help is shown by --help.
func (deleteCommand) Help() string { return "Examples:\n  umbra delete web" }

// Run deletes a pair.
func (d deleteCommand) Run(c *client) error {
	err := c.confirm(d.Yes, short(d.Pair), "The protection ends and every recovery point is deleted. A committed server is left as it is.")
	if err != nil {
		return err
	}
	answer, err := call(c, c.protection.DeleteDRPair, &umbrav1.DeleteDRPairRequest{Name: pairName(d.Pair), Force: d.Force, RequestId: d.id(c)})
	if err != nil {
		return err
	}
	return d.follow(c, answer.GetOperation())
}
