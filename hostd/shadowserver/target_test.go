package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const copyRounds = 3 // questions after which a copy is complete

// fakeTarget is a hypervisor of definitions and powers. It starts only what could start, and complains about what a
// shadow host must never see.
type fakeTarget struct {
	world     *world
	host      hypervisor.Host
	freeBytes int64
	dialError error

	mu         sync.Mutex
	servers    map[string]*fakeServer
	starts     []string       // the first disk's file of every boot
	destroys   int            // of running servers
	dies       map[string]int // servers that stop by themselves after that many looks, by first disk's file
	cannotRun  error          // what CheckDefinition says
	startFails map[string]bool
	agentFails int
	brokenCopy int // copies that fail before they are complete
	// crashAt: the server crashes at that call to the hypervisor, by the number of calls since its start. restarts: and somebody
	// starts it at once.
	crashAt  int
	restarts bool
	calls    int
	images   map[string]*fakeImage // by path
	written  map[string]int        // by lineage: what the guest wrote last
}

// fakeImage is what an image holds as a crash leaves it.
type fakeImage struct {
	whole  bool // it needs nothing below it
	writes int  // the last of the guest's writes that is in it
}

// fakeCopy is a copy that runs.
type fakeCopy struct {
	path    string
	asked   int
	flushed bool // since it was complete
	limit   int64
}

func (c *fakeCopy) complete() bool { return c.asked > copyRounds }

type fakeServer struct {
	xml    string
	uuid   string
	memory int64
	power  hypervisor.PowerState
	disks  []hypervisor.Disk
	backed map[string]bool
	copies map[string]*fakeCopy
	looks  int
}

// lineage is the same for an overlay, a snapshot above it and the copy that takes its place: all hold what one guest wrote.
func lineage(path string) string {
	return strings.NewReplacer("-standalone", "", snapshotSuffix, ".qcow2").Replace(path)
}

const snapshotSuffix = ".snapshot"

// image is what the image at a path holds. One that was not made here is whole.
func (f *fakeTarget) image(path string) *fakeImage {
	if f.images[path] == nil {
		f.images[path] = &fakeImage{whole: true}
	}
	return f.images[path]
}

// guestWrites has the guest of a running server write to its disks, durably, and to their copies.
func (f *fakeTarget) guestWrites(s *fakeServer) {
	if s.power != hypervisor.PowerRunning {
		return
	}
	for _, d := range s.disks {
		f.written[lineage(d.Source)]++
		f.image(d.Source).writes = f.written[lineage(d.Source)]
		if c := s.copies[d.Target]; c != nil {
			f.image(c.path).writes = f.written[lineage(d.Source)]
		}
	}
}

// writeOut flushes the copies, as a server that is suspended does.
func (s *fakeServer) writeOut() {
	for _, c := range s.copies {
		c.flushed = c.complete()
	}
}

// end is the end of the server's run. A copy that was not flushed lacks something.
func (f *fakeTarget) end(s *fakeServer) {
	for _, c := range s.copies {
		f.image(c.path).whole = c.flushed
	}
	s.power, s.copies = hypervisor.PowerOff, map[string]*fakeCopy{}
}

func newFakeTarget(w *world) *fakeTarget {
	return &fakeTarget{
		world: w, servers: map[string]*fakeServer{}, freeBytes: 1 << 40, dies: map[string]int{}, startFails: map[string]bool{},
		images: map[string]*fakeImage{}, written: map[string]int{},
		host: hypervisor.Host{MemoryFreeBytes: 4 << 30, Networks: []string{"lan"}, ServerUID: -1, ServerGID: -1},
	}
}

func (f *fakeTarget) effect(op string, do func() error) error {
	return f.world.effect(op, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return errors.Join(f.maybeCrash(), do())
	})
}

