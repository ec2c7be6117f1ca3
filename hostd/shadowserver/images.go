package shadowserver

import (
	"fmt"
	"iter"
	"maps"
	"path/filepath"

	"libvirt.org/go/libvirtxml"
)

// overlayPath and standalonePath are a disk's images in the folder of an attempt: the overlay on the recovery point that the server is
// booted with, and the copy without anything below it that a commit puts in its place. libvirt's names of disks have no hyphen.
func overlayPath(dir, disk string) string    { return filepath.Join(dir, disk+".qcow2") }
func standalonePath(dir, disk string) string { return filepath.Join(dir, disk+"-standalone.qcow2") }

// standsAlone tells whether that image of a disk is the one that stands alone.
func standsAlone(path, disk string) bool { return path == standalonePath(filepath.Dir(path), disk) }

// definedImages says which image each disk of a definition has, by target name, and what is below it. An empty backing store ends
// the chain: the image stands alone.
type definedImages map[string]definedImage

type definedImage struct {
	path    string
	backing *libvirtxml.DomainDiskBackingStore
}

// imagesOf are those of a definition.
func imagesOf(xml string) (definedImages, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(xml); err != nil {
		return nil, fmt.Errorf("reading the server's definition: %w", err)
	}
	found := definedImages{}
	for target, d := range disksOnFiles(&dom) {
		found[target] = definedImage{path: d.Source.File.File, backing: d.BackingStore}
	}
	return found, nil
}

// disksOnFiles are the disks of a definition that are files, by target name.
func disksOnFiles(dom *libvirtxml.Domain) iter.Seq2[string, *libvirtxml.DomainDisk] {
	return func(yield func(string, *libvirtxml.DomainDisk) bool) {
		if dom.Devices == nil {
			return
		}
		for i := range dom.Devices.Disks {
			d := &dom.Devices.Disks[i]
			if d.Source != nil && d.Source.File != nil && d.Target != nil && !yield(d.Target.Dev, d) {
				return
			}
		}
	}
}

// moved are the images once the named disks are on those that stand alone.
func (i definedImages) moved(disks []string) definedImages {
	out := maps.Clone(i)
	for _, target := range disks {
		if image, ok := i[target]; ok {
			out[target] = definedImage{
				path:    standalonePath(filepath.Dir(image.path), target),
				backing: &libvirtxml.DomainDiskBackingStore{},
			}
		}
	}
	return out
}

// put changes a definition so that its disks have these images, whatever else its user has changed in it: a disk that has
// another image by his doing too, such as a snapshot's. It tells whether there was anything to change.
func (i definedImages) put(xml string) (out string, changed bool, err error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(xml); err != nil {
		return "", false, fmt.Errorf("reading the server's definition: %w", err)
	}
	for target, d := range disksOnFiles(&dom) {
		wanted, ok := i[target]
		path := d.Source.File.File
		dir := filepath.Dir(wanted.path)
		if !ok || path != overlayPath(dir, target) && path != standalonePath(dir, target) {
			continue
		}
		if path != wanted.path || hasBacking(wanted.backing) != hasBacking(d.BackingStore) {
			d.Source = &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: wanted.path}}
			d.BackingStore, changed = wanted.backing, true
		}
	}
	if !changed {
		return xml, false, nil
	}
	out, err = dom.Marshal()
	if err != nil {
		return "", false, fmt.Errorf("encoding the server's definition: %w", err)
	}
	return out, true, nil
}
