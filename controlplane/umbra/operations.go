package main

import (
	"fmt"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type operationsCommands struct {
	List  operationsList  `cmd:"" help:"List operations, newest first."`
	Show  operationsShow  `cmd:"" help:"Show an operation and its steps."`
	Watch operationsWatch `cmd:"" help:"Watch an operation until it ends."`
}

type operationsList struct {
	Pair  string `help:"Only of this pair." placeholder:"PAIR"`
	Limit int    `help:"The most to show; 0 shows all." default:"100"`
}

// Help is shown by --help.
func (operationsList) Help() string { return "Examples:\n  umbra operations list --pair web" }

// Run lists operations.
func (l operationsList) Run(c *client) error {
	of := ""
	if l.Pair != "" {
		of = pairName(l.Pair)
	}
	operations, err := pages(l.Limit, func(token string) ([]*umbrav1.Operation, string, error) {
		answer, err := call(c, c.failover.ListOperations, &umbrav1.ListOperationsRequest{DrPair: of, PageSize: pageSize, PageToken: token})
		return answer.GetOperations(), answer.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	return c.print(&umbrav1.ListOperationsResponse{Operations: operations}, operationsTable(operations, c.view()))
}

type operationsShow struct {
	Operation string `arg:"" help:"The operation."`
}

// Help is shown by --help.
func (operationsShow) Help() string { return "Examples:\n  umbra operations show op-1234" }

// Run shows an operation.
func (s operationsShow) Run(c *client) error {
	answer, err := call(c, c.failover.GetOperation, &umbrav1.GetOperationRequest{Name: operationName(s.Operation)})
	if err != nil {
		return err
	}
	return c.print(answer.GetOperation(), operationPage(answer.GetOperation(), c.view()))
}

type operationsWatch struct {
	Operation string `arg:"" help:"The operation."`
}

// Help is shown by --help.
func (operationsWatch) Help() string {
	return "Exit code 0 if it succeeds, 1 if it fails.\n\nExamples:\n  umbra operations watch op-1234"
}

// Run watches an operation.
func (w operationsWatch) Run(c *client) error { return c.watch(operationName(w.Operation)) }

func operationKind(operation *umbrav1.Operation) string {
	return lower(operation.GetKind().String(), "OPERATION_KIND_")
}

func operationState(operation *umbrav1.Operation) string {
	return word(operation.GetState().String(), "OPERATION_STATE_")
}

func operationsTable(operations []*umbrav1.Operation, v view) string {
	rows := make([][]string, len(operations))
	for i, operation := range operations {
		rows[i] = []string{
			short(operation.GetName()), short(operation.GetDrPair()), operationKind(operation), operationState(operation),
			v.at(operation.GetCreateTime()), took(operation, v), word(operation.GetFailure().GetReason().String(), "ERROR_REASON_"),
		}
		if operation.GetFailure() == nil {
			rows[i][6] = none
		}
	}
	return table([]string{"OPERATION", "PAIR", "KIND", "STATE", "BEGAN", "TOOK", "REASON"}, rows)
}

// took is how long an operation took, or takes already.
func took(operation *umbrav1.Operation, v view) string {
	end := v.now
	if operation.GetEndTime() != nil {
		end = operation.GetEndTime().AsTime()
	}
	return length(end.Sub(operation.GetCreateTime().AsTime()))
}

func operationPage(operation *umbrav1.Operation, v view) string {
	text := page([][2]string{
		{"Operation", short(operation.GetName())},
		{"Pair", short(operation.GetDrPair())},
		{"Kind", operationKind(operation)},
		{"State", operationState(operation)},
		{"Began", v.at(operation.GetCreateTime())},
		{"Took", took(operation, v)},
		{"Point", short(operation.GetRecoveryPoint())},
		{"Request id", operation.GetRequestId()},
	}) + "\nSteps\n"
	for _, step := range operation.GetSteps() {
		text += fmt.Sprintf("  %s\n", stepText(step))
	}
	if operation.GetFailure() != nil {
		text += "\nWhat went wrong\n" + failureText(operation.GetFailure())
	}
	return text
}
