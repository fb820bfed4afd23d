# usage: perl want.pl SPOOL MODEL   Drops a want and prints the path of the model.
use strict; use warnings; use JSON::PP;
my ($spool, $model) = @ARGV;
open(my $want, '>', "$spool/perl.want") or die $!;
print $want "$model\n";
close($want) or die $!;
for (1 .. 1200) {
    if (open(my $file, '<', "$spool/perl.progress")) {
        my $answer = decode_json(do { local $/; <$file> });
        if ($answer->{state} eq 'ready') { print "$answer->{models}[0]{path}\n"; exit 0 }
        exit 1 if $answer->{state} eq 'failed';
    }
    select(undef, undef, undef, 0.05);
}
exit 1;
