package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/observed"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// hostService implements umbrav1.HostServiceServer.
type hostService struct {
	umbrav1.UnimplementedHostServiceServer
	Deps
}

func (s *hostService) ListHosts(_ context.Context, request *umbrav1.ListHostsRequest) (*umbrav1.ListHostsResponse, error) {
	list := listID("ListHosts")
	after, err := afterPage(list, request.GetPageToken())
	if err != nil {
		return nil, err
	}
	hosts := s.Observed.List()
	begin, found := slices.BinarySearchFunc(hosts, after, func(h observed.Host, id string) int { return cmp.Compare(h.ID, id) })
	if found {
		begin++
	}
	hosts = hosts[begin:]
	response := &umbrav1.ListHostsResponse{}
	if size := pageSize(request.GetPageSize()); len(hosts) > size {
		hosts = hosts[:size]
		response.NextPageToken = nextPage(list, hosts[size-1].ID)
	}
	for _, host := range hosts {
		response.Hosts = append(response.Hosts, hostMessage(host))
	}
	return response, nil
}

func (s *hostService) GetHost(_ context.Context, request *umbrav1.GetHostRequest) (*umbrav1.GetHostResponse, error) {
	id, err := parseName("name", hostPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	host, ok := s.Observed.Host(id)
	if !ok {
		return nil, notFound(typeHost, request.GetName())
	}
	return &umbrav1.GetHostResponse{Host: hostMessage(host)}, nil
}

// hostMessage is what the host last sent, with what the control plane knows better.
func hostMessage(host observed.Host) *umbrav1.Host {
	message := &umbrav1.Host{}
	if host.Inventory != nil {
		message = proto.CloneOf(host.Inventory)
	}
	message.Name = hostName(host.ID)
	message.Connected = host.Connected
	message.SessionChangeTime = timestamp(host.ChangeTime)
	message.ReportTime = timestamp(host.ReportTime)
	message.Conditions = hostConditions(host)
	return message
}

// hostConditions are the facts about a host. What it says itself counts while it is connected.
func hostConditions(host observed.Host) []*umbrav1.Condition {
	facts := []*umbrav1.Condition{
		ability(host, conditionCanProtect, false),
		ability(host, conditionCanShadow, true),
	}
	if offset := host.Inventory.GetClockOffset(); offset != nil {
		facts = append(facts, clockInTime(offset.AsDuration(), host.ReportTime))
	}
	for _, reported := range host.Inventory.GetConditions() {
		if kind := reported.GetType(); kind != conditionCanProtect && kind != conditionCanShadow && kind != conditionClock {
			facts = append(facts, proto.CloneOf(reported))
		}
	}
	return facts
}

// offsetMax is by how much a host's clock may differ before it is told: enough for what delays messages.
const offsetMax = 5 * time.Second

// clockInTime is whether the host's clock is right, as far as the control plane's is.
func clockInTime(offset time.Duration, measured time.Time) *umbrav1.Condition {
	if offset.Abs() < offsetMax {
		return fact(conditionClock, umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, "IN_TIME", "The host's clock is that of the control plane.", time.Time{})
	}
	where := "ahead of"
	if offset < 0 {
		where = "behind"
	}
	return fact(conditionClock, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, "CLOCK_DIFFERS",
		fmt.Sprintf("The host's clock is %v %s the control plane's: recovery points of its servers say the wrong time, and points that it keeps are thinned out too early or too late. Compare both clocks and run NTP.",
			offset.Abs().Round(time.Second), where), measured)
}

// ability is whether the host can protect servers or, if it needs a store, be failed over to.
func ability(host observed.Host, kind string, needsStore bool) *umbrav1.Condition {
	const no = umbrav1.ConditionStatus_CONDITION_STATUS_FALSE
	switch {
	case !host.Connected:
		return fact(kind, no, "NOT_CONNECTED", "The host is not connected to the control plane.", host.ChangeTime)
	case host.Inventory == nil:
		return fact(kind, umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN, "NOT_REPORTED", "The host has not said yet what it has.", host.ChangeTime)
	}
	for _, reported := range host.Inventory.GetConditions() {
		if reported.GetType() == kind {
			return proto.CloneOf(reported)
		}
	}
	inventory := host.Inventory
	switch {
	case inventory.GetLibvirtVersion() == "":
		return fact(kind, no, "HYPERVISOR", "hostd does not reach libvirt on the host.", host.ReportTime)
	case needsStore && inventory.GetDataAddress() == "":
		return fact(kind, no, "NO_DATA_ADDRESS", "hostd does not listen for replication on the host.", host.ReportTime)
	case needsStore && inventory.GetCapacity().GetStoreFreeBytes() <= 0:
		return fact(kind, no, "NO_SPACE", "There is no space left in the host's store of recovery points.", host.ReportTime)
	default:
		return fact(kind, umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, "READY", "Nothing stands in the way.", host.ChangeTime)
	}
}
