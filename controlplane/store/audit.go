package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

// auditMemory is how long etcd keeps audit events. The control planes' own files keep them for as long as the operator does.
const auditMemory = 400 * 24 * time.Hour

// AuditEvent is what somebody asked that would change something, and what came of it.
type AuditEvent struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	// Caller is who, Address from where, Method and Resource what, RequestID the caller's id of the request.
	Caller    string `json:"caller"`
	Address   string `json:"address,omitempty"`
	Method    string `json:"method"`
	Resource  string `json:"resource,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// Request is the request without its secrets, as JSON; text when it is cut off.
	Request json.RawMessage `json:"request,omitempty"`
	// EndTime is when it was done; zero until then, and for ever when the control plane ended first.
	EndTime time.Time `json:"end_time,omitzero"`
	// Code is the google.rpc.Code of the outcome, Reason and Message what an error said, Operation what has begun.
	Code      codes.Code `json:"code"`
	Reason    string     `json:"reason,omitempty"`
	Message   string     `json:"message,omitempty"`
	Operation string     `json:"operation,omitempty"`
	// Omitted counts refused calls that came before this one and are not in the log: too many at once. Unknown callers and
	// known ones are counted apart.
	Omitted int64 `json:"omitted,omitempty"`
}

// NewAuditID makes an id. Ids of later milliseconds sort after those of earlier ones.
func NewAuditID(now time.Time) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	return fmt.Sprintf("au-%012x-%s", now.UnixMilli(), hex.EncodeToString(random[:]))
}

// AppendAudit stores a new event and returns its revision. An event of its id must not exist.
func (s *Store) AppendAudit(ctx context.Context, event AuditEvent) (revision int64, err error) {
	lease, err := s.lease(ctx, auditMemory)
	if err != nil {
		return 0, err
	}
	value, err := encode(event)
	if err != nil {
		return 0, err
	}
	key := auditKey(event.ID)
	response, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, value, clientv3.WithLease(lease))).Commit()
	if err != nil {
		return 0, fmt.Errorf("append audit event %s: %w", event.ID, err)
	}
	if !response.Succeeded {
		return 0, fmt.Errorf("append audit event %s: %w", event.ID, ErrConflict)
	}
	return response.Header.Revision, nil
}

// CompleteAudit adds the outcome to an event that AppendAudit stored at that revision. An event is completed once.
func (s *Store) CompleteAudit(ctx context.Context, event AuditEvent, revision int64) error {
	value, err := encode(event)
	if err != nil {
		return err
	}
	var t transaction
	t.unchanged(auditKey(event.ID), revision)
	t.put(auditKey(event.ID), value, clientv3.WithIgnoreLease())
	if _, done, err := s.attempt(ctx, &t, auditKey(event.ID)); err != nil || done {
		return err
	}
	return fmt.Errorf("complete audit event %s: %w", event.ID, ErrConflict)
}

// AuditEvents reads a page of events, newest first. next is the token of the page after it, empty on the last. A token
// that is not one is ErrBadToken.
func (s *Store) AuditEvents(ctx context.Context, pageSize int, token string) (page []AuditEvent, next string, err error) {
	from := audits
	if token != "" {
		if strings.ContainsFunc(token, func(r rune) bool { return !strings.ContainsRune(idCharacters, r) }) {
			return nil, "", ErrBadToken
		}
		from = auditKey(token) + "\x00"
	}
	response, err := s.client.Get(ctx, from, clientv3.WithLimit(int64(pageSize)), clientv3.WithRange(clientv3.GetPrefixRangeEnd(audits)))
	if err != nil {
		return nil, "", fmt.Errorf("list audit events: %w", err)
	}
	for _, kv := range response.Kvs {
		event, err := decode[AuditEvent](kv)
		if err != nil {
			return nil, "", err
		}
		page = append(page, event)
	}
	if response.More {
		next = page[len(page)-1].ID
	}
	return page, next, nil
}
