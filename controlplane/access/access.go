// Package access decides who may call what. Every call, of whatever service, passes its interceptors: they find out who
// calls, look up in one table what the method needs, refuse who has not got it, and hand calls that change something
// to the audit log.
//
// It promises that a method that is not in the table is refused to everybody, and that a handler runs only for a caller
// that the context tells (From).
package access

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/umbra-dr/umbra/pkg/identity"
)

// Kind is what a caller is.
type Kind int

// The kinds.
const (
	Nobody Kind = iota // showed nothing
	Person             // a person or a service, with roles
	Host               // hostd
	Plane              // another control plane
	Joiner             // a host that shows a join token, and nothing else yet
)

// Caller is who calls.
type Caller struct {
	Kind Kind
	// Name tells callers apart, in logs and for request ids: "client/{name}", "host/{id}", "oidc:{subject}",
	// "local:{user id}", "joining:{host}", "controlplane", "nobody".
	Name  string
	Roles []Role
	// HostID is the host's id, and Generation that of its certificate, for a Host.
	HostID     string
	Generation uint64
	// Local: the call came over the unix socket.
	Local bool
}

var nobody = Caller{Kind: Nobody, Name: "nobody"}

func (c Caller) may(needs Permission) bool {
	switch needs {
	case Anyone:
		return true
	case HostOnly:
		return c.Kind == Host
	case PlaneOnly:
		return c.Kind == Plane
	case Joining:
		return c.Kind == Joiner
	case Local:
		return c.Local
	case Nothing:
		return false
	}
	if c.Kind != Person {
		return false
	}
	for _, role := range c.Roles {
		if role.grants(needs) {
			return true
		}
	}
	return false
}

type callerKey struct{}

// With is a context of a call by that caller.
func With(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// From is who makes the call that the context belongs to.
func From(ctx context.Context) Caller {
	if caller, ok := ctx.Value(callerKey{}).(Caller); ok {
		return caller
	}
	return nobody
}

// Address is where the call comes from.
func Address(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	switch {
	case !ok || p.Addr == nil:
		return ""
	case p.Addr.Network() == "unix":
		return "unix socket"
	default:
		return p.Addr.String()
	}
}

// certified is the caller that a certificate names.
func certified(shown identity.Peer, now time.Time) (Caller, error) {
	caller := Caller{Name: shown.ID.Subject(), Generation: shown.Generation}
	if now.After(shown.NotAfter) { // the handshake was before that
		return nobody, fmt.Errorf("the certificate of %s ended at %v", caller.Name, shown.NotAfter)
	}
	if host, ok := shown.ID.HostID(); ok {
		caller.Kind, caller.HostID = Host, host
		return caller, nil
	}
	if shown.ID == identity.ControlPlane() {
		caller.Kind = Plane
		return caller, nil
	}
	word, name, ok := shown.ID.ClientRole()
	role, known := ParseRole(word)
	if !ok || !known || !identity.ValidClientName(name) {
		return nobody, fmt.Errorf("%s is neither a host, a control plane, nor a client in a role", shown.ID)
	}
	caller.Kind, caller.Roles = Person, []Role{role}
	return caller, nil
}
