package recoverystore

// Coverage says how much of the main disks' content the latest state holds.
type Coverage struct {
	// Checkpoint names the moment on the main side; "" means none.
	Checkpoint string `json:"checkpoint"`
	// Through gives for each disk the number of clusters, from cluster 0, that hold the main disk's
	// content as of Checkpoint or later. A disk that is missing has none.
	Through map[string]uint64 `json:"through"`
}

// DraftState describes the unfinished point.
type DraftState struct {
	Seq      uint64   // the sequence number that the next point gets
	Coverage Coverage // of the unfinished point; of the last point when nothing was saved since
	// SavedBytes is what SaveProgress has stored under the unfinished point so far.
	SavedBytes int64
	// Open is true while a Draft handle exists.
	Open bool
}

func (c Coverage) clone() Coverage {
	out := Coverage{Checkpoint: c.Checkpoint, Through: make(map[string]uint64, len(c.Through))}
	for disk, n := range c.Through {
		out.Through[disk] = n
	}
	return out
}
