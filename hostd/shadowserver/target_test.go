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
	// crashAt: the server crashes at that call to the hypervisor, by the number of calls since its start. restarts: and somebody
	// starts it at once.
	crashAt  int
	restarts bool
	calls    int
	strayed  bool // a server ran on disks that lacked something
}

type fakeServer struct {
	xml    string
	uuid   string
	memory int64
	power  hypervisor.PowerState
	disks  []hypervisor.Disk
	backed map[string]bool
	pulls  map[string]int
	pulled map[string]bool // by path: copied, and not on stable storage yet
	tag    string
	looks  int
}

// The content of an overlay's file: what it holds of its recovery point as a crash leaves it.
const flat = "flat"

func isFlat(path string) bool {
	content, err := os.ReadFile(path)
	return err == nil && string(content) == flat
}

func (s *fakeServer) writeOut() error {
	var err error
	for path := range s.pulled {
		err = errors.Join(err, os.WriteFile(path, []byte(flat), 0o600))
	}
	clear(s.pulled)
	return err
}

func (s *fakeServer) end() {
	s.power, s.tag, s.pulls, s.pulled = hypervisor.PowerOff, "", map[string]int{}, map[string]bool{}
}

// dropBacking takes the backing store of a disk out of the definition, as libvirt does when a pull ends.
func (s *fakeServer) dropBacking(path string) error {
	needed, err := chainsOf(s.xml)
	if err != nil {
		return err
	}
	maps.DeleteFunc(needed, func(at string, _ *libvirtxml.DomainDiskBackingStore) bool { return at != path })
	s.xml, _, err = needed.alone().put(s.xml)
	return err
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
		return errors.Join(f.maybeCrash(), do())
	})
}

// maybeCrash crashes the running server when its time has come.
func (f *fakeTarget) maybeCrash() error {
	for name, s := range f.servers {
		if s.power == hypervisor.PowerOff {
			continue
		}
		if f.calls++; f.calls != f.crashAt {
			continue
		}
		s.end()
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
		if err := s.writeOut(); err != nil {
			f.world.t.Error(err)
		}
		s.end()
	}
	s.power = p
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
		s.end()
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
			s.end()
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
			s = &fakeServer{backed: map[string]bool{}}
			s.end()
			f.servers[d.Name] = s
		}
		s.xml, s.uuid, s.memory = xml, d.UUID, memoryBytes(d.Memory)
		if s.power == hypervisor.PowerRunning {
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
		f.strayed = f.strayed || !backed && !isFlat(path)
		s.disks = append(s.disks, hypervisor.Disk{Target: disk.Target.Dev, Source: path, SizeBytes: diskBytes})
		s.backed[disk.Target.Dev] = backed
	}
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
			err := s.writeOut()
			s.end()
			return err
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
		return f.onRunning(name, func(s *fakeServer) error {
			if !s.backed[disk] {
				return hypervisor.ErrNotFound
			}
			if _, running := s.pulls[disk]; !running {
				s.pulls[disk] = 0
			}
			if len(s.pulls) > 1 {
				f.world.t.Errorf("%d pulls at once: QEMU crashes when they end together", len(s.pulls))
			}
			return nil
		})
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
					s.pulled[d.Source] = true
					return errors.Join(s.dropBacking(d.Source), hypervisor.ErrNotFound)
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
		return f.onRunning(name, func(s *fakeServer) error {
			backed = s.backed[disk]
			return nil
		})
	})
	return backed, err
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

func (f *fakeTarget) SetRunTag(_ context.Context, name, tag string) error {
	return f.effect("SetRunTag", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			s.tag = tag
			return nil
		})
	})
}

func (f *fakeTarget) RunTag(_ context.Context, name string) (tag string, err error) {
	err = f.question("RunTag", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			tag = s.tag
			return nil
		})
	})
	return tag, err
}

func (f *fakeTarget) Suspend(_ context.Context, name string) error {
	return f.effect("Suspend", func() error {
		return f.onRunning(name, func(s *fakeServer) error {
			s.power = hypervisor.PowerPaused
			return s.writeOut()
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
