package libvirt

import (
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// disksOf are the disks of a definition that hold data of the server's own: no CD-ROMs, no floppies. A size that the
// images do not tell is 0.
func disksOf(definition *libvirtxml.Domain) []hypervisor.Disk {
	var disks []hypervisor.Disk
	for _, disk := range storage(definition) {
		source, file := sourceOf(disk.Source)
		format := "raw"
		if disk.Driver != nil && disk.Driver.Type != "" {
			format = disk.Driver.Type
		}
		image := inspect(file, format, disk)
		disks = append(disks, hypervisor.Disk{
			Target:        disk.Target.Dev,
			Source:        source,
			Format:        format,
			SizeBytes:     image.sizeBytes,
			TracksChanges: image.keepsBitmaps && disk.ReadOnly == nil,
			ReadOnly:      disk.ReadOnly != nil,
			Shareable:     disk.Shareable != nil,
		})
	}
	return disks
}

func storage(definition *libvirtxml.Domain) []*libvirtxml.DomainDisk {
	if definition.Devices == nil {
		return nil
	}
	var disks []*libvirtxml.DomainDisk
	for i := range definition.Devices.Disks {
		disk := &definition.Devices.Disks[i]
		if disk.Target == nil || disk.Device == "cdrom" || disk.Device == "floppy" {
			continue
		}
		disks = append(disks, disk)
	}
	return disks
}

// sourceOf is where a disk's data is: in words, and as a path when it can be opened as one.
func sourceOf(source *libvirtxml.DomainDiskSource) (words, path string) {
	switch {
	case source == nil:
		return "", ""
	case source.File != nil:
		return source.File.File, source.File.File
	case source.Block != nil:
		return source.Block.Dev, source.Block.Dev
	case source.Network != nil:
		return source.Network.Protocol + ":" + source.Network.Name, ""
	case source.Volume != nil:
		return "volume " + source.Volume.Pool + "/" + source.Volume.Volume, ""
	}
	return "of a type that is not known here", ""
}
