package recoverystore

import (
	"strconv"
	"strings"
	"time"
)

// PointID names a recovery point: "rp-" and the zero-padded sequence number, so that names sort in
// the order of time.
type PointID string

const (
	pointIDPrefix = "rp-"
	pointIDDigits = len(pointIDZeros)
	pointIDZeros  = "000000000000"
)

// pointID is called for every point of a list.
func pointID(seq uint64) PointID {
	digits := strconv.FormatUint(seq, 10)
	return PointID(pointIDPrefix + pointIDZeros[min(len(digits), pointIDDigits):] + digits)
}

// Seq returns the sequence number in the name; ok is false when the name is not one of ours.
func (id PointID) Seq() (seq uint64, ok bool) {
	digits, found := strings.CutPrefix(string(id), pointIDPrefix)
	if !found || len(digits) < pointIDDigits {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || pointID(seq) != id {
		return 0, false
	}
	return seq, true
}

// Consistency says what the point's content can be expected to be.
type Consistency string

const (
	// CrashConsistent: as after a power loss.
	CrashConsistent Consistency = "crash"
	// ApplicationConsistent: the guest's file systems were frozen.
	ApplicationConsistent Consistency = "application"
)

// DiskInfo is one disk as a point holds it.
type DiskInfo struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
}

// PointMeta is what the writer of a draft knows about the point it becomes.
type PointMeta struct {
	Epoch       uint64
	CreateTime  time.Time // the main server's moment: when its backup began
	Consistency Consistency
	Checkpoint  string            // the main side's checkpoint this point corresponds to
	ServerXML   string            // domain XML of the main server
	Attachments map[string][]byte // other files of the server, such as UEFI variables
}

// Point is one complete recovery point. All figures are in bytes.
type Point struct {
	ID           PointID
	Seq          uint64
	Epoch        uint64
	CreateTime   time.Time
	CompleteTime time.Time
	Consistency  Consistency
	Checkpoint   string
	ChangedBytes int64 // clusters written or zeroed since the previous point
	StoredBytes  int64 // clusters of data that were new in this point when it was taken
	Disks        []DiskInfo
	Damaged      bool // a cluster that this point sees is damaged
	Pinned       bool // the point has a view

	// ServerXML and Attachments are filled by Store.Point, not by Store.Points.
	ServerXML   string
	Attachments map[string][]byte
}
