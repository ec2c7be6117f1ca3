package main

import (
	"google.golang.org/grpc/codes"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type auditCommand struct {
	Limit int `help:"The most to show; 0 shows all." default:"100"`
}

// Help is shown by --help.
func (auditCommand) Help() string {
	return "Newest first.\n\nExamples:\n  umbra audit --limit 20\n  umbra audit --limit 0 -o json"
}

// Run shows the audit log.
func (a auditCommand) Run(c *client) error {
	events, err := pages(a.Limit, func(token string) ([]*umbrav1.AuditEvent, string, error) {
		answer, err := call(c, c.audit.ListAuditEvents, &umbrav1.ListAuditEventsRequest{PageSize: pageSize, PageToken: token})
		return answer.GetAuditEvents(), answer.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	return c.print(&umbrav1.ListAuditEventsResponse{AuditEvents: events}, auditTable(events, c.view()))
}

func auditTable(events []*umbrav1.AuditEvent, v view) string {
	rows := make([][]string, len(events))
	for i, event := range events {
		outcome := "not known"
		if event.GetEndTime() != nil {
			outcome = codes.Code(uint32(event.GetCode())).String() //nolint:gosec // a google.rpc.Code
		}
		reason := none
		if event.GetReason() != umbrav1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			reason = word(event.GetReason().String(), "ERROR_REASON_")
		}
		rows[i] = []string{v.at(event.GetCallTime()), event.GetCaller(), short(event.GetMethod()), event.GetResource(), outcome, reason}
	}
	return table([]string{"TIME", "CALLER", "METHOD", "RESOURCE", "OUTCOME", "REASON"}, rows)
}
