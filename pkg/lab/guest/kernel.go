package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// kernelPackage always depends on the current kernel for virtual machines.
const kernelPackage = "linux-image-cloud-amd64"

// kernel is an unpacked kernel package.
type kernel struct {
	root    string // folder the package was unpacked into
	release string // as uname -r says it
	image   string
}

// ErrNoKernel says that the guest's kernel could not be had.
var ErrNoKernel = errors.New("no kernel for the guest")

// kernel returns the cached kernel, or downloads and unpacks it. It is never installed.
func (c *Cache) kernel(ctx context.Context) (kernel, error) {
	root := filepath.Join(c.dir, "kernel")
	if found, err := unpackedKernel(root); err == nil {
		return found, nil
	}
	scratch, err := os.MkdirTemp(c.dir, "kernel-")
	if err != nil {
		return kernel{}, fmt.Errorf("make room for the kernel: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }() // what is left there is of no use to anybody
	if err := fetchKernel(ctx, scratch); err != nil {
		return kernel{}, fmt.Errorf("%w: %w", ErrNoKernel, err)
	}
	if err := os.RemoveAll(root); err != nil {
		return kernel{}, fmt.Errorf("remove the old kernel: %w", err)
	}
	if err := os.Rename(filepath.Join(scratch, "root"), root); err != nil {
		return kernel{}, fmt.Errorf("keep the kernel: %w", err)
	}
	return unpackedKernel(root)
}

var dependency = regexp.MustCompile(`Depends: (linux-image-\S+)`)

func fetchKernel(ctx context.Context, scratch string) error {
	told, err := run(ctx, scratch, "apt-cache", "depends", kernelPackage)
	if err != nil {
		return err
	}
	name := dependency.FindStringSubmatch(told)
	if name == nil {
		return fmt.Errorf("%s depends on no kernel that apt knows of; has `apt-get update` been run?", kernelPackage)
	}
	if _, err := run(ctx, scratch, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name[1]); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("downloading %s left %d packages", name[1], len(packages))
	}
	root := filepath.Join(scratch, "root")
	if _, err := run(ctx, scratch, "dpkg", "-x", packages[0], root); err != nil {
		return err
	}
	release := strings.TrimPrefix(name[1], "linux-image-")
	_, err = run(ctx, scratch, "depmod", "-b", root, release)
	return err
}

func unpackedKernel(root string) (kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return kernel{}, fmt.Errorf("%w: %d kernels in %s", ErrNoKernel, len(images), root)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	if _, err := os.Stat(filepath.Join(root, "lib", "modules", release, "modules.dep")); err != nil {
		return kernel{}, fmt.Errorf("%w: %w", ErrNoKernel, err)
	}
	return kernel{root: root, release: release, image: images[0]}, nil
}

// modulesFor returns the files of the named modules and of what they depend on, in the order of loading.
func (k kernel) modulesFor(ctx context.Context, names []string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	for _, name := range names {
		told, err := run(ctx, k.root, "modprobe", "-d", k.root, "-S", k.release, "--show-depends", name)
		if err != nil {
			return nil, fmt.Errorf("find kernel module %s: %w", name, err)
		}
		for line := range strings.Lines(told) {
			words := strings.Fields(line)
			if len(words) >= 2 && words[0] == "insmod" && !seen[words[1]] {
				seen[words[1]] = true
				files = append(files, words[1])
			}
		}
	}
	return files, nil
}

// build compiles a command without cgo, so that it runs where there are no libraries.
func build(ctx context.Context, path, importPath string) error {
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, importPath)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	_, err := finish(command, "")
	return err
}
