// Package landscape brings up all of Umbra on the lab: the control plane, hostd on two libvirt hosts, which enrol as hosts
// do everywhere, and a client of the API. Tests of the flow, benchmarks and the demo stand on it.
package landscape

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

// Config says where a landscape lives.
type Config struct {
	Name     string // of the lab
	Dir      string // of the lab
	CacheDir string // of the lab
	Binaries string // folder of umbra-controlplane and umbra-hostd
	// HostdArgs are added to each hostd's.
	HostdArgs []string
	Keep      bool
}

// Landscape is running.
type Landscape struct {
	*lab.Lab
	// Socket is the API's unix socket.
	Socket     string
	Failover   umbrav1.FailoverServiceClient
	Protection umbrav1.ProtectionServiceClient
	Hosts      umbrav1.HostServiceClient
	Identity   umbrav1.IdentityServiceClient
	conn       *grpc.ClientConn
}

const (
	controlPlanePort = "7443"
	dataPort         = "7444"
	readyTimeout     = 60 * time.Second
)

// The host ids under which the lab's two hosts are known.
const (
	MainHost   = "main"
	ShadowHost = "shadow"
)

// Up brings everything up and returns when both hosts are connected.
func Up(ctx context.Context, cfg Config) (*Landscape, error) {
	l, err := lab.Up(ctx, lab.Config{Name: cfg.Name, Dir: cfg.Dir, CacheDir: cfg.CacheDir, Keep: cfg.Keep})
	if err != nil {
		return nil, err
	}
	up, err := start(ctx, l, cfg)
	if err != nil {
		return nil, errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}
	return up, nil
}

// Attach finds the landscape that another process has brought up.
func Attach(dir string) (*Landscape, error) {
	l, err := lab.Attach(dir)
	if err != nil {
		return nil, err
	}
	return connect(l)
}

func start(ctx context.Context, l *lab.Lab, cfg Config) (*Landscape, error) {
	// An earlier landscape whose files were kept: this one begins anew.
	for _, old := range []string{filepath.Join(l.Control.Dir, "state"), filepath.Join(l.Main.Dir, "umbra"), filepath.Join(l.Shadow.Dir, "umbra")} {
		if err := os.RemoveAll(old); err != nil {
			return nil, fmt.Errorf("removing what an earlier landscape has left: %w", err)
		}
	}
	l.ControlPlane.Configure(lab.Program{
		Path: filepath.Join(cfg.Binaries, "umbra-controlplane"),
		Args: []string{
			"--state-dir={dir}/state", "--listen={address}:" + controlPlanePort, "--unix-socket={lab}/api.sock", "--lease=5s",
		},
	})
	if err := l.ControlPlane.Start(ctx); err != nil {
		return nil, err
	}
	up, err := connect(l)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, host := range []*lab.Host{l.Main, l.Shadow} {
		if err := up.startHost(ctx, host, cfg); err != nil {
			return nil, errors.Join(err, up.conn.Close())
		}
	}
	for _, host := range []string{MainHost, ShadowHost} {
		if err := up.WaitHost(ctx, host, func(h *umbrav1.Host) bool { return h.GetConnected() && h.GetLibvirtVersion() != "" }); err != nil {
			return nil, errors.Join(err, up.conn.Close())
		}
	}
	return up, nil
}

// startHost makes a join token for the host and starts its hostd with it. One that is started again has enrolled.
func (l *Landscape) startHost(ctx context.Context, host *lab.Host, cfg Config) error {
	joining, err := l.Identity.CreateJoinToken(ctx, &umbrav1.CreateJoinTokenRequest{Host: "hosts/" + host.Name})
	if err != nil {
		return fmt.Errorf("making a join token for %s: %w", host.Name, err)
	}
	args := []string{
		"--host-id={name}", "--control-plane={control-plane}:" + controlPlanePort, "--state-dir={dir}/umbra/state",
		"--store-dir={dir}/umbra/store", "--servers-dir={dir}/umbra/servers", "--run-dir=/run/umbra",
		"--data-listen={address}:" + dataPort, "--log-level=DEBUG", "--join-token=" + joining.GetToken(),
	}
	host.Hostd.Configure(lab.Program{Path: filepath.Join(cfg.Binaries, "umbra-hostd"), Args: append(args, cfg.HostdArgs...)})
	return host.Hostd.Start(ctx)
}

func connect(l *lab.Lab) (*Landscape, error) {
	socket := filepath.Join(l.Dir(), "api.sock")
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("connecting to the API: %w", err)
	}
	return &Landscape{
		Lab: l, Socket: socket, conn: conn,
		Failover:   umbrav1.NewFailoverServiceClient(conn),
		Protection: umbrav1.NewProtectionServiceClient(conn),
		Hosts:      umbrav1.NewHostServiceClient(conn),
		Identity:   umbrav1.NewIdentityServiceClient(conn),
	}, nil
}

// Down takes everything down.
func (l *Landscape) Down(ctx context.Context) error {
	return errors.Join(l.conn.Close(), l.Lab.Down(ctx))
}
