package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/umbra-dr/umbra/pkg/identity"
)

// connection says where the control plane is and who calls.
type connection struct {
	Server    string        `help:"The control plane: address:port, or unix:FILE." env:"UMBRA_SERVER" default:"unix:/run/umbra/api.sock" placeholder:"WHERE"`
	CA        string        `name:"ca" help:"Certificate of Umbra's authority, PEM." env:"UMBRA_CA" placeholder:"FILE"`
	Cert      string        `help:"Your certificate, PEM." env:"UMBRA_CERT" placeholder:"FILE"`
	Key       string        `help:"Its private key, PEM." env:"UMBRA_KEY" placeholder:"FILE"`
	TokenFile string        `help:"File with an OpenID Connect token, instead of a certificate." env:"UMBRA_TOKEN_FILE" placeholder:"FILE"`
	Plaintext bool          `help:"Speak without TLS to a loopback address."`
	Timeout   time.Duration `type:"period" help:"How long to try while the control plane cannot be reached." env:"UMBRA_TIMEOUT" default:"30s"`
}

func (c connection) dial() (*grpc.ClientConn, error) {
	options, err := c.security()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(c.target(), options...)
	if err != nil {
		return nil, usageError{fmt.Sprintf("--server %s: %v", c.Server, err)}
	}
	return conn, nil
}

func (c connection) target() string {
	if strings.HasPrefix(c.Server, "/") {
		return "unix:" + c.Server
	}
	return c.Server
}

func (c connection) security() ([]grpc.DialOption, error) {
	plain := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	switch {
	case strings.HasPrefix(c.target(), "unix:"):
		return plain, nil // the kernel says who calls
	case !hasPort(c.Server):
		return nil, usageError{fmt.Sprintf("--server %s: the port is missing, as in %[1]s:7443", c.Server)}
	case c.Plaintext && !isLoopback(c.Server):
		return nil, usageError{"--plaintext is for loopback addresses only: " + c.Server}
	case c.Plaintext:
		return plain, nil
	case c.CA == "":
		return nil, usageError{"--ca is needed to know the control plane by"}
	case c.TokenFile != "":
		return c.byToken()
	case c.Cert == "" || c.Key == "":
		return nil, usageError{"give --cert and --key, or --token-file, to say who you are"}
	}
	shown, err := identity.Load(identity.Files{Cert: c.Cert, Key: c.Key, CA: c.CA})
	if err != nil {
		return nil, usageError{err.Error()}
	}
	secure, err := identity.NewSource(shown, nil).Dial(identity.ControlPlane())
	if err != nil {
		return nil, err
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(secure)}, nil
}

func hasPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && port != ""
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// byToken shows the control plane a token, and no certificate.
func (c connection) byToken() ([]grpc.DialOption, error) {
	authorities, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, usageError{err.Error()}
	}
	secure, err := identity.OpenDial(authorities)
	if err != nil {
		return nil, usageError{fmt.Sprintf("%s: %v", c.CA, err)}
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(secure), grpc.WithPerRPCCredentials(identity.TokenFile(c.TokenFile))}, nil
}
