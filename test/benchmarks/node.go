package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/pprof"
	"sync"

	"google.golang.org/grpc/credentials/insecure"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor/libvirt"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/hostd/replicate"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// nodePair is the pair of the nodes.
const nodePair = "bench"

// nodeFlags are those of a node.
type nodeFlags struct {
	role, dir, address, server, uuid, profile string
}

// node is one end of hostd's data path and nothing else: the same two roles as in hostd, without a control plane and without TLS.
// hostd itself never sends data in the clear; a comparison with tools that do needs this. It says "ready", a main node waits for
// a line before it begins, a shadow node says "point" when the first recovery point is durable, and both end with their input.
func node(args []string) error {
	var f nodeFlags
	flags := flag.NewFlagSet("node", flag.ContinueOnError)
	flags.StringVar(&f.role, "role", "", "main or shadow")
	flags.StringVar(&f.dir, "dir", "", "folder of its own")
	flags.StringVar(&f.address, "address", "", "where the shadow node listens")
	flags.StringVar(&f.server, "server", "", "of a main node: the server to replicate")
	flags.StringVar(&f.uuid, "uuid", "", "of a main node: the server's UUID")
	flags.StringVar(&f.profile, "profile", "", "file for a profile of the processor's time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if f.profile != "" {
		file, err := os.Create(f.profile)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // a profile is a convenience
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	kept, err := journal.Open(f.dir + "/journal")
	if err != nil {
		return err
	}
	defer func() { _ = kept.Close() }() // nobody reads it again
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if f.role == "main" {
		return mainNode(f, kept, log)
	}
	return shadowNode(f, kept, log)
}

func mainNode(f nodeFlags, kept *journal.Journal, log *slog.Logger) error {
	host := libvirt.New(libvirt.Config{Socket: "/run/libvirt/libvirt-sock", Clock: clock.System, Logger: log})
	defer host.Close()
	replicator, err := replicate.New(replicate.Config{
		RunDir: "/run/umbra-node", Source: host, Journal: kept, Clock: clock.System, Log: log,
		Report: func(*umbrav1.AssignmentReport) {},
		Dial: func(address, _ string) (*transport.Conn, error) {
			return transport.Dialer{Credentials: insecure.NewCredentials()}.Dial(address)
		},
	})
	if err != nil {
		return err
	}
	return untilInputEnds(replicator.Run, func(line string) {
		replicator.Assign([]*umbrav1.Assignment{{DrPair: nodePair, Generation: 1, Epoch: 1, Role: &umbrav1.Assignment_Main{
			Main: &umbrav1.MainAssignment{
				Mode: umbrav1.MainMode_MAIN_MODE_REPLICATE, Server: f.server, ServerUuid: f.uuid,
				ShadowHost: "shadow", ShadowDataAddress: f.address, Policy: &umbrav1.Policy{},
			},
		}}})
	})
}

func shadowNode(f nodeFlags, kept *journal.Journal, log *slog.Logger) error {
	var received *replica.Replica
	told := sync.OnceFunc(func() { fmt.Println("point") })
	received, err := replica.New(replica.Config{
		StoreDir: f.dir + "/store", Journal: kept, Clock: clock.System, Log: log,
		Changed: func(pair string) {
			if received.Status(pair).Count > 0 {
				told()
			}
		},
	})
	if err != nil {
		return err
	}
	spec := replica.Spec{Pair: nodePair, Generation: 1, Epoch: 1, Accept: true, MainHost: "main"}
	if err := os.MkdirAll(f.dir+"/store", 0o755); err != nil {
		return err
	}
	if err := received.Apply(context.Background(), spec); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", f.address)
	if err != nil {
		return err
	}
	server := transport.NewServer(insecure.NewCredentials(), received.Handle(nil))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ends with Stop
	defer serving.Wait()
	defer server.Stop()
	return untilInputEnds(received.Run, func(string) {})
}

// untilInputEnds runs a role, hands each line of the input on, and ends the role with the input.
func untilInputEnds(run func(context.Context) error, line func(string)) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	fmt.Println("ready")
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		line(input.Text())
	}
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
