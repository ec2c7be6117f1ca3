package store

import "strings"

// The layout in etcd. Ids hold lower-case letters, digits and hyphens, and no slash, so no key is a prefix of
// another one's path.
//
//	/umbra/pairs/{pair}                       the pair and its newest operation
//	/umbra/servers/{host}/{server uuid}       the id of the pair that protects the server
//	/umbra/operations/{reversed id}           every operation; those of the past for operationHistory
//	/umbra/pair-operations/{pair}/{reversed}  the same, by pair; the value is empty
//	/umbra/requests/{method}/{caller}/{id}    what a request id led to, for requestMemory
//	/umbra/hosts/{host}                       what is worth keeping of a host
//	/umbra/presence/control-planes/{id}       a control plane that works, for as long as its lease
//	/umbra/presence/sessions/{host}           which control plane has the host's session, for as long as that one's lease
//	/umbra/authority                          the authority that signs certificates, its key included
//	/umbra/identities/{kind}/{name}           which certificates of a host or a client count
//	/umbra/join-tokens/{id}                   what a join token is good for, until it ends
//	/umbra/audit/{reversed id}                what somebody did, for auditMemory
//	/umbra/history                            which life of the records this is: another one after each restore
const (
	root           = "/umbra/"
	pairs          = root + "pairs/"
	servers        = root + "servers/"
	operations     = root + "operations/"
	pairOperations = root + "pair-operations/"
	requests       = root + "requests/"
	hosts          = root + "hosts/"
	presence       = root + "presence/"
	controlPlanes  = presence + "control-planes/"
	sessions       = presence + "sessions/"
	authority      = root + "authority"
	identities     = root + "identities/"
	joinTokens     = root + "join-tokens/"
	audits         = root + "audit/"
	history        = root + "history"
)

func pairKey(id string) string           { return pairs + id }
func serverKey(host, uuid string) string { return servers + host + "/" + uuid }
func hostKey(id string) string           { return hosts + id }
func controlPlaneKey(id string) string   { return controlPlanes + id }
func sessionKey(host string) string      { return sessions + host }
func identityKey(subject string) string  { return identities + subject }
func joinTokenKey(id string) string      { return joinTokens + id }
func auditKey(id string) string          { return audits + reverse(id) }

func operationKey(id string) string { return operations + reverse(id) }

func pairOperationsPrefix(pair string) string { return pairOperations + pair + "/" }

func pairOperationKey(pair, id string) string { return pairOperationsPrefix(pair) + reverse(id) }

// idCharacters are the characters of ids, in the order in which they sort.
const idCharacters = "-0123456789abcdefghijklmnopqrstuvwxyz"

// reverse maps ids of equal length so that their order is turned round. etcd reads a range in ascending order
// without looking at more than the page; in descending order it would read and sort all of it. Applied twice it
// gives the id back.
func reverse(id string) string {
	return strings.Map(func(r rune) rune {
		i := strings.IndexRune(idCharacters, r)
		if i < 0 {
			return r
		}
		return rune(idCharacters[len(idCharacters)-1-i])
	}, id)
}
