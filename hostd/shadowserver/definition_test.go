package shadowserver

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata")

// hostFiles are what exists at the host of the golden files.
var hostFiles = []string{
	"/iso/here.iso", "/var/log/here", "/usr/bin/qemu-system-x86_64",
	"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd",
}

func goldenInput(t *testing.T, name string) definitionInput {
	t.Helper()
	xml, err := os.ReadFile(filepath.Join("testdata", name+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	image := func(disk string) diskImage {
		return diskImage{
			Overlay: "/srv/servers/p1/attempt-3/" + disk + ".qcow2",
			View:    recoverystore.ViewDisk{Name: disk, Path: "/srv/store/p1/" + disk + ".store", OffsetBytes: 8519680, SizeBytes: 17039360, VirtualSizeBytes: 1 << 30},
		}
	}
	return definitionInput{
		XML: string(xml), Name: "shadow", Seed: "p1/3",
		Disks:    map[string]diskImage{"vda": image("vda"), "sda": image("sda")},
		Networks: map[string]string{"production": "dr-site", "br0": "dr-site"},
		Exists:   func(path string) bool { return slices.Contains(hostFiles, path) },
	}
}

// TestTheDefinitionIsTheMainServersOnThisHost holds the whole result against golden files, headed by what else the
// definition says. `go test -update` rewrites them; the difference is to be explained.
func TestTheDefinitionIsTheMainServersOnThisHost(t *testing.T) {
	for name, change := range map[string]func(*definitionInput){
		"plain": func(*definitionInput) {},
		"uefi":  func(in *definitionInput) { in.NVRAM = "/srv/servers/p1/attempt-3/nvram.fd" },
	} {
		t.Run(name, func(t *testing.T) {
			in := goldenInput(t, name)
			change(&in)
			def, err := define(in)
			if err != nil {
				t.Fatal(err)
			}
			got := "<!-- needs networks " + strings.Join(def.Networks, ", ") + "; devices " + strings.Join(def.Links, ", ") +
				"\n     notes: " + strings.Join(def.Notes, "\n            ") + " -->\n" + def.XML + "\n"
			path := filepath.Join("testdata", name+".golden.xml")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", path, diff)
			}
		})
	}
}

func TestMemoryIsReadInItsUnit(t *testing.T) {
	for element, want := range map[string]int64{
		"<memory>524288</memory>":            512 << 20,
		"<memory unit='KiB'>1024</memory>":   1 << 20,
		"<memory unit='GB'>2</memory>":       2e9,
		"<memory unit='bytes'>4096</memory>": 4096,
	} {
		in := goldenInput(t, "plain")
		in.XML = strings.Replace(in.XML, "<memory unit='KiB'>524288</memory>", element, 1)
		def, err := define(in)
		if err != nil || def.MemoryBytes != want {
			t.Errorf("%s is %d bytes, want %d; error %v", element, def.MemoryBytes, want, err)
		}
	}
}

func TestWhatCannotBePortedIsRefused(t *testing.T) {
	tests := map[string]struct {
		change  func(*definitionInput)
		reason  umbrav1.ErrorReason
		message string
	}{
		"no XML": {func(in *definitionInput) { in.XML = "<domain" }, umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED, "cannot be read"},
		"a disk without data": {
			func(in *definitionInput) { delete(in.Disks, "sda") },
			umbrav1.ErrorReason_ERROR_REASON_DISKS_CHANGED, `"sda"`,
		},
		"a kernel of the main host": {
			func(in *definitionInput) {
				in.XML = strings.Replace(in.XML, "</os>", "<kernel>/boot/vmlinuz-main</kernel></os>", 1)
			},
			umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED, "/boot/vmlinuz-main",
		},
		"an interface of hardware": {
			func(in *definitionInput) {
				in.XML = strings.Replace(in.XML, "<interface type='bridge'>", "<interface type='hostdev' managed='yes'>", 1)
				in.XML = strings.Replace(in.XML, "<source bridge='br-backup'/>", "<source><address type='pci' domain='0' bus='0' slot='7' function='0'/></source>", 1)
			},
			umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED, "device of the main host",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := goldenInput(t, "plain")
			test.change(&in)
			_, err := define(in)
			var r *refusal
			if !errors.As(err, &r) || r.reason != test.reason || !strings.Contains(err.Error(), test.message) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestADiskThatIsReadOnlyAndNotReplicatedIsLeftOut(t *testing.T) {
	in := goldenInput(t, "plain")
	delete(in.Disks, "sda")
	in.XML = strings.Replace(in.XML, "<target dev='sda' bus='scsi'/>", "<target dev='sda' bus='scsi'/><readonly/>", 1)
	def, err := define(in)
	if err != nil || strings.Contains(def.XML, `dev="sda"`) || !strings.Contains(def.summary(), "disk sda") {
		t.Errorf("notes %q, error %v", def.summary(), err)
	}
}
