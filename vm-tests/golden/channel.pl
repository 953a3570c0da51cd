#!/usr/bin/perl
# The test harness' root channel: runs bash scripts that arrive on a virtio-serial port and sends back what they print.
# A request is "RUN <id> <length>\n" and <length> bytes of script. The answer is any number of "OUT <id> <length>\n" and
# bytes, then "END <id> <exit status>\n". A request "PING <id> 0\n" is answered by "END <id> 0\n".
use strict;
use warnings;

my $port;
until ($port) {
    for my $name (glob '/sys/class/virtio-ports/*/name') {
        open my $file, '<', $name or next;
        my $text = <$file> // '';
        $port = "/dev/$1" if $text =~ /^lifeboat\.root$/ && $name =~ m{virtio-ports/([^/]+)/name};
    }
    $port && -e $port or do { $port = undef; select undef, undef, undef, 0.2 };
}
open my $io, '+<:raw', $port or die "$port: $!";

sub put {
    my ($data) = @_;
    while (length $data) {
        my $n = syswrite $io, $data;
        defined $n or die "write to $port: $!";
        substr($data, 0, $n) = '';
    }
}

my $buffer = '';
sub fill {
    my $n = sysread $io, $buffer, 65536, length $buffer;
    defined $n or die "read from $port: $!";
    # Nobody is connected on the other side: wait for them.
    $n or select undef, undef, undef, 0.2;
}

while (1) {
    fill() until $buffer =~ /\n/;
    $buffer =~ s/^([^\n]*)\n// or next;
    my ($verb, $id, $length) = split / /, $1;
    next unless defined $length && $length =~ /^\d+$/;
    fill() while length $buffer < $length;
    my $script = substr $buffer, 0, $length, '';
    if ($verb eq 'PING') { put("END $id 0\n"); next }
    next if $verb ne 'RUN';
    # The script goes through a file, so that its commands may read standard input (which is empty) freely.
    my $path = "/run/root-channel.$id";
    open my $file, '>:raw', $path or die "$path: $!";
    print $file $script;
    close $file or die "$path: $!";
    my $pid = open my $out, '-|';
    defined $pid or die "fork: $!";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDERR, '>&', \*STDOUT;
        chdir '/';
        $ENV{PATH} = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
        $ENV{HOME} = '/root';
        $ENV{LC_ALL} = 'C';
        exec 'bash', $path or die "bash: $!";
    }
    binmode $out;
    while (sysread $out, my $data, 32768) { put("OUT $id " . length($data) . "\n" . $data) }
    close $out;
    my $status = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    unlink $path;
    put("END $id $status\n");
}