// maybeCrash crashes the running server when its time has come.
func (f *fakeTarget) maybeCrash() error {
	for name, s := range f.servers {
		if s.power == hypervisor.PowerOff {
			continue
		}
		f.guestWrites(s)
		if f.calls++; f.calls != f.crashAt {
			continue
		}
		f.end(s)
		if f.restarts {
			return f.start(name, s)
		}
	}
	return nil
}

func (f *fakeTarget) question(op string, do func() error) error {
	if err := f.world.touch("ask " + op); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.maybeCrash(), do())
}

func (f *fakeTarget) defined() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.servers))
}

func (f *fakeTarget) server(name string) (s fakeServer, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.servers[name] == nil {
		return fakeServer{}, false
	}
	return *f.servers[name], true
}

func (f *fakeTarget) setPower(name string, p hypervisor.PowerState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.servers[name]
	if p == hypervisor.PowerOff {
		f.end(s)
	}
	s.power = p
}

// change has something happen to a server behind hostd's back.
func (f *fakeTarget) change(name string, do func(*fakeServer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(f.servers[name])
}

func (f *fakeTarget) free(string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.freeBytes, nil
}

func (f *fakeTarget) setFree(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.freeBytes = n
}

// goBack has the server run as it did before, by its user's doing, with a guest that does not write yet.
func (f *fakeTarget) goBack(name string, before fakeServer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.servers[name]
	f.end(s)
	s.xml, s.disks, s.power = before.xml, before.disks, hypervisor.PowerPaused
}

// crashAfter has the running server crash at that call of the hypervisor from now on.
func (f *fakeTarget) crashAfter(calls int, restarts bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.crashAt, f.restarts = 0, calls, restarts
}

// losePower ends all servers at once.
func (f *fakeTarget) losePower() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.servers {
		f.end(s)
	}
}

func (f *fakeTarget) find(name string) (*fakeServer, error) {
	if s := f.servers[name]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("server %s: %w", name, hypervisor.ErrNotFound)
}

func (f *fakeTarget) Host(context.Context) (h hypervisor.Host, err error) {
	err = f.question("Host", func() error {
		h = f.host
		for _, s := range f.servers {
			if s.power == hypervisor.PowerRunning {
				h.MemoryFreeBytes -= s.memory
			}
		}
		return nil
	})
	return h, err
}

func (f *fakeTarget) view(name string, s *fakeServer) hypervisor.Server {
	return hypervisor.Server{Name: name, UUID: s.uuid, Power: s.power, MemoryBytes: s.memory, Disks: slices.Clone(s.disks)}
}

func (f *fakeTarget) Servers(context.Context) (all []hypervisor.Server, err error) {
	err = f.question("Servers", func() error {
		for name, s := range f.servers {
			all = append(all, f.view(name, s))
		}
		return nil
	})
	return all, err
}

func (f *fakeTarget) Server(_ context.Context, name string) (out hypervisor.Server, err error) {
	err = f.question("Server", func() error {
		s, err := f.find(name)
		if err != nil {
			return err
		}
		s.looks++
		if limit, mortal := f.dies[s.disks[0].Source]; mortal && s.looks > limit {
			f.end(s)
		}
		out = f.view(name, s)
		return nil
	})
	return out, err
}

func (f *fakeTarget) ServerXML(_ context.Context, name string) (xml string, err error) {
	err = f.question("ServerXML", func() error {
		s, err := f.find(name)
		if err == nil {
			xml = s.xml
		}
		return err
	})
	return xml, err
}

func (f *fakeTarget) Diagnostics(context.Context, string) (map[string][]byte, error) {
	return nil, errors.New("not asked for by this role")
}

