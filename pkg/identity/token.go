package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
)

const (
	tokenPrefix      = "umbra-join-1"
	tokenIDBytes     = 8
	tokenSecretBytes = 32
)

// Token lets a host enrol, once. As text it is
//
//	umbra-join-1.{id}.{secret}.{fingerprint of the authority}
//
// The fingerprint lets the host know the control plane before it has told it the secret.
type Token struct {
	ID          string
	Secret      [tokenSecretBytes]byte
	Fingerprint [sha256.Size]byte
}

// NewToken makes a token for a control plane of that authority.
func NewToken(authority [sha256.Size]byte) Token {
	var id [tokenIDBytes]byte
	token := Token{Fingerprint: authority}
	_, _ = rand.Read(id[:]) // never fails, by its documentation
	_, _ = rand.Read(token.Secret[:])
	token.ID = hex.EncodeToString(id[:])
	return token
}

// String is the token as text. It is a secret.
func (t Token) String() string {
	safe := base64.RawURLEncoding.EncodeToString
	return strings.Join([]string{tokenPrefix, t.ID, safe(t.Secret[:]), safe(t.Fingerprint[:])}, ".")
}

// SecretHash is what is stored of the secret, which is random and long, so that nothing can be guessed from it.
func (t Token) SecretHash() [sha256.Size]byte { return sha256.Sum256(t.Secret[:]) }

var errToken = errors.New("this is not a join token")

// ParseToken reads a token.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 4 || parts[0] != tokenPrefix {
		return Token{}, errToken
	}
	token := Token{ID: parts[1]}
	if id, err := hex.DecodeString(token.ID); err != nil || len(id) != tokenIDBytes {
		return Token{}, errToken
	}
	for i, field := range [][]byte{token.Secret[:], token.Fingerprint[:]} {
		read, err := base64.RawURLEncoding.Strict().DecodeString(parts[i+2])
		if err != nil || len(read) != len(field) {
			return Token{}, errToken
		}
		copy(field, read)
	}
	return token, nil
}

// FirstDial is for the connection of a host that has nothing but a token: the control plane is known by the authority's
// fingerprint. The control plane is not shown who calls.
func FirstDial(token Token) credentials.TransportCredentials {
	return credentials.NewTLS(hardened(&tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies, against the fingerprint
		VerifyConnection:   func(state tls.ConnectionState) error { return pinned(state.PeerCertificates, token.Fingerprint) },
	}))
}

// pinned verifies a chain that must end at the authority of that fingerprint and be the control plane's.
func pinned(certs []*x509.Certificate, fingerprint [sha256.Size]byte) error {
	for _, cert := range certs[min(1, len(certs)):] {
		if sha256.Sum256(cert.Raw) != fingerprint {
			continue
		}
		id, _, err := x509svid.Verify(certs, x509bundle.FromX509Authorities(trustDomain, []*x509.Certificate{cert}))
		if err != nil {
			return fmt.Errorf("verifying the control plane's certificate: %w", explained(err))
		}
		if id.Path() != ControlPlane().path {
			return fmt.Errorf("%s is not the control plane", id)
		}
		return nil
	}
	return errors.New("the authority at that address is not the one that the join token was made by")
}
