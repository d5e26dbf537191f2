#!/bin/sh
# Makes a file system of its own for a systemd, and becomes that systemd: root.sh DIRECTORY SOURCE LIBRARIES
# To be run in namespaces of its own (unshare --mount --pid --fork --uts --ipc --cgroup). Nothing of the machine can be
# written to from there: programs are mounted read-only, and everything else is a copy in memory.
set -eu
root=$1 source=$2 libraries=$3

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p usr etc/systemd/system var/lib var/log var/tmp tmp run proc sys dev root home old opt/source opt/libraries
chmod 1777 tmp var/tmp
for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
show() {
    mount --bind "$1" "$2"
    mount -o remount,bind,ro "$2"
}
show /usr usr
show "$source" opt/source
show "$libraries" opt/libraries
for name in passwd group shadow gshadow nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d hosts resolv.conf login.defs ssl; do
    [ ! -e "/etc/$name" ] || cp -a "/etc/$name" etc/
done
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' > etc/machine-id
mount -t tmpfs -o mode=755 tmpfs dev
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r name major minor <<EOF
$device
EOF
    mknod -m 666 "dev/$name" c "$major" "$minor"
done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx

# hyperpool where a service can see it, run by the system's own Python.
python3 -m venv --without-pip opt/hyperpool
for place in opt/hyperpool/lib/python3*/site-packages; do
    printf '/opt/libraries\n/opt/source\n' > "$place/hyperpool.pth"
done
ln -sf /usr/bin/python3 opt/hyperpool/bin/python3
printf '#!/opt/hyperpool/bin/python3\nimport sys\nfrom hyperpool.cli import main\nsys.exit(main())\n' > opt/hyperpool/bin/hyperpool
chmod 755 opt/hyperpool/bin/hyperpool

# Only what is needed: no logins, no devices, nothing that cleans up.
cat > etc/systemd/system/test.target <<'EOF'
[Unit]
Description=What the tests need
Requires=basic.target
After=basic.target
EOF
for unit in systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-clean.timer \
    systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service systemd-resolved.service \
    systemd-timesyncd.service systemd-logind.service systemd-modules-load.service systemd-sysctl.service \
    systemd-random-seed.service systemd-update-utmp.service systemd-firstboot.service systemd-binfmt.service \
    systemd-pstore.service systemd-remount-fs.service dev-hugepages.mount dev-mqueue.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
    proc-sys-fs-binfmt_misc.automount apparmor.service e2scrub_reap.service; do
    ln -s /dev/null "etc/systemd/system/$unit"
done

pivot_root . old
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
umount -l /old
rmdir /old
# As it is on a real machine: credentials are mounted by a process of systemd's in a namespace of its own.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --unit=test.target \
    --log-target=journal --show-status=0
