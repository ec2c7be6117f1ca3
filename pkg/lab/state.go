package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/umbra-dr/umbra/pkg/lab/process"
)

const stateFile = "lab.json"

// ErrNoLab says that no lab is recorded in the folder.
var ErrNoLab = errors.New("no lab is up in this folder")

// state is what is recorded of a lab, so that it can be found and taken down by anybody.
type state struct {
	path string

	Config Config `json:"config"`
	// Machines holds the first process of each machine that has power, by the machine's name. All its
	// other processes end with it.
	Machines map[string]process.Identity `json:"machines"`
	// Services holds the process of each running service, by machine and service, and Programs what
	// they were started as last.
	Services map[string]process.Identity `json:"services"`
	Programs map[string]Program          `json:"programs"`
}

func loadState(path string) (*state, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoLab, filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of the lab: %w", err)
	}
	s := &state{path: path}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read the record of the lab %s: %w", path, err)
	}
	return s, nil
}

// save replaces the record as a whole, so that a reader never sees half of one.
func (s *state) save() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("record the lab: %w", err)
	}
	next := s.path + ".next"
	if err := os.WriteFile(next, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("record the lab: %w", err)
	}
	if err := os.Rename(next, s.path); err != nil {
		return fmt.Errorf("record the lab: %w", err)
	}
	return nil
}

func (s *state) remove() error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the record of the lab: %w", err)
	}
	return nil
}

func (s *state) recordMachine(name string, id process.Identity) error {
	if s.Machines == nil {
		s.Machines = map[string]process.Identity{}
	}
	s.Machines[name] = id
	return s.save()
}

func (s *state) recordService(key string, id process.Identity, program Program) error {
	if s.Services == nil {
		s.Services, s.Programs = map[string]process.Identity{}, map[string]Program{}
	}
	s.Services[key], s.Programs[key] = id, program
	return s.save()
}

// clearAway takes down the lab that is recorded in dir, if there is one.
func clearAway(ctx context.Context, dir string) error {
	previous, err := Attach(dir)
	if errors.Is(err, ErrNoLab) {
		return nil
	}
	if err != nil {
		return err
	}
	return previous.Down(ctx)
}
