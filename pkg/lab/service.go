package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/lab/process"
)

// Program is what a service runs. In its arguments and environment, {name}, {address} and {dir} stand
// for those of the machine, {lab} for the lab's folder and {control-plane} for the control plane's address.
type Program struct {
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env"` // in addition to the caller's
}

// Service is a program that a machine keeps running. It writes its log to LogPath.
type Service struct {
	Name string

	machine *Machine
	program Program
}

func (m *Machine) service(name string, program Program) *Service {
	s := &Service{Name: name, machine: m, program: program}
	if recorded, ok := m.lab.state.Programs[s.key()]; ok {
		s.program = recorded
	}
	return s
}

func (s *Service) key() string { return s.machine.Name + "/" + s.Name }

func (s *Service) process() process.Identity { return s.machine.lab.state.Services[s.key()] }

// Configured says whether there is a program to run.
func (s *Service) Configured() bool { return s.program.Path != "" }

// Configure sets what the next Start runs.
func (s *Service) Configure(program Program) { s.program = program }

// Running says whether the service's process is there.
func (s *Service) Running() bool { return s.process().Alive() }

// PID is the number of its process on this computer, of the last one if it does not run.
func (s *Service) PID() int { return s.process().PID }

// LogPath is the file that the service's output is appended to.
func (s *Service) LogPath() string { return filepath.Join(s.machine.Dir, s.Name+".log") }

// Start starts the service and returns at once; when it answers is for the caller to find out. A service
// that runs already is left alone.
func (s *Service) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start %s: %w", s.key(), err)
	}
	if s.Running() {
		return nil
	}
	if !s.Configured() {
		return fmt.Errorf("start %s: no program is configured", s.key())
	}
	if !s.machine.Alive() {
		return fmt.Errorf("start %s: %w", s.key(), ErrPoweredOff)
	}
	path, err := exec.LookPath(s.program.Path)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", s.key(), err)
	}
	id, err := s.launch(ctx, path)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.key(), err)
	}
	return s.machine.lab.state.recordService(s.key(), id, s.program)
}

// launchScript leaves the service behind as an orphan, which the machine's first process adopts: whoever
// started it may end, or never look after it, and the machine can still be powered off completely.
const launchScript = `setsid "$@" >&2 </dev/null & echo $!`

func (s *Service) launch(ctx context.Context, path string) (process.Identity, error) {
	log, err := os.OpenFile(s.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return process.Identity{}, err
	}
	defer func() { _ = log.Close() }() // the service has its own descriptor
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	args := append([]string{"-c", launchScript, s.Name, path}, s.expand(s.program.Args)...)
	command := s.machine.Command(ctx, "sh", args...)
	command.Env = append(os.Environ(), s.expand(s.program.Env)...)
	command.Stderr, command.Dir = log, "/"
	told, err := command.Output()
	if err != nil {
		return process.Identity{}, fmt.Errorf("%w, see %s", err, log.Name())
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(told)))
	if err != nil {
		return process.Identity{}, fmt.Errorf("its process number: %w", err)
	}
	id, err := process.InNamespaceOf(s.machine.first(), number)
	if err != nil {
		return process.Identity{}, fmt.Errorf("%w, see %s", err, log.Name())
	}
	return id, nil
}

// Stop asks the service to end and waits until it has.
func (s *Service) Stop(ctx context.Context) error { return s.end(ctx, process.Identity.Stop, "stop") }

// Kill ends the service at once, as a crash would.
func (s *Service) Kill(ctx context.Context) error { return s.end(ctx, process.Identity.Kill, "kill") }

// Signal sends the service's process a signal: SIGSTOP, for example, hangs it until SIGCONT.
func (s *Service) Signal(signal unix.Signal) error {
	if err := s.process().Signal(signal); err != nil {
		return fmt.Errorf("signal %s: %w", s.key(), err)
	}
	return nil
}

func (s *Service) end(ctx context.Context, how func(process.Identity, context.Context) error, word string) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := how(s.process(), ctx); err != nil {
		return fmt.Errorf("%s %s: %w", word, s.key(), err)
	}
	return nil
}

func (s *Service) expand(words []string) []string {
	m := s.machine
	replace := strings.NewReplacer("{name}", m.Name, "{address}", m.Address, "{dir}", m.Dir,
		"{lab}", m.lab.config.Dir, "{control-plane}", ControlPlaneAddress)
	expanded := make([]string, len(words))
	for i, word := range words {
		expanded[i] = replace.Replace(word)
	}
	return expanded
}
