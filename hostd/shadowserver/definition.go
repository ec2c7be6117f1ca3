package shadowserver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// diskImage is what stands for one disk of the main server: an overlay over a view of the recovery point.
type diskImage struct {
	Overlay string
	View    recoverystore.ViewDisk
}

// definitionInput is everything that the shadow server's definition is made from.
type definitionInput struct {
	XML      string               // of the main server, as the point holds it
	Name     string               // of the shadow server
	Disks    map[string]diskImage // by target name
	Networks map[string]string    // the shadow host's network for one of the main host's
	NVRAM    string               // our file of UEFI variables, or ""
	Seed     string               // changes with every boot that goes back in time
	Exists   func(path string) bool
}

// definition is a server as it is to be defined at this host, and what it needs of it.
type definition struct {
	XML         string
	Name        string
	UUID        string
	Type        string // "kvm", "qemu"
	MemoryBytes int64
	Networks    []string // libvirt networks that must be active
	Links       []string // network devices that must exist
	Notes       []string // what of the main server it does without
}

func (d definition) summary() string { return strings.Join(d.Notes, "; ") }

// definitionInput takes the input from a point and the assignment.
func (w *worker) definitionInput(s *umbrav1.ShadowAssignment, point recoverystore.Point, disks map[string]diskImage, nvram string) definitionInput {
	networks := map[string]string{}
	for _, m := range s.GetPolicy().GetNetworkMappings() {
		networks[m.GetMainNetwork()] = m.GetShadowNetwork()
	}
	return definitionInput{
		XML:      point.ServerXML,
		Name:     s.GetServer(),
		Disks:    disks,
		Networks: networks,
		NVRAM:    nvram,
		Seed:     fmt.Sprintf("%s/%d", w.pair, s.GetAttempt().GetNumber()),
		Exists:   fileExists,
	}
}

// define makes the shadow server's definition from the main server's. Name and disks are replaced, networks mapped,
// and what cannot work on another host is taken out, each with a note. UUID, MAC addresses and the places of devices
// stay. It is a function of its input alone. The error is a refusal.
func define(in definitionInput) (definition, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(in.XML); err != nil {
		return definition{}, &refusal{
			reason:  umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED,
			message: "the recovery point's server configuration cannot be read", err: err,
		}
	}
	if dom.Devices == nil {
		dom.Devices = &libvirtxml.DomainDeviceList{}
	}
	p := &porter{definitionInput: in, dom: &dom}
	for _, part := range []func() error{p.identity, p.disks, p.firmware, p.interfaces, p.characters, p.hostParts} {
		if err := part(); err != nil {
			return definition{}, err
		}
	}
	xml, err := dom.Marshal()
	if err != nil {
		return definition{}, fmt.Errorf("encoding the shadow server's definition: %w", err)
	}
	p.out.XML, p.out.Name, p.out.UUID, p.out.Type = xml, dom.Name, dom.UUID, dom.Type
	p.out.MemoryBytes = memoryBytes(dom.Memory)
	return p.out, nil
}

// porter carries one server from the main host to this one.
type porter struct {
	definitionInput
	dom *libvirtxml.Domain
	out definition
}

func (p *porter) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(p.out.Notes, n) {
		p.out.Notes = append(p.out.Notes, n)
	}
}

func unportable(format string, args ...any) error {
	return refuse(umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED, format, args...)
}

// identity keeps who the server is. Its generation id changes, since the guest must learn that it went back in time.
func (p *porter) identity() error {
	p.dom.ID = nil
	p.dom.Name = p.Name
	p.dom.SecLabel = nil
	if p.dom.UUID == "" {
		return unportable("the recovery point's server configuration has no UUID")
	}
	if p.dom.GenID != nil {
		p.dom.GenID.Value = uuid.NewSHA1(uuid.NameSpaceOID, []byte(p.dom.GenID.Value+p.Seed)).String()
	}
	return nil
}

func (p *porter) disks() error {
	kept := p.dom.Devices.Disks[:0]
	for _, d := range p.dom.Devices.Disks {
		if d.Device == "cdrom" || d.Device == "floppy" {
			p.media(&d)
			kept = append(kept, d)
			continue
		}
		target := ""
		if d.Target != nil {
			target = d.Target.Dev
		}
		image, ok := p.Disks[target]
		switch {
		case ok:
			p.disk(&d, image)
			kept = append(kept, d)
		case d.ReadOnly != nil || d.Shareable != nil:
			p.note("disk %s, which is read-only or shared and not replicated, was left out", target)
		default:
			return refuse(umbrav1.ErrorReason_ERROR_REASON_DISKS_CHANGED,
				"the server has a disk %q that the recovery point does not hold", target)
		}
	}
	p.dom.Devices.Disks = kept
	return nil
}