func (f *fakeTarget) Define(_ context.Context, xml string) error {
	return f.effect("Define", func() error {
		var d libvirtxml.Domain
		if err := d.Unmarshal(xml); err != nil {
			return err
		}
		for name, s := range f.servers {
			if (name == d.Name) != (s.uuid == d.UUID) {
				return fmt.Errorf("server %s of UUID %s is defined already", name, s.uuid)
			}
		}
		s := f.servers[d.Name]
		if s == nil {
			s = &fakeServer{backed: map[string]bool{}, power: hypervisor.PowerOff}
			f.servers[d.Name] = s
		}
		s.xml, s.uuid, s.memory = xml, d.UUID, memoryBytes(d.Memory)
		if s.power != hypervisor.PowerOff {
			return nil // the definition changes, the running server does not
		}
		s.disks = nil
		for _, disk := range d.Devices.Disks {
			s.disks = append(s.disks, hypervisor.Disk{Target: disk.Target.Dev, Source: disk.Source.File.File, SizeBytes: diskBytes})
		}
		return nil
	})
}

func (f *fakeTarget) CheckDefinition(context.Context, string) error {
	return f.question("CheckDefinition", func() error { return f.cannotRun })
}

func (f *fakeTarget) Start(_ context.Context, name string) error {
	return f.effect("Start", func() error {
		s, err := f.find(name)
		if err != nil {
			return err
		}
		return f.start(name, s)
	})
}

func (f *fakeTarget) start(name string, s *fakeServer) error {
	if s.power == hypervisor.PowerRunning {
		return nil
	}
	if f.world.replica.accepts() {
		f.world.t.Errorf("server %s is started while streams are accepted", name)
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(s.xml); err != nil {
		return err
	}
	s.disks, s.looks = nil, 0
	for _, disk := range d.Devices.Disks {
		path := disk.Source.File.File
		if !fileExists(path) {
			return fmt.Errorf("there is no file %s", path)
		}
		backed := hasBacking(disk.BackingStore)
		if backed && !fileExists(disk.BackingStore.Source.File.File) {
			return fmt.Errorf("there is no file %s", disk.BackingStore.Source.File.File)
		}
		if image := f.image(path); !backed && !image.whole || image.writes != f.written[lineage(path)] {
			f.world.t.Errorf("the server is started on %s, which lacks something: %+v, the guest's writes %d, backed %v",
				path, *image, f.written[lineage(path)], backed)
		}
		s.disks = append(s.disks, hypervisor.Disk{Target: disk.Target.Dev, Source: path, SizeBytes: diskBytes})
		s.backed[disk.Target.Dev] = backed
	}
	s.copies = map[string]*fakeCopy{}
	if f.startFails[s.disks[0].Source] {
		return errors.New("internal error: the process exited while connecting to the monitor")
	}
	s.power = hypervisor.PowerRunning
	f.starts = append(f.starts, s.disks[0].Source)
	return nil
}

func (f *fakeTarget) Destroy(_ context.Context, name string) error {
	return f.effect("Destroy", func() error {
		if s := f.servers[name]; s != nil && s.power != hypervisor.PowerOff {
			f.destroys++
			f.end(s)
		}
		return nil
	})
}

func (f *fakeTarget) Undefine(_ context.Context, name string) error {
	return f.effect("Undefine", func() error {
		if s := f.servers[name]; s != nil && s.power != hypervisor.PowerOff {
			f.world.t.Errorf("server %s is undefined while it runs", name)
		}
		delete(f.servers, name)
		return nil
	})
}

func (f *fakeTarget) CreateImage(_ context.Context, path string, size int64) error {
	return f.effect("CreateImage", func() error {
		if size != diskBytes {
			f.world.t.Errorf("the image %s has %d bytes", path, size)
		}
		for name, s := range f.servers {
			if strings.Contains(s.xml, "'"+path+"'") || strings.Contains(s.xml, `"`+path+`"`) {
				f.world.t.Errorf("the image %s is made anew while server %s is defined with it", path, name)
			}
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		f.images[path] = &fakeImage{}
		if lineage(path) == path {
			f.written[path] = 0
		}
		return file.Close()
	})
}

func (f *fakeTarget) CopyStart(_ context.Context, name, disk, path string) error {
	return f.effect("CopyStart", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			if !fileExists(path) {
				return fmt.Errorf("there is no file %s", path)
			}
			if s.copies[disk] == nil {
				s.copies[disk] = &fakeCopy{path: path}
			}
			if len(s.copies) > 1 {
				f.world.t.Errorf("%d copies at once: QEMU crashes when they end together", len(s.copies))
			}
			return nil
		})
	})
}

