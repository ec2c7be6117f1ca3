package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"
)

// OpenDial is for a connection of who has no certificate, to an OpenServer: a person or a service with a token. The control plane is
// known by its name in Umbra, signed by one of the authorities, PEM, and by the host name or address that is dialled.
func OpenDial(authorities []byte) (credentials.TransportCredentials, error) {
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(authorities) {
		return nil, errors.New("there is no certificate of an authority")
	}
	return credentials.NewTLS(hardened(&tls.Config{RootCAs: trusted, VerifyConnection: isControlPlane})), nil
}

// isControlPlane judges a certificate that has been verified.
func isControlPlane(state tls.ConnectionState) error {
	peer, err := certified(state.PeerCertificates[0])
	if err != nil {
		return err
	}
	if peer.ID != ControlPlane() {
		return fmt.Errorf("%s is not the control plane", peer.ID)
	}
	return nil
}

// TokenFile shows the bearer token that is in a file. The file is read for every call, so that a token can be renewed while a stream
// goes on. It is not shown without TLS.
func TokenFile(path string) credentials.PerRPCCredentials { return tokenFile(path) }

type tokenFile string

func (f tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(f))
	if err != nil {
		return nil, fmt.Errorf("reading the token: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, nil
}

func (tokenFile) RequireTransportSecurity() bool { return true }
