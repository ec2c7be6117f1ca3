package replica_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// raw passes frames on as the bytes that they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func (raw) Name() string { return "umbra-frames" }

const controlKind, clustersKind, zerosKind = 1, 2, 3

// frame is a frame with any header.
func frame(kind byte, disk uint32, first, count uint64, body []byte) []byte {
	b := []byte{kind, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, disk)
	b = binary.BigEndian.AppendUint64(b, first)
	b = binary.BigEndian.AppendUint64(b, count)
	return append(b, body...)
}

func control(message *umbrav1.MainMessage) []byte {
	data, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	return frame(controlKind, 0, 0, uint64(len(data)), data)
}

func helloFrame(change func(*umbrav1.ReplicationHello)) []byte {
	h := &umbrav1.ReplicationHello{DrPair: "mallorys", Epoch: 5, ResyncGeneration: 1, Disks: []*umbrav1.ReplicatedDisk{vda(16)}}
	change(h)
	return control(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_Hello{Hello: h}})
}

func jobFrame(change func(*umbrav1.BeginJob)) []byte {
	job := &umbrav1.BeginJob{Checkpoint: "c", PointTime: timestamppb.New(time.Unix(1_900_000_000, 0)), ServerXml: "<domain/>"}
	change(job)
	return control(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_BeginJob{BeginJob: job}})
}

// whole is a frame of one cluster with its checksum.
func whole(disk uint32, first uint64) []byte {
	data := random(9, cluster)
	sum := transport.SumOf(data).Bytes()
	return frame(clustersKind, disk, first, 1, append(sum[:], data...))
}

func sumsFrame(disk uint32, first, count uint64) []byte {
	return control(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_ChecksumsRequest{ChecksumsRequest: &umbrav1.ChecksumsRequest{
		Disk: disk, FirstCluster: first, Clusters: count,
	}}})
}

func unchanged[T any](*T) {}

// onslaught is what mallory sends, and how that ends: with a status, or with a refusal of that code.
type onslaught struct {
	frames  [][]byte
	status  codes.Code
	refused codes.Code
}

// greeting are attacks with the first message.
func greetings() map[string]onslaught {
	hello := func(change func(*umbrav1.ReplicationHello)) [][]byte { return [][]byte{helloFrame(change)} }
	disks := func(disks ...*umbrav1.ReplicatedDisk) [][]byte {
		return hello(func(h *umbrav1.ReplicationHello) { h.Disks = disks })
	}
	disk := func(name string, size int64) *umbrav1.ReplicatedDisk {
		return &umbrav1.ReplicatedDisk{Target: name, SizeBytes: size}
	}
	long := strings.Repeat("x", 1<<20)
	return map[string]onslaught{
		"another's pair":                 {hello(func(h *umbrav1.ReplicationHello) { h.DrPair, h.Epoch = pairID, 1 }), 0, codes.PermissionDenied},
		"a pair that is not here":        {hello(func(h *umbrav1.ReplicationHello) { h.DrPair = "none" }), 0, codes.NotFound},
		"a pair outside of the folder":   {hello(func(h *umbrav1.ReplicationHello) { h.DrPair = "../" + pairID }), 0, codes.NotFound},
		"a pair of an endless name":      {hello(func(h *umbrav1.ReplicationHello) { h.DrPair = long }), codes.InvalidArgument, 0},
		"a pair of an endless uid":       {hello(func(h *umbrav1.ReplicationHello) { h.DrPairUid = long }), codes.InvalidArgument, 0},
		"an epoch that is over":          {hello(func(h *umbrav1.ReplicationHello) { h.Epoch = 4 }), 0, codes.FailedPrecondition},
		"no epoch":                       {hello(func(h *umbrav1.ReplicationHello) { h.Epoch = 0 }), 0, codes.FailedPrecondition},
		"an epoch that is not yet":       {hello(func(h *umbrav1.ReplicationHello) { h.Epoch = math.MaxUint64 }), 0, codes.FailedPrecondition},
		"another restart":                {hello(func(h *umbrav1.ReplicationHello) { h.ResyncGeneration = math.MaxUint64 }), 0, codes.FailedPrecondition},
		"no disks":                       {disks(), codes.InvalidArgument, 0},
		"a hundred thousand disks":       {disks(slices.Repeat([]*umbrav1.ReplicatedDisk{vda(1)}, 100_000)...), codes.InvalidArgument, 0},
		"a disk twice":                   {disks(vda(1), vda(1)), codes.InvalidArgument, 0},
		"a disk outside of the folder":   {disks(disk("../"+pairID+"/vda", cluster)), codes.InvalidArgument, 0},
		"a disk of an endless name":      {disks(disk(long, cluster)), codes.InvalidArgument, 0},
		"a disk of less than nothing":    {disks(disk("vda", -1)), codes.InvalidArgument, 0},
		"a disk larger than the world":   {disks(disk("vda", math.MaxInt64)), codes.InvalidArgument, 0},
		"no hello":                       {[][]byte{jobFrame(unchanged)}, codes.InvalidArgument, 0},
		"data before hello":              {[][]byte{whole(0, 0)}, codes.InvalidArgument, 0},
		"an empty message":               {[][]byte{control(&umbrav1.MainMessage{})}, codes.InvalidArgument, 0},
		"garbage in a frame":             {[][]byte{frame(controlKind, 0, 0, 4, []byte("\xff\xff\xff\xff"))}, codes.DataLoss, 0},
		"garbage":                        {[][]byte{bytes.Repeat([]byte{0xee}, 1000)}, codes.DataLoss, 0},
		"nothing":                        {[][]byte{nil}, codes.DataLoss, 0},
		"a frame longer than any may be": {[][]byte{frame(controlKind, 0, 0, transport.ControlBytesMax+1, make([]byte, transport.ControlBytesMax+1))}, codes.ResourceExhausted, 0},
	}
}

