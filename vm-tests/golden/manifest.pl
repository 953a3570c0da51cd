#!/usr/bin/perl
# Prints a manifest of a file tree: one line per file with everything that a restore has to bring back. Independent of
# Lifeboat on purpose: stat by find(1), hashes by sha256sum(1), xattrs (ACLs and capabilities are xattrs) and flags by
# system calls. Deterministic: the same tree gives the same bytes.
#
# usage: golden-manifest [ROOT [DIR...]]  (default /; DIRs are other filesystems mounted below ROOT, or subvolumes)
#        golden-manifest --volatile      lists what is left out, and why
#
# Fields, separated by tabs: path, type, mode, uid, gid, mtime (ns), size, sha256, link target, device, hard link group
# (the first path of the same inode), holes (sparse or not), flags, xattrs. "-" where a field does not apply.
use strict;
use warnings;

# What may differ between a host and its restored copy, or between two minutes of one host. Paths from the root.
my @volatile = (
    [ '/proc',  'not on a disk' ],
    [ '/sys',   'not on a disk' ],
    [ '/dev',   'not on a disk' ],
    [ '/run',   'not on a disk' ],
    [ '/tmp',   'scratch' ],
    [ '/var/tmp', 'scratch' ],
    [ '/var/cache', 'scratch' ],
    [ '/var/log', 'grows all the time' ],
    [ '/root/.bash_history', 'grows all the time' ],
    [ '/lost+found', 'made by mkfs' ],
    [ '/boot/lost+found', 'made by mkfs' ],
    [ '/boot/grub', 'names the new volume group; proven by the boot' ],
    [ '/boot/efi', 'written by grub-install; proven by the boot' ],
    [ '/boot/initrd.img-*', 'made again where names changed; proven by the boot' ],
    [ '/etc/lvm/archive', 'written by LVM' ],
    [ '/etc/lvm/backup', 'written by LVM' ],
    [ '/etc/lvm/devices', 'written by LVM' ],
    [ '/var/lib/systemd', 'random seed, time stamps of timers' ],
    [ '/var/lib/initramfs-tools', 'time stamps of update-initramfs' ],
    [ '/var/lib/lifeboat', "the agent's own state" ],
    [ '/etc/.updated', 'time stamp of systemd' ],
    [ '/var/.updated', 'time stamp of systemd' ],
    [ '/etc/mtab', 'a link into /proc' ],
);
if (@ARGV && $ARGV[0] eq '--volatile') {
    print "$_->[0]\t$_->[1]\n" for @volatile;
    exit 0;
}
my $root = shift // '/';
$root =~ s{(?<=.)/+$}{};
my $prefix = $root eq '/' ? '' : $root;

# A directory that holds a volatile entry has a modification time that says nothing.
my %holds_volatile;
my @patterns;
for (@volatile) {
    my $path = $_->[0];
    (my $parent = $path) =~ s{/[^/]*$}{};
    $holds_volatile{ $parent eq '' ? '/' : $parent } = 1;
    my $re = quotemeta $path;
    $re =~ s/\\\*/[^\/]*/g;
    push @patterns, $re;
}
my $volatile = join '|', @patterns;
$volatile = qr/^(?:$volatile)(?:\/|$)/;

sub escaped {
    my ($text) = @_;
    $text =~ s/([^\x21-\x7e]|\\)/sprintf '\\x%02x', ord $1/ge;
    return $text eq '' ? '-' : $text;
}

# The volatile directories that hold most are not even walked.
my @prune = map { ('-path', "$prefix$_", '-prune', '-o') } map { $_->[0] } grep { $_->[0] !~ /\*/ } @volatile;
open my $find, '-|', 'find', $root, @ARGV, '-xdev', @prune, '-printf', '%y\0%m\0%U\0%G\0%T@\0%s\0%D:%i\0%n\0%b\0%l\0%p\0'
  or die "find: $!";
