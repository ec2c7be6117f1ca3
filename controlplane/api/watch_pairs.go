package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/umbra-dr/umbra/controlplane/refusal"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	// figuresBeat is the most often that mere figures of a pair are sent.
	figuresBeat = time.Second
	// bookmarkBeat is how often a watcher of which no pair changes learns a newer resume token.
	bookmarkBeat = 30 * time.Second
	// tokenPrefix marks what a resume token says: a revision of the store, and in which life of its records.
	tokenPrefix = "revision:"
)

// pairWatch is one call of WatchDRPairs.
type pairWatch struct {
	*failoverService
	stream umbrav1.FailoverService_WatchDRPairsServer
	only   map[string]bool // nil for all
	// history is the life of the records that revisions are of.
	history string
	// revision is that up to which everything has been sent; 0 while the snapshot is not complete.
	revision int64
}

func (s *failoverService) WatchDRPairs(request *umbrav1.WatchDRPairsRequest, stream umbrav1.FailoverService_WatchDRPairsServer) error {
	ctx := stream.Context()
	w := &pairWatch{failoverService: s, stream: stream}
	if err := w.choose(ctx, request); err != nil {
		return err
	}
	select {
	case <-s.Cache.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	changes, reports := s.Cache.Feed().Subscribe(), s.Observed.Pairs().Subscribe()
	defer changes.Close()
	defer reports.Close()
	if err := w.begin(ctx, request.GetResumeToken()); err != nil {
		return err
	}
	if err := w.send(umbrav1.WatchKind_WATCH_KIND_SYNCED, nil); err != nil {
		return err
	}
	return w.follow(ctx, changes, reports)
}

// choose reads which pairs the watcher wants. One that does not exist is refused, unless it may have been deleted
// since the watcher was here before.
func (w *pairWatch) choose(ctx context.Context, request *umbrav1.WatchDRPairsRequest) error {
	for i, name := range request.GetNames() {
		id, err := parseName(fmt.Sprintf("names[%d]", i), pairPrefix, name)
		if err != nil {
			return err
		}
		if request.GetResumeToken() == "" {
			if _, err := w.storedPair(ctx, id, ""); err != nil {
				return err
			}
		}
		if w.only == nil {
			w.only = map[string]bool{}
		}
		w.only[id] = true
	}
	return nil
}

func (w *pairWatch) wants(id string) bool { return w.only == nil || w.only[id] }

// begin sends every pair, or what changed since the token.
func (w *pairWatch) begin(ctx context.Context, token string) error {
	var err error
	if w.history, err = w.Store.History(ctx); err != nil {
		return err
	}
	if token == "" {
		return w.snapshot()
	}
	since, history, err := parseResumeToken(token)
	if err != nil {
		return err
	}
	changes, err := w.Store.ChangesSince(ctx, since)
	if errors.Is(err, store.ErrCompacted) || err == nil && history != w.history {
		return refusal.New(codes.OutOfRange, umbrav1.ErrorReason_ERROR_REASON_RESUME_TOKEN_EXPIRED, nil,
			"the history since this resume token is not kept any more: watch again without it")
	}
	if err != nil {
		return err
	}
	// The token may be another control plane's, which was ahead of this one.
	if err := w.Cache.Reach(ctx, changes.Revision); err != nil {
		return err
	}
	w.revision = since
	for _, gone := range changes.Deleted {
		if err := w.sendDeleted(gone.ID, gone.UID); err != nil {
			return err
		}
	}
	for _, id := range changes.Changed {
		if err := w.sendStill(id); err != nil {
			return err
		}
	}
	w.revision = changes.Revision
	return nil
}

func (w *pairWatch) snapshot() error {
	revision := w.Cache.Revision()
	for entry := range w.Cache.After("") {
		if !w.wants(entry.Record.Pair.ID) {
			continue
		}
		if err := w.send(umbrav1.WatchKind_WATCH_KIND_SNAPSHOT, w.pair(entry.Record)); err != nil {
			return err
		}
	}
	w.revision = revision
	return nil
}

// sendStill sends a pair unless it is gone meanwhile, which the feed tells.
func (w *pairWatch) sendStill(id string) error {
	entry, ok := w.Cache.Get(id)
	if !ok || !w.wants(id) {
		return nil
	}
	return w.send(umbrav1.WatchKind_WATCH_KIND_CHANGED, w.pair(entry.Record))
}

// follow sends what changes, until the stream ends. What the watcher is too slow for piles up as ids only.
func (w *pairWatch) follow(ctx context.Context, changes, reports subscription) error {
	figures, bookmarks := w.Clock.NewTicker(figuresBeat), w.Clock.NewTicker(bookmarkBeat)
	defer figures.Stop()
	defer bookmarks.Stop()
	reported := map[string]bool{}
	for {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changes.C():
			err = w.sendChanges(changes)
		case <-reports.C():
			for _, id := range reports.Take() {
				reported[id] = true
			}
		case <-figures.C:
			err = w.sendFigures(reported)
			clear(reported)
		case <-bookmarks.C:
			if err = w.sendChanges(changes); err == nil {
				err = w.send(umbrav1.WatchKind_WATCH_KIND_BOOKMARK, nil)
			}
		}
		if err != nil {
			return err
		}
	}
}

// sendChanges sends all pairs that have changed. Only the last message says how far that leads, so a watcher that is
// cut off before it gets them again.
func (w *pairWatch) sendChanges(changes subscription) error {
	revision := max(w.revision, w.Cache.Revision()) // before Take: what it covers has been published
	ids := changes.Take()
	for i, id := range ids {
		if i == len(ids)-1 {
			w.revision = revision
		}
		if err := w.sendCached(id); err != nil {
			return err
		}
	}
	w.revision = revision
	return nil
}

func (w *pairWatch) sendFigures(reported map[string]bool) error {
	for id := range reported {
		if err := w.sendStill(id); err != nil {
			return err
		}
	}
	return nil
}

func (w *pairWatch) sendCached(id string) error {
	if !w.wants(id) {
		return nil
	}
	if entry, ok := w.Cache.Get(id); ok {
		return w.send(umbrav1.WatchKind_WATCH_KIND_CHANGED, w.pair(entry.Record))
	}
	uid, _ := w.Cache.Removed(id)
	return w.sendDeleted(id, uid)
}

func (w *pairWatch) sendDeleted(id, uid string) error {
	if !w.wants(id) {
		return nil
	}
	return w.send(umbrav1.WatchKind_WATCH_KIND_DELETED, &umbrav1.DRPair{Name: pairName(id), Uid: uid})
}

func (w *pairWatch) send(kind umbrav1.WatchKind, pair *umbrav1.DRPair) error {
	message := &umbrav1.WatchDRPairsResponse{Kind: kind, DrPair: pair}
	if w.revision > 0 {
		message.ResumeToken = resumeToken(w.revision, w.history)
	}
	return w.stream.Send(message)
}

func resumeToken(revision int64, history string) string {
	token := tokenPrefix + strconv.FormatInt(revision, 10)
	if history != "" {
		token += ":" + history
	}
	return base64.RawURLEncoding.EncodeToString([]byte(token))
}

func parseResumeToken(token string) (revision int64, history string, err error) {
	decoded, err := base64.RawURLEncoding.DecodeString(token)
	numbered, ok := strings.CutPrefix(string(decoded), tokenPrefix)
	digits, history, _ := strings.Cut(numbered, ":")
	revision, numberErr := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || numberErr != nil || revision < 1 {
		return 0, "", invalid("resume_token", "is not a resume_token of this stream")
	}
	return revision, history, nil
}
