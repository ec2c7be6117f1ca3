package drpair

import "time"

// Policy is how a pair is protected, complete: defaults are filled in when it is stored.
type Policy struct {
	Interval                time.Duration
	Retention               []RetentionRule
	StoreBytesMax           int64 `json:",omitempty"`
	BandwidthBytesPerSecond int64 `json:",omitempty"`
	Networks                []NetworkMapping
	Verification            Verification
	OnMainReturn            OnMainReturn
	ApplicationConsistent   bool `json:",omitempty"`
	FenceTimeout            time.Duration
}

// RetentionRule keeps, of the points younger than MaxAge, one per Spacing; every one if Spacing is 0.
type RetentionRule struct{ MaxAge, Spacing time.Duration }

// NetworkMapping replaces a network of the main host by one of the shadow host.
type NetworkMapping struct{ Main, Shadow string }

// Verification is what a started shadow server must show.
type Verification struct {
	RunTime    time.Duration
	GuestAgent bool `json:",omitempty"`
	Timeout    time.Duration
	TCPProbe   string `json:",omitempty"`
}

// OnMainReturn is what becomes of a main server whose epoch is over. The values are stored.
type OnMainReturn string

// The policies.
const (
	ShutDown          OnMainReturn = "SHUT_DOWN"
	DisconnectNetwork OnMainReturn = "DISCONNECT_NETWORK"
	LeaveRunning      OnMainReturn = "LEAVE_RUNNING"
)

// DefaultPolicy is what a pair gets where its caller says nothing.
func DefaultPolicy() Policy {
	const day = 24 * time.Hour
	return Policy{
		Interval:     15 * time.Second,
		Retention:    []RetentionRule{{MaxAge: time.Hour}, {MaxAge: day, Spacing: 15 * time.Minute}, {MaxAge: 30 * day, Spacing: day}},
		Verification: Verification{RunTime: 2 * time.Second, Timeout: 2 * time.Minute},
		OnMainReturn: ShutDown,
		FenceTimeout: 10 * time.Second,
	}
}
