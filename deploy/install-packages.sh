#!/bin/sh
# Installs what the lab and the tests on real libvirt need, on Debian 12. Says what it will install, and
# does nothing at all when everything is there. The guest's kernel is not among it: the lab downloads and
# unpacks that without installing it.
#
#   deploy/install-packages.sh               the lab
#   deploy/install-packages.sh --benchmarks  also what the benchmarks compare with
set -eu

packages="libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils
qemu-block-extra nbdkit libnbd-bin iproute2 busybox-static cpio kmod syslinux syslinux-common mtools fdisk
dosfstools e2fsprogs xfsprogs prometheus"

case "${1-}" in
'') ;;
--benchmarks) packages="$packages virtnbdbackup fio" ;;
*)
	echo "usage: $0 [--benchmarks]" >&2
	exit 2
	;;
esac

missing=
for package in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "$0: these packages are missing, and installing them needs root:$missing" >&2
	exit 1
fi
echo "Installing:$missing"

# A libvirt or a Prometheus that the user runs already is left as it is. One that comes with this installation is neither
# started nor enabled: the lab and the tests start their own.
had_prometheus=$(dpkg-query -W -f '${db:Status-Status}' prometheus 2>/dev/null) || had_prometheus=
had_libvirt=$(dpkg-query -W -f '${db:Status-Status}' libvirt-daemon-system 2>/dev/null) || had_libvirt=
if [ -d /run/systemd/system ] && systemctl --quiet is-active libvirtd.service libvirtd.socket; then
	had_libvirt=installed # by other means than the package
fi
policy=/usr/sbin/policy-rc.d
if { [ "$had_libvirt" != installed ] || [ "$had_prometheus" != installed ]; } && [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -q update
# The list is split into words on purpose.
# shellcheck disable=SC2086
apt-get -q install -y --no-install-recommends $missing

if [ "$had_libvirt" != installed ] && [ -d /run/systemd/system ]; then
	for unit in libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirt-guests.service \
		virtlogd.service virtlogd.socket virtlogd-admin.socket virtlockd.service virtlockd.socket virtlockd-admin.socket; do
		# Not every one of them exists in every version; what counts is tested below.
		systemctl --quiet disable --now "$unit" 2>/dev/null || true
	done
	if systemctl --quiet is-active libvirtd.service libvirtd.socket; then
		echo "$0: libvirtd was started by the installation and could not be stopped" >&2
		exit 1
	fi
fi

if [ "$had_prometheus" != installed ] && [ -d /run/systemd/system ]; then
	systemctl --quiet disable --now prometheus.service
fi
