package main

import (
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// policyOf is what an update with these flags asks for.
func policyOf(t *testing.T, flags ...string) (*umbrav1.Policy, []string) {
	t.Helper()
	var line updateCommand
	parser, err := kong.New(&line)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"web"}, flags...)); err != nil {
		t.Fatal(err)
	}
	policy, paths, err := line.policy()
	if err != nil {
		t.Fatal(err)
	}
	return policy, paths
}

var everyPolicyFlag = []string{
	"--interval", "5s", "--bandwidth", "1000000", "--fence-timeout", "0s", "--on-main-return", "leave_running", "--consistency", "application",
	"--keep", "1h", "--keep", "24h:15m", "--store-bytes-max", "1000", "--network", "lan=dr-lan", "--network", "dmz=dr-dmz",
	"--verify-run-time", "0s", "--verify-guest-agent", "--verify-tcp", "10.0.0.9:443", "--verify-timeout", "5m",
}

func TestTheFlagsSayTheWholePolicy(t *testing.T) {
	want := &umbrav1.Policy{}
	if err := prototext.Unmarshal([]byte(`interval {seconds: 5} bandwidth_bytes_per_second: 1000000 fence_timeout {}
		on_main_return: ON_MAIN_RETURN_LEAVE_RUNNING consistency: CONSISTENCY_APPLICATION
		retention {rules {max_age {seconds: 3600}} rules {max_age {seconds: 86400} spacing {seconds: 900}} store_bytes_max: 1000}
		network_mappings {main_network: "dmz" shadow_network: "dr-dmz"} network_mappings {main_network: "lan" shadow_network: "dr-lan"}
		verification {run_time {} guest_agent: true tcp_probe: "10.0.0.9:443" timeout {seconds: 300}}`), want); err != nil {
		t.Fatal(err)
	}
	policy, paths := policyOf(t, everyPolicyFlag...)
	if !proto.Equal(policy, want) {
		t.Errorf("they say %v", policy)
	}
	if err := protovalidate.Validate(policy); err != nil {
		t.Error(err)
	}
	slices.Sort(paths)
	if all := fields((&umbrav1.Policy{}).ProtoReflect().Descriptor(), "policy."); !slices.Equal(paths, all) {
		t.Errorf("they change\n%q\nof\n%q", paths, all)
	}
}

// fields are the paths of all that an update can change, in order.
func fields(message protoreflect.MessageDescriptor, prefix string) []string {
	var paths []string
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		path := prefix + string(field.Name())
		if inner := field.Message(); inner != nil && !field.IsList() && strings.HasPrefix(string(inner.FullName()), "umbra.") {
			paths = append(paths, fields(inner, path+".")...)
			continue
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

func TestWhatIsNotGivenIsNotChanged(t *testing.T) {
	for flags, want := range map[string]string{
		"":                                  "",
		"--store-bytes-max 0":               "policy.retention.store_bytes_max",
		"--no-verify-guest-agent":           "policy.verification.guest_agent",
		"--verify-tcp=":                     "policy.verification.tcp_probe",
		"--keep 2h --network lan=dr-lan":    "policy.network_mappings policy.retention.rules",
		"--fence-timeout 0s --interval 24h": "policy.interval policy.fence_timeout",
	} {
		if _, paths := policyOf(t, strings.Fields(flags)...); strings.Join(paths, " ") != want {
			t.Errorf("%q changes %q", flags, paths)
		}
	}
}

func TestEveryPartOfAPolicyCanBeReset(t *testing.T) {
	descriptor := (&umbrav1.Policy{}).ProtoReflect().Descriptor().Fields()
	for i := range descriptor.Len() {
		path := "policy." + string(descriptor.Get(i).Name())
		found := false
		for _, resets := range resettable {
			found = found || resets == path
		}
		if !found {
			t.Errorf("nothing resets %s", path)
		}
	}
}

func TestAPolicyThatCannotBeMeantIsWrongUsage(t *testing.T) {
	p := startPlane(t)
	protect := []string{"protect", "web", "--main-host", "a", "--shadow-host", "b"}
	for _, of := range []struct{ flags, says string }{
		{"--keep soon", `"soon" is not a length of time`},
		{"--keep 1h:", `"" is not a length of time`},
		{"--keep -1h", "is not a length of time"},
		{"--network lan", "network"},
		{"--store-bytes-max 1000", "--store-bytes-max goes with --keep"},
	} {
		flags := strings.SplitN(of.flags, " ", 2)
		p.typed(t.Context(), "", append(protect, strings.Join(flags, "="))...).want(t, exitUsage, of.says)
	}
	p.typed(t.Context(), "", "update", "web", "--reset", "everything").want(t, exitUsage, "--reset")
	p.typed(t.Context(), "", "update", "web").want(t, exitUsage, "say what to change")
}
