package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/access"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

func TestTheFirstStartMakesAnAuthorityAndAnAdministratorAndLaterOnesKeepThem(t *testing.T) {
	s := &site{stateDir: t.TempDir()}
	s.socket = filepath.Join(s.stateDir, "api.sock")
	f := flags{recordsFlags: recordsFlags{StateDir: s.stateDir}, Listen: "127.0.0.1:0", UnixSocket: s.socket, Lease: time.Second}
	folder := filepath.Join(s.stateDir, "administrator")
	var firstKey []byte
	for life := range 2 {
		s.start(t, f)
		conn := s.with(t, loadFolder(t, folder))
		request := &umbrav1.CreateJoinTokenRequest{Host: "hosts/a"}
		if _, err := umbrav1.NewIdentityServiceClient(conn).CreateJoinToken(soon(t), request); err != nil {
			t.Errorf("life %d: the first administrator: %v", life, err)
		}
		key, err := os.ReadFile(filepath.Join(folder, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if firstKey == nil {
			firstKey = key
		}
		if string(key) != string(firstKey) {
			t.Error("a later start made another administrator")
		}
		s.stop()
	}
	for _, name := range []string{filepath.Join(folder, "key.pem"), filepath.Join(s.stateDir, "audit.jsonl")} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
	}
}

func loadFolder(t *testing.T, dir string) *identity.Credentials {
	t.Helper()
	made, err := identity.Load(identity.Files{
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestOnlyItsOwnerMayOpenTheSocket(t *testing.T) {
	s := newSite(t)
	info, err := os.Stat(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestARevokedClientIsCutOffByEveryControlPlane(t *testing.T) {
	etcd := externalEtcd(t)
	one := newSite(t, func(f *flags) { f.EtcdEndpoint = []string{etcd} })
	other := newSite(t, func(f *flags) {
		f.EtcdEndpoint = []string{etcd}
		f.AuthorityCert, f.AuthorityKey = authorityFiles(t, one.authority)
	})
	folder := filepath.Join(t.TempDir(), "ann")
	asked := clientCertificateFlags{UnixSocket: one.socket, Client: "ann", Role: "viewer", TTL: time.Hour, Out: folder}
	if err := clientCertificate(soon(t), asked); err != nil {
		t.Fatal(err)
	}
	ann := loadFolder(t, folder)
	watchOne, watchOther := watchPairs(t, one.with(t, ann)), watchPairs(t, other.with(t, ann))
	if _, err := umbrav1.NewIdentityServiceClient(one.local(t)).RevokeClient(soon(t), &umbrav1.RevokeClientRequest{Client: "ann"}); err != nil {
		t.Fatal(err)
	}
	for name, watch := range map[string]grpc.ServerStreamingClient[umbrav1.WatchDRPairsResponse]{"the one": watchOne, "the other": watchOther} {
		if err := endOf(watch); status.Code(err) != codes.Unavailable {
			t.Errorf("the stream at %s: %v", name, err)
		}
	}
	for name, s := range map[string]*site{"the one": one, "the other": other} {
		if _, err := umbrav1.NewFailoverServiceClient(s.with(t, ann)).ListDRPairs(soon(t), &umbrav1.ListDRPairsRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("a call at %s: %v", name, err)
		}
	}
	if err := clientCertificate(soon(t), asked); err != nil {
		t.Fatal(err)
	}
	watchPairs(t, other.with(t, loadFolder(t, folder)))
}

// watchPairs opens a stream that has been answered once.
func watchPairs(t *testing.T, conn *grpc.ClientConn) grpc.ServerStreamingClient[umbrav1.WatchDRPairsResponse] {
	t.Helper()
	watch, err := umbrav1.NewFailoverServiceClient(conn).WatchDRPairs(soon(t), &umbrav1.WatchDRPairsRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return watch
}

// endOf is the error that a stream ends with.
func endOf[T any](stream grpc.ServerStreamingClient[T]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

func TestARevokedHostsSessionEndsAndItGetsNoOther(t *testing.T) {
	s := newSite(t, func(f *flags) { f.Lease = time.Hour }) // nothing but the revocation ends a session
	a := s.enrol(t, "a")
	session := func() (grpc.BidiStreamingClient[umbrav1.SessionRequest, umbrav1.SessionResponse], error) {
		stream, err := umbrav1.NewHostSessionServiceClient(s.with(t, a)).Session(soon(t))
		if err != nil {
			return nil, err
		}
		hello := &umbrav1.SessionHello{Host: "a", ProtocolVersion: 1}
		if err := stream.Send(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Hello{Hello: hello}}); err != nil {
			t.Log(err) // Recv tells why
		}
		_, err = stream.Recv()
		return stream, err
	}
	stream, err := session()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := umbrav1.NewIdentityServiceClient(s.local(t)).RevokeHost(soon(t), &umbrav1.RevokeHostRequest{Name: "hosts/a"}); err != nil {
		t.Fatal(err)
	}
	for err == nil { // what was on its way may still come
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("its session ends with %v", err)
	}
	if _, err := session(); status.Code(err) != codes.Unavailable {
		t.Errorf("a new session ends with %v", err)
	}
}

// enrol makes a host's credentials as hostd does.
func (s *site) enrol(t *testing.T, host string) *identity.Credentials {
	t.Helper()
	made, err := umbrav1.NewIdentityServiceClient(s.local(t)).CreateJoinToken(soon(t), &umbrav1.CreateJoinTokenRequest{Host: "hosts/" + host})
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	asked := &umbrav1.EnrollRequest{Token: made.GetToken(), CertificateSigningRequest: request}
	answer, err := umbrav1.NewIdentityServiceClient(s.asNobody(t)).Enroll(soon(t), asked)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := key.Credentials(answer.GetCertificate().GetChain(), answer.GetCertificate().GetAuthorities())
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

func TestACertificateFromAnotherAuthorityIsNobodys(t *testing.T) {
	s, other := newSite(t), newSite(t)
	s.authority = other.authority
	conn := s.asRole(t, access.Administrator)
	if _, err := umbrav1.NewFailoverServiceClient(conn).ListDRPairs(soon(t), &umbrav1.ListDRPairsRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a call: %v", err)
	}
}

func TestAnEtcdOnTheNetworkIsNotSpokenToInPlainText(t *testing.T) {
	for endpoint, ok := range map[string]bool{
		"https://etcd-1:2379": true, "http://127.0.0.1:2379": true, "http://[::1]:2379": true, "unix:///run/etcd": true,
		"http://etcd-1:2379": false, "http://10.0.0.1:2379": false, "etcd-1:2379": false, "10.0.0.1:2379": false,
	} {
		if err := refusePlainEtcd([]string{endpoint}); (err == nil) != ok {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}
