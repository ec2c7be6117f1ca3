package session

import (
	"net"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/brief"
)

// What a host says is kept in memory, stored with its pairs and shown with those of others, so it is bounded.
const (
	// reportListMax bounds the lists in one report: steps, conditions, causes. No list of an assignment, which a report may hold, is longer.
	reportListMax = 64
	// inventoryBytesMax is some thousand servers. It is also well below what etcd takes as one value.
	inventoryBytesMax = 512 << 10
	// dataAddressBytesMax is the longest name of a host, a colon and a port.
	dataAddressBytesMax = 253 + 1 + 5
)

// level takes out of a host's message what no host can mean: what is left can be stored, shown and sent to others whatever
// it was. A text that is too long is cut, a list too. A time that is none, a size below zero, a word that is not known here
// count as not said; so do fields that are not known. It never fails: one wrong figure must not cost a host its session.
func level(request *umbrav1.SessionRequest) {
	levelFields(request.ProtoReflect(), 0)
	levelInventory(request.GetInventory())
	levelInventory(request.GetQueryAnswer().GetInventory())
}

// levelInventory also takes out an address that is none. It is passed on to the main hosts of other pairs.
func levelInventory(inventory *umbrav1.Host) {
	address := inventory.GetDataAddress()
	if address == "" {
		return
	}
	if _, _, err := net.SplitHostPort(address); err != nil || len(address) > dataAddressBytesMax {
		inventory.DataAddress = ""
	}
}

// oversized tells whether the inventory is more than any host has.
func oversized(inventory *umbrav1.Host) bool { return proto.Size(inventory) > inventoryBytesMax }

// levelFields levels a message whose lists may be listMax long, or of any length if that is 0.
func levelFields(m protoreflect.Message, listMax int) {
	if _, ok := m.Interface().(*umbrav1.AssignmentReport); ok {
		listMax = reportListMax
	}
	m.SetUnknown(nil)
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList():
			levelList(value.List(), field, listMax)
		case field.Message() != nil && !meant(value.Message()):
			m.Clear(field)
		case field.Message() != nil:
			levelFields(value.Message(), listMax)
		default:
			m.Set(field, levelled(field, value))
		}
		return true
	})
}

func levelList(list protoreflect.List, field protoreflect.FieldDescriptor, listMax int) {
	if listMax > 0 && list.Len() > listMax {
		list.Truncate(listMax)
	}
	for i := range list.Len() {
		if field.Message() != nil {
			levelFields(list.Get(i).Message(), listMax)
		} else {
			list.Set(i, levelled(field, list.Get(i)))
		}
	}
}

// meant tells whether a message is not a time, or is one that can be. Lengths of time are never below zero here.
func meant(m protoreflect.Message) bool {
	switch at := m.Interface().(type) {
	case *timestamppb.Timestamp:
		return at.IsValid()
	case *durationpb.Duration:
		return at.IsValid() && at.AsDuration() >= 0
	default:
		return true
	}
}

// levelled is the value, or the field's default if it cannot be meant. No message of a host has a fraction.
func levelled(field protoreflect.FieldDescriptor, value protoreflect.Value) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(brief.Text(value.String()))
	case protoreflect.EnumKind:
		if field.Enum().Values().ByNumber(value.Enum()) == nil {
			return field.Default()
		}
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		if value.Int() < 0 && field.Name() != "code" { // one that is no code must not become success
			return field.Default()
		}
	default:
	}
	return value
}
