package main

import (
	"fmt"

	"github.com/google/uuid"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// asked is what every command has that changes something.
type asked struct {
	Pair      string `arg:"" help:"The pair."`
	RequestID string `help:"An id of your own: a request that is sent again with the same id is carried out once." placeholder:"ID"`
}

// id is the request's id, told to the caller, who can send the same request again with it.
func (a asked) id(c *client) string {
	id := a.RequestID
	if id == "" {
		id = uuid.NewString()
	}
	c.say("Request id %s", id)
	return id
}

// lasting is what a command has that begins an operation.
type lasting struct {
	asked
	Yes    bool `help:"Do not ask."`
	NoWait bool `help:"Do not watch what was begun."`
}

// follow shows the operation to its end, unless the caller does not want to wait.
func (l lasting) follow(c *client, operation *umbrav1.Operation) error {
	if l.NoWait {
		return c.print(operation, "Begun. To watch it: umbra operations watch "+short(operation.GetName()))
	}
	c.say("%s", short(operation.GetName()))
	return c.watch(operation.GetName())
}

type failoverCommand struct {
	lasting
	choice
	DryRun bool `help:"Only say what would happen."`
}

// Help is shown by --help.
func (failoverCommand) Help() string {
	return `Without --point, --at or --before-age it is the newest recovery point. What can still go wrong is shown by --dry-run.

Examples:
  umbra failover web --dry-run
  umbra failover web
  umbra failover web --at 14:05
  umbra failover web --before-age 10m --yes`
}

// Run fails over.
func (f failoverCommand) Run(c *client) error {
	point, err := c.choose(f.Pair, f.choice)
	if err != nil {
		return err
	}
	if again := f.RequestID != ""; f.DryRun || !f.Yes && !again { // what was begun stands in the way of itself
		plan, err := c.plan(f, point)
		if err != nil {
			return err
		}
		if f.DryRun {
			err = c.print(plan, planText(plan, c.view()))
		} else {
			c.say("%s", planText(plan, c.view()))
		}
		if err != nil {
			return err
		}
		if len(plan.GetBlockers()) > 0 {
			return blockedError{plan.GetBlockers()}
		}
		if f.DryRun {
			return nil
		}
	}
	lost := "Replication stops; the main server is shut down if it can be reached; what it wrote after the recovery point is not in the shadow server."
	if err := c.confirm(f.Yes, short(f.Pair), lost); err != nil {
		return err
	}
	answer, err := call(c, c.failover.Failover, &umbrav1.FailoverRequest{
		Name: pairName(f.Pair), RecoveryPoint: point, Force: f.Force, RequestId: f.id(c),
	})
	if err != nil {
		return err
	}
	return f.follow(c, answer.GetOperation())
}

func (c *client) plan(f failoverCommand, point string) (*umbrav1.FailoverPlan, error) {
	answer, err := call(c, c.failover.Failover, &umbrav1.FailoverRequest{
		Name: pairName(f.Pair), RecoveryPoint: point, Force: f.Force, ValidateOnly: true,
	})
	return answer.GetPlan(), err
}

func planText(plan *umbrav1.FailoverPlan, v view) string {
	point := plan.GetRecoveryPoint()
	text := "Recovery point: none\n"
	if point.GetName() != "" {
		text = fmt.Sprintf("Recovery point: %s of %s, %s old\n", short(point.GetName()), v.at(point.GetPointTime()), v.ago(point.GetPointTime()))
	}
	text += "Steps:\n"
	for i, step := range plan.GetSteps() {
		text += fmt.Sprintf("  %d. %s\n", i+1, lower(step.String(), "STEP_KIND_"))
	}
	return text
}

type changeCommand struct {
	lasting
	choice
}

// Help is shown by --help.
func (changeCommand) Help() string {
	return `What was written since the failover is kept aside until the commit. Without --point, --at or --before-age it is the newest point.

Examples:
  umbra change-recovery-point web --point rp-000000000017
  umbra change-recovery-point web --before-age 1h`
}

// Run changes the recovery point.
func (ch changeCommand) Run(c *client) error {
	point, err := c.choose(ch.Pair, ch.choice)
	if err == nil && point == "" {
		var newest []*umbrav1.RecoveryPoint
		if newest, err = c.points(ch.Pair, 1); err == nil && len(newest) == 0 {
			err = errNoPoint
		} else if err == nil {
			point = newest[0].GetName()
		}
	}
	if err != nil {
		return err
	}
	if err := c.confirm(ch.Yes, short(ch.Pair), "The shadow server is stopped and boots from "+short(point)+"."); err != nil {
		return err
	}
	answer, err := call(c, c.failover.ChangeRecoveryPoint, &umbrav1.ChangeRecoveryPointRequest{
		Name: pairName(ch.Pair), RecoveryPoint: point, Force: ch.Force, RequestId: ch.id(c),
	})
	if err != nil {
		return err
	}
	return ch.follow(c, answer.GetOperation())
}

type commitCommand struct {
	lasting
	DeleteRecoveryPoints bool `help:"Delete all recovery points once no disk depends on them."`
}

// Help is shown by --help.
func (commitCommand) Help() string {
	return "Examples:\n  umbra commit web\n  umbra commit web --delete-recovery-points"
}

// Run commits.
func (co commitCommand) Run(c *client) error {
	lost := "The recovery point can no longer be changed, and this pair replicates no more."
	if co.DeleteRecoveryPoints {
		lost += " Every recovery point is deleted."
	}
	if err := c.confirm(co.Yes, short(co.Pair), lost); err != nil {
		return err
	}
	answer, err := call(c, c.failover.CommitFailover, &umbrav1.CommitFailoverRequest{
		Name: pairName(co.Pair), DeleteRecoveryPoints: co.DeleteRecoveryPoints, RequestId: co.id(c),
	})
	if err != nil {
		return err
	}
	return co.follow(c, answer.GetOperation())
}

type restartCommand struct {
	lasting
	DeleteRecoveryPoints bool `help:"Delete the recovery points that there are, instead of keeping them usable meanwhile."`
}

// Help is shown by --help.
func (restartCommand) Help() string { return "Examples:\n  umbra restart-replication web" }

// Run restarts replication.
func (r restartCommand) Run(c *client) error {
	lost := "Every block of the main server's disks is read and compared; a main server that a failover has shut down is started again."
	if r.DeleteRecoveryPoints {
		lost += " Every recovery point is deleted: until the next one is complete there is no failover."
	}
	if err := c.confirm(r.Yes, short(r.Pair), lost); err != nil {
		return err
	}
	answer, err := call(c, c.failover.RestartReplication, &umbrav1.RestartReplicationRequest{
		Name: pairName(r.Pair), DeleteRecoveryPoints: r.DeleteRecoveryPoints, RequestId: r.id(c),
	})
	if err != nil {
		return err
	}
	return r.follow(c, answer.GetOperation())
}
