// Command umbra-controlplane is the control plane of Umbra: it serves the API, keeps the records of the DR pairs, and
// tells the hosts what should be.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/pkg/about"
	"github.com/umbra-dr/umbra/pkg/settings"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

const description = `The control plane of Umbra: it serves the API, keeps the records of the DR pairs, and tells the hosts what should be.

Examples:
  # Everything in one folder, hosts and clients by mutual TLS, the local administrator by a unix socket. At its first start it
  # makes an authority, and credentials of a first administrator in /var/lib/umbra-controlplane/administrator:
  umbra-controlplane --state-dir /var/lib/umbra-controlplane --listen :7443 --unix-socket /run/umbra/api.sock

  # Records, and the authority, in an etcd cluster that is there already:
  umbra-controlplane --etcd-endpoint https://etcd-1:2379 --etcd-endpoint https://etcd-2:2379 --etcd-ca etcd-ca.pem ...

  # Another control plane on the same cluster; hosts and clients may be given both addresses:
  umbra-controlplane --etcd-endpoint https://etcd-1:2379 --listen :7443 --peer-address cp-2.example.net:7443 ...

  # A token for a host to enrol with, once, within the hour:
  grpcurl -plaintext -unix -d '{"host": "hosts/rack1-node7"}' /run/umbra/api.sock umbra.v1.IdentityService/CreateJoinToken

  # Credentials for a person, in files of that folder:
  umbra-controlplane client-certificate --unix-socket /run/umbra/api.sock --client ann --role operator --out ann/`

type commands struct {
	about.Self
	Serve             flags                  `cmd:"" default:"withargs" help:"Run the control plane."`
	ClientCertificate clientCertificateFlags `cmd:"" help:"Make a key here, and have the control plane certify it for a person or a service."`
	Backup            backupFlags            `cmd:"" help:"Save the state of the running control plane in a file. Who has the file has the authority's key."`
	Restore           restoreFlags           `cmd:"" help:"Make the state of a new control plane from a backup. No control plane may run on it meanwhile."`
	MarkRestored      recordsFlags           `cmd:"" help:"Say that the records in etcd were restored by other means, such as a snapshot of etcd, before a control plane starts on them."`
}

// own is where the flags may be given as well with which the control plane runs.
var own = settings.Settings{Default: "/etc/umbra/controlplane.yaml", Command: "serve"}

type flags struct {
	settings.Flags
	recordsFlags
	Listen     string   `type:"address" help:"Address for hosts and clients, with TLS." placeholder:"ADDRESS:PORT"`
	ServerName []string `help:"Further host name or address that clients reach this control plane by. May be given several times." placeholder:"NAME"`
	PeerAddr   string   `name:"peer-address" type:"address" help:"Address at which other control planes on the same etcd reach this one, if --listen is not it." placeholder:"ADDRESS:PORT"`
	UnixSocket string   `help:"Unix socket for the API without TLS. Who may open it (mode 0600) is administrator." placeholder:"FILE"`

	AuthorityCert       string           `help:"Certificate of the operator's own authority, PEM; further ones in the file are trusted as well. Without it, one is made." placeholder:"FILE" and:"authority"`
	AuthorityKey        string           `help:"Its private key, PEM." placeholder:"FILE" and:"authority"`
	HostCertificateLife time.Duration    `type:"period" help:"How long a host's certificate is good. It is renewed at half of that." default:"336h"`
	OIDC                access.OIDCFlags `embed:"" prefix:"oidc-"`
	AuditFile           string           `help:"File that the audit events of this control plane are appended to, as JSON lines. Without it, audit.jsonl in the state folder." placeholder:"FILE"`

	Lease   time.Duration      `type:"period" help:"How long a host may be silent before it counts as not connected." default:"15s"`
	Metrics string             `type:"address" help:"Address that Prometheus scrapes, plain HTTP for whoever asks: a loopback address, or one of a network of its own. Without it, there are no metrics." placeholder:"ADDRESS:PORT"`
	Traces  bool               `help:"Export traces by OTLP over gRPC, to where the standard OTEL_* variables say; https://localhost:4317 if they say nothing."`
	Log     telemetry.LogFlags `embed:"" prefix:"log-"`
}

// recordsFlags say where the state is.
type recordsFlags struct {
	StateDir     string   `help:"Folder of the embedded etcd, of the first administrator's credentials, and of the audit file." default:"/var/lib/umbra-controlplane" placeholder:"DIR"`
	EtcdEndpoint []string `help:"Endpoint of an external etcd cluster. May be given several times. Without it, etcd runs inside this process." placeholder:"URL"`
	EtcdCert     string   `help:"Client certificate for the external cluster." placeholder:"FILE"`
	EtcdKey      string   `help:"Its private key." placeholder:"FILE"`
	EtcdCA       string   `name:"etcd-ca" help:"Authority of the external cluster." placeholder:"FILE"`
}

func main() {
	var c commands
	chosen := kong.Parse(&c, own.Option(), kong.Name("umbra-controlplane"), kong.Description(description), about.Vars("8"), kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 120}))
	log := c.Serve.Log.New(os.Stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch chosen.Command() {
	case "client-certificate":
		err = clientCertificate(ctx, c.ClientCertificate)
	case "backup <file>":
		err = saveBackup(ctx, c.Backup)
	case "restore <file>":
		err = restore(ctx, c.Restore, log)
	case "mark-restored":
		err = markRestored(ctx, c.MarkRestored, log)
	default:
		if err = own.Located(chosen, run(ctx, c.Serve, log)); err != nil {
			log.Error("the control plane has stopped", "error", err)
		}
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "umbra-controlplane:", err)
		os.Exit(settings.ExitCode(err))
	}
}
