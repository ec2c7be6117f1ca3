package drpair

import "time"

// Side is a part of the system. The values are stored.
type Side string

// The sides.
const (
	SideMain         Side = "MAIN"
	SideShadow       Side = "SHADOW"
	SideControlPlane Side = "CONTROL_PLANE"
)

// Reason is the stable reason of a failure: the name of an ErrorReason of the API without its prefix.
type Reason string

// The reasons that are decided on here. Hosts report others too, which are passed on.
const (
	ReasonMainUnreachable   Reason = "MAIN_HOST_UNREACHABLE"
	ReasonShadowUnreachable Reason = "SHADOW_HOST_UNREACHABLE"
	ReasonDeadline          Reason = "DEADLINE"
	ReasonNoSpace           Reason = "NO_SPACE"
	ReasonSuperseded        Reason = "SUPERSEDED"
	ReasonRestored          Reason = "RECORDS_RESTORED"
)

// Failure is why something failed, told so that a person can act on it.
type Failure struct {
	Code      int32 // google.rpc.Code
	Reason    Reason
	Step      StepKind `json:",omitempty"`
	Side      Side
	Message   string
	Causes    []string `json:",omitempty"`
	Actions   []string `json:",omitempty"`
	Retryable bool     `json:",omitempty"`
	Time      time.Time
}

// same tells whether two failures say the same, apart from when it was seen.
func (f *Failure) same(other *Failure) bool {
	if f == nil || other == nil {
		return f == other
	}
	return f.Reason == other.Reason && f.Side == other.Side && f.Step == other.Step && f.Message == other.Message
}

// The google.rpc codes used here.
const (
	codeCancelled        = 1
	codeDeadlineExceeded = 4
	codeAborted          = 10
	codeUnavailable      = 14
)

func mainUnreachable(now time.Time) *Failure {
	return &Failure{
		Code: codeUnavailable, Reason: ReasonMainUnreachable, Side: SideMain, Retryable: true, Time: now,
		Message: "The main host is not connected to the control plane. Replication may be going on without it, or the host may be down.",
		Causes:  []string{"The main host is down.", "hostd is not running there.", "The network between the main host and the control plane is broken."},
		Actions: []string{"Look whether the main server works.", "If it does not, failover to the newest recovery point.", "Otherwise bring hostd or the network back."},
	}
}

func shadowUnreachable(now time.Time) *Failure {
	return &Failure{
		Code: codeUnavailable, Reason: ReasonShadowUnreachable, Side: SideShadow, Retryable: true, Time: now,
		Message: "The shadow host is not connected to the control plane.",
		Causes:  []string{"The shadow host is down.", "hostd is not running there.", "The network between the shadow host and the control plane is broken."},
		Actions: []string{"Bring the shadow host, its hostd or the network back, then try again."},
	}
}

func deadline(step StepKind, side Side, now time.Time) *Failure {
	return &Failure{
		Code: codeDeadlineExceeded, Reason: ReasonDeadline, Step: step, Side: side, Retryable: true, Time: now,
		Message: "The step " + string(step) + " did not end in its time.",
		Causes:  []string{"The host is down, overloaded, or its hypervisor hangs."},
		Actions: []string{"Failover again, to this or another recovery point.", "Get a support bundle: it has the host's log of this step."},
	}
}
