package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const pullRounds = 3 // questions after which a pull has ended

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
	brokenPull int // pulls that end without having copied everything
}

type fakeServer struct {
	xml    string
	uuid   string
	memory int64
	power  hypervisor.PowerState
	disks  []hypervisor.Disk
	backed map[string]bool
	pulls  map[string]int
	looks  int
}

func newFakeTarget(w *world) *fakeTarget {
	return &fakeTarget{
		world: w, servers: map[string]*fakeServer{}, freeBytes: 1 << 40, dies: map[string]int{}, startFails: map[string]bool{},
		host: hypervisor.Host{MemoryFreeBytes: 4 << 30, Networks: []string{"lan"}, ServerUID: -1, ServerGID: -1},
	}
}

func (f *fakeTarget) effect(op string, do func() error) error {
	return f.world.effect(op, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return do()
	})
}

func (f *fakeTarget) question(op string, do func() error) error {
	if err := f.world.touch("ask " + op); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return do()
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
	f.servers[name].power = p
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
			s.power = hypervisor.PowerOff
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
			s = &fakeServer{power: hypervisor.PowerOff, backed: map[string]bool{}, pulls: map[string]int{}}
			f.servers[d.Name] = s
		}
		s.xml, s.uuid, s.memory = xml, d.UUID, memoryBytes(d.Memory)
		if s.power == hypervisor.PowerRunning {
			return nil // the definition changes, the running server does not
		}
		s.disks = nil
		for _, disk := range d.Devices.Disks {
			s.disks = append(s.disks, hypervisor.Disk{Target: disk.Target.Dev, Source: disk.Source.File.File})
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
		if err != nil || s.power == hypervisor.PowerRunning {
			return err
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
			backed := hasBacking(&disk)
			if backed && !fileExists(disk.BackingStore.Source.File.File) {
				return fmt.Errorf("there is no file %s", disk.BackingStore.Source.File.File)
			}
			if flat, _ := os.ReadFile(path); string(flat) == "flat" {
				backed = false
			}
			s.disks = append(s.disks, hypervisor.Disk{Target: disk.Target.Dev, Source: path})
			s.backed[disk.Target.Dev] = backed
		}
		if f.startFails[s.disks[0].Source] {
			return errors.New("internal error: the process exited while connecting to the monitor")
		}
		s.pulls = map[string]int{}
		s.power = hypervisor.PowerRunning
		f.starts = append(f.starts, s.disks[0].Source)
		return nil
	})
}

func (f *fakeTarget) Destroy(_ context.Context, name string) error {
	return f.effect("Destroy", func() error {
		if s := f.servers[name]; s != nil && s.power != hypervisor.PowerOff {
			s.power = hypervisor.PowerOff
			f.destroys++
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

func (f *fakeTarget) CreateOverlay(_ context.Context, path string, size int64) error {
	return f.effect("CreateOverlay", func() error {
		if size != diskBytes {
			f.world.t.Errorf("the overlay %s has %d bytes", path, size)
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		return file.Close()
	})
}

func (f *fakeTarget) PullStart(_ context.Context, name, disk string) error {
	return f.effect("PullStart", func() error {
		s, err := f.find(name)
		switch {
		case err != nil:
			return err
		case s.power != hypervisor.PowerRunning:
			return hypervisor.ErrNotRunning
		case !s.backed[disk]:
			return hypervisor.ErrNotFound
		}
		if _, running := s.pulls[disk]; !running {
			s.pulls[disk] = 0
		}
		return nil
	})
}

func (f *fakeTarget) PullStatus(_ context.Context, name, disk string) (job hypervisor.BlockJob, err error) {
	err = f.question("PullStatus", func() error {
		s, err := f.find(name)
		if err != nil {
			return err
		}
		done, running := s.pulls[disk]
		if !running {
			return hypervisor.ErrNotFound
		}
		if s.pulls[disk]++; done >= pullRounds {
			delete(s.pulls, disk)
			if f.brokenPull > 0 {
				f.brokenPull--
				return hypervisor.ErrNotFound
			}
			s.backed[disk] = false
			for _, d := range s.disks {
				if d.Target == disk {
					return errors.Join(os.WriteFile(d.Source, []byte("flat"), 0o600), hypervisor.ErrNotFound)
				}
			}
		}
		job = hypervisor.BlockJob{DoneBytes: int64(done) * diskBytes / pullRounds, TotalBytes: diskBytes}
		return nil
	})
	return job, err
}

func (f *fakeTarget) Backed(_ context.Context, name, disk string) (backed bool, err error) {
	err = f.question("Backed", func() error {
		s, err := f.find(name)
		switch {
		case err != nil:
			return err
		case s.power != hypervisor.PowerRunning:
			return hypervisor.ErrNotRunning
		}
		backed = s.backed[disk]
		return nil
	})
	return backed, err
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
