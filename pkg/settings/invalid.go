package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"time"

	"github.com/alecthomas/kong"
)

// InvalidExit is the exit code for settings that are not valid, wherever they stand and whenever that is found out: nothing changes
// by starting again, so the systemd units name it in RestartPreventExitStatus.
const InvalidExit = 80

// InvalidError is about a setting that turned out, after the command line was read, to be one that only a person can mend: a file that
// it names is not there, a token that was used. What may mend itself, as a control plane that is away, is no such error.
type InvalidError struct {
	// Setting is the one to be mended, or empty.
	Setting string
	Err     error
}

func (e *InvalidError) Error() string {
	if e.Setting != "" {
		return "--" + e.Setting + ": " + e.Err.Error()
	}
	return e.Err.Error()
}

// Unwrap is the cause.
func (e *InvalidError) Unwrap() error { return e.Err }

// Invalid is the error as an InvalidError, and nil for nil.
func Invalid(err error) error {
	if err == nil {
		return nil
	}
	return &InvalidError{Err: err}
}

// InvalidAt is the error as an InvalidError about that setting, and nil for nil.
func InvalidAt(setting string, err error) error {
	if err == nil {
		return nil
	}
	return &InvalidError{setting, err}
}

// ExitCode is what a program ends with that worked until that error.
func ExitCode(err error) int {
	var invalid *InvalidError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &invalid):
		return InvalidExit
	default:
		return 1
	}
}

// mappers are what a flag may name as its type.
var mappers = map[string]kong.MapperFunc{
	// A duration that is longer than 0.
	"period": func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
			return err
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("expected duration but got %q: %w", text, err)
		}
		if d <= 0 {
			return fmt.Errorf("it must be longer than 0, and is %v", d)
		}
		target.SetInt(int64(d))
		return nil
	},
	// A number that is higher than 0.
	"positive": func(ctx *kong.DecodeContext, target reflect.Value) error {
		if err := kong.NewRegistry().RegisterDefaults().ForValue(target).Decode(ctx, target); err != nil {
			return err
		}
		if target.Int() <= 0 {
			return fmt.Errorf("it must be higher than 0, and is %d", target.Int())
		}
		return nil
	},
	// A level of the log.
	"level": func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("level", &text); err != nil {
			return err
		}
		var level slog.Level
		if level.UnmarshalText([]byte(text)) != nil {
			return fmt.Errorf("it must be one of DEBUG, INFO, WARN, ERROR, and is %q", text)
		}
		target.SetInt(int64(level))
		return nil
	},
	// An address to listen at or to be reached at, with its port; or none.
	"address": func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("address", &text); err != nil {
			return err
		}
		if text != "" {
			if err := new(Address).UnmarshalText([]byte(text)); err != nil {
				return err
			}
		}
		target.SetString(text)
		return nil
	},
}

// Address is an address with its port, for a flag that can be given several times. For others there is the type "address".
type Address string

// UnmarshalText is called by kong.
func (a *Address) UnmarshalText(text []byte) error {
	if _, _, err := net.SplitHostPort(string(text)); err != nil {
		return fmt.Errorf("expected ADDRESS:PORT: %w", err)
	}
	*a = Address(text)
	return nil
}