// assaults are attacks on a stream that is open, in a job.
func assaults() map[string]onslaught {
	damaged := whole(0, 3)
	damaged[len(damaged)-1] ^= 1
	long := strings.Repeat("x", 1<<20)
	ofTomorrow := &umbrav1.MainMessage{}
	ofTomorrow.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	begun := map[string]onslaught{
		"an unknown kind":              {[][]byte{frame(9, 0, 0, 1, nil)}, codes.DataLoss, 0},
		"a message of tomorrow":        {[][]byte{control(ofTomorrow)}, codes.Unimplemented, 0},
		"a frame that is too short":    {[][]byte{whole(0, 0)[:1000]}, codes.DataLoss, 0},
		"a frame that is too long":     {[][]byte{append(whole(0, 0), 0)}, codes.DataLoss, 0},
		"a count that overflows":       {[][]byte{frame(clustersKind, 0, 0, math.MaxUint64, nil)}, codes.DataLoss, 0},
		"a wrong checksum":             {[][]byte{damaged}, codes.DataLoss, 0},
		"a cluster beyond the disk":    {[][]byte{whole(0, 16)}, codes.InvalidArgument, 0},
		"a cluster far beyond":         {[][]byte{whole(0, 1<<46)}, codes.InvalidArgument, 0},
		"a cluster that overflows":     {[][]byte{whole(0, math.MaxUint64)}, codes.DataLoss, 0},
		"zeros beyond the disk":        {[][]byte{frame(zerosKind, 0, 1, 16, nil)}, codes.InvalidArgument, 0},
		"zeros that overflow":          {[][]byte{frame(zerosKind, 0, 1, math.MaxUint64, nil)}, codes.DataLoss, 0},
		"a disk of no number":          {[][]byte{whole(1, 0)}, codes.InvalidArgument, 0},
		"a disk of an absurd number":   {[][]byte{whole(math.MaxUint32, 0)}, codes.InvalidArgument, 0},
		"a point twice":                {[][]byte{control(complete()), control(complete())}, codes.InvalidArgument, 0},
		"hello twice":                  {[][]byte{helloFrame(func(h *umbrav1.ReplicationHello) { h.DrPair = pairID })}, codes.InvalidArgument, 0},
		"coverage of disks it has not": {[][]byte{control(covered("c", 16, 16))}, codes.InvalidArgument, 0},
		"coverage beyond the disk":     {[][]byte{control(covered("c", math.MaxUint64))}, codes.InvalidArgument, 0},
		"coverage of an endless name":  {[][]byte{control(covered(long, 1))}, codes.InvalidArgument, 0},
		"a job of an endless name":     {[][]byte{jobFrame(func(j *umbrav1.BeginJob) { j.Checkpoint = long })}, codes.InvalidArgument, 0},
		"a job at no time":             {[][]byte{jobFrame(func(j *umbrav1.BeginJob) { j.PointTime = &timestamppb.Timestamp{Seconds: 1 << 60} })}, codes.InvalidArgument, 0},
		"checksums beyond the disk":    {[][]byte{sumsFrame(0, 1, 16)}, codes.InvalidArgument, 0},
		"checksums that overflow":      {[][]byte{sumsFrame(0, 2, math.MaxUint64)}, codes.InvalidArgument, 0},
	}
	for name, attack := range begun {
		attack.frames = append([][]byte{helloFrame(unchanged), jobFrame(unchanged)}, attack.frames...)
		begun[name] = attack
	}
	return begun
}

