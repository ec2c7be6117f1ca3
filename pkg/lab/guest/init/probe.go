package main

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// probePort is where the guest answers; whoever connects gets one line, the last record.
const probePort = 7

// answerProbes gives the first interface its address and listens. The goroutine ends with the guest.
func answerProbes(address netip.Prefix, keeper *keeper) error {
	if err := configure("eth0", address); err != nil {
		return err
	}
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: probePort})
	if err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// A probe that hangs up early has its answer already: it could connect.
			_, _ = fmt.Fprintln(conn, ledger.Record(keeper.announced.Load()))
			_ = conn.Close()
		}
	}()
	return nil
}

func configure(name string, address netip.Prefix) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(socket) }()
	for _, step := range []struct {
		request uint
		value   []byte
	}{
		{unix.SIOCSIFADDR, address.Addr().AsSlice()},
		{unix.SIOCSIFNETMASK, net.CIDRMask(address.Bits(), 32)},
	} {
		request, err := unix.NewIfreq(name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if err := request.SetInet4Addr(step.value); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
		if err := unix.IoctlIfreq(socket, step.request, request); err != nil {
			return fmt.Errorf("configure %s: %w", name, err)
		}
	}
	up, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, up); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}