// disk puts the overlay and the point's view below it in the place of a disk.
func (p *porter) disk(d *libvirtxml.DomainDisk, image diskImage) {
	driver := libvirtxml.DomainDiskDriver{}
	if d.Driver != nil {
		driver = *d.Driver
	}
	driver.Name, driver.Type = "qemu", "qcow2"
	d.Device, d.Driver = "disk", &driver
	d.RawIO, d.SGIO = "", ""
	d.Auth, d.Encryption, d.Mirror, d.BackendDomain = nil, nil, nil, nil
	d.Shareable, d.Transient = nil, nil
	d.Source = &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: image.Overlay}}
	d.BackingStore = &libvirtxml.DomainDiskBackingStore{
		Format: &libvirtxml.DomainDiskFormat{Type: "qcow2"},
		Source: &libvirtxml.DomainDiskSource{
			File: &libvirtxml.DomainDiskSourceFile{File: image.View.Path},
			Slices: &libvirtxml.DomainDiskSlices{Slices: []libvirtxml.DomainDiskSlice{{
				Type: "storage", Offset: uint(image.View.OffsetBytes), Size: uint(image.View.SizeBytes),
			}}},
		},
		BackingStore: &libvirtxml.DomainDiskBackingStore{},
	}
}

// media leaves a medium in its tray only if this host has it too.
func (p *porter) media(d *libvirtxml.DomainDisk) {
	d.BackingStore, d.Mirror = nil, nil
	if d.Source == nil {
		return
	}
	switch {
	case d.Source.File != nil && d.Source.File.File != "" && p.Exists(d.Source.File.File):
		d.Source = &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: d.Source.File.File}, StartupPolicy: "optional"}
	default:
		d.Source = nil
		p.note("the %s tray %s is empty", d.Device, d.Target.Dev)
	}
}

// firmware keeps the way the server boots, with our copy of its UEFI variables.
func (p *porter) firmware() error {
	os := p.dom.OS
	if os == nil {
		return nil
	}
	needed := map[string]string{"kernel": os.Kernel, "initial RAM disk": os.Initrd, "device tree": os.DTB, "shim": os.Shim}
	if os.Loader != nil {
		needed["firmware"] = os.Loader.Path
	}
	for _, what := range []string{"firmware", "kernel", "initial RAM disk", "device tree", "shim"} {
		if path := needed[what]; path != "" && !p.Exists(path) {
			return unportable("the server boots with the %s %s, which this host does not have", what, path)
		}
	}
	if os.NVRam == nil {
		return nil
	}
	nvram := libvirtxml.DomainNVRam{NVRam: p.NVRAM, Format: os.NVRam.Format}
	if template := os.NVRam.Template; template != "" && p.Exists(template) {
		nvram.Template, nvram.TemplateFormat = template, os.NVRam.TemplateFormat
	}
	os.NVRam = &nvram
	if p.NVRAM == "" {
		os.NVRam.Format = ""
		p.note("the UEFI variables were not captured; it starts with new ones")
	}
	return nil
}

// memoryUnits are libvirt's names of units, as powers.
var memoryUnits = map[string]int64{
	"b": 1, "bytes": 1, "": 1 << 10, "k": 1 << 10, "KiB": 1 << 10, "KB": 1e3,
	"M": 1 << 20, "MiB": 1 << 20, "MB": 1e6, "G": 1 << 30, "GiB": 1 << 30, "GB": 1e9,
	"T": 1 << 40, "TiB": 1 << 40, "TB": 1e12,
}

func memoryBytes(m *libvirtxml.DomainMemory) int64 {
	if m == nil {
		return 0
	}
	return int64(m.Value) * memoryUnits[m.Unit]
}

// hasBacking tells whether a backing store of a definition names a backing file. An empty backingStore element, which says
// that there is none, is decoded with an empty source.
func hasBacking(b *libvirtxml.DomainDiskBackingStore) bool {
	if b == nil || b.Source == nil {
		return false
	}
	s := b.Source
	return s.File != nil || s.Block != nil || s.Network != nil || s.Volume != nil
}
