package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

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
	var contents [3][]byte
	for i, name := range []string{files.Cert, files.Key, files.CA} {
		var err error
		if contents[i], err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("loading credentials: %w", err)
		}
	}
	return ParseCredentials(contents[0], contents[1], contents[2])
}

// ParseCredentials reads a certificate with its chain, its key, and the authority's certificates, all PEM.
func ParseCredentials(chain, key, bundle []byte) (*Credentials, error) {
	svid, err := x509svid.Parse(chain, key)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate and its key: %w", err)
	}
	trusted, err := x509bundle.Parse(trustDomain, bundle)
	if err != nil {
		return nil, fmt.Errorf("reading the authority's certificates: %w", err)
	}
	if svid.ID.TrustDomain() != trustDomain {
		return nil, fmt.Errorf("the certificate is for %s, which is not in the trust domain %s", svid.ID, trustDomain)
	}
	return &Credentials{svid: svid, bundle: trusted}, nil
}

// ID is who the certificate names.
func (c *Credentials) ID() ID { return ID{c.svid.ID.Path()} }

// NotAfter is when the certificate ends.
func (c *Credentials) NotAfter() time.Time { return c.leaf().NotAfter }

// RenewTime is when half of the certificate's life is over.
func (c *Credentials) RenewTime() time.Time {
	leaf := c.leaf()
	begin := leaf.NotBefore.Add(backdate)
	return begin.Add(leaf.NotAfter.Sub(begin) / 2)
}

func (c *Credentials) leaf() *x509.Certificate { return c.svid.Certificates[0] }

// Source hands a part's credentials to each new connection. They can be replaced at any time; connections that are open
// go on. It is safe for concurrent use.
type Source struct {
	current atomic.Pointer[Credentials]
	peers   *Peers
}

// NewSource makes a source. Its connections are known to peers, which may be nil.
func NewSource(credentials *Credentials, peers *Peers) *Source {
	s := &Source{peers: peers}
	s.Set(credentials)
	return s
}

// Set replaces the credentials.
func (s *Source) Set(credentials *Credentials) { s.current.Store(credentials) }

// Current is the credentials now.
func (s *Source) Current() *Credentials { return s.current.Load() }

// GetX509SVID is for go-spiffe.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) { return s.Current().svid, nil }

// GetX509BundleForTrustDomain is for go-spiffe.
func (s *Source) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return s.Current().bundle.GetX509BundleForTrustDomain(domain)
}

var errNotWelcome = errors.New("the certificate is valid, and not for this")
