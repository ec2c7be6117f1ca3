package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// ConditionReady is the type of the condition that says whether a failover would work now.
const ConditionReady = "ReadyForFailover"

// The reasons of ConditionReady that are no umbrav1.ErrorReason. Of those it has the name, without the prefix.
const (
	ReasonReady   = "READY"
	ReasonUnknown = "CHECK_FAILED"
)

// checkReadiness finds out whether a failover to the newest point would work, when it is time to or when the first
// point has come, and shows it.
func (w *worker) checkReadiness(ctx context.Context, a *umbrav1.Assignment) {
	hasPoint := w.cfg.Replica.Status(w.pair).Count > 0
	now := w.cfg.Clock.Now()
	if hasPoint == w.readinessPoint && now.Sub(w.readinessAt) < readinessInterval {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	notes, err := w.ready(bounded, a.GetShadow())
	if ctx.Err() != nil {
		return
	}
	w.readinessAt, w.readinessPoint = now, hasPoint
	c := condition(notes, err)
	c.LastTransitionTime = timestamppb.New(now)
	w.show(func(r *umbrav1.ShadowReport) {
		for _, old := range r.GetConditions() {
			if old.GetType() == c.GetType() && old.GetStatus() == c.GetStatus() {
				c.LastTransitionTime = old.GetLastTransitionTime()
			}
		}
		r.Conditions = []*umbrav1.Condition{c}
	})
}

// ready checks everything that a failover to the newest point would need. notes are what the server would do without.
func (w *worker) ready(ctx context.Context, s *umbrav1.ShadowAssignment) (notes string, err error) {
	store, err := w.cfg.Replica.Store(w.pair)
	if err != nil {
		return "", fmt.Errorf("opening the recovery points: %w", err)
	}
	points := store.Points()
	if len(points) == 0 {
		return "", refuse(umbrav1.ErrorReason_ERROR_REASON_NO_RECOVERY_POINT, "there is no complete recovery point yet")
	}
	newest, err := store.Point(points[len(points)-1].ID)
	if err != nil {
		return "", fmt.Errorf("reading the newest recovery point: %w", err)
	}
	if newest.Damaged {
		return "", refuse(umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED, "the newest recovery point %s is damaged", newest.ID)
	}
	// The disks' places do not matter to any check.
	images := make(map[string]diskImage, len(newest.Disks))
	for _, d := range newest.Disks {
		images[d.Name] = diskImage{
			Overlay: overlayPath(w.dir, d.Name),
			View:    recoverystore.ViewDisk{Name: d.Name, Path: w.cfg.StoreDir + "/" + d.Name},
		}
	}
	def, err := define(w.definitionInput(s, newest, images, ""))
	if err != nil {
		return "", err
	}
	if err := w.checkHost(ctx, def); err != nil {
		return "", err
	}
	return def.summary(), w.checkSpace()
}

func (w *worker) checkSpace() error {
	for _, dir := range []string{w.cfg.StoreDir, w.cfg.ServersDir} {
		if !fileExists(dir) {
			continue // it is made when it is needed, where its parent is
		}
		free, err := w.cfg.FreeBytes(dir)
		if err != nil {
			return err
		}
		if free < w.cfg.FreeBytesMin {
			return refuse(umbrav1.ErrorReason_ERROR_REASON_NO_SPACE,
				"%s has %d MiB free; a failover should have %d MiB", dir, free>>20, w.cfg.FreeBytesMin>>20)
		}
	}
	return nil
}

func condition(notes string, err error) *umbrav1.Condition {
	c := &umbrav1.Condition{Type: ConditionReady, Status: umbrav1.ConditionStatus_CONDITION_STATUS_FALSE}
	if err == nil {
		c.Status, c.Reason = umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, ReasonReady
		c.Message = strings.TrimSuffix("A failover to the newest recovery point would find everything it needs; "+notes, "; ")
		return c
	}
	c.Message = err.Error()
	var known *refusal
	if !errors.As(err, &known) || errors.Is(err, hypervisor.ErrUnavailable) {
		c.Status, c.Reason = umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN, ReasonUnknown
		return c
	}
	c.Reason = strings.TrimPrefix(known.reason.String(), "ERROR_REASON_")
	return c
}
