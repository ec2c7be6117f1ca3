package api

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// policyField is where a policy is in the requests that have one.
const policyField = "dr_pair.policy"

// policyFrom reads a policy and fills in the defaults. The schema's rules hold by then; what is checked here is what
// a schema does not say. session.Policy is the other direction.
func policyFrom(message *umbrav1.Policy) (drpair.Policy, error) {
	if err := checkDurations(message); err != nil {
		return drpair.Policy{}, err
	}
	policy := drpair.DefaultPolicy()
	policy.Interval = durationOr(message.GetInterval(), policy.Interval)
	policy.FenceTimeout = durationOr(message.GetFenceTimeout(), policy.FenceTimeout)
	policy.BandwidthBytesPerSecond = message.GetBandwidthBytesPerSecond()
	policy.ApplicationConsistent = message.GetConsistency() == umbrav1.Consistency_CONSISTENCY_APPLICATION
	if message.GetOnMainReturn() != umbrav1.OnMainReturn_ON_MAIN_RETURN_UNSPECIFIED {
		policy.OnMainReturn = word[drpair.OnMainReturn](message.GetOnMainReturn().String(), onMainReturnPrefix)
	}
	if retention := message.GetRetention(); retention != nil {
		policy.StoreBytesMax = retention.GetStoreBytesMax()
		policy.Retention = nil
		for _, rule := range retention.GetRules() {
			policy.Retention = append(policy.Retention, drpair.RetentionRule{
				MaxAge: rule.GetMaxAge().AsDuration(), Spacing: rule.GetSpacing().AsDuration(),
			})
		}
	}
	verification := message.GetVerification()
	policy.Verification.RunTime = durationOr(verification.GetRunTime(), policy.Verification.RunTime)
	policy.Verification.Timeout = durationOr(verification.GetTimeout(), policy.Verification.Timeout)
	policy.Verification.GuestAgent = verification.GetGuestAgent()
	policy.Verification.TCPProbe = verification.GetTcpProbe()
	for _, mapping := range message.GetNetworkMappings() {
		policy.Networks = append(policy.Networks, drpair.NetworkMapping{Main: mapping.GetMainNetwork(), Shadow: mapping.GetShadowNetwork()})
	}
	return policy, checkPolicy(policy)
}

func durationOr(message *durationpb.Duration, otherwise time.Duration) time.Duration {
	if message == nil {
		return otherwise
	}
	return message.AsDuration()
}

// checkDurations refuses durations that are none, such as one with 2,000,000,000 nanoseconds.
func checkDurations(message *umbrav1.Policy) error {
	durations := map[string]*durationpb.Duration{
		"interval": message.GetInterval(), "fence_timeout": message.GetFenceTimeout(),
		"verification.run_time": message.GetVerification().GetRunTime(),
		"verification.timeout":  message.GetVerification().GetTimeout(),
	}
	for i, rule := range message.GetRetention().GetRules() {
		durations[fmt.Sprintf("retention.rules[%d].max_age", i)] = rule.GetMaxAge()
		durations[fmt.Sprintf("retention.rules[%d].spacing", i)] = rule.GetSpacing()
	}
	for path, duration := range durations {
		if duration != nil && !duration.IsValid() {
			return invalid(policyField+"."+path, "is not a valid duration")
		}
	}
	return nil
}

// checkPolicy checks what fields say together.
func checkPolicy(p drpair.Policy) error {
	if len(p.Retention) == 0 {
		return invalid(policyField+".retention.rules", "must hold a rule, or no recovery point would be kept")
	}
	mapped := map[string]bool{}
	for _, mapping := range p.Networks {
		if mapped[mapping.Main] {
			return invalid(policyField+".network_mappings", "the main host's network %q is mapped twice", mapping.Main)
		}
		mapped[mapping.Main] = true
	}
	if p.Verification.RunTime >= p.Verification.Timeout {
		return invalid(policyField+".verification.timeout", "must be longer than the %v that the server has to run", p.Verification.RunTime)
	}
	if p.Verification.TCPProbe != "" {
		return checkProbe(p.Verification.TCPProbe)
	}
	return nil
}

func checkProbe(address string) error {
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || host == "" || number == 0 {
		return invalid(policyField+".verification.tcp_probe", `must be "address:port"`)
	}
	return nil
}
