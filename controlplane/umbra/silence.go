package main

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// silenceError is a call that no control plane has answered.
type silenceError struct {
	connection connection
	err        error
}

// isSilence tells whether nobody answered. A control plane that cannot serve now says so with details.
func isSilence(err error) bool {
	code := status.Code(err)
	return (code == codes.Unavailable || code == codes.DeadlineExceeded) && len(status.Convert(err).Details()) == 0
}

func (e silenceError) Error() string {
	return fmt.Sprintf("no control plane has answered at %s within %s: %s", e.connection.Server, e.connection.Timeout, status.Convert(e.err).Message())
}

func (e silenceError) Unwrap() error { return e.err }

// whatToDo follows from what has kept the call from an answer. gRPC passes that on as text only; what is not recognized gets
// the advice that is never wrong.
func (e silenceError) whatToDo() []string {
	switch message := status.Convert(e.err).Message(); {
	case strings.Contains(message, "authentication handshake failed: x509"):
		return []string{
			"What answers there does not prove to be a control plane of the authority in " + e.connection.CA +
				": take ca.pem from the control plane that you mean, and give it as --ca",
			"See that the clock of this machine is right: date",
		}
	case strings.Contains(message, "permission denied"):
		return []string{
			"You may not use this socket. As root: sudo umbra ...",
			"With a certificate of your own: --server ADDRESS:PORT --ca FILE --cert FILE --key FILE",
		}
	default:
		advice := []string{
			"See whether it runs there: systemctl status umbra-controlplane",
			"Say where it is: --server, UMBRA_SERVER, or server in the file of your settings",
		}
		if e.connection.Cert != "" {
			// What the control plane has against a certificate may arrive, or the end of the connection may come first.
			advice = append(advice, "If it does run there: your certificate may have ended, or been revoked, or be of another authority. When it ends says"+
				" openssl x509 -noout -enddate -in "+e.connection.Cert)
		}
		return advice
	}
}
