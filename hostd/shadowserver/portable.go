package shadowserver

import (
	"net"
	"path/filepath"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// interfaces maps networks. A bridge or device that is mapped becomes a network, as the policy means it.
func (p *porter) interfaces() error {
	for i := range p.dom.Devices.Interfaces {
		n := &p.dom.Devices.Interfaces[i]
		if n.Target != nil && n.Target.Managed != "no" {
			n.Target = nil
		}
		if n.Source == nil {
			continue
		}
		if err := p.networkSource(n); err != nil {
			return err
		}
	}
	slices.Sort(p.out.Networks)
	p.out.Networks = slices.Compact(p.out.Networks)
	slices.Sort(p.out.Links)
	p.out.Links = slices.Compact(p.out.Links)
	return nil
}

func (p *porter) networkSource(n *libvirtxml.DomainInterface) error {
	s := n.Source
	switch {
	case s.Network != nil:
		if mapped, ok := p.Networks[s.Network.Network]; ok {
			p.attach(n, mapped)
			return nil
		}
		p.out.Networks = append(p.out.Networks, s.Network.Network)
		s.Network.Bridge, s.Network.PortID = "", ""
	case s.Bridge != nil:
		if mapped, ok := p.Networks[s.Bridge.Bridge]; ok {
			p.attach(n, mapped)
			return nil
		}
		p.out.Links = append(p.out.Links, s.Bridge.Bridge)
	case s.Direct != nil:
		if mapped, ok := p.Networks[s.Direct.Dev]; ok {
			p.attach(n, mapped)
			return nil
		}
		p.out.Links = append(p.out.Links, s.Direct.Dev)
	case s.Hostdev != nil, s.VHostUser != nil, s.VDPA != nil, s.VDS != nil:
		return unportable("a network interface of the server is tied to a device of the main host")
	}
	return nil
}

// attach puts an interface on a libvirt network. What belonged to its former network goes with that.
func (p *porter) attach(n *libvirtxml.DomainInterface, network string) {
	n.Source = &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: network}}
	n.VirtualPort = nil
	p.out.Networks = append(p.out.Networks, network)
}

// characters keeps serial lines, consoles and channels that can be had here. A line to a file or device that
// cannot becomes a pseudo-terminal.
func (p *porter) characters() error {
	d := p.dom.Devices
	for i := range d.Serials {
		p.character(d.Serials[i].Source, &d.Serials[i].Log)
	}
	for i := range d.Parallels {
		p.character(d.Parallels[i].Source, &d.Parallels[i].Log)
	}
	for i := range d.Consoles {
		d.Consoles[i].TTY = ""
		p.character(d.Consoles[i].Source, &d.Consoles[i].Log)
	}
	for i := range d.Channels {
		c := &d.Channels[i]
		// libvirt makes the path of a socket whose path it is not told; the old one names the main server's.
		if c.Source != nil && c.Source.UNIX != nil && libvirtOwn(c.Source.UNIX.Path) {
			c.Source = &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: c.Source.UNIX.Mode}}
			continue
		}
		p.character(c.Source, &c.Log)
	}
	return nil
}

func (p *porter) character(s *libvirtxml.DomainChardevSource, log **libvirtxml.DomainChardevLog) {
	if l := *log; l != nil && !p.Exists(filepath.Dir(l.File)) {
		p.note("the log %s is not kept: its folder is missing", l.File)
		*log = nil
	}
	if s == nil {
		return
	}
	needed := ""
	switch {
	case s.Pty != nil:
		s.Pty = &libvirtxml.DomainChardevSourcePty{}
	case s.File != nil:
		s.File.SecLabel = nil
		needed = filepath.Dir(s.File.Path)
	case s.Dev != nil:
		s.Dev.SecLabel = nil
		needed = s.Dev.Path
	case s.Pipe != nil:
		s.Pipe.SecLabel = nil
		needed = s.Pipe.Path
	case s.UNIX != nil && s.UNIX.Path != "":
		s.UNIX.SecLabel = nil
		needed = filepath.Dir(s.UNIX.Path)
	}
	if needed != "" && !p.Exists(needed) {
		*s = libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}}
		p.note("a serial line that needs %s goes to a pseudo-terminal", needed)
	}
}

func libvirtOwn(path string) bool {
	for _, dir := range []string{"/var/lib/libvirt/", "/run/libvirt/", "/var/run/libvirt/"} {
		if strings.HasPrefix(path, dir) {
			return true
		}
	}
	return false
}

// hostParts takes out what belongs to the main host: its devices, folders, addresses, and places on its CPUs.
func (p *porter) hostParts() error {
	d := p.dom.Devices
	if len(d.Hostdevs) > 0 {
		p.note("%d devices passed through from the main host were left out", len(d.Hostdevs))
		d.Hostdevs = nil
	}
	d.Filesystems = slices.DeleteFunc(d.Filesystems, func(f libvirtxml.DomainFilesystem) bool {
		here := f.Source != nil && f.Source.Mount != nil && f.Source.Mount.Dir != "" && p.Exists(f.Source.Mount.Dir)
		if !here {
			p.note("a file system shared with the main host was left out")
		}
		return !here
	})
	if e := d.Emulator; e != "" && !p.Exists(e) {
		p.note("the emulator %s is not here; the host's own is used", e)
		d.Emulator = ""
	}
	for i := range d.Graphics {
		p.graphics(&d.Graphics[i])
	}
	if p.dom.VCPU != nil {
		p.dom.VCPU.CPUSet, p.dom.VCPU.Placement = "", ""
	}
	if t := p.dom.CPUTune; t != nil {
		t.VCPUPin, t.EmulatorPin, t.IOThreadPin, t.CacheTune, t.MemoryTune = nil, nil, nil, nil, nil
	}
	p.dom.NUMATune = nil
	if r := p.dom.Resource; r != nil && r.Partition != "/machine" {
		p.dom.Resource = nil
	}
	for i := range d.TPMs {
		if b := d.TPMs[i].Backend; b != nil && b.Emulator != nil {
			p.note("the state of the TPM is not replicated; it starts with a new one")
		}
	}
	return nil
}

// graphics keeps a console reachable: an address of the main host is not one of this host.
func (p *porter) graphics(g *libvirtxml.DomainGraphic) {
	switch {
	case g.VNC != nil:
		g.VNC.Listen = p.listen(g.VNC.Listen)
		p.listeners(g.VNC.Listeners)
	case g.Spice != nil:
		g.Spice.Listen = p.listen(g.Spice.Listen)
		p.listeners(g.Spice.Listeners)
	}
}

func (p *porter) listeners(all []libvirtxml.DomainGraphicListener) {
	for i := range all {
		switch l := &all[i]; {
		case l.Address != nil:
			l.Address.Address = p.listen(l.Address.Address)
		case l.Network != nil:
			if mapped, ok := p.Networks[l.Network.Network]; ok {
				l.Network.Network = mapped
			}
			l.Network.Address = ""
			p.out.Networks = append(p.out.Networks, l.Network.Network)
		case l.Socket != nil && libvirtOwn(l.Socket.Socket):
			l.Socket.Socket = ""
		}
	}
}

func (p *porter) listen(address string) string {
	ip := net.ParseIP(address)
	if address == "" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		return address
	}
	p.note("the graphical console listens on 127.0.0.1 instead of %s", address)
	return "127.0.0.1"
}