// The main host of one pair has a certificate as good as that of the main host of another.
func TestAHostileMainHostHarmsNobodysPairButItsOwn(t *testing.T) {
	g := newSecureRig(t)
	keep := accepting(1) // every point, so that nothing is written but what hosts send
	keep.Policy = &umbrav1.Policy{Retention: &umbrav1.RetentionPolicy{Rules: []*umbrav1.RetentionRule{{MaxAge: durationpb.New(time.Hour)}}}}
	g.apply(keep)
	g.apply(replica.Spec{Pair: "mallorys", Generation: 5, Epoch: 5, Accept: true, MainHost: "mallory", ResyncGeneration: 1})
	honest, _ := g.connect(hello(1, vda(16)))
	image := random(1, 16*cluster)
	conn := g.as("mallory")
	defer func() { _ = conn.Close() }()
	all := greetings()
	maps.Copy(all, assaults())
	honest.begin("c-first")
	honest.data(0, 0, image)
	honest.complete()
	for i, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			before := g.written(t)
			refused, err := send(t, conn.GRPC(), all[name].frames)
			if status.Code(err) != all[name].status || len(status.Convert(err).Message()) > 8<<10 {
				t.Errorf("the stream ended with %.300v", err)
			}
			if codes.Code(refused.GetCode()) != all[name].refused || len(refused.GetMessage()) > 8<<10 {
				t.Errorf("it was refused with %.300v", refused)
			}
			if after := g.written(t); !maps.Equal(after, before) {
				t.Errorf("the store of another pair was\n%v\nand is\n%v", before, after)
			}
			g.check("vda", image)
			copy(image[i%16*cluster:], random(byte(i), cluster))
			honest.begin(fmt.Sprint("c-", i))
			honest.data(0, i%16, image[i%16*cluster:][:cluster])
			honest.complete()
		})
	}
	g.check("vda", image)
	if failure := g.replica.Status(pairID).Failure; failure != nil {
		t.Errorf("the honest pair has failed: %v", failure)
	}
	if failure := g.replica.Status("mallorys").Failure; failure != nil {
		t.Errorf("what is sent is taken for a failure of the shadow host: %.300v", failure)
	}
	unasked, err := os.ReadDir(g.cfg.StoreDir)
	if err != nil || len(unasked) != 2 {
		t.Errorf("in the folder of stores are %v, %v", unasked, err)
	}
}

// send opens a stream, sends the frames and says that nothing more will come. It returns why the stream was refused, if it
// was, and how it ended.
func send(t *testing.T, conn *grpc.ClientConn, frames [][]byte) (*umbrav1.Failure, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, transport.FullMethod,
		grpc.ForceCodec(raw{}), grpc.CallContentSubtype(raw{}.Name()), grpc.MaxCallSendMsgSize(64<<20), grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range frames {
		if err := stream.SendMsg(frame); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var refused *umbrav1.Failure
	for {
		var answer []byte
		err := stream.RecvMsg(&answer)
		if errors.Is(err, io.EOF) {
			return refused, status.Error(codes.OK, "")
		}
		if err != nil {
			return refused, err
		}
		message := &umbrav1.ShadowMessage{}
		if err := proto.Unmarshal(answer[24:], message); err != nil {
			t.Fatal(err)
		}
		refused = message.GetRefused().GetFailure()
	}
}

// written is when each data file of a store was last written to, and what its points are.
func (g *rig) written(t *testing.T) map[string]string {
	t.Helper()
	written := map[string]string{}
	for _, point := range g.store().Points() {
		written[string(point.ID)] = fmt.Sprint(point)
	}
	files, err := filepath.Glob(filepath.Join(g.cfg.StoreDir, pairID, "*.store"))
	if err != nil || len(files) != 1 {
		t.Fatalf("data files are %v, %v", files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	written[files[0]] = info.ModTime().String()
	return written
}
