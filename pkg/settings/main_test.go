package settings

import (
	"os"
	"testing"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"
)

// asProgram has the tests' binary be the program whose settings are in that file.
const asProgram = "SETTINGS_TEST_FILE"

func TestMain(m *testing.M) {
	if file := os.Getenv(asProgram); file != "" {
		var p program
		kong.Parse(&p, Settings{Default: file, Command: "serve"}.Option())
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
