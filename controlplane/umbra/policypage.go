package main

import (
	"fmt"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// policyRows are a policy in words.
func policyRows(p *umbrav1.Policy) [][2]string {
	if p == nil {
		return nil
	}
	points := fmt.Sprintf("one every %s, %s-consistent", length(p.GetInterval().AsDuration()), lower(p.GetConsistency().String(), "CONSISTENCY_"))
	if p.GetBandwidthBytesPerSecond() > 0 {
		points += fmt.Sprintf(", at most %s/s", size(p.GetBandwidthBytesPerSecond()))
	}
	rows := [][2]string{
		{"Interval", points},
		{"Keeps", retentionText(p.GetRetention())},
		{"Verified", verificationText(p.GetVerification())},
		{"Fence", fmt.Sprintf("waits %s for the main host; a main server that returns: %s", length(p.GetFenceTimeout().AsDuration()),
			lower(p.GetOnMainReturn().String(), "ON_MAIN_RETURN_"))},
	}
	for _, network := range p.GetNetworkMappings() {
		rows = append(rows, [2]string{"Network", network.GetMainNetwork() + " is " + network.GetShadowNetwork() + " on the shadow host"})
	}
	return rows
}

func retentionText(r *umbrav1.RetentionPolicy) string {
	rules := make([]string, len(r.GetRules()))
	for i, rule := range r.GetRules() {
		what := "every point"
		if spacing := rule.GetSpacing().AsDuration(); spacing > 0 {
			what = "one each " + length(spacing)
		}
		rules[i] = what + " for " + length(rule.GetMaxAge().AsDuration())
	}
	if r.GetStoreBytesMax() > 0 {
		rules = append(rules, "in at most "+size(r.GetStoreBytesMax()))
	}
	return strings.Join(rules, ", ")
}

func verificationText(v *umbrav1.VerificationPolicy) string {
	text := "runs for " + length(v.GetRunTime().AsDuration())
	if v.GetGuestAgent() {
		text += ", its guest agent answers"
	}
	if v.GetTcpProbe() != "" {
		text += ", " + v.GetTcpProbe() + " accepts a connection"
	}
	return text + ", all within " + length(v.GetTimeout().AsDuration())
}
