package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Exit codes. They are stable: scripts rely on them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitNotFound    = 4
	exitNotAllowed  = 5
	exitUnavailable = 6
	exitInterrupted = 130
)

// usageError is a wrong command line, or a confirmation that was not given.
type usageError struct{ message string }

func (e usageError) Error() string { return e.message }

// failedError is an operation that ended otherwise than asked.
type failedError struct{ operation *umbrav1.Operation }

func (e failedError) Error() string {
	return fmt.Sprintf("%s has %s", short(e.operation.GetName()), lower(e.operation.GetState().String(), "OPERATION_STATE_"))
}

// blockedError is a plan that cannot begin.
type blockedError struct{ blockers []*umbrav1.Failure }

func (blockedError) Error() string { return "a failover cannot begin now" }

// errNoPoint means that no recovery point is what was asked for.
var errNoPoint = errors.New("no recovery point is as old as that; `umbra points list` shows them all")

// exitCode is the exit code for what a command ended with.
func exitCode(ctx context.Context, err error) int {
	var usage usageError
	var failed failedError
	var blocked blockedError
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &failed):
		return exitFailed
	case errors.As(err, &blocked):
		return exitRefused
	case errors.Is(err, errNoPoint):
		return exitNotFound
	}
	switch status.Code(err) {
	case codes.InvalidArgument:
		return exitUsage
	case codes.FailedPrecondition, codes.Aborted, codes.AlreadyExists:
		return exitRefused
	case codes.NotFound:
		return exitNotFound
	case codes.Unauthenticated, codes.PermissionDenied:
		return exitNotAllowed
	case codes.Unavailable, codes.DeadlineExceeded:
		return exitUnavailable
	default:
		return exitFailed
	}
}

// report says what went wrong, with all that is known of it, and returns the exit code.
func report(ctx context.Context, out io.Writer, err error) int {
	if err != nil {
		_, _ = fmt.Fprint(out, errorText(err))
	}
	return exitCode(ctx, err)
}

// errorText is an error with its reason, and what to do.
func errorText(err error) string {
	var text strings.Builder
	var failed failedError
	var blocked blockedError
	var silence silenceError
	var answer interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &failed):
		fmt.Fprintf(&text, "umbra: %v\n%s", err, failureText(failed.operation.GetFailure()))
	case errors.As(err, &blocked):
		fmt.Fprintf(&text, "umbra: %v\n", err)
		for _, blocker := range blocked.blockers {
			text.WriteString(failureText(blocker))
		}
	case errors.As(err, &silence):
		fmt.Fprintf(&text, "umbra: %v\n%s", silence, listText("what to do", silence.whatToDo()))
	case errors.As(err, &answer): // as it was sent, without what it was wrapped in
		fmt.Fprintf(&text, "umbra: %s\n%s", answer.GRPCStatus().Message(), detailsText(answer.GRPCStatus()))
	default:
		fmt.Fprintf(&text, "umbra: %v\n", err)
	}
	return text.String()
}

func detailsText(answer *status.Status) string {
	var text strings.Builder
	for _, detail := range answer.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Fprintf(&text, "  reason: %s (%s)\n", d.GetReason(), answer.Code())
			for _, key := range []string{"state", "allowed_actions", "operation", "dr_pair"} {
				if value := d.GetMetadata()[key]; value != "" {
					fmt.Fprintf(&text, "  %s: %s\n", strings.ReplaceAll(key, "_", " "), value)
				}
			}
		case *errdetails.BadRequest:
			for _, violation := range d.GetFieldViolations() {
				fmt.Fprintf(&text, "  %s: %s\n", violation.GetField(), violation.GetDescription())
			}
		}
	}
	return text.String()
}

// failureText is a failure as a person wants it in the worst hour: what, where, why, and what to do.
func failureText(failure *umbrav1.Failure) string {
	if failure == nil {
		return ""
	}
	var text strings.Builder
	fmt.Fprintf(&text, "  reason: %s\n  what happened: %s\n", word(failure.GetReason().String(), "ERROR_REASON_"), failure.GetMessage())
	if failure.GetSide() != umbrav1.Side_SIDE_UNSPECIFIED {
		fmt.Fprintf(&text, "  where: %s", lower(failure.GetSide().String(), "SIDE_"))
		if failure.GetStep() != umbrav1.StepKind_STEP_KIND_UNSPECIFIED {
			fmt.Fprintf(&text, ", at the step %q", lower(failure.GetStep().String(), "STEP_KIND_"))
		}
		text.WriteString("\n")
	}
	text.WriteString(listText("possible causes", failure.GetPossibleCauses()) + listText("what to do", failure.GetRecommendedActions()))
	return text.String()
}

func listText(title string, lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return fmt.Sprintf("  %s:\n    - %s\n", title, strings.Join(lines, "\n    - "))
}
