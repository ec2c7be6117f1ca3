package access

import "slices"

// Permission is what a method needs of its caller.
type Permission int

// The permissions. All but the first five are given by roles.
const (
	Nothing      Permission = iota // refused to everybody: a method that nobody has thought about
	Anyone                         // also who shows nothing: the method says nothing, or looks for itself who calls
	HostOnly                       // hostd
	PlaneOnly                      // another control plane on the same etcd
	Joining                        // who shows a join token that is valid
	Read                           // look at pairs, points, operations and hosts
	Diagnose                       // get support bundles, which hold logs and definitions of servers
	FailOver                       // what the day of a failover asks for
	Protect                        // make and change pairs
	DeletePair                     // end a protection, with all its points
	DeletePoints                   // delete recovery points by failing over, beside what the method itself needs
	Enrol                          // let hosts and people in, and take that back
	ReadAudit                      // read the audit log
	Local                          // be on the control plane's machine, with the right to open its socket; no role gives that
)

// Role is a set of permissions.
type Role string

// The roles, as they are written in certificates and, behind a prefix, in tokens.
const (
	Viewer        Role = "viewer"
	Operator      Role = "operator"
	Administrator Role = "administrator"
)

// roles are all of them, the least first.
var roles = []Role{Viewer, Operator, Administrator}

// whoHas says, behind a refusal, which role has the permission: the least that does.
func (p Permission) whoHas() string {
	for _, role := range roles {
		if role.grants(p) {
			return ": that takes the role " + string(role)
		}
	}
	return ""
}

// ParseRole reads a role.
func ParseRole(word string) (Role, bool) {
	if role := Role(word); slices.Contains(roles, role) {
		return role, true
	}
	return "", false
}

func (r Role) grants(needs Permission) bool {
	switch needs {
	case Read:
		return r == Viewer || r == Operator || r == Administrator
	case Diagnose, FailOver:
		return r == Operator || r == Administrator
	case Protect, DeletePair, DeletePoints, Enrol, ReadAudit:
		return r == Administrator
	default:
		return false
	}
}
