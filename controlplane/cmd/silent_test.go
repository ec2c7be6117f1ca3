package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// framed puts a message behind the length that gRPC gives it.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

func TestAHostThatStopsInTheMiddleOfAMessageIsNotWaitedFor(t *testing.T) {
	s := newSite(t)
	report := framed(encoded(t, reports(mainOf("p", &umbrav1.MainReport{}))))
	for name, c := range map[string]struct {
		says func(hello []byte) []byte
		code codes.Code
	}{
		"nothing":                       {func([]byte) []byte { return nil }, codes.DeadlineExceeded},
		"the length of a message":       {func(hello []byte) []byte { return hello[:3] }, codes.DeadlineExceeded},
		"half a hello":                  {func(hello []byte) []byte { return hello[:len(hello)-1] }, codes.DeadlineExceeded},
		"half a report":                 {func(hello []byte) []byte { return append(hello, report[:len(report)/2]...) }, codes.Unavailable},
		"a length without the message":  {func(hello []byte) []byte { return append(hello, 0, 0x00, 0x3f, 0xff, 0xff) }, codes.Unavailable},
		"a length that is not accepted": {func(hello []byte) []byte { return append(hello, 0, 0xff, 0xff, 0xff, 0xff) }, codes.ResourceExhausted},
	} {
		host := strings.ReplaceAll(name, " ", "-") // a newer session of the same host would end the older
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := s.trickle(t, host, c.says(framed(encoded(t, helloOf(host, 1))))); got != c.code {
				t.Errorf("the session ended with %v", got)
			}
		})
	}
}

// trickle opens a session as the host, sends bytes one by one and then nothing more, and returns how the session ends.
func (s *site) trickle(t *testing.T, host string, says []byte) codes.Code {
	t.Helper()
	made, err := s.authority.Issue(identity.Grant{ID: identity.Host(host), Generation: 1, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secure, err := identity.NewSource(made, nil).Dial(identity.ControlPlane())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := secure.ClientHandshake(soon(t), "umbra", plain)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }, // it is secure already
	}
	client.Protocols.SetUnencryptedHTTP2(true)
	defer client.CloseIdleConnections()
	body, voice := io.Pipe()
	defer func() { _ = voice.Close() }()
	request, err := http.NewRequestWithContext(soon(t), http.MethodPost, "http://umbra"+umbrav1.HostSessionService_Session_FullMethodName, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	go func() {
		for i := range says {
			if _, err := voice.Write(says[i : i+1]); err != nil {
				return // the session is over
			}
		}
	}()
	response, err := client.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body) // it ends when the session does, however that is told
	told := response.Trailer.Get("Grpc-Status") + response.Header.Get("Grpc-Status")
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(told)); err != nil {
		t.Fatalf("the session ended without a status: %q, %v", told, err)
	}
	return code
}
