package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNameInUse says that a namespace has a name that this lab would give to its own.
var ErrNameInUse = errors.New("a network namespace of this name exists, perhaps another lab's; choose another name or take that lab down")

// namespaces is where iproute2 keeps the network namespaces that have names.
const namespaces = "/run/netns"

const (
	bridge      = "lab0"    // in the namespace of the network, joins the machines
	guestBridge = "guests0" // in the namespace of each host, joins its guests
	machineLink = "eth0"    // in the namespace of each machine
)

func (l *Lab) networkNamespace() string { return l.config.Name + "-net" }

// makeNetwork makes the bridge, in a namespace of its own, and the namespaces of the machines, each
// linked to it. Nothing is made in the computer's own network.
func (l *Lab) makeNetwork(ctx context.Context) error {
	net := l.networkNamespace()
	var batch strings.Builder
	for _, name := range l.allNamespaces() {
		fmt.Fprintf(&batch, "netns add %s\n", name)
	}
	if err := ip(ctx, "", batch.String()); err != nil {
		return err
	}
	batch.Reset()
	fmt.Fprintf(&batch, "link set lo up\nlink add %s type bridge\nlink set %s up\n", bridge, bridge)
	for _, m := range l.machines() {
		fmt.Fprintf(&batch, "link add %s type veth peer name %s netns %s\n", m.Name, machineLink, m.Namespace)
		fmt.Fprintf(&batch, "link set %s master %s up\n", m.Name, bridge)
	}
	if err := ip(ctx, net, batch.String()); err != nil {
		return err
	}
	for _, m := range l.machines() {
		batch.Reset()
		fmt.Fprintf(&batch, "link set lo up\naddress add %s/24 dev %s\nlink set %s up\n", m.Address, machineLink, machineLink)
		if m != l.Control {
			fmt.Fprintf(&batch, "link add %s type bridge\naddress add %s dev %s\nlink set %s up\n",
				guestBridge, GuestGateway, guestBridge, guestBridge)
		}
		if err := ip(ctx, m.Namespace, batch.String()); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) allNamespaces() []string {
	names := []string{l.networkNamespace()}
	for _, m := range l.machines() {
		names = append(names, m.Namespace)
	}
	return names
}

// checkNames sees that nobody else has namespaces of the lab's names. It comes before anything is
// recorded, since what is recorded is removed by whoever clears the lab away.
func (l *Lab) checkNames() error {
	for _, name := range l.allNamespaces() {
		if _, err := os.Stat(filepath.Join(namespaces, name)); err == nil {
			return fmt.Errorf("%w: %s", ErrNameInUse, name)
		}
	}
	return nil
}

func (l *Lab) removeNetwork(ctx context.Context) error {
	var failed []error
	for _, name := range l.allNamespaces() {
		if _, err := os.Stat(filepath.Join(namespaces, name)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		failed = append(failed, ip(ctx, "", "netns delete "+name+"\n"))
	}
	return errors.Join(failed...)
}

// SetLink plugs the machine's network cable in or out.
func (m *Machine) SetLink(ctx context.Context, up bool) error {
	direction := "down"
	if up {
		direction = "up"
	}
	err := ip(ctx, m.lab.networkNamespace(), fmt.Sprintf("link set %s %s\n", m.Name, direction))
	if err != nil {
		return fmt.Errorf("set the link of %s %s: %w", m.Name, direction, err)
	}
	return nil
}

// ip runs a batch of iproute2's commands in a namespace, or outside of all when it is "".
func ip(ctx context.Context, namespace, batch string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-netns", namespace}, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, "ip", args...)
	command.Stdin = strings.NewReader(batch)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ip, namespace %q: %w: %s", namespace, err, strings.TrimSpace(string(out)))
	}
	return nil
}
