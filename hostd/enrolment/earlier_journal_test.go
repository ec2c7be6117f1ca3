package enrolment

import (
	"testing"

	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/journal/journaltest"
	"github.com/umbra-dr/umbra/pkg/identity"
)

func TestTheIdentityThatAnEarlierVersionKeptIsRead(t *testing.T) {
	journaltest.EachEarlier(t, func(t *testing.T, j *journal.Journal) {
		got, err := Open(t.Context(), Config{Host: "rack1", Journal: j})
		if err != nil {
			t.Fatal(err)
		}
		if got.ID() != identity.Host("rack1") {
			t.Errorf("it is %s", got.ID())
		}
		joining, found, err := journal.Load[kept](j, journal.Identity, joiningKey)
		if err != nil || !found || joining.TokenID != "token-2" {
			t.Errorf("what is asked for: %v, %v, %v", joining.TokenID, found, err)
		}
		if _, err := identity.ParseKey(joining.Key); err != nil {
			t.Error(err)
		}
	})
}
