package lab

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab/console"
	"github.com/umbra-dr/umbra/pkg/lab/guest"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
	"github.com/umbra-dr/umbra/pkg/lab/process"
)

// GuestSpec says what a guest is like. Only the name must be given.
type GuestSpec struct {
	Name      string
	DiskBytes []int64      // of each disk; one of 256 MiB when empty
	Format    guest.Format // guest.Qcow2 when empty
	MemoryMiB int          // 128 when 0

	RecordsPerSecond int   // 25 when 0; negative writes none
	RateBytes        int64 // bytes a second to write, rounded up to whole blocks a record; one block a record when 0
	AnnounceEvery    int   // 1 when 0
	MeasureWrites    bool  // instead: write without a pause, one block a record, and say every second how long the writes took

	Address netip.Prefix // gives it an interface with this address; without one it has an interface and no address
}

const (
	defaultDiskBytes = 256 << 20
	defaultMemoryMiB = 128
	defaultRate      = 25
)

// ProbePort is the TCP port at which a guest with an address tells its last record.
const ProbePort = 7

var guestNameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// DefineGuest makes the guest's disks, which boot and hold a fresh ledger, and defines it. It is not
// started: use Virsh. The definition suits either host, since both keep images and logs in the same places.
func (h *Host) DefineGuest(ctx context.Context, spec GuestSpec) error {
	if err := spec.complete(); err != nil {
		return fmt.Errorf("define guest %q: %w", spec.Name, err)
	}
	accelerator, err := h.lab.Accelerator(ctx)
	if err != nil {
		return fmt.Errorf("define guest %s: %w", spec.Name, err)
	}
	disks := guest.Disks{Sizes: spec.DiskBytes, Format: spec.Format, RecordBytes: spec.recordBytes(), Settings: spec.settings()}
	if _, err := rand.Read(disks.ID[:]); err != nil {
		return fmt.Errorf("define guest %s: %w", spec.Name, err)
	}
	described := domain{GuestSpec: spec, KVM: accelerator == KVM, Network: GuestNetwork, Console: consolePath(spec.Name)}
	for i := range spec.DiskBytes {
		target := "vd" + string(rune('a'+i))
		file := filepath.Join(imagesDir, fmt.Sprintf("%s-%s.%s", spec.Name, target, spec.Format))
		disks.Paths = append(disks.Paths, h.Path(file))
		described.Disks = append(described.Disks, domainDisk{Target: target, File: file})
	}
	if err := h.lab.makeDisks(ctx, disks); err != nil {
		return fmt.Errorf("define guest %s: %w", spec.Name, err)
	}
	text, err := described.xml()
	if err != nil {
		return fmt.Errorf("define guest %s: %w", spec.Name, err)
	}
	if _, err := h.virsh(ctx, text, "define", "/dev/stdin"); err != nil {
		return err
	}
	return nil
}

// Console is the log of the guest's serial port on this host, from its beginning. It holds all of the
// guest's lives.
func (h *Host) Console(name string) *console.Console { return console.Open(h.Path(consolePath(name))) }

// guestLogs is where either host keeps what its guests' QEMUs and serial ports say.
const guestLogs = "/var/log/libvirt/qemu"

// QEMULogPath is where libvirt keeps what the QEMU of a guest was started with and has said, and why it ended.
func (h *Host) QEMULogPath(name string) string { return h.Path(filepath.Join(guestLogs, name+".log")) }

func consolePath(name string) string { return filepath.Join(guestLogs, name+".console.log") }

// WaitConsole waits until the guest's console shows pattern, from the beginning of the log, and returns
// the match and its groups. To wait for what comes after something else, use Console.
func (h *Host) WaitConsole(ctx context.Context, name string, pattern *regexp.Regexp) ([]string, error) {
	return h.Console(name).Wait(ctx, pattern)
}

func (s *GuestSpec) complete() error {
	if !guestNameForm.MatchString(s.Name) {
		return fmt.Errorf("the name must match %s", guestNameForm)
	}
	if len(s.DiskBytes) == 0 {
		s.DiskBytes = []int64{defaultDiskBytes}
	}
	if len(s.DiskBytes) > ledger.DisksMax-6 { // vda to vdz
		return fmt.Errorf("%d disks are too many", len(s.DiskBytes))
	}
	if s.Format == "" {
		s.Format = guest.Qcow2
	}
	if s.MemoryMiB == 0 {
		s.MemoryMiB = defaultMemoryMiB
	}
	if s.RecordsPerSecond == 0 {
		s.RecordsPerSecond = defaultRate
	}
	return nil
}

