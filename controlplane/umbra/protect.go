package main

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// policyFlags are the parts of a policy that have a flag. What is not given keeps its value.
type policyFlags struct {
	Interval     time.Duration `help:"Time from one recovery point to the next, 1s to 24h." placeholder:"TIME"`
	Bandwidth    int64         `help:"The most bytes per second that leave the main host." placeholder:"BYTES"`
	FenceTimeout time.Duration `help:"How long a failover waits for a connected main host." placeholder:"TIME"`
	OnMainReturn string        `help:"What happens to a main server that returns: shut_down, disconnect_network or leave_running." enum:",shut_down,disconnect_network,leave_running" default:""`
	Consistency  string        `help:"crash or application." enum:",crash,application" default:""`
}

// policy is the policy that the flags say, and the paths of what they say.
func (f policyFlags) policy() (*umbrav1.Policy, []string) {
	policy := &umbrav1.Policy{}
	var paths []string
	if f.Interval > 0 {
		policy.Interval, paths = durationpb.New(f.Interval), append(paths, "policy.interval")
	}
	if f.Bandwidth > 0 {
		policy.BandwidthBytesPerSecond, paths = f.Bandwidth, append(paths, "policy.bandwidth_bytes_per_second")
	}
	if f.FenceTimeout > 0 {
		policy.FenceTimeout, paths = durationpb.New(f.FenceTimeout), append(paths, "policy.fence_timeout")
	}
	if f.OnMainReturn != "" {
		policy.OnMainReturn = umbrav1.OnMainReturn(umbrav1.OnMainReturn_value["ON_MAIN_RETURN_"+strings.ToUpper(f.OnMainReturn)])
		paths = append(paths, "policy.on_main_return")
	}
	if f.Consistency != "" {
		policy.Consistency = umbrav1.Consistency(umbrav1.Consistency_value["CONSISTENCY_"+strings.ToUpper(f.Consistency)])
		paths = append(paths, "policy.consistency")
	}
	return policy, paths
}

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
  umbra pairs watch web                       # the initial sync`
}

// Run protects a server.
func (p protectCommand) Run(c *client) error {
	policy, _ := p.policy()
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
	DryRun bool `help:"Only check, change nothing."`
}

// Help is shown by --help.
func (updateCommand) Help() string { return "Examples:\n  umbra update web --interval 1m" }

// Run changes a policy.
func (u updateCommand) Run(c *client) error {
	policy, paths := u.policy()
	if len(paths) == 0 {
		return usageError{"say what to change; see umbra update --help"}
	}
	request := &umbrav1.UpdateDRPairRequest{
		DrPair: &umbrav1.DRPair{Name: pairName(u.Pair), Policy: policy}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, ValidateOnly: u.DryRun,
	}
	// The API wants the whole pair, of which only the policy can change.
	pair, err := c.pair(u.Pair)
	if err != nil {
		return err
	}
	request.DrPair.Main, request.DrPair.Shadow = pair.GetMain(), pair.GetShadow()
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
