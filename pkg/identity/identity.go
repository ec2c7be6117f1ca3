// Package identity says who is at the other end of a connection. Every part of Umbra has an X.509 certificate whose URI
// name is a SPIFFE ID in the trust domain "umbra": the control plane, each host, each client. Connections are TLS 1.3.
//
// A Source holds what a part is known by and hands it to each new connection, so a certificate is replaced while streams
// go on. Peers knows every open connection by who is at its other end, so one whose certificate is revoked is cut off
// at once. Authority signs; Token and Key are for the first contact. Nothing here reads a clock but the TLS handshake.
package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

var trustDomain = spiffeid.RequireTrustDomainFromString("umbra")

// ID names a part of Umbra.
type ID struct{ path string }

// ControlPlane is the control plane.
func ControlPlane() ID { return ID{"/controlplane"} }

// Host is hostd on the host of that id.
func Host(id string) ID { return ID{hostPath + id} }

// Client is a person or a service that calls the API in a role.
func Client(role, name string) ID { return ID{clientPath + role + "/" + name} }

const (
	hostPath   = "/host/"
	clientPath = "/client/"
)

var hostID = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidHostID tells whether a host may have that id: lower-case letters, digits and hyphens.
func ValidHostID(id string) bool { return hostID.MatchString(id) }

var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ValidClientName tells whether a client may have that name: letters, digits, dots, hyphens and underscores.
func ValidClientName(name string) bool { return clientName.MatchString(name) }

func (id ID) String() string { return "spiffe://" + trustDomain.Name() + id.path }

// HostID is the id of the host that this names, if it names one.
func (id ID) HostID() (string, bool) { return strings.CutPrefix(id.path, hostPath) }

// ClientRole is the role and the name of the caller of the API that this names, if it names one.
func (id ID) ClientRole() (role, name string, ok bool) {
	rest, ok := strings.CutPrefix(id.path, clientPath)
	if !ok {
		return "", "", false
	}
	role, name, ok = strings.Cut(rest, "/")
	return role, name, ok
}

// Subject is who has the certificates: a client is the same one in every role.
func (id ID) Subject() string {
	if _, name, ok := id.ClientRole(); ok {
		return ClientSubject(name)
	}
	return strings.TrimPrefix(id.path, "/")
}

// HostSubject is the subject of a host's certificates.
func HostSubject(id string) string { return Host(id).Subject() }

// ClientSubject is the subject of a client's certificates.
func ClientSubject(name string) string { return strings.TrimPrefix(clientPath, "/") + name }

func (id ID) spiffe() (spiffeid.ID, error) { return spiffeid.FromPath(trustDomain, id.path) }

// Peer is who is at the other end of a connection, by a certificate that the handshake has verified.
type Peer struct {
	ID ID
	// Generation numbers the subject's enrolments: revoking raises the least one that counts. 0 for a certificate that
	// says none, as one that was made by hand.
	Generation uint64
	// NotAfter is when the certificate ends. A connection may live longer.
	NotAfter time.Time
}

// ErrNoPeer means that the caller has no certificate.
var ErrNoPeer = errors.New("the caller has no certificate")

// PeerOf is who made the call that the context belongs to.
func PeerOf(ctx context.Context) (Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, ErrNoPeer
	}
	return peerFrom(p.AuthInfo)
}

func peerFrom(info credentials.AuthInfo) (Peer, error) {
	tls, ok := info.(credentials.TLSInfo)
	if !ok || len(tls.State.PeerCertificates) == 0 {
		return Peer{}, ErrNoPeer
	}
	return certified(tls.State.PeerCertificates[0])
}

func certified(cert *x509.Certificate) (Peer, error) {
	id, err := x509svid.IDFromCert(cert)
	if err != nil {
		return Peer{}, fmt.Errorf("reading the name in a certificate: %w", err)
	}
	made := Peer{ID: ID{id.Path()}, NotAfter: cert.NotAfter}
	if number := cert.Subject.SerialNumber; number != "" {
		if made.Generation, err = strconv.ParseUint(number, 10, 64); err != nil {
			return Peer{}, fmt.Errorf("reading the generation in the certificate of %s: %w", made.ID, err)
		}
	}
	return made, nil
}

// PeerHost is the id of the host that made the call.
func PeerHost(ctx context.Context) (string, error) {
	made, err := PeerOf(ctx)
	if err != nil {
		return "", err
	}
	host, ok := made.ID.HostID()
	if !ok {
		return "", fmt.Errorf("%s is not a host", made.ID)
	}
	return host, nil
}