binmode $find;
local $/ = "\0";
my @files;
while (defined(my $type = <$find>)) {
    my @f = ($type, map { scalar <$find> } 1 .. 10);
    chomp @f;
    my $path = $f[10];
    my $name = substr $path, length $prefix;
    $name = '/' if $name eq '';
    next if $f[0] eq 's' || $name =~ $volatile;
    push @files, [ $name, @f ];
}
close $find;
# find fails when a file vanished meanwhile: what is listed is still right.
@files = sort { $a->[0] cmp $b->[0] } @files;

# Hashes, in few processes; --zero keeps names with any byte apart.
my %hash;
my @regular = map { $_->[11] } grep { $_->[1] eq 'f' } @files;
while (my @some = splice @regular, 0, 500) {
    open my $sum, '-|', 'sha256sum', '--binary', '--zero', '--', @some or die "sha256sum: $!";
    binmode $sum;
    while (defined(my $line = <$sum>)) {
        chomp $line;
        $hash{ substr $line, 66 } = substr $line, 0, 64;
    }
    close $sum;
}

# System call numbers of x86-64 Linux; FS_IOC_GETFLAGS of linux/fs.h.
my ($SYS_lgetxattr, $SYS_llistxattr, $FS_IOC_GETFLAGS) = (192, 195, 0x80086601);
my ($FS_IMMUTABLE_FL, $FS_APPEND_FL) = (0x10, 0x20);

sub xattrs {
    my ($path) = @_;
    my $list = "\0" x 65536;
    my $n = syscall $SYS_llistxattr, "$path\0", $list, length $list;
    return '-' if $n <= 0;
    my @out;
    for my $name (sort split /\0/, substr $list, 0, $n) {
        my $value = "\0" x 65536;
        my $size = syscall $SYS_lgetxattr, "$path\0", "$name\0", $value, length $value;
        push @out, escaped($name) . '=' . ($size < 0 ? 'unreadable' : unpack 'H*', substr $value, 0, $size);
    }
    return join ',', @out;
}

sub flags {
    my ($path) = @_;
    # O_RDONLY | O_NOFOLLOW | O_NONBLOCK: only called for regular files and directories.
    sysopen my $file, $path, 0400000 | 04000 or return '?';
    my $bits = "\0" x 8;
    ioctl $file, $FS_IOC_GETFLAGS, $bits or return '-';
    $bits = unpack 'L', $bits;
    my $text = ($bits & $FS_IMMUTABLE_FL ? 'i' : '') . ($bits & $FS_APPEND_FL ? 'a' : '');
    return $text eq '' ? '-' : $text;
}

my %group;
for (@files) {
    my ($name, $type, $mode, $uid, $gid, $mtime, $size, $inode, $links, $blocks, $target, $path) = @$_;
    my $regular = $type eq 'f';
    my $directory = $type eq 'd';
    my $device = '-';
    if ($type eq 'b' || $type eq 'c') {
        my $rdev = (lstat $path)[6];
        $device = sprintf '%d:%d', ($rdev >> 8) & 0xfff, ($rdev & 0xff) | (($rdev >> 12) & 0xfff00);
    }
    my $link_group = '-';
    if (!$directory && $links > 1) {
        $group{$inode} //= $name;
        $link_group = escaped($group{$inode});
    }
    $mtime = '-' if $directory && $holds_volatile{$name};
    # find prints ten digits after the point, the last always 0.
    $mtime =~ s/0$// if $mtime =~ /\.\d{10}$/;
    # Only for files where holes matter: how a filesystem lays out a small file is its own business.
    my $holes = $regular && $size >= 1 << 20 && $blocks * 512 < $size / 2 ? 'sparse' : '-';
    print join("\t",
        escaped($name), $type, $type eq 'l' ? '-' : $mode, $uid, $gid, $mtime,
        $regular ? $size : '-', $regular ? $hash{$path} // 'unreadable' : '-',
        $type eq 'l' ? escaped($target) : '-', $device, $link_group, $holes,
        $regular || $directory ? flags($path) : '-', xattrs($path)), "\n";
}
