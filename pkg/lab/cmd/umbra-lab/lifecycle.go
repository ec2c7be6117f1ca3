package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/umbra-dr/umbra/pkg/lab"
)

type upCommand struct {
	Name             string   `help:"Begins the names of the network namespaces." default:"umbra"`
	Cache            string   `help:"Folder of what the next lab can use again." type:"path"`
	Accelerator      string   `help:"What guests run on; probed when not given." enum:"kvm,tcg," default:""`
	ControlPlane     string   `help:"Program to run on the machine of the control plane." type:"path"`
	ControlPlaneArgs []string `name:"control-plane-arg" sep:"none" help:"Argument of the control plane; may hold {dir}, {lab}, {address}, {name}."`
	Hostd            string   `help:"Program to run on both hosts." type:"path"`
	HostdArgs        []string `name:"hostd-arg" sep:"none" help:"Argument of hostd; may hold {dir}, {lab}, {address}, {name}, {control-plane}."`
	Keep             bool     `help:"Keep the files when the lab is taken down."`
}

func (c *upCommand) Run(ctx context.Context, out io.Writer, given *commands) error {
	l, err := lab.Up(ctx, lab.Config{
		Name: c.Name, Dir: given.Dir, CacheDir: c.Cache, Keep: c.Keep, Accelerator: lab.Accelerator(c.Accelerator),
		ControlPlane: lab.Program{Path: c.ControlPlane, Args: c.ControlPlaneArgs},
		Hostd:        lab.Program{Path: c.Hostd, Args: c.HostdArgs},
	})
	if err != nil {
		return err
	}
	return status(ctx, out, l)
}

type downCommand struct{}

func (downCommand) Run(ctx context.Context, given *commands) error {
	l, err := lab.Attach(given.Dir)
	if err != nil {
		return err
	}
	return l.Down(ctx)
}

type statusCommand struct{}

func (statusCommand) Run(ctx context.Context, out io.Writer, given *commands) error {
	l, err := lab.Attach(given.Dir)
	if err != nil {
		return err
	}
	return status(ctx, out, l)
}

func status(ctx context.Context, out io.Writer, l *lab.Lab) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%-8s %-14s %s\n", l.Control.Name, l.Control.Address, running(l.Control.Alive(), l.ControlPlane))
	for _, h := range l.Hosts() {
		fmt.Fprintf(&text, "%-8s %-14s %s\n", h.Name, h.Address, running(h.Alive(), h.Libvirtd, h.Hostd))
		if !h.Libvirtd.Running() {
			continue
		}
		guests, err := h.Virsh(ctx, "list", "--all")
		if err != nil {
			return err
		}
		if guests != "" {
			fmt.Fprintln(&text, guests)
		}
		fmt.Fprintf(&text, "         virsh -c 'qemu+unix:///system?socket=%s'\n", h.LibvirtSocket())
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func running(power bool, services ...*lab.Service) string {
	if !power {
		return "no power"
	}
	words := []string{"up"}
	for _, s := range services {
		switch {
		case s.Running():
			words = append(words, s.Name+" running")
		case s.Configured():
			words = append(words, s.Name+" stopped")
		}
	}
	return strings.Join(words, ", ")
}

type killCommand struct {
	Host string `arg:"" help:"main or shadow."`
}

func (c *killCommand) Run(ctx context.Context, given *commands) error {
	h, err := attach(given.Dir, c.Host)
	if err != nil {
		return err
	}
	return h.Kill(ctx)
}

type reviveCommand struct {
	Host string `arg:"" help:"main or shadow."`
}

func (c *reviveCommand) Run(ctx context.Context, given *commands) error {
	h, err := attach(given.Dir, c.Host)
	if err != nil {
		return err
	}
	return h.Revive(ctx)
}
