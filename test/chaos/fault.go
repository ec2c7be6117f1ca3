package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Fault is one thing that can break.
type Fault struct {
	Name string
	// Does and Hits say what happens and to whom; Operator what is seen of it meanwhile.
	Does, Hits, Operator string
	// Weight is how often it is drawn, relative to the others.
	Weight int
	// ShadowServerMayFail says that an operation on the shadow server may fail by it. By any other fault it may
	// only be delayed.
	ShadowServerMayFail bool
	// Inject breaks it and returns how to mend it. errNothingToHit means that there is nothing that it could break
	// just now.
	Inject func(ctx context.Context, w *world) (mend func(context.Context) error, err error)
}

// errNothingToHit says that a fault has no victim at this moment.
var errNothingToHit = errors.New("there is nothing to hit")

// Faults are all faults.
func Faults() []Fault {
	var all []Fault
	for _, some := range [][]Fault{processFaults, hostFaults, networkFaults, diskFaults, libvirtFaults, definitionFaults} {
		all = append(all, some...)
	}
	return all
}

// FaultTable is a table of all faults in Markdown, for docs/faults.md.
func FaultTable() string {
	var text strings.Builder
	text.WriteString("| fault | hits | what happens | what the operator sees |\n|---|---|---|---|\n")
	for _, f := range Faults() {
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", f.Name, f.Hits, f.Does, f.Operator)
	}
	return text.String()
}

func faultNamed(name string) (Fault, bool) {
	for _, f := range Faults() {
		if f.Name == name {
			return f, true
		}
	}
	return Fault{}, false
}

func drawFault(dice *rand.Rand) string {
	total := 0
	for _, f := range Faults() {
		total += f.Weight
	}
	at := dice.IntN(total)
	for _, f := range Faults() {
		if at -= f.Weight; at < 0 {
			return f.Name
		}
	}
	return ""
}
