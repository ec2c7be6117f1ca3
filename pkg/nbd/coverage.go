package nbd

import "slices"

// coverage records which parts of a read have arrived, so that a part that comes twice or never is noticed. Servers
// nearly always send parts in order, which keeps it at one island.
type coverage struct {
	islands []island // sorted, apart from one another
}

// island is a part that has arrived, as positions within the read.
type island struct{ from, to uint32 }

// add marks from..to as arrived. It returns an error when any of it had arrived before, or when the parts lie scattered
// beyond the limit.
func (c *coverage) add(from, to uint32) error {
	at, _ := slices.BinarySearchFunc(c.islands, from, func(i island, from uint32) int {
		if i.to < from {
			return -1
		}
		return 1
	})
	// at is the first island that ends at or after from: the only one that can touch the new part from the left.
	joinsLeft := at < len(c.islands) && c.islands[at].to == from
	next := at
	if joinsLeft {
		next++
	}
	if next < len(c.islands) && c.islands[next].from < to {
		return violation("bytes %d to %d of a read sent twice", from, to)
	}
	joinsRight := next < len(c.islands) && c.islands[next].from == to
	switch {
	case joinsLeft && joinsRight:
		c.islands[at].to = c.islands[next].to
		c.islands = slices.Delete(c.islands, next, next+1)
	case joinsLeft:
		c.islands[at].to = to
	case joinsRight:
		c.islands[next].from = from
	case len(c.islands) == readIslandsMax:
		return violation("read scattered over more than %d pieces", readIslandsMax)
	default:
		c.islands = slices.Insert(c.islands, at, island{from, to})
	}
	return nil
}

// complete tells whether all of length bytes have arrived.
func (c *coverage) complete(length uint32) bool {
	return len(c.islands) == 1 && c.islands[0] == island{0, length}
}
