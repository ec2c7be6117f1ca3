package main

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type hostsCommands struct {
	List      hostsList  `cmd:"" help:"List hosts."`
	Show      hostsShow  `cmd:"" help:"Show a host, its servers, and what it can do."`
	JoinToken joinToken  `cmd:"" help:"Make a token with which a host can enrol, once."`
	Revoke    hostRevoke `cmd:"" help:"Make a host's certificates count no more, at once."`
}

type hostsList struct{}

// Help is shown by --help.
func (hostsList) Help() string { return "Examples:\n  umbra hosts list" }

// Run lists hosts.
func (hostsList) Run(c *client) error {
	hosts, err := pages(0, func(token string) ([]*umbrav1.Host, string, error) {
		answer, err := call(c, c.hosts.ListHosts, &umbrav1.ListHostsRequest{PageSize: pageSize, PageToken: token})
		return answer.GetHosts(), answer.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	return c.print(&umbrav1.ListHostsResponse{Hosts: hosts}, hostsTable(hosts, c.view()))
}

type hostsShow struct {
	Host string `arg:"" help:"The host."`
}

// Help is shown by --help.
func (hostsShow) Help() string { return "Examples:\n  umbra hosts show rack1-node7" }

// Run shows a host.
func (s hostsShow) Run(c *client) error {
	answer, err := call(c, c.hosts.GetHost, &umbrav1.GetHostRequest{Name: hostName(s.Host)})
	if err != nil {
		return err
	}
	return c.print(answer.GetHost(), hostPage(answer.GetHost(), c.view()))
}

type joinToken struct {
	Host string        `arg:"" help:"The host that is to enrol."`
	TTL  time.Duration `name:"ttl" help:"How long the token is good for." default:"1h"`
}

// Help is shown by --help.
func (joinToken) Help() string {
	return "The token is a secret, and is shown once.\n\nExamples:\n  umbra hosts join-token rack1-node7"
}

// Run makes a join token.
func (j joinToken) Run(c *client) error {
	answer, err := call(c, c.identity.CreateJoinToken, &umbrav1.CreateJoinTokenRequest{Host: hostName(j.Host), Ttl: durationpb.New(j.TTL)})
	if err != nil {
		return err
	}
	c.say("Good once, until %s. On the host, with --host-id %s:", c.view().at(answer.GetExpireTime()), short(j.Host))
	return c.print(answer, "UMBRA_JOIN_TOKEN="+answer.GetToken())
}

type hostRevoke struct {
	Host string `arg:"" help:"The host."`
	Yes  bool   `help:"Do not ask."`
}

// Help is shown by --help.
func (hostRevoke) Help() string { return "Examples:\n  umbra hosts revoke rack1-node7" }

// Run revokes a host.
func (r hostRevoke) Run(c *client) error {
	err := c.confirm(r.Yes, short(r.Host), "Its session and its replication streams are cut; to come back it must enrol again.")
	if err != nil {
		return err
	}
	answer, err := call(c, c.identity.RevokeHost, &umbrav1.RevokeHostRequest{Name: hostName(r.Host)})
	if err != nil {
		return err
	}
	return c.print(answer, "Revoked. To let it in again: umbra hosts join-token "+short(r.Host))
}

type clientsCommands struct {
	Revoke clientRevoke `cmd:"" help:"Make all certificates of a person or a service count no more, at once."`
}

type clientRevoke struct {
	Client string `arg:"" help:"Who."`
	Yes    bool   `help:"Do not ask."`
}

// Help is shown by --help.
func (clientRevoke) Help() string { return "Examples:\n  umbra clients revoke ann" }

// Run revokes a client.
func (r clientRevoke) Run(c *client) error {
	if err := c.confirm(r.Yes, r.Client, "All certificates of this client count no more, in every role."); err != nil {
		return err
	}
	answer, err := call(c, c.identity.RevokeClient, &umbrav1.RevokeClientRequest{Client: r.Client})
	if err != nil {
		return err
	}
	return c.print(answer, "Revoked.")
}

func connected(host *umbrav1.Host) string {
	if host.GetConnected() {
		return "connected"
	}
	return "AWAY"
}

// clockOf is by how much the host's clock differs, if that is too much.
func clockOf(host *umbrav1.Host) string {
	offset := host.GetClockOffset().AsDuration()
	for _, condition := range host.GetConditions() {
		switch {
		case condition.GetType() != "ClockInTime":
		case condition.GetStatus() == umbrav1.ConditionStatus_CONDITION_STATUS_TRUE:
			return "in time"
		case offset < 0:
			return length(-offset) + " BEHIND"
		default:
			return length(offset) + " AHEAD"
		}
	}
	return none
}

func hostsTable(hosts []*umbrav1.Host, v view) string {
	rows := make([][]string, len(hosts))
	for i, host := range hosts {
		capacity := host.GetCapacity()
		rows[i] = []string{
			short(host.GetName()), connected(host), v.ago(host.GetSessionChangeTime()), clockOf(host), fmt.Sprint(len(host.GetServers())),
			size(capacity.GetMemoryFreeBytes()), size(capacity.GetStoreFreeBytes()), host.GetHostdVersion(),
		}
	}
	return table([]string{"HOST", "SESSION", "SINCE", "CLOCK", "SERVERS", "FREE MEMORY", "FREE STORE", "HOSTD"}, rows)
}

func hostPage(host *umbrav1.Host, v view) string {
	capacity := host.GetCapacity()
	rows := [][2]string{
		{"Host", short(host.GetName())},
		{"Session", connected(host) + " since " + v.at(host.GetSessionChangeTime())},
		{"Reported", v.at(host.GetReportTime())},
		{"Versions", fmt.Sprintf("hostd %s, libvirt %s, %s", host.GetHostdVersion(), host.GetLibvirtVersion(), host.GetHypervisorVersion())},
		{"Data", host.GetDataAddress()},
		{"Memory", size(capacity.GetMemoryFreeBytes()) + " of " + size(capacity.GetMemoryBytes()) + " free"},
		{"Store", size(capacity.GetStoreFreeBytes()) + " of " + size(capacity.GetStoreBytes()) + " free"},
		{"Networks", strings.Join(host.GetNetworks(), ", ")},
	}
	for _, condition := range host.GetConditions() {
		rows = append(rows, [2]string{"Fact", conditionText(condition)})
	}
	servers := make([][]string, len(host.GetServers()))
	for i, server := range host.GetServers() {
		disks := make([]string, len(server.GetDisks()))
		for j, disk := range server.GetDisks() {
			disks[j] = fmt.Sprintf("%s %s %s", disk.GetTarget(), disk.GetFormat(), size(disk.GetSizeBytes()))
		}
		facts := make([]string, len(server.GetConditions()))
		for j, condition := range server.GetConditions() {
			facts[j] = conditionText(condition)
		}
		servers[i] = []string{
			server.GetName(), power(server.GetPowerState()), size(server.GetMemoryBytes()), strings.Join(disks, ", "), strings.Join(facts, "; "),
		}
	}
	return page(rows) + "\n" + table([]string{"SERVER", "POWER", "MEMORY", "DISKS", "FACTS"}, servers)
}

func conditionText(condition *umbrav1.Condition) string {
	text := condition.GetType() + ": " + lower(condition.GetStatus().String(), "CONDITION_STATUS_")
	for _, more := range []string{condition.GetReason(), condition.GetMessage()} {
		if more != "" {
			text += ", " + more
		}
	}
	return text
}
