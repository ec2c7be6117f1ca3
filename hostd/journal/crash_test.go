package journal

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/umbra-dr/umbra/pkg/faultydisk"
)

// diary is a journal on a faulty disk, and what it must hold.
type diary struct {
	t       *testing.T
	dir     string
	disk    *faultydisk.Disk
	journal *Journal
	holds   map[string]int // what was acknowledged, by kind and pair
	// doubtful is the record of the change that failed, and what it may be as well. No pair: none failed.
	doubtful    string
	doubtfulNow int
}

func (d *diary) open() {
	d.t.Helper()
	j, err := Open(d.dir)
	if err != nil {
		d.t.Fatalf("the journal does not open: %v", err)
	}
	d.disk.WrapDatabase(j.db.Bolt())
	d.journal = j
}

// change saves or removes (0) the record of a pair. Its error ends the life.
func (d *diary) change(kind Kind, pair string, value int) error {
	var err error
	if value == 0 {
		err = Delete(d.journal, kind, pair)
	} else {
		err = Save(d.journal, kind, pair, value)
	}
	key := string(kind) + "/" + pair
	if err != nil {
		d.doubtful, d.doubtfulNow = key, value
		return err
	}
	d.holds[key] = value
	if d.doubtful == key {
		d.doubtful = ""
	}
	return nil
}

// live makes changes until one fails, or to the end. Pages are taken and given back, since some records are long gone.
func (d *diary) live() error {
	for n := range 14 {
		value := n + 1
		if n%5 == 4 {
			value = 0
		}
		if err := d.change(kinds[n%3], fmt.Sprintf("pair-%d", n%7), value); err != nil {
			return err
		}
	}
	return nil
}

// check holds the journal against what it must hold.
func (d *diary) check() {
	d.t.Helper()
	for _, kind := range kinds {
		records, err := All[int](d.journal, kind)
		if err != nil {
			d.t.Fatal(err)
		}
		found := map[string]int{}
		for pair, value := range records {
			found[string(kind)+"/"+pair] = value
		}
		for key := range maps.Keys(d.holds) {
			if _, ours := found[key]; !ours && key[:len(kind)+1] == string(kind)+"/" {
				found[key] = 0
			}
		}
		for key, value := range found {
			if value != d.holds[key] && (key != d.doubtful || value != d.doubtfulNow) {
				d.t.Errorf("the record %s is %d, want %d", key, value, d.holds[key])
			}
		}
	}
}

// eachCall lives a life for each call to the disk, with a fault there.
func eachCall(t *testing.T, faults []faultydisk.Fault, then func(d *diary, err error)) {
	for _, fault := range faults {
		for at, broke := 1, true; broke; at++ {
			d := &diary{t: t, dir: faultydisk.Dir(t), disk: faultydisk.New(t, fault, at), holds: map[string]int{}}
			d.open()
			err := d.live()
			if broke = d.disk.Broke(); broke {
				then(d, err)
			} else {
				t.Logf("%s at %d calls", fault.Name, at-1)
			}
			if err := d.journal.Close(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Fatalf("with %s at call %d", fault.Name, at)
			}
		}
	}
}

func TestACrashAtAnyCallForgetsNoRecordThatWasSaved(t *testing.T) {
	eachCall(t, faultydisk.Crashes(), func(d *diary, err error) {
		if !errors.Is(err, faultydisk.ErrCrash) {
			d.t.Errorf("the life ended with %v", err)
		}
		if err := d.journal.Close(); err != nil {
			d.t.Error(err)
		}
		d.disk.LosePower()
		d.disk = faultydisk.New(d.t, faultydisk.Fault{}, 0)
		d.open()
		d.check()
		if err := d.live(); err != nil {
			d.t.Error(err)
		}
		d.check()
	})
}

func TestAFailedCallCostsAtMostTheChange(t *testing.T) {
	eachCall(t, faultydisk.Failures(), func(d *diary, err error) {
		if !errors.Is(err, d.disk.Fault().Err) {
			d.t.Errorf("the change ended with %v", err)
		}
		d.check() // as it is now
		if err := d.live(); err != nil {
			d.t.Errorf("the next changes: %v", err)
		}
		d.check()
		if err := d.journal.Close(); err != nil {
			d.t.Error(err)
		}
		d.open()
		d.check() // and after a restart
	})
}
