package chaos

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"
)

// Cycle is what one cycle does, as far as it does not depend on what the pair allows.
type Cycle struct {
	Number int
	// Act and Fault name what is done. An empty act is drawn from what the pair allows when its turn comes.
	Act, Fault string
	// Delay is from the beginning of the act to the fault, Hold from the fault to its mending.
	Delay, Hold time.Duration
	// Dice decides everything else that is free: which act, which recovery point, which policy.
	Dice uint64
}

func (c Cycle) String() string {
	return fmt.Sprintf("%s, %s after %v for %v", c.Act, c.Fault, c.Delay.Round(time.Millisecond), c.Hold.Round(time.Millisecond))
}

const (
	// delayMax reaches from the first step of an act to its last: a failover takes two to four seconds.
	delayMax = 3 * time.Second
	// holdMax is short of the lease, after which a host counts as not connected; longHold is beyond it.
	holdMax  = 2 * time.Second
	longHold = 8 * time.Second
	// longEvery is how often a fault is held for long.
	longEvery = 8
)

// plan draws cycles, each from the seed and its number alone, so that a run can begin anywhere.
type plan struct {
	cfg  Config
	done int
}

func newPlan(cfg Config) *plan {
	if cfg.First == 0 {
		cfg.First = 1
	}
	return &plan{cfg: cfg}
}

func (p *plan) next() (Cycle, bool) {
	defer func() { p.done++ }()
	if p.cfg.Script != nil {
		if p.done >= len(p.cfg.Script) {
			return Cycle{}, false
		}
		cycle := p.cfg.Script[p.done]
		cycle.Number, cycle.Dice = p.done+1, p.cfg.Seed+uint64(p.done)
		return cycle, true
	}
	if p.cfg.Cycles > 0 && p.done >= p.cfg.Cycles {
		return Cycle{}, false
	}
	return draw(p.cfg.Seed, p.cfg.First+p.done), true
}

func draw(seed uint64, number int) Cycle {
	dice := diceOf(seed, number)
	c := Cycle{Number: number, Delay: upTo(dice, delayMax), Hold: upTo(dice, holdMax)}
	if dice.IntN(longEvery) == 0 {
		c.Hold = longHold
	}
	c.Fault = drawFault(dice)
	c.Dice = dice.Uint64()
	return c
}

func upTo(dice *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(dice.Int64N(int64(limit)))
}

// dice are the cycle's own, the same whenever it is repeated.
func (c Cycle) dice() *rand.Rand { return diceOf(c.Dice, c.Number) }

// diceOf mixes well, so that neighbouring seeds and cycles have nothing in common.
func diceOf(seed uint64, number int) *rand.Rand {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(number))
	return rand.New(rand.NewChaCha8(key))
}
