// Command umbra-hostd is the host daemon of Umbra: it runs on each hypervisor, replicates protected servers from it, keeps
// the shadows of others, and boots them when they are failed over.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/umbra-dr/umbra/hostd/diagnostics"
	"github.com/umbra-dr/umbra/hostd/hypervisor/libvirt"
	"github.com/umbra-dr/umbra/pkg/about"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/settings"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

const description = `The host daemon of Umbra: it runs on each hypervisor, replicates protected servers from it, keeps the shadows of others, and boots them when they are failed over.

Examples:
  # The first time, with a join token, which is in the environment so that other users do not see it. Later without:
  UMBRA_JOIN_TOKEN=umbra-join-1... umbra-hostd --host-id rack1-node7 --control-plane cp.example.net:7443 --data-listen 10.0.0.7:7444

  # With a certificate that was made by hand, and is replaced by hand:
  umbra-hostd ... --tls-cert host.pem --tls-key host-key.pem --tls-ca ca.pem`

// own is where the flags may be given as well.
var own = settings.Settings{Default: "/etc/umbra/hostd.yaml"}

type flags struct {
	about.Self
	settings.Flags
	HostID       hostID             `help:"This host's id, as in its join token: lower-case letters, digits and hyphens." required:"" placeholder:"ID"`
	ControlPlane []settings.Address `help:"Address of a control plane. Give it several times when there are several, or a name that stands for all of them." required:"" placeholder:"ADDRESS:PORT"`
	JoinToken    string             `help:"Token to enrol with. One that was used by this host before is passed over." env:"UMBRA_JOIN_TOKEN" placeholder:"TOKEN"`
	TLS          identity.Files     `embed:"" prefix:"tls-"`

	DataListen  string `type:"address" help:"Address at which other hosts send their servers' disks." required:"" placeholder:"ADDRESS:PORT"`
	DataAddress string `type:"address" help:"The same address as other hosts see it, if that is another one." placeholder:"ADDRESS:PORT"`

	StateDir   string `help:"Folder of the journal and the log." default:"/var/lib/umbra/state" placeholder:"DIR"`
	StoreDir   string `help:"Folder of the recovery-point stores." default:"/var/lib/umbra/store" placeholder:"DIR"`
	ServersDir string `help:"Folder of the disks of shadow servers." default:"/var/lib/umbra/servers" placeholder:"DIR"`
	RunDir     string `help:"Folder of sockets and scratch files. A short path, on a disk that has room for what servers overwrite during a backup job." default:"/var/lib/umbra/run" placeholder:"DIR"`

	LibvirtSocket   string             `help:"libvirt's socket." default:"/run/libvirt/libvirt-sock" placeholder:"FILE"`
	CyclesMax       int                `type:"positive" help:"How many servers are replicated at the same instant." default:"4"`
	CopyCostMax     share              `help:"The share of its own I/O that a server may lose at most while whole disks of it are copied, as for its first recovery point or in a commit. 1: they are copied at full speed." default:"0.1" placeholder:"SHARE"`
	ScratchBytesMax int64              `type:"positive" help:"How many bytes the scratch files of one server's backup job may take." default:"8589934592"`
	ScratchFreeMin  int64              `type:"positive" help:"How many bytes stay free where --run-dir is. With less, backup jobs end, and none is begun." default:"1073741824" placeholder:"BYTES"`
	Metrics         string             `type:"address" help:"Address that Prometheus scrapes, plain HTTP for whoever asks: a loopback address, or one of a network of its own. Without it, there are no metrics." placeholder:"ADDRESS:PORT"`
	Traces          bool               `help:"Export traces by OTLP over gRPC, to where the standard OTEL_* variables say; https://localhost:4317 if they say nothing."`
	Log             telemetry.LogFlags `embed:"" prefix:"log-"`
}

// share is a part of a whole, which is 1.
type share float64

// UnmarshalText is called by kong.
func (s *share) UnmarshalText(text []byte) error {
	got, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(got > 0 && got <= 1) {
		return fmt.Errorf("it must be a number higher than 0 and at most 1, and is %q", text)
	}
	*s = share(got)
	return nil
}

// hostID is a host's id.
type hostID string

// UnmarshalText is called by kong.
func (h *hostID) UnmarshalText(text []byte) error {
	if !identity.ValidHostID(string(text)) {
		return fmt.Errorf("it must be lower-case letters, digits and hyphens, at most 63, and is %q", text)
	}
	*h = hostID(text)
	return nil
}

// controlPlanes are the addresses of --control-plane.
func (f *flags) controlPlanes() []string {
	var addresses []string
	for _, address := range f.ControlPlane {
		addresses = append(addresses, string(address))
	}
	return addresses
}

func main() {
	var f flags
	given := kong.Parse(&f, own.Option(), kong.Name("umbra-hostd"), kong.Description(description), about.Vars("8"), kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 120}))
	file := diagnostics.OpenLog(f.StateDir)
	log := f.Log.New(io.MultiWriter(os.Stderr, file)).With(telemetry.KeyHost, string(f.HostID))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	hypervisor := libvirt.New(libvirt.Config{Socket: f.LibvirtSocket, Clock: clock.System, Logger: log})
	err := own.Located(given, run(ctx, f, hypervisor, log))
	hypervisor.Close()
	stop()
	if err != nil {
		log.Error("hostd has stopped", "error", err)
		fmt.Fprintln(os.Stderr, "umbra-hostd:", err)
	}
	_ = file.Close() // its last line has been written already
	if err != nil {
		os.Exit(settings.ExitCode(err))
	}
}
