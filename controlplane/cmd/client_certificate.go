package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

type clientCertificateFlags struct {
	UnixSocket string         `help:"The control plane's unix socket." placeholder:"FILE" xor:"where" required:""`
	Server     string         `help:"The control plane's address, instead; --tls-... is then an administrator's." placeholder:"ADDRESS:PORT" xor:"where" required:""`
	TLS        identity.Files `embed:"" prefix:"tls-"`
	Client     string         `help:"Who the certificate is for." required:"" placeholder:"NAME"`
	Role       string         `help:"viewer, operator or administrator." enum:"viewer,operator,administrator" required:""`
	TTL        time.Duration  `name:"ttl" type:"period" help:"How long it is good for." default:"720h"`
	Out        string         `help:"Folder that gets cert.pem, key.pem and ca.pem." required:"" placeholder:"DIR"`
}

const clientCertificateTimeout = time.Minute

// clientCertificate makes a key, has the control plane certify it, and writes the files.
func clientCertificate(ctx context.Context, f clientCertificateFlags) (err error) {
	ctx, cancel := context.WithTimeout(ctx, clientCertificateTimeout)
	defer cancel()
	key, err := identity.NewKey()
	if err != nil {
		return err
	}
	request, err := key.Request()
	if err != nil {
		return err
	}
	conn, err := dialAPI(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	answer, err := umbrav1.NewIdentityServiceClient(conn).IssueClientCertificate(ctx, &umbrav1.IssueClientCertificateRequest{
		Client: f.Client, Role: umbrav1.Role(umbrav1.Role_value["ROLE_"+strings.ToUpper(f.Role)]),
		CertificateSigningRequest: request, Ttl: durationpb.New(f.TTL),
	})
	if err != nil {
		return fmt.Errorf("asking for a certificate: %w", err)
	}
	made := answer.GetCertificate()
	if err := writeCredentials(f.Out, key, made.GetChain(), made.GetAuthorities()); err != nil {
		return err
	}
	fmt.Printf("%s: %s may call the API as %s until %s\n", filepath.Clean(f.Out), f.Client, f.Role, made.GetExpireTime().AsTime().Format(time.RFC3339))
	return nil
}

func dialAPI(f clientCertificateFlags) (*grpc.ClientConn, error) {
	target, secure := "unix:"+f.UnixSocket, credentials.TransportCredentials(insecure.NewCredentials())
	if f.Server != "" {
		shown, err := identity.Load(f.TLS)
		if err != nil {
			return nil, err
		}
		if secure, err = identity.NewSource(shown, nil).Dial(identity.ControlPlane()); err != nil {
			return nil, err
		}
		target = f.Server
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(secure))
	if err != nil {
		return nil, fmt.Errorf("connecting to the control plane: %w", err)
	}
	return conn, nil
}
