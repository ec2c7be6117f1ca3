package replicate

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// What a newer shadow host says in a message of another kind may be about the point that is being made.
func TestAMessageThatIsNotKnownEndsTheStream(t *testing.T) {
	ofTomorrow := &umbrav1.ShadowMessage{}
	ofTomorrow.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	err := (&link{}).take(ofTomorrow)
	if !errors.Is(err, errShadowProtocol) || !strings.Contains(err.Error(), "upgrade the main host") {
		t.Errorf("it goes on with %v", err)
	}
}
