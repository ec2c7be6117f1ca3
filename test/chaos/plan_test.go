package chaos

import (
	"os"
	"slices"
	"strings"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestAPlanFollowsFromItsSeedAndMayBeginAnywhere(t *testing.T) {
	whole := drawn(Config{Seed: 5, Cycles: 40})
	if again := drawn(Config{Seed: 5, Cycles: 40}); !slices.Equal(whole, again) {
		t.Error("the same seed draws other cycles the second time")
	}
	if rest := drawn(Config{Seed: 5, First: 31, Cycles: 10}); !slices.Equal(whole[30:], rest) {
		t.Error("a run that begins with cycle 31 draws other cycles")
	}
	if other := drawn(Config{Seed: 6, Cycles: 40}); slices.Equal(whole, other) {
		t.Error("another seed draws the same cycles")
	}
}

func drawn(cfg Config) []Cycle {
	var cycles []Cycle
	for p := newPlan(cfg); ; {
		c, more := p.next()
		if !more {
			return cycles
		}
		cycles = append(cycles, c)
	}
}

func TestEveryFaultIsDrawnAndSaysWhatItDoes(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range drawn(Config{Seed: 1, Cycles: 2000}) {
		seen[c.Fault] = true
	}
	names := map[string]bool{}
	for _, f := range Faults() {
		if names[f.Name] {
			t.Errorf("two faults are called %s", f.Name)
		}
		names[f.Name] = true
		if !seen[f.Name] {
			t.Errorf("%s is never drawn", f.Name)
		}
		if f.Does == "" || f.Hits == "" || f.Operator == "" || f.Inject == nil {
			t.Errorf("%s does not say what it does, whom it hits and what is seen of it, or does nothing", f.Name)
		}
	}
}

func TestEveryRestingStateLeadsOn(t *testing.T) {
	for state, actions := range table {
		if _, ok := choose("", &umbrav1.DRPair{State: state, AllowedActions: actions}, diceOf(1, 1)); !ok {
			t.Errorf("nothing can be done in %v", state)
		}
	}
	if a, ok := choose("", nil, diceOf(1, 1)); !ok || a.name != "protect" {
		t.Errorf("without a pair %q is done", a.name)
	}
}

func TestTheDocumentationHoldsTheTableOfFaults(t *testing.T) {
	text, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), FaultTable()) {
		t.Error("docs/faults.md holds another table than umbra-chaos --list prints")
	}
}