func (s *GuestSpec) recordBytes() int {
	rate := int64(max(1, s.RecordsPerSecond))
	blocks := (s.RateBytes/rate + ledger.BlockBytes - 1) / ledger.BlockBytes
	return int(max(1, blocks)) * ledger.BlockBytes
}

func (s *GuestSpec) settings() []string {
	words := []string{
		fmt.Sprintf("umbra.rate=%d", max(0, s.RecordsPerSecond)),
		fmt.Sprintf("umbra.announce=%d", max(1, s.AnnounceEvery)),
	}
	if s.MeasureWrites {
		words = append(words, "umbra.measure=1")
	}
	if s.Address.IsValid() {
		words = append(words, "umbra.address="+s.Address.String())
	}
	return words
}

type domainDisk struct{ Target, File string }

// domain is what the template below describes.
type domain struct {
	GuestSpec
	KVM     bool
	Network string
	Console string
	Disks   []domainDisk
}

// domainTemplate has no display, no USB and no balloon: each costs time at boot.
var domainTemplate = template.Must(template.New("domain").Funcs(template.FuncMap{"escape": escape}).Parse(
	`<domain type='{{if .KVM}}kvm{{else}}qemu{{end}}'>
  <name>{{.Name}}</name>
  <memory unit='MiB'>{{.MemoryMiB}}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
{{- range .Disks}}
    <disk type='file' device='disk'>
      <driver name='qemu' type='{{$.Format}}' cache='none' io='threads' discard='unmap'/>
      <source file='{{escape .File}}'/>
      <target dev='{{.Target}}' bus='virtio'/>
    </disk>
{{- end}}
    <controller type='usb' model='none'/>
    <interface type='network'><source network='{{.Network}}'/><model type='virtio'/><rom enabled='no'/></interface>
    <serial type='file'><source path='{{escape .Console}}' append='on'/><target port='0'/></serial>
    <console type='file'><source path='{{escape .Console}}' append='on'/><target type='serial' port='0'/></console>
    <memballoon model='none'/>
  </devices>
</domain>
`))

func (d domain) xml() (string, error) {
	var text strings.Builder
	if err := domainTemplate.Execute(&text, d); err != nil {
		return "", fmt.Errorf("describe the guest: %w", err)
	}
	return text.String(), nil
}

func escape(text string) (string, error) {
	var escaped strings.Builder
	err := xml.EscapeText(&escaped, []byte(text))
	return escaped.String(), err
}

// StartGuest starts a defined guest and waits until it has verified its ledger, for at most timeout. It
// returns what the guest found.
func (h *Host) StartGuest(ctx context.Context, name string, timeout time.Duration) (ledger.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	log := h.Console(name)
	if err := log.SkipToEnd(); err != nil {
		return ledger.Report{}, err
	}
	if _, err := h.Virsh(ctx, "start", name); err != nil {
		return ledger.Report{}, err
	}
	if _, err := log.Wait(ctx, bootLine); err != nil {
		return ledger.Report{}, err
	}
	told, err := log.Ledger()
	if err != nil {
		return ledger.Report{}, err
	}
	if len(told.Boots) == 0 {
		return ledger.Report{}, fmt.Errorf("the console %s says nothing of the ledger", log.Path())
	}
	return told.Boots[len(told.Boots)-1], nil
}

// KillGuest ends the guest's QEMU at once, as a crash of QEMU would, and waits until libvirt has noticed.
func (h *Host) KillGuest(ctx context.Context, name string) error {
	text, err := os.ReadFile(h.Path("/run/libvirt/qemu/" + name + ".pid"))
	if err != nil {
		return fmt.Errorf("kill the QEMU of guest %s: %w", name, err)
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("kill the QEMU of guest %s: %w", name, err)
	}
	qemu, err := process.InNamespaceOf(h.first(), number)
	if err != nil {
		return fmt.Errorf("kill the QEMU of guest %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	run, err := h.Virsh(ctx, "domid", name)
	if err != nil {
		return err
	}
	if err := qemu.Kill(ctx); err != nil {
		return err
	}
	beat := time.NewTicker(libvirtPoll)
	defer beat.Stop()
	for {
		// Somebody may start it again at once; "-" is a server that is off.
		now, err := h.Virsh(ctx, "domid", name)
		if err != nil || now != run || now == "-" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until libvirt notices that the QEMU of %s is gone: %w", name, ctx.Err())
		case <-beat.C:
		}
	}
}
