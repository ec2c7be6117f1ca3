package simulated

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// Define defines a server, off, or changes its definition, which a running server takes up when it is started again.
func (h *Hypervisor) Define(ctx context.Context, xml string) error {
	leave, err := h.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	var definition libvirtxml.Domain
	if err := definition.Unmarshal(xml); err != nil {
		return fmt.Errorf("read the server's definition: %w", err)
	}
	if definition.Devices == nil {
		definition.Devices = &libvirtxml.DomainDeviceList{}
	}
	s, known := h.servers[definition.Name]
	if definition.UUID == "" {
		definition.UUID = uuid.NewString()
		if known {
			definition.UUID = s.definition.UUID
		}
	}
	if known && s.definition.UUID != definition.UUID {
		return fmt.Errorf("server %q is defined with the UUID %s", definition.Name, s.definition.UUID)
	}
	if !known {
		s = &server{power: hypervisor.PowerOff}
		h.servers[definition.Name] = s
		h.order = append(h.order, definition.Name)
	}
	s.definition = &definition
	if !s.active() {
		s.disks = h.disksOf(&definition)
	}
	return nil
}

func (h *Hypervisor) disksOf(definition *libvirtxml.Domain) []*disk {
	var disks []*disk
	for i := range definition.Devices.Disks {
		given := &definition.Devices.Disks[i]
		if given.Target == nil || given.Device == "cdrom" || given.Source == nil || given.Source.File == nil {
			continue
		}
		d := &disk{path: given.Source.File.File, given: given}
		d.Target, d.Source, d.Format = given.Target.Dev, d.path, "raw"
		if given.Driver != nil && given.Driver.Type != "" {
			d.Format = given.Driver.Type
		}
		d.ReadOnly, d.Shareable = given.ReadOnly != nil, given.Shareable != nil
		d.TracksChanges = d.Format == "qcow2" && !d.ReadOnly
		if d.image = h.images[d.path]; d.image != nil {
			d.SizeBytes = d.image.sizeBytes
		}
		disks = append(disks, d)
	}
	return disks
}

// CheckDefinition finds that every definition fits that can be read.
func (h *Hypervisor) CheckDefinition(ctx context.Context, xml string) error {
	leave, err := h.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := (&libvirtxml.Domain{}).Unmarshal(xml); err != nil {
		return fmt.Errorf("read the server's definition: %w: %w", hypervisor.ErrIncompatible, err)
	}
	return nil
}

// Undefine removes a server and its checkpoints. One that is not there is no error.
func (h *Hypervisor) Undefine(ctx context.Context, name string) error {
	return ignoreMissing(h.on(ctx, name, func(s *server) error {
		s.endJob()
		delete(h.servers, name)
		h.order = slices.DeleteFunc(h.order, func(other string) bool { return other == name })
		return nil
	}))
}

// Start starts a server that is off. It fails when an image of it is not there.
func (h *Hypervisor) Start(ctx context.Context, name string) error {
	return h.on(ctx, name, func(s *server) error {
		if s.active() {
			return nil
		}
		s.disks = h.disksOf(s.definition)
		for _, d := range s.disks {
			if d.image == nil {
				return fmt.Errorf("start server %q: there is no image %q", name, d.path)
			}
		}
		for _, d := range s.disks {
			d.image.strayed = d.image.strayed || d.image.lacks && !d.backed()
		}
		s.power = hypervisor.PowerRunning
		return nil
	})
}

// Destroy takes a server's power. One that is off or not there is no error.
func (h *Hypervisor) Destroy(ctx context.Context, name string) error {
	return ignoreMissing(h.on(ctx, name, func(s *server) error {
		s.end()
		return nil
	}))
}

// Shutdown takes a server's power at once: no guest would listen during the grace.
func (h *Hypervisor) Shutdown(ctx context.Context, name string, _ time.Duration) error {
	return h.Destroy(ctx, name)
}

// SetAutostart is remembered and shown.
func (h *Hypervisor) SetAutostart(ctx context.Context, name string, on bool) error {
	return h.on(ctx, name, func(s *server) error {
		s.autostart = on
		return nil
	})
}

// SetLinks changes the definition.
func (h *Hypervisor) SetLinks(ctx context.Context, name string, up bool) error {
	return h.on(ctx, name, func(s *server) error {
		state := "down"
		if up {
			state = "up"
		}
		for i := range s.definition.Devices.Interfaces {
			s.definition.Devices.Interfaces[i].Link = &libvirtxml.DomainInterfaceLink{State: state}
		}
		return nil
	})
}

// AgentPing is always hypervisor.ErrAgent: no guest has one.
func (h *Hypervisor) AgentPing(ctx context.Context, name string) error {
	return h.on(ctx, name, func(s *server) error {
		if !s.active() {
			return fmt.Errorf("server %q: %w", name, hypervisor.ErrNotRunning)
		}
		return fmt.Errorf("server %q: %w", name, hypervisor.ErrAgent)
	})
}

// IOCounters are always 0: no guest waits for its I/O.
func (h *Hypervisor) IOCounters(ctx context.Context, name string) (hypervisor.IOCounters, error) {
	return hypervisor.IOCounters{}, h.on(ctx, name, func(s *server) error {
		if !s.active() {
			return fmt.Errorf("server %q: %w", name, hypervisor.ErrNotRunning)
		}
		return nil
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	return err
}
