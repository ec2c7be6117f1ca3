// Package identity says who is at the other end of a connection. Every part of Umbra has an X.509 certificate whose URI
// name is a SPIFFE ID in the trust domain "umbra": the control plane, each host, each client. Connections are TLS 1.3
// with certificates on both ends. Files are PEM: the part's certificate, its key, and the authority's certificate.
package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
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
func Host(id string) ID { return ID{"/host/" + id} }

// Client is a person or a service that calls the API.
func Client(name string) ID { return ID{"/client/" + name} }

func (id ID) String() string { return "spiffe://" + trustDomain.Name() + id.path }

// HostID is the id of the host that this names, if it names one.
func (id ID) HostID() (string, bool) { return strings.CutPrefix(id.path, "/host/") }

// IsClient tells whether this names a caller of the API.
func (id ID) IsClient() bool { return strings.HasPrefix(id.path, "/client/") }

func (id ID) spiffe() (spiffeid.ID, error) { return spiffeid.FromPath(trustDomain, id.path) }

// Files are the paths of a part's certificate, of its key, and of the authority's certificate.
type Files struct {
	Cert string `help:"Certificate of this part, PEM." placeholder:"FILE"`
	Key  string `help:"Its private key, PEM." placeholder:"FILE"`
	CA   string `help:"Certificate of the authority that all parts trust, PEM." placeholder:"FILE"`
}

// Credentials is who a part is and whom it trusts.
type Credentials struct {
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
}

// Load reads the files.
func Load(files Files) (*Credentials, error) {
	svid, err := x509svid.Load(files.Cert, files.Key)
	if err != nil {
		return nil, fmt.Errorf("loading certificate %s and key %s: %w", files.Cert, files.Key, err)
	}
	bundle, err := x509bundle.Load(trustDomain, files.CA)
	if err != nil {
		return nil, fmt.Errorf("loading the authority's certificate %s: %w", files.CA, err)
	}
	return &Credentials{svid: svid, bundle: bundle}, nil
}

// Server is for a listener: callers must have a certificate of the same authority.
func (c *Credentials) Server() credentials.TransportCredentials {
	config := tlsconfig.MTLSServerConfig(c.svid, c.bundle, tlsconfig.AuthorizeMemberOf(trustDomain))
	config.MinVersion = tls.VersionTLS13
	return credentials.NewTLS(config)
}

// Dial is for a connection to the part that id names; any other is refused, whatever its address.
func (c *Credentials) Dial(id ID) (credentials.TransportCredentials, error) {
	want, err := id.spiffe()
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", id, err)
	}
	config := tlsconfig.MTLSClientConfig(c.svid, c.bundle, tlsconfig.AuthorizeID(want))
	config.MinVersion = tls.VersionTLS13
	return credentials.NewTLS(config), nil
}

// ErrNoPeer means that the caller has no certificate.
var ErrNoPeer = errors.New("the caller has no certificate")

// Peer is who made the call that the context belongs to. The certificate has been verified by the handshake.
func Peer(ctx context.Context) (ID, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ID{}, ErrNoPeer
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return ID{}, ErrNoPeer
	}
	id, err := x509svid.IDFromCert(info.State.PeerCertificates[0])
	if err != nil {
		return ID{}, fmt.Errorf("reading the caller's certificate: %w", err)
	}
	return ID{id.Path()}, nil
}

// PeerHost is the id of the host that made the call.
func PeerHost(ctx context.Context) (string, error) {
	id, err := Peer(ctx)
	if err != nil {
		return "", err
	}
	host, ok := id.HostID()
	if !ok {
		return "", fmt.Errorf("%s is not a host", id)
	}
	return host, nil
}
