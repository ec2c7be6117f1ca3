package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// policyFlags are the parts of a policy. What is not given keeps its value.
type policyFlags struct {
	Interval     time.Duration  `help:"Time from one recovery point to the next, 1s to 24h." placeholder:"TIME"`
	Bandwidth    int64          `help:"The most bytes per second that leave the main host." placeholder:"BYTES"`
	FenceTimeout *time.Duration `help:"How long a failover waits for a connected main host, 0s to 10m." placeholder:"TIME"`
	OnMainReturn string         `help:"What happens to a main server that returns: shut_down, disconnect_network or leave_running." enum:",shut_down,disconnect_network,leave_running" default:""`
	Consistency  string         `help:"crash or application." enum:",crash,application" default:""`

	Keep          []string `help:"Which recovery points are kept: all that are younger than AGE, or of those one in each SPACING. May be given several times." placeholder:"AGE[:SPACING]"`
	StoreBytesMax *int64   `help:"The most bytes that the recovery points may take on the shadow host; 0 is no limit. At the limit replication pauses." placeholder:"BYTES"`

	Network map[string]string `help:"The shadow host's network that stands for one of the main host. May be given several times." placeholder:"MAIN=SHADOW"`

	VerifyRunTime    *time.Duration `help:"How long a shadow server must run before a failover counts as done, 0s to 10m." placeholder:"TIME"`
	VerifyGuestAgent *bool          `help:"Its guest agent must answer." negatable:""`
	VerifyTCP        *string        `name:"verify-tcp" help:"A port that must accept a connection from the shadow host." placeholder:"ADDRESS:PORT"`
	VerifyTimeout    *time.Duration `help:"Time that all of this may take, up to 1h." placeholder:"TIME"`
}

// resettable are the parts of a policy that can be given their defaults again, and their paths.
var resettable = map[string]string{
	"interval": "policy.interval", "bandwidth": "policy.bandwidth_bytes_per_second", "fence_timeout": "policy.fence_timeout",
	"on_main_return": "policy.on_main_return", "consistency": "policy.consistency", "retention": "policy.retention",
	"networks": "policy.network_mappings", "verification": "policy.verification",
}

// policy is the policy that the flags say, and the paths of what they say.
func (f policyFlags) policy() (*umbrav1.Policy, []string, error) {
	policy := &umbrav1.Policy{}
	var paths []string
	if f.Interval > 0 {
		policy.Interval, paths = durationpb.New(f.Interval), append(paths, "policy.interval")
	}
	if f.Bandwidth > 0 {
		policy.BandwidthBytesPerSecond, paths = f.Bandwidth, append(paths, "policy.bandwidth_bytes_per_second")
	}
	if f.FenceTimeout != nil {
		policy.FenceTimeout, paths = durationpb.New(*f.FenceTimeout), append(paths, "policy.fence_timeout")
	}
	if f.OnMainReturn != "" {
		policy.OnMainReturn = umbrav1.OnMainReturn(umbrav1.OnMainReturn_value["ON_MAIN_RETURN_"+strings.ToUpper(f.OnMainReturn)])
		paths = append(paths, "policy.on_main_return")
	}
	if f.Consistency != "" {
		policy.Consistency = umbrav1.Consistency(umbrav1.Consistency_value["CONSISTENCY_"+strings.ToUpper(f.Consistency)])
		paths = append(paths, "policy.consistency")
	}
	for _, main := range slices.Sorted(maps.Keys(f.Network)) {
		policy.NetworkMappings = append(policy.NetworkMappings, &umbrav1.NetworkMapping{MainNetwork: main, ShadowNetwork: f.Network[main]})
	}
	if len(f.Network) > 0 {
		paths = append(paths, "policy.network_mappings")
	}
	retention, err := f.retention(policy)
	return policy, slices.Concat(paths, retention, f.verification(policy)), err
}

// retention adds which points are kept.
func (f policyFlags) retention(policy *umbrav1.Policy) (paths []string, err error) {
	kept := &umbrav1.RetentionPolicy{}
	for _, rule := range f.Keep {
		read, err := retentionRule(rule)
		if err != nil {
			return nil, err
		}
		kept.Rules = append(kept.Rules, read)
	}
	if len(f.Keep) > 0 {
		policy.Retention, paths = kept, append(paths, "policy.retention.rules")
	}
	if f.StoreBytesMax != nil {
		kept.StoreBytesMax = *f.StoreBytesMax
		policy.Retention, paths = kept, append(paths, "policy.retention.store_bytes_max")
	}
	return paths, nil
}

// retentionRule reads AGE or AGE:SPACING.
func retentionRule(text string) (*umbrav1.RetentionRule, error) {
	age, spacing, spaced := strings.Cut(text, ":")
	rule := &umbrav1.RetentionRule{}
	for _, part := range []struct {
		text string
		to   **durationpb.Duration
		used bool
	}{{age, &rule.MaxAge, true}, {spacing, &rule.Spacing, spaced}} {
		if !part.used {
			continue
		}
		length, err := time.ParseDuration(part.text)
		if err != nil || length <= 0 {
			return nil, usageError{fmt.Sprintf("--keep %s: %q is not a length of time such as 15m or 720h", text, part.text)}
		}
		*part.to = durationpb.New(length)
	}
	return rule, nil
}

// verification adds what proves that a shadow server works.
func (f policyFlags) verification(policy *umbrav1.Policy) (paths []string) {
	proof := &umbrav1.VerificationPolicy{}
	if f.VerifyRunTime != nil {
		proof.RunTime, paths = durationpb.New(*f.VerifyRunTime), append(paths, "policy.verification.run_time")
	}
	if f.VerifyGuestAgent != nil {
		proof.GuestAgent, paths = *f.VerifyGuestAgent, append(paths, "policy.verification.guest_agent")
	}
	if f.VerifyTCP != nil {
		proof.TcpProbe, paths = *f.VerifyTCP, append(paths, "policy.verification.tcp_probe")
	}
	if f.VerifyTimeout != nil {
		proof.Timeout, paths = durationpb.New(*f.VerifyTimeout), append(paths, "policy.verification.timeout")
	}
	if len(paths) > 0 {
		policy.Verification = proof
	}
	return paths
}
