package recoverystore

import (
	"fmt"
	"testing"

	"go.etcd.io/bbolt"
)

func TestThePointsOfAListShareNothingThatCanBeChanged(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20}, DiskSpec{"vdb", 1 << 20})
	takePoint(t, s, "vda", 0, 1)
	takePoint(t, s, "vda", 0, 2)
	listed := s.Points()
	_ = append(listed[0].Disks, DiskInfo{Name: "vdz"})
	for _, p := range listed {
		if len(p.Disks) != 2 || p.Disks[0].Name != "vda" || p.Disks[1].Name != "vdb" {
			t.Errorf("point %s has disks %v", p.ID, p.Disks)
		}
	}
}

func TestABlobIsKeptForAsLongAsAnyPointNamesIt(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	var ids []PointID
	for _, xml := range []string{"old", "old", "new", "old", "new"} {
		d := begin(t, s)
		writeTags(t, d, "vda", 0, uint32(len(ids)+1))
		p, err := d.Complete(t.Context(), PointMeta{ServerXML: xml, Attachments: map[string][]byte{"nvram": []byte("of " + xml)}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	for _, step := range []struct {
		gone, blobs int
	}{{0, 4}, {2, 4}, {1, 4}, {3, 2}} {
		if err := s.Delete(t.Context(), ids[step.gone]); err != nil {
			t.Fatal(err)
		}
		left := 0
		err := s.idx.view(func(tx *bbolt.Tx) error {
			left = tx.Bucket(bucketBlobs).Stats().KeyN
			return nil
		})
		if err != nil || left != step.blobs {
			t.Errorf("without point %d there are %d blobs, want %d: %v", step.gone, left, step.blobs, err)
		}
	}
	last, err := s.Point(ids[4])
	if err != nil || last.ServerXML != "new" || string(last.Attachments["nvram"]) != "of new" {
		t.Errorf("the last point is %+v, %v", last, err)
	}
}

func TestAPointsNameHasTwelveDigitsOrAsManyAsItNeeds(t *testing.T) {
	for _, seq := range []uint64{0, 7, 999_999_999_999, 1_000_000_000_000, 1 << 63} {
		if got, want := string(pointID(seq)), fmt.Sprintf("rp-%012d", seq); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
