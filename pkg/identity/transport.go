package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc/credentials"
)

// Server is for a listener: callers must have a certificate of the same authority, for an ID that welcome accepts.
func (s *Source) Server(welcome func(ID) bool) credentials.TransportCredentials {
	return s.watched(explaining(hardened(tlsconfig.MTLSServerConfig(s, s, s.authorize(welcome)))))
}

// OpenServer is for a listener that a caller may also come to without a certificate, to show who it is otherwise. A
// certificate that is shown must be valid.
func (s *Source) OpenServer() credentials.TransportCredentials {
	config := explaining(hardened(tlsconfig.MTLSServerConfig(s, s, s.authorize(func(ID) bool { return true }))))
	config.ClientAuth = tls.RequestClientCert
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
		if len(raw) == 0 {
			return nil
		}
		return verify(raw, chains)
	}
	return s.watched(config)
}

// Dial is for a connection to the part that id names; any other is refused, whatever its address.
func (s *Source) Dial(id ID) (credentials.TransportCredentials, error) {
	if _, err := id.spiffe(); err != nil {
		return nil, fmt.Errorf("dialling %s: %w", id, err)
	}
	return s.watched(explaining(hardened(tlsconfig.MTLSClientConfig(s, s, s.authorize(func(other ID) bool { return other == id }))))), nil
}

// authorize judges a certificate that the authority has signed.
func (s *Source) authorize(welcome func(ID) bool) tlsconfig.Authorizer {
	return func(id spiffeid.ID, chains [][]*x509.Certificate) error {
		peer, err := certified(chains[0][0])
		switch {
		case err != nil:
			return err
		case id.TrustDomain() != trustDomain || !welcome(peer.ID):
			return fmt.Errorf("%s: %w", id, errNotWelcome)
		case s.peers.revoked(peer):
			return fmt.Errorf("%s: %w", id, ErrRevoked)
		default:
			return nil
		}
	}
}

// hardened makes every connection one of TLS 1.3 with a handshake of its own: a resumed one would not be judged again.
func hardened(config *tls.Config) *tls.Config {
	config.MinVersion = tls.VersionTLS13
	config.SessionTicketsDisabled = true
	return config
}

// explaining has refusals say what clocks have to do with them.
func explaining(config *tls.Config) *tls.Config {
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error { return explained(verify(raw, chains)) }
	return config
}

// explained is the error of a verification. A certificate of the authority that does not count yet, or no more, means as a
// rule that one of two clocks is wrong: all parts renew theirs long before the end.
func explained(err error) error {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		return err
	}
	return fmt.Errorf("the other side's certificate counts from %s to %s, and this machine's clock says otherwise; likely one of the two clocks is wrong, compare them (docs/troubleshooting.md): %w",
		invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339), err)
}

func (s *Source) watched(config *tls.Config) credentials.TransportCredentials {
	return watched{credentials.NewTLS(config), s.peers}
}
