package flow_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/test/landscape"
)

// encryptedVolume is an ext4 file system with a folder whose content is encrypted, by the commands of docs/security.md.
type encryptedVolume struct {
	t                 *testing.T
	image, mount, dir string
	key, id           string
}

func newEncryptedVolume(t *testing.T) *encryptedVolume {
	t.Helper()
	top, err := os.MkdirTemp("/var/tmp", "umbra-encrypted-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	if err := os.Chmod(top, 0o755); err != nil { // QEMU has to get through
		t.Fatal(err)
	}
	v := &encryptedVolume{t: t, image: filepath.Join(top, "image"), mount: filepath.Join(top, "volume"), key: filepath.Join(top, "key")}
	v.dir = filepath.Join(v.mount, landscape.ShadowHost)
	secret := make([]byte, 64)
	_, _ = rand.Read(secret) // it never fails
	if err := os.WriteFile(v.key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	v.run("", "truncate", "-s", "4G", v.image)
	v.run("", "mkfs.ext4", "-q", "-O", "encrypt", v.image)
	v.run("", "mkdir", v.mount)
	v.run("", "mount", "-o", "loop", v.image, v.mount)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", v.mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	v.run("", "mkdir", v.dir)
	v.unlock()
	v.run("", "xfs_io", "-c", "set_encpolicy -v 2 "+v.id, v.dir)
	return v
}

func (v *encryptedVolume) unlock() {
	v.t.Helper()
	told := strings.Fields(v.run(v.key, "xfs_io", "-c", "add_enckey", v.mount))
	v.id = told[len(told)-1]
}

func (v *encryptedVolume) lock() {
	v.t.Helper()
	if told := v.run("", "xfs_io", "-c", "rm_enckey "+v.id, v.mount); strings.Contains(told, "still in use") {
		v.t.Fatalf("the folder is in use: %s", told)
	}
}

// holds tells whether the bytes are anywhere on the volume.
func (v *encryptedVolume) holds(what string) bool {
	v.t.Helper()
	v.run("", "sync", "-f", v.mount)
	err := exec.Command("grep", "--quiet", "--fixed-strings", "--text", what, v.image).Run()
	return err == nil
}

// run runs a command with a file, if any, as its input.
func (v *encryptedVolume) run(input, name string, args ...string) string {
	v.t.Helper()
	command := exec.CommandContext(v.t.Context(), name, args...)
	if input != "" {
		text, err := os.ReadFile(input)
		if err != nil {
			v.t.Fatal(err)
		}
		command.Stdin = bytes.NewReader(text)
	}
	out, err := command.CombinedOutput()
	if err != nil {
		v.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// In a folder that the file system encrypts everything works as elsewhere, nothing of the servers can be read from the disk, and
// hostd does not begin anew while the folder is locked.
func TestAStoreInAnEncryptedFolderWorksAndShowsNothing(t *testing.T) {
	v := newEncryptedVolume(t)
	inFolder := func(setting string) string { return fmt.Sprintf("--%s-dir=%s/{name}/%s", setting, v.mount, setting) }
	w := newWorld(t, inFolder("state"), inFolder("store"), inFolder("servers"))
	w.boot(lab.GuestSpec{})
	w.protect(nil)
	before := w.waitPoints(3)

	if err := w.Shadow.Hostd.Stop(w.ctx()); err != nil {
		t.Fatal(err)
	}
	const record = "UMBRAREC" // each record of the guest begins so
	image, err := os.ReadFile(filepath.Join(w.Main.ImagesDir(), guest+"-vda.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(image, []byte(record)) {
		t.Fatal("the main server's disk has none of the guest's records")
	}
	if v.holds(record) {
		t.Error("the guest's records can be read from the shadow host's disk")
	}

	v.lock()
	w.hostdEnds()
	v.unlock()
	if err := w.Shadow.Hostd.Start(w.ctx()); err != nil {
		t.Fatal(err)
	}
	w.waitPoints(int64(len(before)) + 2)

	newest := w.failover("")
	oldest := w.change(before[len(before)-1].GetName())
	if oldest.Last > newest.Last {
		t.Errorf("the oldest point holds record %d, the newest %d", oldest.Last, newest.Last)
	}
	w.commit(true)
	w.standsAlone()
	if v.holds(record) {
		t.Error("the committed server's records can be read from the shadow host's disk")
	}
}

// hostdEnds starts hostd of the shadow host, which must end by itself.
func (w *world) hostdEnds() {
	w.t.Helper()
	if err := w.Shadow.Hostd.Start(w.ctx()); err != nil {
		w.t.Fatal(err)
	}
	err := w.WaitHost(w.ctx(), landscape.ShadowHost, func(*umbrav1.Host) bool { return !w.Shadow.Hostd.Running() })
	if err != nil {
		w.t.Fatalf("hostd works without its folder: %v", err)
	}
}
