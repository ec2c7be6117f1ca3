// Command umbra-controlplane is the control plane of Umbra: it serves the API, keeps the records of the DR pairs, and
// tells the hosts what should be.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/umbra-dr/umbra/pkg/identity"
)

const description = `The control plane of Umbra: it serves the API, keeps the records of the DR pairs, and tells the hosts what should be.

Examples:
  # Everything in one folder, hosts and clients by mutual TLS, engineers by a unix socket:
  umbra-controlplane --state-dir /var/lib/umbra-controlplane --listen :7443 --unix-socket /run/umbra/api.sock \
    --tls-cert cp.pem --tls-key cp-key.pem --tls-ca ca.pem

  # Records in an etcd cluster that is there already:
  umbra-controlplane --etcd-endpoint https://etcd-1:2379 --etcd-endpoint https://etcd-2:2379 --etcd-ca etcd-ca.pem ...

  # Another control plane on the same cluster; hosts and clients may be given both addresses:
  umbra-controlplane --etcd-endpoint https://etcd-1:2379 --listen :7443 --peer-address cp-2.example.net:7443 ...

  # The API from the command line:
  grpcurl -plaintext -unix /run/umbra/api.sock umbra.v1.FailoverService/ListDRPairs`

type flags struct {
	StateDir   string         `help:"Folder of the embedded etcd." default:"/var/lib/umbra-controlplane" placeholder:"DIR"`
	Listen     string         `help:"Address for hosts and clients, with mutual TLS." placeholder:"ADDRESS:PORT"`
	TLS        identity.Files `embed:"" prefix:"tls-"`
	PeerAddr   string         `name:"peer-address" help:"Address at which other control planes on the same etcd reach this one, if --listen is not it." placeholder:"ADDRESS:PORT"`
	UnixSocket string         `help:"Unix socket for the API without TLS, for whoever may open it (mode 0600)." placeholder:"FILE"`

	EtcdEndpoint []string `help:"Endpoint of an external etcd cluster. May be given several times. Without it, etcd runs inside this process." placeholder:"URL"`
	EtcdCert     string   `help:"Client certificate for the external cluster." placeholder:"FILE"`
	EtcdKey      string   `help:"Its private key." placeholder:"FILE"`
	EtcdCA       string   `name:"etcd-ca" help:"Authority of the external cluster." placeholder:"FILE"`

	Lease    time.Duration `help:"How long a host may be silent before it counts as not connected." default:"15s"`
	LogLevel slog.Level    `help:"Lowest level that is logged: DEBUG, INFO, WARN, ERROR." default:"INFO"`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("umbra-controlplane"), kong.Description(description), kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 120}))
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: f.LogLevel}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, f, log)
	stop()
	if err != nil {
		log.Error("the control plane has stopped", "error", err)
		fmt.Fprintln(os.Stderr, "umbra-controlplane:", err)
		os.Exit(1)
	}
}
