package feed_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/umbra-dr/umbra/pkg/feed"
)

func TestASlowReaderGetsEachChangedKeyOnce(t *testing.T) {
	var f feed.Feed[string]
	sub := f.Subscribe()
	defer sub.Close()
	for range 1000 {
		f.Publish("a", "b")
	}
	<-sub.C()
	got := sub.Take()
	slices.Sort(got)
	if diff := cmp.Diff([]string{"a", "b"}, got); diff != "" {
		t.Error(diff)
	}
	f.Publish("a")
	<-sub.C()
	if diff := cmp.Diff([]string{"a"}, sub.Take()); diff != "" {
		t.Error(diff)
	}
}

func TestAClosedSubscriptionIsForgotten(t *testing.T) {
	var f feed.Feed[int]
	sub := f.Subscribe()
	sub.Close()
	f.Publish(1)
	if got := sub.Take(); len(got) != 0 {
		t.Errorf("got %v after Close", got)
	}
}
