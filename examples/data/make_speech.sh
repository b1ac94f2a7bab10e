#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes speech.wav: two synthetic sentences with silence around and between
# them, over faint noise. 16 kHz, mono, 16-bit. Needs espeak-ng and sox.
# Other versions of the two may give slightly different samples: after
# running this, run vad_reference.py too.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

say() { # name, text
    espeak-ng -v en-us -s 165 -w "$tmp/$1.raw.wav" "$2"
    # 16 kHz, level set, the synthesiser's own silence at both ends cut off
    sox -R "$tmp/$1.raw.wav" -r 16000 "$tmp/$1.wav" norm -3 \
        silence 1 0.01 0.5% reverse silence 1 0.01 0.5% reverse
}

say one "The weights of this network are read straight from the file."
say two "Nothing is copied, and nothing is unpacked."

gap() { # name, seconds
    sox -R -n -r 16000 -c 1 -b 16 "$tmp/$1.wav" trim 0 "$2"
}
gap before 0.7
gap between 1.2
gap after 0.6

sox -R "$tmp/before.wav" "$tmp/one.wav" "$tmp/between.wav" "$tmp/two.wav" "$tmp/after.wav" "$tmp/clean.wav"
sox -R "$tmp/clean.wav" -p synth whitenoise vol 0.0015 |
    sox -R -m -v 1 "$tmp/clean.wav" -v 1 - -r 16000 -c 1 -b 16 speech.wav
