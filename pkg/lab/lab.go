// Package lab is a small disaster-recovery landscape on one Linux machine: two hosts with a libvirt of
// their own and real QEMU guests, and a third machine for the control plane, joined by a bridge.
//
// Each machine is a network namespace, a mount namespace and a process namespace, so that nothing of the
// computer's own network, libvirt or files is touched, a machine that is killed loses every process at
// the same instant, as one does whose power fails, and taking the lab down leaves nothing behind. The
// host "main" runs QEMU as root, as many servers are set up; the host "shadow" runs it with libvirt's
// defaults, as a user of its own with dynamic ownership of the images.
//
// Everything a lab consists of is recorded in its folder before it takes effect. So another process can
// Attach to a running lab, and Up first clears away what a crashed one left in the same folder.
//
// It needs root and the packages that deploy/install-packages.sh installs. A Lab and its parts are not
// safe for concurrent use, except that commands and consoles of several hosts may be used at once; and
// of the processes attached to a lab only one may change it.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// The machines' addresses on the lab's bridge. They are reachable from the machines only.
const (
	ControlPlaneAddress = "198.18.0.1"
	MainAddress         = "198.18.0.11"
	ShadowAddress       = "198.18.0.12"
)

// GuestNetwork is the libvirt network that either host offers to its guests. Each host has its own; they
// are not joined. The host has the address GuestGateway there and can reach its guests.
const (
	GuestNetwork = "lab"
	GuestGateway = "198.19.0.1/24"
)

// stepTimeout bounds every single step of bringing a lab up or down.
const stepTimeout = 30 * time.Second

// Config says what a lab is made of.
type Config struct {
	Name     string // begins the names of its namespaces; "umbra" when empty
	Dir      string // holds all of its state, and is reached by the hypervisor's user
	CacheDir string // holds what may serve the next lab: kernel, boot partition, accelerator; Dir + "-cache" when empty

	Hostd        Program // run on both hosts once they are up; none when its Path is empty
	ControlPlane Program // run on the machine of the control plane, before Hostd

	Accelerator Accelerator // asked for instead of probed
	Keep        bool        // Down leaves the files, for looking at logs
}

// Lab is a running lab.
type Lab struct {
	Main, Shadow *Host
	Control      *Machine // where the control plane runs
	ControlPlane *Service

	config Config
	state  *state
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9]{0,8}$`)

// Up brings a lab up and starts the programs that the configuration names. What a crashed lab left in
// the same folder is cleared away first; a lab of the same name in another folder is an error
// (ErrNameInUse). When Up fails, it has undone what it did.
func Up(ctx context.Context, config Config) (*Lab, error) {
	config, err := completed(config)
	if err != nil {
		return nil, err
	}
	if err := checkRequirements(config); err != nil {
		return nil, err
	}
	if err := clearAway(ctx, config.Dir); err != nil {
		return nil, fmt.Errorf("clear away the previous lab: %w", err)
	}
	l := assemble(config, &state{path: filepath.Join(config.Dir, stateFile), Config: config})
	if err := l.checkNames(); err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		// What failed may have been the context; undoing it must not fail for the same reason.
		return nil, errors.Join(fmt.Errorf("bring the lab up: %w", err), l.Down(context.WithoutCancel(ctx)))
	}
	return l, nil
}

// Attach returns the lab that another process brought up in dir, or ErrNoLab.
func Attach(dir string) (*Lab, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("attach to the lab: %w", err)
	}
	s, err := loadState(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("attach to the lab: %w", err)
	}
	return assemble(s.Config, s), nil
}

// Down ends every process of the lab and removes its namespaces and, unless Keep was set, its files. It
// goes on past what fails and may be called again.
func (l *Lab) Down(ctx context.Context) error {
	var failed []error
	for _, m := range l.machines() {
		failed = append(failed, m.powerOff(ctx))
	}
	failed = append(failed, l.removeNetwork(ctx))
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("take the lab down: %w", err)
	}
	if err := l.state.remove(); err != nil {
		return fmt.Errorf("take the lab down: %w", err)
	}
	if l.config.Keep {
		return nil
	}
	for _, m := range l.machines() {
		if err := os.RemoveAll(m.Dir); err != nil {
			return fmt.Errorf("remove the files of %s: %w", m.Name, err)
		}
	}
	// A control plane whose power was cut leaves its socket.
	sockets, err := filepath.Glob(filepath.Join(l.config.Dir, "*.sock"))
	if err != nil {
		return fmt.Errorf("look for sockets in %s: %w", l.config.Dir, err)
	}
	for _, socket := range sockets {
		if err := os.Remove(socket); err != nil {
			return fmt.Errorf("remove the socket of a program: %w", err)
		}
	}
	// The folder may hold things of its owner's, and then it stays.
	_ = os.Remove(l.config.Dir)
	return nil
}

// Dir is the folder of the lab.
func (l *Lab) Dir() string { return l.config.Dir }

func completed(config Config) (Config, error) {
	if config.Name == "" {
		config.Name = "umbra"
	}
	if !nameForm.MatchString(config.Name) {
		return Config{}, fmt.Errorf("name of the lab %q: want up to nine small letters and digits", config.Name)
	}
	if config.Dir == "" {
		return Config{}, errors.New("the lab needs a folder")
	}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return Config{}, fmt.Errorf("folder of the lab: %w", err)
	}
	config.Dir = dir
	if config.CacheDir == "" {
		config.CacheDir = dir + "-cache"
	}
	if config.CacheDir, err = filepath.Abs(config.CacheDir); err != nil {
		return Config{}, fmt.Errorf("cache folder of the lab: %w", err)
	}
	return config, nil
}

// assemble makes the parts of a lab from its configuration and what is recorded of it.
func assemble(config Config, s *state) *Lab {
	l := &Lab{config: config, state: s}
	l.Control = l.machine("control", ControlPlaneAddress)
	l.ControlPlane = l.Control.service("controlplane", config.ControlPlane)
	l.Main = l.host("main", MainAddress, qemuAsRoot)
	l.Shadow = l.host("shadow", ShadowAddress, qemuByDefaults)
	return l
}

func (l *Lab) machines() []*Machine { return []*Machine{l.Control, l.Main.Machine, l.Shadow.Machine} }

// Hosts returns both hosts, the main one first.
func (l *Lab) Hosts() []*Host { return []*Host{l.Main, l.Shadow} }

func (l *Lab) build(ctx context.Context) error {
	if err := os.MkdirAll(l.config.Dir, 0o755); err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	if err := l.state.save(); err != nil {
		return err
	}
	if err := l.makeNetwork(ctx); err != nil {
		return err
	}
	if err := l.Control.powerOn(ctx); err != nil {
		return err
	}
	if l.ControlPlane.Configured() {
		if err := l.ControlPlane.Start(ctx); err != nil {
			return err
		}
	}
	for _, h := range l.Hosts() {
		if err := h.install(); err != nil {
			return fmt.Errorf("set up host %s: %w", h.Name, err)
		}
	}
	return l.bootHosts(ctx)
}

// bootHosts boots both hosts. Their libvirt daemons start side by side, since each takes its time.
func (l *Lab) bootHosts(ctx context.Context) error {
	for _, h := range l.Hosts() {
		if err := h.boot(ctx); err != nil {
			return err
		}
	}
	for _, h := range l.Hosts() {
		if err := h.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}