func (f *fakeTarget) CopyStatus(_ context.Context, name, disk string) (job hypervisor.DiskCopy, err error) {
	err = f.question("CopyStatus", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			c := s.copies[disk]
			if c == nil {
				return hypervisor.ErrNotFound
			}
			if c.asked++; c.asked == copyRounds && f.brokenCopy > 0 {
				f.brokenCopy--
				delete(s.copies, disk)
				return hypervisor.ErrNotFound
			}
			job = hypervisor.DiskCopy{
				Path: c.path, DoneBytes: int64(min(c.asked, copyRounds)) * diskBytes / copyRounds, TotalBytes: diskBytes, Complete: c.complete(),
			}
			return nil
		})
	})
	return job, err
}

func (f *fakeTarget) CopyCancel(_ context.Context, name, disk string) error {
	return f.effect("CopyCancel", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			delete(s.copies, disk)
			return nil
		})
	})
}

func (f *fakeTarget) CopyLimit(_ context.Context, name, disk string, bytesPerSecond int64) error {
	return f.effect("CopyLimit", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			if s.copies[disk] == nil {
				return hypervisor.ErrNotFound
			}
			s.copies[disk].limit = bytesPerSecond
			return nil
		})
	})
}

// IOCounters are of a guest that writes once between any two calls.
func (f *fakeTarget) IOCounters(_ context.Context, name string) (io hypervisor.IOCounters, err error) {
	err = f.question("IOCounters", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			for _, d := range s.disks {
				io.Requests += int64(f.written[lineage(d.Source)])
			}
			return nil
		})
	})
	return io, err
}

// CopySwitch changes the definition too, as libvirt does.
func (f *fakeTarget) CopySwitch(_ context.Context, name, disk string) error {
	return f.effect("CopySwitch", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			c := s.copies[disk]
			switch {
			case c == nil:
				return hypervisor.ErrNotFound
			case !c.complete():
				f.world.t.Error("the guest is paused for a copy that is not complete")
				return errors.New("the copy is not ready yet")
			case s.power != hypervisor.PowerPaused:
				f.world.t.Error("the guest writes while its server is switched to a copy")
			}
			return f.switchOver(s, disk)
		})
	})
}

func (f *fakeTarget) switchOver(s *fakeServer, disk string) error {
	c := s.copies[disk]
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(s.xml); err != nil {
		return err
	}
	for target, d := range disksOnFiles(&dom) {
		if target == disk {
			d.Source.File.File, d.BackingStore = c.path, nil
		}
	}
	for i := range s.disks {
		if s.disks[i].Target == disk {
			s.disks[i].Source = c.path
		}
	}
	f.image(c.path).whole, s.backed[disk] = true, false
	delete(s.copies, disk)
	xml, err := dom.Marshal()
	s.xml = xml
	return err
}

func (f *fakeTarget) onRunning(name string, do func(*fakeServer) error) error {
	s, err := f.find(name)
	switch {
	case err != nil:
		return err
	case s.power == hypervisor.PowerOff:
		return hypervisor.ErrNotRunning
	}
	return do(s)
}

func (f *fakeTarget) Suspend(_ context.Context, name string) error {
	return f.effect("Suspend", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			s.power = hypervisor.PowerPaused
			s.writeOut()
			return nil
		})
	})
}

func (f *fakeTarget) Resume(_ context.Context, name string) error {
	return f.effect("Resume", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			s.power = hypervisor.PowerRunning
			return nil
		})
	})
}

func (f *fakeTarget) AgentPing(context.Context, string) error {
	return f.question("AgentPing", func() error {
		if f.agentFails > 0 {
			f.agentFails--
			return hypervisor.ErrAgent
		}
		return nil
	})
}
